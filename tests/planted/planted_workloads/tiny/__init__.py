"""A linear model on a few numbers, once for each way in which a worker can end badly."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from harness.batches import Batches, Rows
from harness.data import digest
from harness.errors import DataError
from harness.workload import Batch, DataModule, Optimizer, Scale, Tolerance, Workload
from planted_workloads.tiny.data import arrays

FAULTS = (
    "none",
    "allocation",
    "bad_data",
    "baseline",
    "borrowed",
    "dropout",
    "exception",
    "exit",
    "hang",
    "hang_at_exit",
    "memory_error",
    "more_outputs",
    "nan",
    "nan_quality",
    "sigkill",
    "sigsegv",
    "slow_data",
    "target",
)
SLOW_S = 0.2


def broken(batches: Callable[..., Batches]) -> Callable[..., Batches]:
    """Batches for the gate and the resident ones; those of the training itself are damaged."""
    called = count(1)

    def damaged(*arguments: Any, **named: Any) -> Batches:
        found = batches(*arguments, **named)
        if next(called) < 3:
            return found

        def make(number: int, rows: Rows) -> Batch:
            if number:
                raise DataError("Picture 'x.png' is damaged.")
            return found.make(number, rows)

        return Batches(found.rows, make)

    return damaged


def slow(batches: Callable[..., Batches]) -> Callable[..., Batches]:
    """Batches that take far longer to make than to train on."""

    def slowly(*arguments: Any, **named: Any) -> Batches:
        found = batches(*arguments, **named)

        def make(number: int, rows: Rows) -> Batch:
            time.sleep(SLOW_S)
            return found.make(number, rows)

        return Batches(found.rows, make)

    return slowly


def improving() -> Callable[..., dict[str, float]]:
    """A quality that grows by one with each epoch, and what it is held against."""
    epochs = count(1)
    return lambda arrays, outputs: {"mean": float(next(epochs)), "line": 3.0}


@dataclass(frozen=True)
class Tiny(Workload):
    """Its faults are in the model module, but for those of its data and its quality."""

    def data(self, scale: str) -> DataModule:
        module = super().data(scale)
        if self.name == "planted_bad_data":
            module.batches = broken(module.batches)  # type: ignore[method-assign]
        if self.name == "planted_slow_data":
            module.batches = slow(module.batches)  # type: ignore[method-assign]
        if self.name in ("planted_target", "planted_baseline"):
            module.quality = improving()  # type: ignore[method-assign]
        if self.name == "planted_nan_quality":
            module.quality = lambda arrays, outputs: {"mean": math.nan}  # type: ignore[method-assign]
        return module


def planted(fault: str) -> Tiny:
    """The workload whose model module does what the fault's name says."""
    smoke = Scale(
        batch_size=4,
        eval_batch_size=8,
        epochs=5 if fault in ("target", "baseline") else 1,
        sizes={},
        architecture=fault,
        input_shape=(3,),
        input_dtype="float32",
        data_digest=digest(arrays()),
        baseline=("nothing", 0.0),
        quality_bounds=(-1e9, 1e9),
        optimizer=Optimizer("SGD", {"learning_rate": 0.1, "momentum": 0.5}),
        tolerances={"float32": Tolerance(loss=1e9, gradient_norm=1e9, output=1e9)},
        parameters=8 if fault == "more_outputs" else 4,
        gate_architecture="none" if fault == "dropout" else None,
        forward_flops=6,
        training_flops=12,
        quality_target=2.0 if fault == "target" else None,
        target_figure="line" if fault == "baseline" else "",
    )
    scales = {"smoke": smoke}
    if fault == "borrowed":
        own = replace(smoke, data="other", data_digest="", gate_scale="standard")
        scales = {"smoke": own, "standard": smoke}
    return Tiny(
        name=f"planted_{fault}",
        version="1.0.0",
        title="A planted fault",
        example="number",
        quality_metric="mean",
        quality_unit="",
        higher_is_better=True,
        scales=scales,
        module=__name__,
    )


def __getattr__(name: str) -> Workload:
    """The entry points name workloads in capitals: `SIGSEGV`."""
    if name.lower() not in FAULTS:
        raise AttributeError(name)
    return planted(name.lower())
