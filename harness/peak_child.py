"""The process that measures one backend's matrix products, for `epochmark doctor`.

Started as `python -m harness.peak_child BACKEND LARGEST BUDGET_S` in a worker's environment; the
last line of its standard output is JSON, a list of figures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from harness.backends import backend
from harness.environment import cpu_count
from harness.measure import time_block
from harness.peak import Figure

PRODUCTS = {"float32": "float32", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}
"""For each precision, the type in which its matrix products are computed."""

SMALLEST = 256
REPETITIONS = 5


def main() -> None:
    name, largest, budget_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    # All three precisions have the same switches: TensorFloat-32 alone differs.
    backend(name).configure("float32", cpu_count())
    figures = [
        fastest(name, precision, largest=largest, budget_s=budget_s) for precision in PRODUCTS
    ]
    print(json.dumps([asdict(figure) for figure in figures]))


def fastest(name: str, precision: str, *, largest: int, budget_s: float) -> Figure:
    """The best of as many products as the budget of seconds allows, in the best of the sizes.

    Sizes double: a precision that the processor has no units for stops at a small one, since eight
    times the last size's time tells what the next one would take.
    """
    trials: list[tuple[float, int, Callable[[], Any]]] = []
    size, spent = min(SMALLEST, largest), 0.0
    while True:
        step = product(size, PRODUCTS[precision])
        wait(step())
        seconds = [time_block(1, step, wait).seconds for _ in range(REPETITIONS)]
        trials.append((min(seconds) / size**3, size, step))
        spent += sum(seconds)
        size *= 2
        if size > largest or spent + 8 * (REPETITIONS + 1) * min(seconds) > budget_s:
            break
    least, size, step = min(trials, key=lambda trial: trial[0])
    while spent < budget_s:
        block = time_block(1, step, wait)
        spent += block.seconds
        least = min(least, block.seconds / size**3)
    return Figure(name, precision, size, flops_per_s=2 / least)


def product(size: int, dtype: str) -> Callable[[], Any]:
    """A function that multiplies two square matrices of that side, which lie on the device."""
    from keras import ops

    random = np.random.default_rng(0)
    one, other = (
        ops.cast(ops.convert_to_tensor(random.random((size, size), dtype=np.float32)), dtype)
        for _ in range(2)
    )
    return lambda: ops.matmul(one, other)


def wait(result: Any) -> None:
    """Reads one element, for which the whole product has to be ready on every backend."""
    from keras import ops

    # A matrix of one element: Keras turns no scalar of TensorFlow into an array.
    ops.convert_to_numpy(result[:1, :1])


if __name__ == "__main__":
    main()
