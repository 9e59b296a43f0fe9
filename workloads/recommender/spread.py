"""MovieLens-100K, its ids spread over embedding tables of MovieLens-20M's size.

Ratings, times, split and ranking are those of `data`. A fixed draw gives each of its users and
films a row of its own anywhere in the large tables, so that lookups and updates touch scattered
rows. What stays small is how many different rows are ever touched: nobody has the others.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from harness.batches import Batches, Rows
from harness.workload import Array, Batch
from workloads.recommender import data

SOURCES = data.SOURCES
quality = data.quality


def prepare(raw: pd.DataFrame, sizes: Mapping[str, int]) -> dict[str, Array]:
    """The arrays of `data`, in its own small ids, and the table row of each of them."""
    return {
        **data.prepare(raw, sizes),
        "user_rows": _rows(sizes, "users", data.USERS),
        "item_rows": _rows(sizes, "items", data.ITEMS),
    }


def _rows(sizes: Mapping[str, int], table: str, count: int) -> data.Ids:
    """`count` different rows of the table, in no order."""
    if sizes[table] < count:
        raise ValueError(f"{table} is {sizes[table]}, expected {count} or more, all that there are")
    # RandomState's stream is frozen by numpy's policy, a Generator's is not: the digest is pinned.
    drawn = np.random.RandomState(data.SEED).permutation(sizes[table])
    return drawn[:count].astype(np.int32)


def batches(arrays: Mapping[str, Array], *, batch_size: int, seed: int, epoch: int) -> Batches:
    """Inputs (batch, 2) of user and item rows; targets (batch, 2) of observed and rating.

    Negatives are drawn among the films that exist, not among all rows of the table.
    """
    small = data.batches(arrays, batch_size=batch_size, seed=seed, epoch=epoch)

    def make(number: int, rows: Rows) -> Batch:
        pairs, targets = small.make(number, rows)
        return _spread(arrays, pairs), targets

    return Batches(small.rows, make)


def test_inputs(arrays: Mapping[str, Array], start: int, stop: int) -> Array:
    """Inputs of the held-out pairs from `start` to before `stop`."""
    return _spread(arrays, data.test_inputs(arrays, start, stop))


def _spread(arrays: Mapping[str, Array], pairs: data.Ids) -> data.Ids:
    """Table rows (N, 2) of pairs (N, 2) in small ids."""
    rows = [arrays["user_rows"][pairs[:, 0]], arrays["item_rows"][pairs[:, 1]]]
    return np.stack(rows, axis=1)
