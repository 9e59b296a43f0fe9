"""Everything about one cell: the samples of each of its newest processes, and what they ran on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from harness.metrics import METRICS
from harness.report.parts import (
    COLOURS,
    SYMBOLS,
    Chart,
    Entry,
    Table,
    each,
    facts,
    label,
    marks,
    span_of,
    text_of,
)
from harness.schema import Block, LossScaling, Run
from harness.show import quality_form
from harness.units import ABSENT, digits, quality, seconds, size

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


def cell_page_of(rows: pd.DataFrame, frame: pd.DataFrame, runs: Sequence[Run]) -> CellPage:
    """`rows` are the cell's of the summary, a status each; `frame` the same runs of the table."""
    blocks, stages, epochs = _blocks(runs), _stages(runs), _epochs(runs)
    tables = (
        _figures(rows),
        _processes(frame),
        *(t for t, _ in (blocks, stages, epochs) if t.rows),
    )
    charts = tuple(chart for table, chart in (blocks, stages, epochs) if table.rows)
    return CellPage(
        tables=tables,
        charts=charts,
        details=tuple(_details(runs[0])) if runs else (),
        marks=tuple(dict.fromkeys(text for row in each(rows) for text in marks(row))),
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
        times = []
        for number, (kind, block) in enumerate(_samples(run), 1):
            step = block.seconds / block.steps
            times.append(step)
            note = "disturbed: does not count" if block.disturbed else ""
            body.append(
                (
                    Entry(_short(run)),
                    Entry(str(number), raw=float(number)),
                    Entry(kind, notes=(note,) if note else ()),
                    Entry(str(block.steps), raw=float(block.steps)),
                    Entry(seconds(step), raw=step),
                )
            )
        traces.append(_trace(place, _short(run), list(range(1, len(times) + 1)), times))
    head = ("run", "block", "kind", "steps", "seconds per step")
    table = Table("samples", "Timed blocks", head, tuple(body), frozenset({1, 3, 4}))
    chart = Chart(
        "blocks",
        "Seconds per step of every block, in the order of time",
        table.id,
        tuple(traces),
        {"xaxis": {"title": "block"}, "yaxis": {"title": "s per step", "rangemode": "tozero"}},
    )
    return table, chart


def _stages(runs: Sequence[Run]) -> tuple[Table, Chart]:
    names = list(dict.fromkeys(name for run in runs for name in run.stages))
    body = tuple(
        (Entry(_short(run)), Entry(name), Entry(seconds(run.stages[name]), raw=run.stages[name]))
        for run in runs
        for name in names
        if name in run.stages
    )
    table = Table("stages", "Stage clocks", ("run", "stage", "seconds"), body, frozenset({2}))
    traces = tuple(
        {
            "type": "bar",
            "orientation": "h",
            "name": label(name),
            "y": [label(_short(run)) for run in runs],
            "x": [run.stages.get(name, 0.0) for run in runs],
            "marker": {
                "color": COLOURS[place % len(COLOURS)],
                "pattern": {
                    "shape": ("", "/", "x", ".")[place % 4],
                    "fillmode": "overlay",
                    "size": 12,
                },
            },
        }
        for place, name in enumerate(names)
    )
    layout = {"barmode": "stack", "xaxis": {"title": "s"}, "yaxis": {"type": "category"}}
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
                    Entry(_short(run)),
                    Entry(str(number), raw=float(number)),
                    Entry(seconds(epoch.train_s), raw=epoch.train_s),
                    Entry(digits(epoch.loss), raw=epoch.loss),
                    Entry(ABSENT, raw=float("nan"))
                    if found is None
                    else Entry(quality(found, unit=unit), raw=found),
                )
            )
        traces.append(
            _trace(place, _short(run), list(range(1, len(curve) + 1)), curve, "lines+markers")
        )
    head = ("run", "epoch", "training", "loss", title)
    table = Table("epochs", "Epochs", head, tuple(body), frozenset({1, 2, 3, 4}))
    shares = {"tickformat": ".1%"} if unit == "%" else {}
    layout = {
        "xaxis": {"title": "epoch", "dtick": 1},
        "yaxis": {"title": label(title if unit in ("", "%") else f"{title} ({unit})"), **shares},
    }
    return table, Chart("quality", f"{title} after each epoch", "epochs", tuple(traces), layout)


def _short(run: Run) -> str:
    """A process's name within its session."""
    return run.run.removeprefix(f"{run.session}-")


def _quality(runs: Sequence[Run]) -> tuple[str, str]:
    if not runs:
        return "", "quality"
    unit, title = quality_form(runs[0].cell.split("/")[0], runs[0].quality_metric)
    return unit, title or "quality"


def _trace(
    place: int, name: str, x: Sequence[int], y: Sequence[float | None], mode: str = "markers"
) -> dict[str, object]:
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


def _details(run: Run) -> Iterator[Table]:
    """Of the first process; the others of its session ran in the same way."""
    environment = run.environment
    yield facts(
        [
            ("machine", environment.machine),
            ("processor", f"{environment.cpu}, {environment.cpu_count} visible"),
            ("memory", size(environment.memory_bytes)),
            ("accelerators", ", ".join(environment.accelerators) or "none"),
            ("system", environment.os),
            ("python", environment.python),
            *sorted(environment.packages.items()),
            *sorted(environment.variables.items()),
        ],
        id="environment",
        caption="Environment",
    )
    yield facts(sorted(run.numerics.items()), id="numerics", caption="Numerics in effect")
    yield facts(_memory(run), id="memory", caption="Memory")
    yield facts(_gate(run), id="gate", caption="Equality gate")
    if run.loss_scaling is not None:
        yield facts(_loss_scaling(run.loss_scaling), id="scaling", caption="Loss scaling")
    yield facts(
        [
            ("suite", f"{run.suite_version}, commit {run.suite_commit}"),
            ("workload version", run.workload_version),
            ("session", run.session),
            ("batch size", run.batch_size),
            ("warm-up", run.samples.warmup_outcome or ABSENT),
            ("end of timing", run.samples.steady_outcome or ABSENT),
            ("data", f"{run.data.source}, digest {run.data.digest[:16]}" if run.data else ABSENT),
            *asdict(run.protocol).items(),
        ],
        id="protocol",
        caption="Protocol",
    )
    if run.price is not None:
        yield facts(list(asdict(run.price).items()), id="price", caption="Reference price")


def _memory(run: Run) -> list[tuple[str, object]]:
    memory = run.memory
    found = {
        "host, after import": memory.host_baseline_bytes,
        "host, peak from build to the end": memory.host_peak_bytes,
        "device, peak of the allocator": memory.device_peak_bytes,
    }
    return [(name, ABSENT if value is None else size(value)) for name, value in found.items()]


def _loss_scaling(found: LossScaling) -> list[tuple[str, object]]:
    counts = {
        "steps skipped in the warm-up": found.warmup_skipped_steps,
        "steps skipped in the timed blocks": found.steady_skipped_steps,
        "steps skipped in the epochs": found.train_skipped_steps,
    }
    told = [(name, ABSENT if count is None else f"{count:,}") for name, count in counts.items()]
    return [("scale at the end", f"{found.final_scale:,g}"), *told]


def _gate(run: Run) -> list[tuple[str, object]]:
    worst = [
        (
            f"{name}, worst deviation",
            f"{value:.3g} of {run.gate.tolerance.get(name, 0):.3g} allowed",
        )
        for name, value in run.gate.deviation.items()
    ]
    return [("outcome", run.gate.outcome or "not reached"), *worst]
