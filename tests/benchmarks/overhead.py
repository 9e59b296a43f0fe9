"""Times the harness's step path against a loop written by hand, in one process.

Both step the same model with the same function of Keras on the same batches on the device, in
blocks that alternate; then once more with a function that does nothing, which leaves the cost of
the step path itself. `python -m tests.benchmarks.overhead BACKEND WORKLOAD` prints the figures.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from statistics import median, quantiles
from time import perf_counter
from typing import Any

from harness.backends import backend
from harness.cells import Cell
from harness.environment import cpu_count
from harness.measure import steps_per_block, time_block
from harness.registry import workload
from harness.runner import BASE_SEED
from harness.schema import Block, Protocol
from harness.stages import RESIDENT_BATCHES, Job, Measurement
from tests.benchmarks.paired import in_turns

PAIRS = 120
WARMUP_PAIRS = 3
BLOCK_MIN_S = 0.05
EMPTY_STEPS = 2000
EMPTY_BLOCKS = 20

Turns = Iterator[Any]


def tensorflow_seconds(trainer: Any, turns: Turns, steps: int) -> float:
    """Keras's train function on tf.data iterators, waiting for the last loss."""
    model = trainer._model
    began = perf_counter()
    for iterator in islice(turns, steps):
        logs = model.train_function(iterator)
    logs["loss"].numpy()
    return perf_counter() - began


def jax_seconds(trainer: Any, turns: Turns, steps: int) -> float:
    """Keras's jitted train function over explicit state, waiting for the last state."""
    import jax

    model, state = trainer._model, trainer._state
    began = perf_counter()
    for iterator in islice(turns, steps):
        logs, state = model.train_function(state, iterator)
    jax.block_until_ready((logs, state))
    seconds = perf_counter() - began
    trainer._state = state  # the old one was donated
    return seconds


def torch_seconds(trainer: Any, turns: Turns, steps: int) -> float:
    """Keras's eager train function; a CPU has nothing to wait for."""
    model = trainer._model
    model.train()
    began = perf_counter()
    for batch in islice(turns, steps):
        model.train_function([batch])
    return perf_counter() - began


BARE: dict[str, Callable[[Any, Turns, int], float]] = {
    "tensorflow": tensorflow_seconds,
    "jax": jax_seconds,
    "torch": torch_seconds,
}


def built(cell: Cell) -> Measurement:
    """The cell's model and trainer, as a worker builds them."""
    numerics = backend(cell.backend).configure(cell.precision, cpu_count())
    job = Job(cell, BASE_SEED, Protocol())
    measurement = Measurement(job, workload(cell.workload), lambda stage: None)
    measurement.numerics |= numerics
    measurement._load()
    measurement._build(measurement.scale)
    return measurement


class Comparison:
    """Both ways of stepping one model; each gives the seconds of a block."""

    def __init__(self, cell: Cell) -> None:
        measurement = built(cell)
        batches = measurement._batches(0).first(RESIDENT_BATCHES)
        self.trainer: Any = measurement.trainer
        self.turns = cycle([self.trainer.place(batch) for batch in batches])
        self._bare = BARE[cell.backend]

    def harness(self, steps: int) -> Block:
        """The block as Measurement makes it."""
        turns, trainer = self.turns, self.trainer
        return time_block(steps, lambda: trainer.step(next(turns)), trainer.synchronise)

    def bare(self, steps: int) -> float:
        return self._bare(self.trainer, self.turns, steps)

    def pairs(self) -> tuple[list[float], list[float], int]:
        """Seconds of harness blocks and of bare blocks, paired; and the steps of a block."""
        for _ in range(WARMUP_PAIRS):
            block = self.harness(8)
            self.bare(8)
        steps = steps_per_block(block, Protocol(block_min_s=BLOCK_MIN_S))
        ours, theirs = in_turns(
            lambda: self.harness(steps).seconds, lambda: self.bare(steps), PAIRS
        )
        return ours, theirs, steps

    def added_s(self) -> float:
        """Seconds that the step path adds to a step: the fastest of several empty blocks."""
        model = self.trainer._model
        real, results = model.train_function, []

        def step_once(*arguments: Any) -> Any:
            results.append(real(*arguments))
            return results[0]

        model.train_function = step_once
        self.harness(1)
        model.train_function = lambda *arguments: results[0]
        ours = min(self.harness(EMPTY_STEPS).seconds for _ in range(EMPTY_BLOCKS))
        theirs = min(self.bare(EMPTY_STEPS) for _ in range(EMPTY_BLOCKS))
        return (ours - theirs) / EMPTY_STEPS


def figures(cell: Cell) -> dict[str, float]:
    """The ratio's median, spread and 95 % confidence interval (order statistics); added time."""
    comparison = Comparison(cell)
    ours, theirs, steps = comparison.pairs()
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    middle, half = len(ratios) / 2, 0.98 * math.sqrt(len(ratios))
    deciles = quantiles(ratios, n=10)
    added, step = comparison.added_s(), min(theirs) / steps
    return {
        "ratio_median": median(ratios),
        "ratio_p10": deciles[0],
        "ratio_p90": deciles[-1],
        "ratio_ci95_low": ratios[math.floor(middle - half)],
        "ratio_ci95_high": ratios[math.ceil(middle + half)],
        "pairs": len(ratios),
        "steps_per_block": steps,
        "step_s": step,
        "added_s": added,
        "added_share": added / step,
    }


def main() -> None:
    name, declared = sys.argv[1:]
    cell = Cell(declared, "smoke", "train", name, "float32", "functional", "cpu")
    print(json.dumps(figures(cell)))


if __name__ == "__main__":
    main()
