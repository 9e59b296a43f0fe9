"""Times the harness's step path against a loop written by hand, in one process.

Both step the same model with the same function of Keras on the same batches on the device, in
blocks that alternate. `python -m tests.benchmarks.overhead BACKEND WORKLOAD` prints the ratios.
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
from harness.schema import Protocol
from harness.stages import RESIDENT_BATCHES, Job, Measurement

PAIRS = 120
WARMUP_PAIRS = 3
BLOCK_MIN_S = 0.05

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
    measurement._build()
    return measurement


def ratios(cell: Cell) -> tuple[list[float], int]:
    """Harness time over bare time, pair by pair; and the steps of a block."""
    measurement = built(cell)
    trainer: Any = measurement.trainer
    batches = islice(measurement._batches(0), RESIDENT_BATCHES)
    turns = cycle([trainer.place(batch) for batch in batches])

    def harness(steps: int) -> float:
        # The step as Measurement makes it.
        block = time_block(steps, lambda: trainer.step(next(turns)), trainer.synchronise)
        return block.seconds

    def bare(steps: int) -> float:
        return BARE[cell.backend](trainer, turns, steps)

    for _ in range(WARMUP_PAIRS):
        block = time_block(8, lambda: trainer.step(next(turns)), trainer.synchronise)
        bare(8)
    steps = steps_per_block(block, Protocol(block_min_s=BLOCK_MIN_S))
    found = []
    for pair in range(PAIRS):
        # Who goes first alternates, so that drift favours neither.
        if pair % 2:
            reference = bare(steps)
            found.append(harness(steps) / reference)
        else:
            found.append(harness(steps) / bare(steps))
    return found, steps


def summary(found: list[float], steps: int) -> dict[str, float]:
    """The median, its spread, and its 95 % confidence interval from the order statistics."""
    ordered = sorted(found)
    half = 0.98 * math.sqrt(len(ordered))
    deciles = quantiles(ordered, n=10)
    return {
        "ratio_median": median(ordered),
        "ratio_p10": deciles[0],
        "ratio_p90": deciles[-1],
        "ratio_ci95_low": ordered[max(0, math.floor(len(ordered) / 2 - half))],
        "ratio_ci95_high": ordered[min(len(ordered) - 1, math.ceil(len(ordered) / 2 + half))],
        "pairs": len(ordered),
        "steps_per_block": steps,
    }


def main() -> None:
    name, declared = sys.argv[1:]
    cell = Cell(declared, "smoke", "train", name, "float32", "functional", "cpu")
    print(json.dumps(summary(*ratios(cell))))


if __name__ == "__main__":
    main()
