"""The columns of the table of runs, and how each is taken from a record. Knows no files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from hashlib import sha256
from typing import Any

import pyarrow as pa

from harness import options
from harness.cells import AXES, simulated
from harness.metrics import METRICS, examples_per_epoch, own_cpu_share, step_times, throttled
from harness.paths import LOST
from harness.schema import REPLAY, Protocol, Run
from harness.store import ResultsFile

# Distributions by the name they are imported by, where one may stand in for the other.
PACKAGES: dict[str, tuple[str, ...]] = {
    "keras": ("keras",),
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow_cpu"),
    "jax": ("jax",),
    "torch": ("torch",),
    "numpy": ("numpy",),
}
PRICE_TEXTS = ("provider", "instance", "region", "kind", "as_of", "source", "snapshot")


def _axis(place: int) -> Callable[[Run], str]:
    return lambda run: _axes(run.cell)[place]


# Of a hundred thousand runs, the cells, protocols and settings are a few hundred.
@cache
def _axes(cell: str) -> list[str]:
    return cell.split("/") + [""] * len(AXES)


def _package(names: Sequence[str]) -> Callable[[Run], str]:
    def version(run: Run) -> str:
        packages = run.environment.packages
        return next((packages[name] for name in names if name in packages), "")

    return version


def _price(name: str) -> Callable[[Run], str]:
    return lambda run: str(getattr(run.price, name)) if run.price else ""


@cache
def protocol_digest(protocol: Protocol) -> str:
    """16 hex digits that are the same for runs measured in the same way."""
    # How long a run may take is no part of how it is measured.
    fields = asdict(replace(protocol, timeout_s=0.0))
    return sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


@cache
def _settings(numerics: tuple[tuple[str, str], ...]) -> str:
    return json.dumps(dict(numerics), sort_keys=True)


UNIQUE_TEXTS: dict[str, Callable[[Run], str]] = {
    "run": lambda run: run.run,
    "started_at": lambda run: run.started_at,
}
"""Text that hardly repeats, so it is not stored as categories."""

TEXTS: dict[str, Callable[[Run], str]] = {
    "session": lambda run: run.session,
    "cell": lambda run: run.cell,
    **{axis: _axis(place) for place, axis in enumerate(AXES)},
    "status": lambda run: run.status,
    "reason": lambda run: run.reason,
    "suite_version": lambda run: run.suite_version,
    "suite_commit": lambda run: run.suite_commit,
    "workload_version": lambda run: run.workload_version,
    "machine": lambda run: run.environment.machine,
    "os": lambda run: run.environment.os,
    "python": lambda run: run.environment.python,
    "cpu": lambda run: run.environment.cpu,
    "accelerators": lambda run: ", ".join(run.environment.accelerators),
    "driver": lambda run: ", ".join(sorted({one.device.driver for one in run.accelerators})),
    "variables": lambda run: _settings(tuple(run.environment.variables.items())),
    **{name: _package(names) for name, names in PACKAGES.items()},
    "protocol": lambda run: protocol_digest(run.protocol),
    "options": lambda run: options.told(run.protocol),
    "train_outcome": lambda run: run.samples.train_outcome,
    "warmup_outcome": lambda run: run.samples.warmup_outcome,
    "energy_method": lambda run: run.energy.method if run.energy else "",
    "gate_outcome": lambda run: run.gate.outcome,
    "numerics": lambda run: _settings(tuple(run.numerics.items())),
    "data_source": lambda run: run.data.source if run.data else "",
    "quality_metric": lambda run: run.quality_metric,
    "price": _price("id"),
    **{f"price_{name}": _price(name) for name in PRICE_TEXTS},
}

INTEGERS: dict[str, Callable[[Run], int]] = {
    "replicate": lambda run: run.replicate,
    "batch_size": lambda run: run.batch_size,
    "seed": lambda run: run.seed,
    "cpu_count": lambda run: run.environment.cpu_count,
}

FLAGS: dict[str, Callable[[Run], bool]] = {
    "higher_is_better": lambda run: run.higher_is_better,
    "contended": lambda run: run.contention.contended,
    "throttled": lambda run: throttled(run.accelerators),
    "simulated": lambda run: simulated(run.cell.rpartition("/")[2]),
    "slow_path": lambda run: LOST in run.numerics,
    "untimed": lambda run: bool(run.protocol.stop_after),
}

NUMBERS = (
    *METRICS,
    "step_time_p10_s",
    "step_time_p90_s",
    "others_cpu_share",
    "own_cpu_share",
    "epochs",
    "examples_per_epoch",
    "price_usd_per_hour",
)
"""Every metric, and the other columns that are absent (NaN) where they were not measured."""

_CATEGORY = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in UNIQUE_TEXTS),
        *((name, _CATEGORY) for name in TEXTS),
        *((name, pa.int64()) for name in INTEGERS),
        *((name, pa.bool_()) for name in FLAGS),
        ("extrapolated", pa.bool_()),
        ("altered", pa.bool_()),
        ("replayed", pa.bool_()),
        *((name, pa.float64()) for name in NUMBERS),
    ]
)
"""The columns that depend on a file's content only."""

FILE_SCHEMA = SCHEMA.append(pa.field("file", _CATEGORY))


def rows(found: ResultsFile) -> pa.Table:
    """A results file as Arrow columns, a row per run in file order."""
    runs = found.runs
    getters: dict[str, Callable[[Run], Any]] = {**UNIQUE_TEXTS, **INTEGERS, **FLAGS}
    arrays = {name: [get(run) for run in runs] for name, get in getters.items()}
    arrays["altered"] = [run.run in found.altered for run in runs]
    arrays["replayed"] = [found.session.plan == REPLAY] * len(runs)
    numbers = [_numbers(*pair) for pair in zip(runs, found.figures, strict=True)]
    arrays["extrapolated"] = [row.get("epoch_fraction", 1.0) < 1.0 for row in numbers]
    arrays |= {name: [row.get(name) for row in numbers] for name in NUMBERS}
    columns = {name: pa.array(arrays[name], SCHEMA.field(name).type) for name in arrays}
    for name, get in TEXTS.items():
        columns[name] = pa.array([get(run) for run in runs], pa.string()).dictionary_encode()
    return pa.table([columns[field.name] for field in SCHEMA], schema=SCHEMA)


def with_file(table: pa.Table, name: str) -> pa.Table:
    """The table with the results file's name as its last column."""
    places = pa.repeat(pa.scalar(0, pa.int32()), table.num_rows)
    column = pa.DictionaryArray.from_arrays(places, pa.array([name]))
    return table.append_column(FILE_SCHEMA.field("file"), column)


def _numbers(run: Run, figures: Mapping[str, float]) -> Mapping[str, float]:
    values = {**figures}
    if run.samples.steady:
        steps = sorted(step_times(run.samples.steady))
        values["step_time_p10_s"] = _quantile(steps, 0.1)
        values["step_time_p90_s"] = _quantile(steps, 0.9)
    if run.contention.others_cpu_share is not None:
        values["others_cpu_share"] = run.contention.others_cpu_share
    own = own_cpu_share(run)
    if own is not None:
        values["own_cpu_share"] = own
    examples = examples_per_epoch(run)
    if examples is not None:
        values["epochs"] = float(len(run.samples.epochs))
        values["examples_per_epoch"] = examples
    if run.price is not None:
        values["price_usd_per_hour"] = run.price.usd_per_hour
    return values


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear between the two nearest values, as numpy does by default."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
