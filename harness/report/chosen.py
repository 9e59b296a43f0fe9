"""Which session of a cell counts in the report: one rule for every page.

The newest one, unless there the cell ran well and an older session has it several times that
measured the same thing: with the same software, protocol and version of the workload. A single
process tells less of the same than several do; but it is news that a cell fails, or runs on other
software.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from harness.cells import BACKENDS
from harness.ranking import POINT, rankable
from harness.report.parts import each, point_of, why_unranked
from harness.schema import STATUSES

SIDE_BY_SIDE = (
    "machine", "workload", "scale", "phase", "precision", "api_style", "device", "batch_size",
)  # fmt: skip
"""What the backends that a card holds against each other have in common."""

_OF_A_KIND = ("workload_version", "protocol", "backend", "keras", *BACKENDS)

Point = tuple[object, ...]


@dataclass(frozen=True)
class _Seen:
    """A point in a session: `count` of its processes may be ranked; `well`: all of them were ok."""

    session: str
    kind: tuple[str, ...]
    count: int
    well: bool


def chosen(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of each point's session that counts; all that `harness.summary` needs to know."""
    if runs.empty:
        return runs
    groups: dict[Point, dict[Point, list[_Seen]]] = {}
    for group, point, seen in _seen(runs):
        groups.setdefault(group, {}).setdefault(point, []).append(seen)
    kept = {
        (*point, session)
        for points in groups.values()
        for point, session in _sessions(points).items()
    }
    columns = [runs[name].tolist() for name in (*POINT, "session")]
    return runs[[key in kept for key in zip(*columns, strict=True)]]


def others(counted: pd.DataFrame) -> dict[tuple[str, str, int], str]:
    """Of points with an ok process, what became of those that their figures leave out."""
    found: dict[tuple[str, str, int], Counter[str]] = {}
    for row in each(counted):
        found.setdefault(point_of(row), Counter())[why_unranked(row)] += 1
    told = {}
    for point, words in found.items():
        left_out = [word for word in words if word and ("" in words or word in STATUSES)]
        if len(left_out) < len(words):
            whole = f"of {words.total()} processes"
            told[point] = "; ".join(f"{words[word]} {whole}: {word}" for word in left_out)
    return told


def _seen(runs: pd.DataFrame) -> Iterator[tuple[Point, Point, _Seen]]:
    """Every point in every session that has it, in the order of time."""
    read = runs[list(dict.fromkeys((*SIDE_BY_SIDE, *POINT, "session", *_OF_A_KIND)))].assign(
        may=rankable(runs), ok=runs["status"] == "ok"
    )
    groups = read.groupby([*POINT, "session"], observed=True, sort=False)
    last = groups.last()
    last = last.assign(may=groups["may"].sum(), ok=groups["ok"].all()).reset_index()
    order = {name: place for place, name in enumerate(runs["session"].drop_duplicates())}
    last = last.iloc[last["session"].map(order).astype(int).argsort(kind="stable")]
    names = [str(name) for name in last.columns]
    for values in zip(*(last[name].tolist() for name in names), strict=True):
        row = dict(zip(names, values, strict=True))
        kind = (
            str(row["workload_version"]).rpartition(".")[0],
            *(str(row[name]) for name in ("protocol", "keras", str(row["backend"])) if name in row),
        )
        seen = _Seen(str(row["session"]), kind, int(row["may"]), bool(row["ok"]))
        yield (
            tuple(row[name] for name in SIDE_BY_SIDE),
            tuple(row[name] for name in POINT),
            seen,
        )


def _sessions(points: Mapping[Point, Sequence[_Seen]]) -> dict[Point, str]:
    """Of each point of a group the session that counts.

    That is the newest of those that have most of the points several times; for a point that it
    lacks, the newest that has that one several times, or the best there is.
    """
    open_to = {point: _same_thing(seen) for point, seen in points.items()}
    several: dict[str, int] = {}
    for seen in open_to.values():
        for one in seen:
            several[one.session] = several.get(one.session, 0) + (one.count > 1)
    return {
        point: max(
            enumerate(seen),
            key=lambda one: (one[1].count > 1, several[one[1].session], one[1].count > 0, one[0]),
        )[1].session
        for point, seen in open_to.items()
    }


def _same_thing(seen: Sequence[_Seen]) -> list[_Seen]:
    """The sessions that may stand for the newest, itself among them."""
    newest = seen[-1]
    if not newest.well:
        return [newest]
    return [one for one in seen if one.kind == newest.kind]
