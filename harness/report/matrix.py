"""The matrix of a panel as a heat map: a table per metric, coloured within each workload."""

from __future__ import annotations

from math import isfinite, log

import pandas as pd

from harness.cells import BACKENDS, PRECISIONS
from harness.compare import usable
from harness.metrics import METRICS
from harness.ranking import UNRANKED
from harness.report.parts import (
    SPANS,
    Entry,
    Row,
    Table,
    cell_page,
    each,
    figure,
    remarks,
)
from harness.show import USUAL
from harness.units import digits

LEVELS = 7
"""Steps of the colour scale, the best first."""

SHOWN = (
    *USUAL,
    "fixed_cost_usd",
    "cost_per_thousand_inferences_usd",
    "cost_to_quality_usd",
    "time_to_quality_s",
    "input_wait_fraction",
    "startup_time_s",
    "energy_per_epoch_j",
    "mfu",
)

NOT_MEASURED = Entry("not measured", css="none")


def matrix(rows: pd.DataFrame) -> dict[str, Table]:
    """A table for every metric that a row has, by the metric's name."""
    return {name: _table(rows, name) for name in SHOWN if rows[name].notna().any()}


def _table(rows: pd.DataFrame, metric: str) -> Table:
    columns = _columns(rows)
    counted = usable(rows, metric)
    batches = rows.groupby("workload", sort=False)["batch_size"].nunique()
    lines = []
    for (workload, style, batch), group in rows.groupby(
        ["workload", "api_style", "batch_size"], observed=True, sort=False
    ):
        same = counted.loc[counted["workload"] == workload, metric]
        found = {
            (str(row["backend"]), str(row["precision"])): _entry(row, metric, same)
            for row in each(group.iloc[::-1])  # the ok row of a cell is its first
        }
        shown = f"{style}, batch {batch}" if batches[str(workload)] > 1 else str(style)
        head = Entry(str(workload)), Entry(shown)
        lines.append((*head, *(found.get(column, NOT_MEASURED) for column in columns)))
    titles = tuple(f"{backend} {precision}" for backend, precision in columns)
    return Table(
        f"matrix-{metric}",
        f"{METRICS[metric].title}, {METRICS[metric].direction} is better",
        ("workload", "style", *titles),
        tuple(lines),
        frozenset(range(2, 2 + len(columns))),
        labels=2,
    )


def _columns(rows: pd.DataFrame) -> list[tuple[str, str]]:
    present = set(zip(rows["backend"].astype(str), rows["precision"].astype(str), strict=True))
    every = [(backend, precision) for precision in PRECISIONS for backend in BACKENDS]
    return [column for column in every if column in present] + sorted(present - {*every})


def _entry(row: Row, metric: str, same: pd.Series[float]) -> Entry:
    status = str(row["status"])
    page = cell_page(row)
    if status != "ok":
        return Entry(status, href=page, css="status", notes=(str(row["reason"]),))
    value = float(row[metric])
    if not isfinite(value):
        return Entry("no value", href=page, css="none")
    own = figure(row, metric)
    notes = (*_count(row), *remarks(row))
    if any(row[mark] for mark in UNRANKED):
        return Entry(own.text, value, page, "unranked", (*own.notes, *notes))
    better = METRICS[metric].direction
    css = f"h{level(value, same, better)}"
    best = float(same.min() if better == "lower" else same.max())
    if not (best > 0 and value > 0):
        return Entry(own.text, value, page, css, (*own.notes, *notes))
    spans = (own.notes[0], _relative_span(row, metric, best)) if own.notes else ()
    return Entry(own.text, value, page, css, notes, f"{digits(value / best)} times", spans)


def _relative_span(row: Row, metric: str, best: float) -> str:
    low, high = (float(row[end]) / best for end in SPANS[metric])
    return f"{digits(low)} to {digits(high)} times"


def _count(row: Row) -> list[str]:
    return [f"{row['n']} processes"] if row["n"] > 1 else []


def level(value: float, same: pd.Series[float], better: str) -> int:
    """Where a value stands between the best (0) and the worst of its workload, in ratios."""
    low, high = float(same.min()), float(same.max())
    if not low < high:
        return 0
    place = log(value / low) / log(high / low) if low > 0 else (value - low) / (high - low)
    place = place if better == "lower" else 1 - place
    return min(LEVELS - 1, max(0, int(place * LEVELS)))
