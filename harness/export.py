"""Writes the table of runs, a row per run, to a file for other tools."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from harness.errors import UsageError, unknown
from harness.store import spelled

FORMATS = ("csv", "parquet")


def export(frame: pd.DataFrame, to: str, path: Path, *, force: bool = False) -> None:
    """Write every column of every run; an existing file is replaced only with `force`."""
    if to not in FORMATS:
        raise unknown("format", to, list(FORMATS))
    if path.exists() and not force:
        raise UsageError(
            f"{spelled(path)!r} exists already. Name another file, or replace it with --force."
        )
    try:
        with path.open("wb") as file:
            if to == "csv":
                frame.to_csv(file, index=False, lineterminator="\n")
            else:
                frame.to_parquet(file, index=False)
    except OSError as error:
        raise UsageError(
            f"{spelled(path)!r} cannot be written: {error.strerror}. Name another file."
        ) from error
