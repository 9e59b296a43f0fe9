"""What the page on the method says, from the declarations that the harness itself reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.compare import PAIRS
from harness.metrics import METRICS
from harness.probes import CONTENDED_SHARE
from harness.ranking import UNRANKED
from harness.registry import workloads
from harness.report.parts import MARKS, Entry, Table
from harness.schema import STATUSES
from harness.show import quality_form
from harness.statistics import ALPHA, POWER
from harness.units import ABSENT, percent, quality
from harness.workload import Scale, Workload

MEANINGS = {
    "ok": "It ran, and computes what the reference computes.",
    "unsupported": "It cannot run by its nature.",
    "unavailable": "It cannot run on this machine, or not with what is installed there.",
    "oom": "It ran out of memory.",
    "timeout": "It ran out of the time that a run is given.",
    "nan": "Its loss was no number.",
    "numerics": "It computes something else than the reference; its speed does not count.",
    "error": "It failed otherwise; the log tail says how.",
}

OF_MARKS = {
    "contended": f"Others used more than {percent(CONTENDED_SHARE)} of the processors meanwhile, "
    "left too few timed blocks undisturbed, or computed on an accelerator of the run.",
    "throttled": "Heat or the supply of power held the accelerator's clocks down in a reading.",
    "simulated": "Several devices that share one processor: whether it is right, not how fast.",
    "slow_path": "A fast path that the backend is expected to take on such a device was not taken; "
    "lost_fast_paths among the cell's numerics names it.",
    "extrapolated": "The epoch was measured on its first steps only; no quality follows from it.",
    "altered": "The line of the results file is not the one that was written.",
}


def method() -> dict[str, Any]:
    """What the template takes."""
    return {
        "statuses": [(name, MEANINGS[name]) for name in STATUSES],
        "marks": [
            (words, OF_MARKS[name], "not ranked" if name in UNRANKED else "ranked all the same")
            for name, words in MARKS.items()
        ],
        "workloads": _workloads(),
        "table": _figures(),
        "alpha": percent(ALPHA),
        "power": percent(POWER),
        "pairs": PAIRS,
        "disturbed": percent(CONTENDED_SHARE),
    }


def _workloads() -> Table:
    body = tuple(
        _scale(workload, name, scale)
        for workload in workloads().values()
        for name, scale in workload.scales.items()
    )
    head = (
        "workload", "scale", "what is reduced", "data", "parameters", "batch", "epochs",
        "quality", "trivial predictor", "accepted after training", "declared target",
    )  # fmt: skip
    return Table("workloads", "What is measured", head, body, frozenset({4, 5, 6}))


def _scale(workload: Workload, name: str, scale: Scale) -> tuple[Entry, ...]:
    unit, title = quality_form(workload.name, workload.quality_metric)
    predictor, known = scale.baseline
    low, high = (quality(one, unit=unit) for one in scale.quality_bounds)
    target = scale.quality_target
    return (
        Entry(f"{workload.name} {workload.version}", notes=(workload.title,)),
        Entry(name),
        Entry(scale.reduced or "nothing"),
        Entry(" or ".join(_sources(workload, name))),
        *(
            Entry(f"{number:,}", raw=float(number))
            for number in (scale.parameters, scale.batch_size, scale.epochs)
        ),
        Entry(title),
        Entry(predictor if known is None else f"{predictor}: {quality(known, unit=unit)}"),
        Entry(f"{low} to {high}"),
        Entry(ABSENT if target is None else quality(target, unit=unit)),
    )


def _sources(workload: Workload, scale: str) -> Iterator[str]:
    for source in workload.data(scale).SOURCES:
        yield str(source.name)


def _figures() -> Table:
    body = tuple(
        (
            Entry(metric.title),
            Entry(metric.name),
            Entry(metric.unit),
            Entry(metric.direction),
            Entry(metric.definition),
        )
        for metric in METRICS.values()
    )
    head = ("figure", "name in files", "unit", "better", "definition")
    return Table("metrics", "Every figure", head, body)
