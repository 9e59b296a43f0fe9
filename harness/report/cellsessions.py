"""The sessions that have a cell, and which of them the report's figures are from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import nan
from statistics import median

import pandas as pd

from harness.drift import Drift, Drifts
from harness.metrics import METRICS
from harness.ranking import POINT, UNRANKED
from harness.report.parts import Entry, Row, Table, each, point_of, text_of, why_unranked
from harness.report.winners import PRIMARY
from harness.statistics import interval
from harness.units import ABSENT, FORMS

SHOWN = 20
"""So many of a cell's newest sessions; its history has all."""

_READ = ("session", "phase", "status", *UNRANKED, "started_at", "workload", "quality_metric")

Point = tuple[str, str, int]


def session_tables(runs: pd.DataFrame, rows: pd.DataFrame, drifts: Drifts) -> dict[Point, Table]:
    """A table for each point; `rows` is the summary, which knows the session that counts."""
    counts = {point_of(row): str(row["session"]) for row in each(rows)}
    names = list(dict.fromkeys((*POINT, *_READ, *PRIMARY.values())))
    found: dict[Point, dict[str, list[Row]]] = {}
    for row in each(_newest(runs, counts)[names]):
        found.setdefault(point_of(row), {}).setdefault(str(row["session"]), []).append(row)
    return {
        point: _table(sessions, counts[point], drifts.get(point[0]))
        for point, sessions in found.items()
    }


def _newest(runs: pd.DataFrame, counts: Mapping[Point, str]) -> pd.DataFrame:
    """The runs of the newest sessions of each point, and of the one that counts."""
    point = list(POINT)
    pairs = runs[[*point, "session"]].drop_duplicates()
    recent = pairs.groupby(point, observed=True).cumcount(ascending=False) < SHOWN
    kept = [
        new or counts[point_of(row)] == row["session"]
        for new, row in zip(recent.tolist(), each(pairs), strict=True)
    ]
    return runs.merge(pairs[kept], on=[*point, "session"], how="inner")


def _table(sessions: Mapping[str, Sequence[Row]], counted: str, drift: Drift | None) -> Table:
    first = next(iter(sessions.values()))[0]
    metric = PRIMARY.get(str(first["phase"]), "step_time_s")
    body = tuple(
        _line(name, found, metric, drift, counts=name == counted)
        for name, found in reversed(list(sessions.items()))
    )
    head = ("session", "started (UTC)", "processes", METRICS[metric].title, "95 % interval", "")
    return Table("of-cell", "Sessions of this cell, newest first", head, body, frozenset({2, 3}))


def _line(
    name: str, found: Sequence[Row], metric: str, drift: Drift | None, *, counts: bool
) -> tuple[Entry, ...]:
    ranked = [row for row in found if not why_unranked(row)]
    kept = ranked or [row for row in found if row["status"] == "ok"]
    values = [float(row[metric]) for row in kept if row[metric] == row[metric]]
    words = Counter(filter(None, map(why_unranked, found)))
    typical = median(values) if values else nan
    ends = interval(values, drift=drift.between if drift else None)
    form = FORMS[METRICS[metric].form]
    return (
        Entry(name),
        Entry(str(found[0]["started_at"])),
        Entry(
            str(len(found)),
            raw=float(len(found)),
            notes=tuple(f"{count}: {word}" for word, count in words.items()),
        ),
        Entry(text_of({**found[0], metric: typical}, metric), raw=typical),
        Entry(f"{form(ends[0])} to {form(ends[1])}" if ends else ABSENT),
        Entry("the figures of this site" if counts else ""),
    )
