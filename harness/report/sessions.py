"""The sessions that the results hold, and under which version of the record each was written."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from harness.report.parts import Entry, Table
from harness.schema import SCHEMA_VERSION
from harness.store import results_files

SHOWN = 100
"""So many of the newest sessions are shown; hundreds of nights would be no table to read."""


def sessions_table(runs: pd.DataFrame, results: Path) -> Table:
    """The newest sessions, the newest first."""
    newest = runs["session"].drop_duplicates().iloc[-SHOWN:]
    read = ["session", "machine", "suite_commit", "cell", "started_at", "file"]
    kept = runs.loc[runs["session"].isin(newest), read]
    schemas = _schemas(results, set(kept["file"].astype(str)))
    grouped = list(kept.groupby("session", observed=True, sort=False))
    body = tuple(
        (
            Entry(str(name)),
            Entry(str(part["machine"].iloc[0])),
            Entry(str(part["suite_commit"].iloc[0])[:12]),
            Entry(str(schemas[str(part["file"].iloc[0])])),
            Entry(str(len(part)), raw=float(len(part))),
            Entry(str(part["cell"].nunique()), raw=float(part["cell"].nunique())),
            Entry(str(part["started_at"].min())),
        )
        for name, part in reversed(grouped)
    )
    head = ("session", "machine", "commit", "schema", "runs", "cells", "started (UTC)")
    return Table("sessions", "Sessions, newest first", head, body, frozenset({3, 4, 5}))


def older_schemas(table: Table) -> str:
    """A sentence on sessions that earlier versions wrote; empty where there are none."""
    versions = sorted({int(row[3].text) for row in table.rows})
    older = [version for version in versions if version < SCHEMA_VERSION]
    if not older:
        return ""
    return (
        f"Records of schema {', '.join(map(str, older))} are read as those of {SCHEMA_VERSION}, "
        "which this version writes: what they did not hold yet is absent, and shown as a dash."
    )


def _schemas(results: Path, names: Collection[str]) -> dict[str, int]:
    """Of each results file, by its name; its first line says it."""
    found = {}
    for path in results_files(results):
        if path.name in names:
            with path.open("rb") as file:
                found[path.name] = int(json.loads(file.readline())["schema_version"])
    return found
