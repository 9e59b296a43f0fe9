"""The examples of `data`, twice as large: another data set of the same form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.workload import Array
from planted_workloads.tiny import data

SOURCES = data.SOURCES
batches = data.batches
test_inputs = data.test_inputs
quality = data.quality


def prepare(raw: Any, sizes: Mapping[str, int]) -> dict[str, Array]:
    return {name: 2 * array for name, array in data.arrays().items()}
