"""Steps of a cell whose loss scale begins far too high, one by one; run in a process of its own.

`python -m tests.overflow_child CELL` prints one line of JSON.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from harness import weights
from harness.backends import backend
from harness.cells import parse_cell
from harness.environment import cpu_count
from harness.registry import workload, workloads
from harness.schema import Protocol
from harness.stages import Job, Measurement

FIRST_SCALE = 2.0**30
STEPS = 24


def main() -> None:
    cell = parse_cell(sys.argv[1], list(workloads()))
    measurement = Measurement(Job(cell, 1, Protocol()), workload(cell.workload), lambda stage: None)
    measurement.numerics |= backend(cell.backend).configure(cell.precision, cpu_count())
    measurement._load()
    trainer = measurement.built()
    measurement._restore_initial_state()
    measurement.optimizer.dynamic_scale.assign(FIRST_SCALE)
    trainer.push()
    placed = trainer.place(measurement._batches(0)[0])
    steps = []
    before = weights.snapshot(measurement.model.trainable_variables)
    for _ in range(STEPS):
        result = trainer.step(placed)
        trainer.synchronise(result)
        trainer.pull()
        after = weights.snapshot(measurement.model.trainable_variables)
        pairs = zip(before, after, strict=True)
        steps.append({"moved": any(not np.array_equal(*pair) for pair in pairs)})
        before = after
        trainer.push()
    measurement._note_skipped("train_skipped_steps", STEPS)
    found = measurement.loss_scaling
    assert found is not None
    print(
        json.dumps(
            {
                "steps": steps,
                "counted": found.train_skipped_steps,
                "first_scale": FIRST_SCALE,
                "scale": found.final_scale,
            }
        )
    )


if __name__ == "__main__":
    main()
