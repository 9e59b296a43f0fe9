"""Writes runs into experiment trackers: what is written of a run, and the one loop that does it.

A tracker's client is imported only when it was asked for. Every run goes in under its own id and
is marked as complete last, so that a second export skips what is there and replaces a half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from harness.cells import AXES, simulated
from harness.cost import cost_usd
from harness.errors import EpochmarkError, UsageError, unknown
from harness.metrics import derive
from harness.schema import Run
from harness.schema_json import encode
from harness.store import read_file, results_files

PROJECT = "epochmark"
"""The experiment or project in the tracker."""

MEMORY = ("host_baseline_bytes", "host_peak_bytes", "device_peak_bytes")

TRACKERS = {"mlflow": "MLflow", "wandb": "Weights & Biases"}
"""Module of this package, which is the extra's name too, and the name for people."""


class TrackerError(EpochmarkError):
    """A tracker refused or was lost; what it holds already stays, and the export can go on."""

    exit_status = 1


@dataclass(frozen=True)
class Point:
    """What one epoch adds: its number from 1, when it ended (UTC, s since 1970), its figures."""

    step: int
    ended_s: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Record:
    """A run as trackers know one; times are UTC seconds since 1970."""

    id: str
    session: str
    name: str
    ok: bool
    started_s: float
    ended_s: float
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    epochs: tuple[Point, ...]
    artifacts: Mapping[str, str]


class Writer(Protocol):
    """One open tracker."""

    def add(self, record: Record) -> bool:
        """Write a run wholly, in place of a half of it; False when all of it is there already."""


def export(
    to: str, path: str, runs: Iterable[Run], *, say: Callable[[str], None]
) -> tuple[int, int]:
    """How many runs were written, and how many were there already.

    Raises UsageError for an unknown tracker or one whose client is not installed, and TrackerError
    when it fails: what was written by then stays, and the same call again goes on from there.
    """
    writer = _open(to, path)
    written = present = 0
    for run in runs:
        try:
            new = writer.add(record_of(run))
        except Exception as error:  # a client may raise anything at all
            raise TrackerError(
                f"{TRACKERS[to]} failed at run {run.run}, after {written} written and {present} "
                f"already there: {_sentence(error)}. Give the same command again to go on."
            ) from error
        written, present = written + new, present + (not new)
        if new:
            say(f"{run.run} {run.cell}")
    return written, present


def selected_runs(results: Path, files: Iterable[str], cells: Callable[[str], bool]) -> list[Run]:
    """The runs of the named results files (all without a name) whose cell is wanted."""
    found = (read_file(path) for path in results_files(results, tuple(files)))
    return [run for file in found for run in file.runs if cells(run.cell)]


def record_of(run: Run) -> Record:
    """Everything that a tracker is told of a run."""
    started = datetime.fromisoformat(run.started_at).timestamp()
    ended = started + sum(run.stages.values())
    return Record(
        id=run.run,
        session=run.session,
        name=run.cell,
        ok=run.status == "ok",
        started_s=started,
        ended_s=ended,
        params=_params(run),
        tags=_tags(run),
        metrics={**derive(run), **_system(run), **_training(run)},
        epochs=_points(run, ended),
        artifacts={"run.json": encode(run).decode(), "log_tail.txt": run.log_tail},
    )


def _params(run: Run) -> dict[str, str]:
    parts = {
        "": {
            **dict(zip(AXES, run.cell.split("/"), strict=True)),
            "batch_size": run.batch_size,
            "seed": run.seed,
            "replicate": run.replicate,
            "workload_version": run.workload_version,
        },
        "protocol.": asdict(run.protocol),
        "numerics.": run.numerics,
        "package.": run.environment.packages,
    }
    return {
        f"{prefix}{name}": str(value)
        for prefix, values in parts.items()
        for name, value in values.items()
    }


def _tags(run: Run) -> dict[str, str]:
    machine = run.environment
    tags = {
        "session": run.session,
        "run": run.run,
        "cell": run.cell,
        "status": run.status,
        "reason": run.reason,
        "machine": machine.machine,
        "cpu": machine.cpu,
        "os": machine.os,
        "python": machine.python,
        "suite_version": run.suite_version,
        "suite_commit": run.suite_commit,
        "started_at": run.started_at,
        "replay": run.replay,
        "quality_metric": run.quality_metric,
        "contended": str(run.contention.contended).lower(),
        "simulated_devices": str(simulated(run.cell.rpartition("/")[2])).lower(),
    }
    price = asdict(run.price) if run.price else {}
    tags |= {f"price.{name}": str(value) for name, value in price.items()}
    return {name: value for name, value in tags.items() if value}


def _system(run: Run) -> dict[str, float]:
    """Load, memory, stage clocks and CPU time, as far as they were recorded."""
    found = {
        **{f"memory.{name}": getattr(run.memory, name) for name in MEMORY},
        **{f"contention.{name}": value for name, value in asdict(run.contention).items()},
        **{f"stage.{name}_s": seconds for name, seconds in run.stages.items()},
    }
    blocks = (*run.samples.warmup, *run.samples.steady, *run.samples.infer)
    for name in ("cpu_s", "others_cpu_s", "stolen_s", "queued_s", "pressure_s"):
        values = [getattr(block, name) for block in blocks]
        known = [value for value in values if value is not None]
        if known:
            found[f"blocks.{name}"] = sum(known)
    return {f"system.{name}": float(value) for name, value in found.items() if value is not None}


def _training(run: Run) -> dict[str, float]:
    """The rate, and what the training seconds of this run cost at it."""
    if run.price is None:
        return {}
    rate = run.price.usd_per_hour
    trained = sum(epoch.train_s for epoch in run.samples.epochs)
    paid = {"cost.training_usd": float(cost_usd(trained, rate))} if run.samples.epochs else {}
    return {"cost.usd_per_hour": rate, **paid}


def _points(run: Run, ended: float) -> tuple[Point, ...]:
    """The epochs, placed in time so that the last ends with the run."""
    epochs = run.samples.epochs
    trained = list(accumulate(epoch.train_s for epoch in epochs))
    walls = list(accumulate(epoch.train_s + (epoch.evaluation_s or 0.0) for epoch in epochs))
    points = []
    for step, (epoch, seconds, wall) in enumerate(zip(epochs, trained, walls, strict=True), 1):
        values = {
            "epoch.loss": epoch.loss,
            **{f"epoch.{name}": value for name, value in epoch.quality.items()},
            "epoch.train_s": epoch.train_s,
            "epoch.cumulative_train_s": seconds,
        }
        if run.price is not None:
            rate = run.price.usd_per_hour
            values["epoch.cost_usd"] = float(cost_usd(epoch.train_s, rate))
            values["epoch.cumulative_cost_usd"] = float(cost_usd(seconds, rate))
        points.append(Point(step, ended - walls[-1] + wall, values))
    return tuple(points)


def _open(to: str, path: str) -> Writer:
    if to not in TRACKERS:
        raise unknown("tracker", to, list(TRACKERS))
    try:
        opener = import_module(f"harness.trackers.{to}")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"The client of {TRACKERS[to]} is not installed ({error.name} is missing). "
            f"Install it with `pip install 'epochmark[{to}]'`."
        ) from error
    try:
        writer: Writer = opener.Writer(path)
    except EpochmarkError:
        raise
    except Exception as error:  # a client may raise anything at all
        raise TrackerError(
            f"{TRACKERS[to]} cannot be opened at {path!r}: {_sentence(error)}. "
            "Nothing was written; name a place that can be reached."
        ) from error
    return writer


def _sentence(error: BaseException) -> str:
    """What the system said below the client if it did, else the client's first line."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            return below.strerror.rstrip(".")
        below = below.__cause__ or below.__context__
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
