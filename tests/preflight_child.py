"""Trains real steps on the processor and prints the most bytes that its allocator had given out.

Started by test_preflight.py as `python -m tests.preflight_child CELL`, in a worker's environment:
PyTorch's own profiler sees every allocation from before the model is built. Garbage is collected
between steps and not inside, as in the traced step that this is held against.
"""

from __future__ import annotations

import gc
import json
import sys
from typing import Any

import numpy as np
import torch

from harness.backends import backend
from harness.cells import Cell
from harness.environment import cpu_count
from harness.preflight_child import batch_targets
from harness.registry import workload
from harness.schema import Protocol
from harness.stages import Job, Measurement

STEPS = 3
BEGIN = "a step begins"


def main() -> None:
    cell = Cell(*sys.argv[1].split("/"))
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        train(cell)
    print(json.dumps({"peak_bytes": peak_of_last_step(profile)}))


def train(cell: Cell) -> None:
    numerics = backend(cell.backend).configure(cell.precision, cpu_count())
    measurement = Measurement(Job(cell, 1, Protocol()), workload(cell.workload), lambda stage: None)
    measurement.numerics |= numerics
    trainer, scale = measurement.built(), measurement.scale
    targets = batch_targets(cell, scale.batch_size)
    inputs = np.zeros((scale.batch_size, *scale.input_shape), scale.input_dtype)
    batch = trainer.place((inputs, np.zeros(targets.shape, targets.dtype)))
    for _ in range(STEPS):
        gc.collect()
        gc.disable()
        with torch.profiler.record_function(BEGIN):
            torch.zeros(0)
        trainer.step(batch)
        gc.enable()


def peak_of_last_step(profile: torch.profiler.profile) -> int:
    """From the allocator's events in the order of time."""
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    live, peak, begun = 0, 0, 0
    events: Any = profile.profiler.kineto_results.events()
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == BEGIN:
            begun, peak = begun + 1, live
        elif event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    assert begun == STEPS
    return peak


if __name__ == "__main__":
    main()
