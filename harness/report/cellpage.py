"""Everything about one cell: the samples of each of its newest processes, and what they ran on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import nan
from typing import Any

import pandas as pd

from harness.metrics import METRICS
from harness.report.celldetails import details, short
from harness.report.parts import (
    COLOURS,
    SYMBOLS,
    Chart,
    Entry,
    Table,
    each,
    label,
    marks,
    remarks,
    span_of,
    text_of,
)
from harness.schema import Block, Run
from harness.show import quality_form
from harness.units import ABSENT, digits, quality, seconds

STAGES = ("start", "data", "build", "batch", "compile", "gate", "steady", "train", "infer")
"""In the order in which a process goes through them; a record has them by name."""

STAGE_COLOURS = (*COLOURS, "#F0E442", "#999999")
"""With the seventh of Okabe and Ito's, which is too light for a line."""

OF_A_PROCESS = (
    "step_time_s",
    "epoch_time_s",
    "compile_time_s",
    "startup_time_s",
    "infer_latency_s",
    "infer_throughput_examples_per_s",
    "peak_host_memory_bytes",
    "peak_device_memory_bytes",
    "quality",
)


@dataclass(frozen=True)
class CellPage:
    """What the page of a cell shows; `runs` have the texts that are printed as they are."""

    tables: tuple[Table, ...]
    charts: tuple[Chart, ...]
    details: tuple[Table, ...]
    marks: tuple[str, ...]
    runs: tuple[Run, ...]


def cell_page_of(
    rows: pd.DataFrame, frame: pd.DataFrame, runs: Sequence[Run], sessions: Sequence[Table] = ()
) -> CellPage:
    """`rows` are the cell's of the summary, a status each; `frame` the same runs of the table."""
    blocks, stages, epochs = _blocks(runs), _stages(runs), _epochs(runs)
    drawn = [(table, chart) for table, chart in (blocks, stages, epochs) if table.rows]
    others = [table for table in (_calls(runs), _first_steps(runs), _exchanges(runs)) if table.rows]
    tables = (_figures(rows), *sessions, _processes(frame), *(t for t, _ in drawn), *others)
    charts = tuple(chart for _, chart in drawn)
    return CellPage(
        tables=tables,
        charts=charts,
        details=tuple(details(runs)) if runs else (),
        marks=tuple(dict.fromkeys(text for row in each(rows) for text in remarks(row))),
        runs=tuple(runs),
    )


def _figures(rows: pd.DataFrame) -> Table:
    row = each(rows)[0]
    body = tuple(
        (
            Entry(METRICS[name].title),
            Entry(text_of(row, name), raw=float(row[name])),
            Entry(span_of(row, name) or ABSENT),
            Entry(METRICS[name].definition),
        )
        for name in METRICS
        if row[name] == row[name]
    )
    head = ("figure", "median", "95 % interval", "what it is")
    return Table("figures", f"Figures, medians of {row['n']} processes", head, body, frozenset({1}))


def _processes(frame: pd.DataFrame) -> Table:
    shown = [name for name in OF_A_PROCESS if frame[name].notna().any()]
    body = tuple(
        (
            Entry(str(row["run"]).removeprefix(f"{row['session']}-")),
            Entry(str(row["status"]), notes=tuple(filter(None, (str(row["reason"]), *marks(row))))),
            Entry(str(row["started_at"])),
            Entry(str(row["seed"])),
            *(Entry(text_of(row, name), raw=float(row[name])) for name in shown),
        )
        for row in each(frame)
    )
    head = ("run", "status", "started (UTC)", "seed", *(METRICS[name].title for name in shown))
    numeric = frozenset(range(3, 4 + len(shown)))
    return Table("processes", "Processes", head, body, numeric)


def _samples(run: Run) -> Iterator[tuple[str, Block]]:
    for kind in ("warmup", "steady", "infer"):
        blocks: tuple[Block, ...] = getattr(run.samples, kind)
        yield from ((kind.replace("warmup", "warm-up"), block) for block in blocks)


def _blocks(runs: Sequence[Run]) -> tuple[Table, Chart]:
    body, traces = [], []
    for place, run in enumerate(runs):
        times, looks = [], []
        for number, (kind, block) in enumerate(_samples(run), 1):
            step = block.seconds / block.steps
            times.append(step)
            looks.append(_look(place, kind, disturbed=block.disturbed))
            note = "disturbed: does not count" if block.disturbed else ""
            body.append(
                (
                    Entry(short(run)),
                    Entry(str(number), raw=float(number)),
                    Entry(kind, notes=(note,) if note else ()),
                    Entry(str(block.steps), raw=float(block.steps)),
                    Entry(seconds(step), raw=step),
                )
            )
        trace = _trace(place, short(run), list(range(1, len(times) + 1)), times)
        traces.append({**trace, "marker": {**trace["marker"], "symbol": looks}})
    head = ("run", "block", "kind", "steps", "time per step")
    table = Table("samples", "Timed blocks", head, tuple(body), frozenset({1, 3, 4}))
    chart = Chart(
        "blocks",
        "Seconds per step of every block, in the order of time; hollow: warm-up, "
        "hollow with a dot: disturbed, does not count",
        table.id,
        tuple(traces),
        {"xaxis": {"title": "block"}, "yaxis": {"title": "s per step", "rangemode": "tozero"}},
    )
    return table, chart


def _look(place: int, kind: str, *, disturbed: bool) -> str:
    """The process's symbol; hollow for a block that does not count."""
    own = SYMBOLS[place % len(SYMBOLS)]
    if disturbed:
        return f"{own}-open-dot"
    return f"{own}-open" if kind == "warm-up" else own


def _calls(runs: Sequence[Run]) -> Table:
    """A column for each process."""
    samples = {short(run): found for run in runs if (found := run.samples.infer_latency_s)}
    body = tuple(
        (Entry(str(number + 1), raw=number + 1.0), *map(_seconds, calls))
        for number, calls in enumerate(zip_longest(*samples.values()))
    )
    numeric = frozenset(range(1 + len(samples)))
    return Table("calls", "Calls on one example", ("call", *samples), body, numeric)


def _first_steps(runs: Sequence[Run]) -> Table:
    body = tuple(
        (Entry(short(run)), Entry(seconds(first), raw=first))
        for run in runs
        if (first := run.samples.first_step_s) is not None
    )
    caption = "First steps, with tracing and compilation"
    return Table("first-steps", caption, ("run", "first step"), body, frozenset({1}))


def _exchanges(runs: Sequence[Run]) -> Table:
    body = tuple(
        (
            Entry(short(run)),
            Entry(str(found.steps), raw=float(found.steps)),
            Entry(seconds(found.seconds), raw=found.seconds),
            Entry(seconds(found.exchange_s), raw=found.exchange_s),
        )
        for run in runs
        if (found := run.samples.exchange) is not None
    )
    head = ("run", "steps", "all of it", "exchanging gradients")
    return Table("exchanges", "Exchange between devices", head, body, frozenset({1, 2, 3}))


def _stages(runs: Sequence[Run]) -> tuple[Table, Chart]:
    present = {name for run in runs for name in run.stages}
    names = [*(name for name in STAGES if name in present), *sorted(present - {*STAGES})]
    body = tuple(
        (Entry(short(run)), Entry(name), Entry(seconds(run.stages[name]), raw=run.stages[name]))
        for run in runs
        for name in names
        if name in run.stages
    )
    table = Table("stages", "Stage clocks", ("run", "stage", "time"), body, frozenset({2}))
    traces = tuple(
        {
            "type": "bar",
            "orientation": "h",
            "name": label(name),
            "y": [label(short(run)) for run in runs],
            "x": [run.stages.get(name, 0.0) for run in runs],
            "marker": {
                "color": STAGE_COLOURS[place % len(STAGE_COLOURS)],
                "pattern": {
                    "shape": ("", "/", "x", ".")[place % 4],
                    "fillmode": "overlay",
                    "size": 12,
                },
            },
        }
        for place, name in enumerate(names)
    )
    layout = {
        "barmode": "stack",
        "xaxis": {"title": "s"},
        "yaxis": {"type": "category", "autorange": "reversed"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
    }
    return table, Chart(
        "clocks", "Where the seconds of each process went", "stages", traces, layout
    )


def _epochs(runs: Sequence[Run]) -> tuple[Table, Chart]:
    body, traces = [], []
    unit, title = _quality(runs)
    for place, run in enumerate(runs):
        curve = [epoch.quality.get(run.quality_metric) for epoch in run.samples.epochs]
        for number, (epoch, found) in enumerate(zip(run.samples.epochs, curve, strict=True), 1):
            body.append(
                (
                    Entry(short(run)),
                    Entry(str(number), raw=float(number)),
                    Entry(seconds(epoch.train_s), raw=epoch.train_s),
                    _seconds(epoch.evaluation_s),
                    Entry(digits(epoch.loss), raw=epoch.loss),
                    Entry(ABSENT, raw=nan)
                    if found is None
                    else Entry(quality(found, unit=unit), raw=found),
                )
            )
        traces.append(
            _trace(place, short(run), list(range(1, len(curve) + 1)), curve, "lines+markers")
        )
    head = ("run", "epoch", "training", "evaluation", "loss", title)
    table = Table("epochs", "Epochs", head, tuple(body), frozenset({1, 2, 3, 4, 5}))
    shares = {"tickformat": ".1%"} if unit == "%" else {}
    layout = {
        "xaxis": {"title": "epoch", "dtick": 1},
        "yaxis": {"title": label(title if unit in ("", "%") else f"{title} ({unit})"), **shares},
    }
    return table, Chart("quality", f"{title} after each epoch", "epochs", tuple(traces), layout)


def _seconds(value: float | None) -> Entry:
    return Entry(ABSENT, raw=nan) if value is None else Entry(seconds(value), raw=value)


def _quality(runs: Sequence[Run]) -> tuple[str, str]:
    if not runs:
        return "", "quality"
    unit, title = quality_form(runs[0].cell.split("/")[0], runs[0].quality_metric)
    return unit, title or "quality"


def _trace(
    place: int, name: str, x: Sequence[int], y: Sequence[float | None], mode: str = "markers"
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": mode,
        "name": label(name),
        "x": list(x),
        "y": list(y),
        "marker": {
            "color": COLOURS[place % len(COLOURS)],
            "symbol": SYMBOLS[place % len(SYMBOLS)],
            "size": 8,
        },
    }
