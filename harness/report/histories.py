"""The trend of every cell, session by session, with the steps that `harness.trend` found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from harness.metrics import METRICS
from harness.ranking import POINT
from harness.report.parts import Entry, Table, axis_title, between, slug
from harness.show import quality_form
from harness.trend import SEGMENT, History, Series, Step
from harness.units import digits, formatted


@dataclass(frozen=True)
class Curve:
    """A cell's figures over time: a data file of the page."""

    id: str
    title: str
    figures: tuple[Mapping[str, Any], ...]


def curves(found: History) -> list[Curve]:
    """Of every cell that was measured in two sessions."""
    steps: dict[tuple[str, str, int, str], list[Step]] = {}
    for step in found.steps:
        key = (step.machine, step.cell, step.batch_size, step.metric)
        steps.setdefault(key, []).append(step)
    by_point: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for series in found.series:
        if len(series.values) > 1:
            mine = steps.get((*_typed(series.point), series.metric), [])
            by_point.setdefault(series.point, []).append(_figure(series, mine))
    return [_curve(point, figures) for point, figures in sorted(by_point.items(), key=_name)]


def with_curve(found: History) -> set[str]:
    """The ids of the cells that have one."""
    return {slug(*one.point) for one in found.series if len(one.values) > 1}


def _typed(point: tuple[Any, ...]) -> tuple[str, str, int]:
    machine, cell, batch = point
    return str(machine), str(cell), int(batch)


def _name(item: tuple[tuple[Any, ...], object]) -> tuple[str, ...]:
    return tuple(map(str, item[0]))


def _curve(point: tuple[Any, ...], figures: list[Mapping[str, Any]]) -> Curve:
    named = dict(zip(POINT, point, strict=True))
    title = f"{named['cell']}, batch {named['batch_size']}, {named['machine']}"
    return Curve(slug(*point), title, tuple(figures))


def _figure(series: Series, steps: list[Step]) -> dict[str, Any]:
    """The points of one metric, oldest first; steps by the session that they come with."""
    rows = series.rows
    sessions = [str(name) for name in rows["session"]]
    told = {step.session: _told(step) for step in steps}
    first = rows.iloc[0]
    unit, _ = quality_form(str(first["workload"]), str(first["quality_metric"]))
    few = len(series.values) <= FEW
    return {
        "metric": series.metric,
        "title": METRICS[series.metric].title,
        "axis": axis_title(series.metric),
        "sessions": sessions,
        "dates": [str(at) for at in rows["started_at"]],
        "values": [float(f"{value:.6g}") for value in series.values],
        "texts": [
            formatted(series.metric, value, quality_unit=unit)
            for value in (series.values.tolist() if few else ())
        ],
        "processes": rows["processes"].astype(int).tolist(),
        "low": _ends(rows["low"]),
        "high": _ends(rows["high"]),
        "spans": [
            between(*(formatted(series.metric, end, quality_unit=unit) for end in ends))
            if isfinite(sum(ends))
            else ""
            for ends in (zip(rows["low"], rows["high"], strict=True) if few else ())
        ],
        "steps": [{"at": sessions.index(name), "text": text} for name, text in told.items()],
    }


def _ends(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


FEW = 200
"""Up to so many points their texts are in the file; beyond, it would be mostly texts."""


def _told(step: Step) -> str:
    before, after = (formatted(step.metric, level) for level in step.levels)
    change = 100 * (step.difference.ratio() - 1)
    causes = "; ".join(step.changed) or "nothing that is recorded"
    word = "worse" if step.worse else "better"
    sign = "+" if change > 0 else ""
    return f"{word}: {before} to {after} ({sign}{digits(change, 2)} %). Changed there: {causes}"


def lead(found: History) -> str:
    """What was found in all histories, in words for someone who sees the page first."""
    long = len(found.series) - found.short
    if not long:
        return (
            f"Nothing was measured in enough sessions for a step to be told: of {found.short:,} "
            f"histories none has the {2 * SEGMENT} sessions that it takes."
        )
    steps = f"{len(found.steps):,} step{'' if len(found.steps) == 1 else 's'}"
    told = f"{steps} in the {long:,} histories that are long enough to tell"
    short = f"; {found.short:,} more have fewer than {2 * SEGMENT} sessions" if found.short else ""
    return f"{told}{short}."


def steps_table(found: History) -> Table:
    """Every step, the newest first."""
    body = tuple(_step(step, found) for step in reversed(found.steps))
    head = ("session", "cell", "metric", "change", "interval", "verdict", "changed there")
    return Table("steps", "Steps, newest first", head, body, frozenset({3}))


def _step(step: Step, found: History) -> tuple[Entry, ...]:
    ratio = step.difference.ratio()
    low, high = step.difference.interval(found.alpha_per_series)
    before, after = (formatted(step.metric, level) for level in step.levels)
    href = f"history.html#cell={slug(step.machine, step.cell, step.batch_size)}"
    return (
        Entry(step.session),
        Entry(step.cell, href=f"{href}&metric={step.metric}"),
        Entry(METRICS[step.metric].title),
        Entry(f"{before} to {after}", raw=ratio),
        Entry(f"{digits(low)} to {digits(high)}"),
        Entry(("worse" if step.worse else "better") + (", new" if step.new else "")),
        Entry("; ".join(step.changed) or "nothing that is recorded"),
    )
