"""What it costs to train to a quality that every backend of a workload reaches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from statistics import median, median_low

import pandas as pd

from harness.cost import cost_usd
from harness.metrics import time_to
from harness.report.parts import Entry, Row, Table, cell_page, each, name_of, point_of, remarks
from harness.schema import Run
from harness.show import quality_form
from harness.units import ABSENT, FORMS, quality, seconds

GROUP = ["machine", "workload", "scale", "device", "batch_size"]

Runs = Mapping[tuple[str, str, int], Sequence[Run]]
"""The runs behind each row."""


@dataclass(frozen=True)
class _Cell:
    """A row with what its processes took to the target; endless where one never got there."""

    row: Row
    target: float
    times: tuple[float, ...]
    costs: tuple[float, ...]

    @property
    def typical(self) -> tuple[float, float]:
        """Seconds and USD; endless where half of the processes or more never got there."""
        return median(self.times), median(self.costs)


def reached_table(rows: pd.DataFrame, runs: Runs) -> Table:
    """Cells by cost within each workload; `rows` are those that may be ranked."""
    training = rows[(rows["phase"] == "train") & rows["quality"].notna()]
    body = []
    for _, group in training.groupby(GROUP, observed=True, sort=False):
        target = common_quality(group, runs)
        if target is not None:
            found = [_cell(row, target, runs[point_of(row)]) for row in each(group)]
            body += [_line(one) for one in sorted(found, key=lambda one: one.typical[::-1])]
    head = ("workload", "cell", "quality to reach", "processes that did", "time", "cost")
    numeric = frozenset({2, 3, 4, 5})
    caption = "Cost to a quality that every backend of the workload reaches"
    return Table("reached", caption, head, tuple(body), numeric)


def common_quality(group: pd.DataFrame, runs: Runs) -> float | None:
    """What half of the processes of every backend reach, in their best epoch.

    None with one backend alone.
    """
    best: dict[str, list[float]] = {}
    sign = 1.0 if group["higher_is_better"].iloc[0] else -1.0
    for row in each(group):
        curves = [_curve(run) for run in runs[point_of(row)]]
        ends = [max(sign * one for one in curve) for curve in curves if curve]
        best.setdefault(str(row["backend"]), []).extend(ends)
    typical = [median_low(ends) for ends in best.values() if ends]
    return sign * min(typical) if len(typical) > 1 else None


def _curve(run: Run) -> list[float]:
    found = [epoch.quality.get(run.quality_metric) for epoch in run.samples.epochs]
    return [value for value in found if value is not None]


def _cell(row: Row, target: float, runs: Sequence[Run]) -> _Cell:
    times = [inf if (found := time_to(run, target)) is None else found for run in runs]
    rates = [run.price.usd_per_hour if run.price else inf for run in runs]
    costs = [
        float(cost_usd(time, rate)) if isfinite(time + rate) else inf
        for time, rate in zip(times, rates, strict=True)
    ]
    return _Cell(row, target, tuple(times), tuple(costs))


def _line(one: _Cell) -> tuple[Entry, ...]:
    row = one.row
    unit, _ = quality_form(str(row["workload"]), str(row["quality_metric"]))
    there = sum(map(isfinite, one.times))
    return (
        Entry(f"{row['workload']}, {row['scale']}", notes=(str(row["machine"]),)),
        Entry(
            name_of(row, "backend", "precision", "api_style"),
            href=cell_page(row),
            notes=remarks(row),
        ),
        Entry(quality(one.target, unit=unit), raw=one.target),
        Entry(f"{there} of {len(one.times)}", raw=there / len(one.times)),
        *_figures(one),
    )


def _figures(one: _Cell) -> Iterator[Entry]:
    for value, form in zip(one.typical, (seconds, FORMS["usd"]), strict=True):
        yield Entry(form(value), raw=value) if isfinite(value) else Entry(ABSENT, raw=inf)
