"""The training step that the harness makes of a declaration, with given weights.

For the tests' own processes that hold a training against a reference; imports a framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from harness import weights
from harness.cells import Cell
from harness.registry import workload
from harness.schema import Protocol
from harness.stages import Job, Measurement
from harness.workload import Array, Batch, Scale


class Stepped:
    """A cell's step on another scale than the declared one.

    `pinned` is what the backend was configured to, `value` gives a weight by its key and shape.
    """

    def __init__(
        self,
        cell: Cell,
        scale: Scale,
        pinned: Mapping[str, str],
        value: Callable[[str, tuple[int, ...]], Array],
    ) -> None:
        declared = workload(cell.workload)
        self._made = Measurement(Job(cell, 0, Protocol()), declared, lambda stage: None)
        self._made.numerics |= pinned
        self._made.scale = scale
        self._trainer = self._made.built()
        weights.assign(weights.of(self._made.model), value)
        self._trainer.push()

    def place(self, batch: Batch) -> Any:
        """The batch in the form that `losses` takes again and again."""
        return self._trainer.place(batch)

    def losses(self, placed: Iterable[Any]) -> list[float]:
        """Of each batch before the step on it, one step after the other."""
        return [self._loss(batch) for batch in placed]

    def _loss(self, batch: Any) -> float:
        loss = self._trainer.loss(self._trainer.step(batch))
        self._trainer.pull()
        self._made._reset_metrics()  # Keras's loss is a mean since the last reset
        self._trainer.push()
        return loss
