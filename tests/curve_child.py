"""Trains a cell's first steps on its own devices, each on the next batch, from the same weights.

`python -m tests.curve_child CELL` prints the losses as one line of JSON.
"""

from __future__ import annotations

import json
import sys

from harness import several
from harness.backends import backend
from harness.cells import parse_cell
from harness.environment import cpu_count
from harness.registry import workload, workloads
from harness.schema import Protocol
from harness.stages import Job, Measurement

STEPS = 12


def main() -> None:
    cell = parse_cell(sys.argv[1], list(workloads()))
    measurement = Measurement(Job(cell, 1, Protocol()), workload(cell.workload), lambda stage: None)
    framework = backend(cell.backend)
    measurement.numerics |= framework.configure(cell.precision, cpu_count())
    if cell.device_count > 1:
        several.spread(measurement, framework)
    measurement._load()
    measurement._build(measurement.scale)
    measurement._restore_initial_state()
    batches = measurement._batches(0)
    losses = []
    for number in range(STEPS):
        result = measurement.trainer.step(measurement.trainer.place(batches[number]))
        losses.append(measurement.trainer.loss(result))
    if measurement.ranks is not None:
        measurement.ranks.close()
    print(json.dumps(losses))


if __name__ == "__main__":
    main()
