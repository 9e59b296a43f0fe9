"""The same flights with a long history each, put together batch by batch.

Packed beforehand, the sequences of all flights would fill 0.3 GB and repeat each flight some 48
times. Here a flight is stored once, in the order of its route's landings, where the history of any
flight is a stretch of neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.batches import Batches, Rows, shuffled
from harness.workload import Array, Batch
from workloads.lstm_eta import data

SOURCES = data.SOURCES
quality = data.quality


def prepare(raw: pd.DataFrame, sizes: Mapping[str, int]) -> dict[str, Array]:
    """Flights by route and landing; the rows of a sample from before November, and of one after.

    A flight's history ends before its row `known` and does not go beyond `first`.
    """
    by_landing, first, known, mean_so_far = data.known(raw, np.arange(len(raw)))
    row_of = np.argsort(by_landing)
    train, test = data.split(raw)
    train = row_of[data.sample(train, sizes, "train_examples")]
    test = row_of[data.sample(test, sizes, "test_examples")]
    told = data.told(raw)[by_landing].astype(np.float32)
    return {
        "sequence_length": np.array(_length(sizes), np.int32),
        "departure": raw["departure"].to_numpy(np.int32)[by_landing],
        "told": told,
        "static": data.static(raw, mean_so_far)[by_landing].astype(np.float32),
        "first": first[by_landing].astype(np.int32),
        "known": known[by_landing].astype(np.int32),
        "train_rows": train.astype(np.int32),
        "test_rows": test.astype(np.int32),
        "test_targets": told[test, 0],
    }


def _length(sizes: Mapping[str, int]) -> int:
    if sizes["sequence_length"] < 1:
        raise ValueError(f"sequence_length is {sizes['sequence_length']}, expected 1 or more")
    return sizes["sequence_length"]


def inputs(arrays: Mapping[str, Array], rows: Array) -> NDArray[np.float32]:
    """Packed inputs: (length, 6) flattened by row, oldest flight first, then 8 static features."""
    length = int(arrays["sequence_length"])
    earlier, present = data.last(arrays["first"][rows], arrays["known"][rows], length)
    flights = data.sequence(arrays["told"], arrays["departure"], rows, earlier, present)
    return data.packed(flights, arrays["static"][rows])


def batches(arrays: Mapping[str, Array], *, batch_size: int, seed: int, epoch: int) -> Batches:
    """Packed inputs (batch, length * 6 + 8) and standardised minutes (batch,)."""
    train = arrays["train_rows"]

    def make(number: int, places: Rows) -> Batch:
        rows = train[places]
        # What a flight tells later ones is first of all what is to be predicted for itself.
        return inputs(arrays, rows), arrays["told"][rows, 0]

    return shuffled(len(train), make, batch_size=batch_size, seed=seed, epoch=epoch)


def test_inputs(arrays: Mapping[str, Array], start: int, stop: int) -> Array:
    """Packed inputs of the held-out flights from `start` to before `stop`."""
    return inputs(arrays, arrays["test_rows"][start:stop])
