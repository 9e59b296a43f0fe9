"""Sixteen made-up examples: this workload measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data import Source
from harness.workload import Array, Batch


def arrays() -> dict[str, Array]:
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(16, 3)).astype(np.float32)
    targets = inputs.sum(axis=1, keepdims=True)
    return {
        "inputs": inputs[:8],
        "targets": targets[:8],
        "test_inputs": inputs[8:],
        "test_targets": targets[8:],
    }


SOURCES = (Source("made up", (), lambda folder: None),)


def prepare(raw: Any, sizes: Mapping[str, int]) -> dict[str, Array]:
    return arrays()


def batches(
    arrays: Mapping[str, Array], *, batch_size: int, seed: int, epoch: int
) -> Iterator[Batch]:
    for start in range(0, len(arrays["inputs"]), batch_size):
        chosen = slice(start, start + batch_size)
        yield arrays["inputs"][chosen], arrays["targets"][chosen]


def steps_per_epoch(arrays: Mapping[str, Array], *, batch_size: int) -> int:
    return len(arrays["inputs"]) // batch_size


def test_inputs(arrays: Mapping[str, Array], start: int, stop: int) -> Array:
    return arrays["test_inputs"][start:stop]


def quality(arrays: Mapping[str, Array], outputs: NDArray[np.float32]) -> dict[str, float]:
    return {"mean": float(outputs.mean())}
