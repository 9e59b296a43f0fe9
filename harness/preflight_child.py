"""The process that plans training steps of one backend, for `epochmark preflight`.

Started as `python -m harness.preflight_child FD`. Every line of standard input is an order as JSON;
its answer is a line of JSON in FD, since standard output and error belong to the frameworks.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Any

from harness import data
from harness.backends import backend
from harness.backends.ahead import Built, Figures, Spec, ahead
from harness.cells import Cell
from harness.environment import cpu_count
from harness.registry import workload
from harness.schema import Protocol
from harness.stages import Job, Measurement
from harness.targets import target
from harness.worker import first_line, send


def main() -> None:
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    with os.fdopen(descriptor, "w", encoding="utf-8") as pipe:
        for line in sys.stdin:
            send(pipe, _answer(json.loads(line)))


def _answer(order: dict[str, Any]) -> dict[str, Any]:
    """The figures, or `error` in their place."""
    try:
        figures = plan(
            Cell(**order["cell"]), order["batch_size"], order["target"], order["optimised"]
        )
    except Exception as error:
        return {"error": first_line(error)}
    return asdict(figures)


def plan(cell: Cell, batch_size: int, target_name: str, optimised: bool) -> Figures:
    """The cell's declared model under that batch size, planned for the target."""
    numerics = backend(cell.backend).configure(cell.precision, cpu_count())
    measurement = Measurement(Job(cell, 1, Protocol()), workload(cell.workload), lambda stage: None)
    measurement.numerics |= numerics
    trainer = measurement.built()
    scale = measurement.scale
    built = Built(
        measurement.model,
        measurement.optimizer,
        trainer,
        Spec((batch_size, *scale.input_shape), scale.input_dtype),
        batch_targets(cell, batch_size),
    )
    return ahead(cell.backend).plan(built, target(target_name), optimised=optimised)


def batch_targets(cell: Cell, batch_size: int) -> Spec:
    """As in the data of the smallest scale, which every machine can have."""
    declared = workload(cell.workload)
    scale = next(iter(declared.scales))
    arrays = data.load(declared, scale).arrays
    _, targets = declared.data(scale).batches(arrays, batch_size=1, seed=0, epoch=0)[0]
    return Spec((batch_size, *targets.shape[1:]), str(targets.dtype))


if __name__ == "__main__":
    main()
