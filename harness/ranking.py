"""Which runs may be ranked, and so count in figures and verdicts: one rule for all readers."""

from __future__ import annotations

import pandas as pd

POINT = ("machine", "cell", "batch_size")
"""The columns that name what was measured: the runs that agree in them are processes of one row."""

UNRANKED = ("contended", "throttled", "simulated", "altered", "untimed")
"""Columns of marks: a row that has one counts on no side of a comparison."""


def rankable(runs: pd.DataFrame) -> pd.Series[bool]:
    """Of each run, whether it may be ranked: ok, timed, undisturbed, not edited by hand."""
    return (runs["status"] == "ok") & ~runs[list(UNRANKED)].any(axis=1)


def undisturbed(runs: pd.DataFrame) -> pd.DataFrame:
    """Without the processes of a point that may not be ranked, where others of it may.

    So a figure is of the processes that verdicts and advice are of.
    """
    may = rankable(runs)
    others_may = may.groupby([runs[name] for name in POINT]).transform("any")
    return runs[may | (runs["status"] != "ok") | ~others_may]
