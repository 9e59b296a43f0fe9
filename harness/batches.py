"""One epoch's training batches by number, which every input pipeline reads; no framework.

A pipeline may read them in any order and in several threads: a batch depends on its number alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.workload import Batch

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Batches:
    """`make` gives the batch of a number and its rows; `rows` is (steps, batch size)."""

    rows: Rows
    make: Callable[[int, Rows], Batch]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Batch:
        return self.make(number, self.rows[number])

    def __iter__(self) -> Iterator[Batch]:
        return (self[number] for number in range(len(self)))

    def first(self, steps: int) -> Batches:
        """The epoch's beginning, or all of it where it is shorter."""
        return replace(self, rows=self.rows[:steps])


def shuffled(
    count: int, make: Callable[[int, Rows], Batch], *, batch_size: int, seed: int, epoch: int
) -> Batches:
    """An epoch over `count` examples in the order that seed and epoch draw; full batches only."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    steps = count // batch_size
    return Batches(order[: steps * batch_size].reshape(steps, batch_size), make)
