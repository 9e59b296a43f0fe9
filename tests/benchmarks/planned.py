"""What XLA plans of a training step's memory on the processor, and what the step really takes.

`python -m tests.benchmarks.planned CELL`, in a worker's environment, prints both in bytes. Real is
the step's arguments, which are there before it, and how far the process grows while it runs.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from harness.backends import backend
from harness.backends.ahead.jax import held_bytes
from harness.cells import Cell
from harness.environment import cpu_count
from harness.preflight_child import batch_targets
from harness.probes import peak_resident_bytes, reset_peak, resident_bytes
from harness.registry import workload
from harness.schema import Protocol
from harness.stages import Job, Measurement

STEPS = 6

RETURNED = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "0",
}
"""Environment in which glibc hands back what was freed, so that every step grows the process."""


def main() -> None:
    cell = Cell(*sys.argv[1].split("/"))
    numerics = backend(cell.backend).configure(cell.precision, cpu_count())
    measurement = Measurement(Job(cell, 1, Protocol()), workload(cell.workload), lambda stage: None)
    measurement.numerics |= numerics
    trainer, scale = measurement.built(), measurement.scale
    targets = batch_targets(cell, scale.batch_size)
    inputs = np.zeros((scale.batch_size, *scale.input_shape), scale.input_dtype)
    batch = inputs, np.zeros(targets.shape, targets.dtype)
    planned, arguments = plan(trainer, batch)
    placed = trainer.place(batch)
    growth(trainer, placed)  # Compilation.
    # A step grows the less where the one before it has not yet handed back its memory.
    grown = max(growth(trainer, placed) for _ in range(STEPS))
    print(json.dumps({"planned": planned, "real": arguments + grown}))


def plan(trainer: Any, batch: Any) -> tuple[int, int]:
    """What XLA means to hold at once, and the arguments that are a part of it."""
    function, arguments = trainer.program(*batch)
    memory = function.trace(*arguments).lower().compile().memory_analysis()
    return held_bytes(memory), memory.argument_size_in_bytes


def growth(trainer: Any, placed: Any) -> int:
    """How much more memory the process has at the most during a step than before it."""
    assert reset_peak()
    before = resident_bytes()
    trainer.synchronise(trainer.step(placed))
    peak = peak_resident_bytes()
    assert before is not None
    assert peak is not None
    return peak - before


if __name__ == "__main__":
    main()
