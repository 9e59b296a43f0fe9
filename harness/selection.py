"""Selects rows of a results table by globs on the cell id."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import pandas as pd

from harness.cells import all_cells, select
from harness.errors import UsageError


def matching(frame: pd.DataFrame, only: Sequence[str], workloads: Sequence[str]) -> pd.DataFrame:
    """The rows whose cell matches one of the globs; all rows without globs.

    Raises UsageError for an unknown name in a glob, and when no row is left.
    """
    if not only:
        return frame
    present = frame["cell"].astype(str)
    wanted = {cell for cell in present.unique() if any(fnmatchcase(cell, glob) for glob in only)}
    if not wanted:
        select(all_cells(workloads), only, workloads)  # names the part at fault, if there is one
        raise UsageError(f"No result matches {' or '.join(map(repr, only))}.")
    return frame[present.isin(wanted)]
