"""Sixteen made-up examples: this workload measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.batches import Batches
from harness.data import Source
from harness.workload import Array


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


def batches(arrays: Mapping[str, Array], *, batch_size: int, seed: int, epoch: int) -> Batches:
    inputs, targets = arrays["inputs"], arrays["targets"]
    rows = np.arange(len(inputs)).reshape(-1, batch_size)
    return Batches(rows, lambda number, chosen: (inputs[chosen], targets[chosen]))


def test_inputs(arrays: Mapping[str, Array], start: int, stop: int) -> Array:
    return arrays["test_inputs"][start:stop]


def quality(arrays: Mapping[str, Array], outputs: NDArray[np.float32]) -> dict[str, float]:
    return {"mean": float(outputs.mean())}
