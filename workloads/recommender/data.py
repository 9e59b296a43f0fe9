"""MovieLens-100K (Harper & Konstan 2015): 943 people's 100,000 timed ratings of 1,682 films.

Leave-last-out evaluation after He et al. 2017 (arXiv:1708.05031): each user's last rating is held
out and ranked against 99 films that the user never rated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.batches import Batches, Rows, shuffled
from harness.data import Source
from harness.downloads import PypiPackage
from harness.workload import Array, Batch

USERS = 943
ITEMS = 1682
TEST_NEGATIVES = 99
CUTOFF = 10
NO_RATING = -1.0  # in the rating column where nobody rated: the loss masks it
SEED = 20261122

Ids = NDArray[np.int32]


def decode(folder: Path) -> pd.DataFrame:
    """Ratings with 0-based `user` and `item`, `rating` in stars and `time` in seconds."""
    table = pd.read_csv(folder / "ml-100k.inter", sep="\t")
    return pd.DataFrame(
        {
            "user": table["user_id:token"].astype(np.int32) - 1,
            "item": table["item_id:token"].astype(np.int32) - 1,
            "rating": table["rating:float"].astype(np.float32),
            "time": table["timestamp:float"].astype(np.int64),
        }
    )


SOURCES = (
    Source(
        "PyPI recbole 1.2.1",
        (
            PypiPackage(
                name="recbole",
                version="1.2.1",
                sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
                members=("recbole/dataset_example/ml-100k/ml-100k.inter",),
            ),
        ),
        decode,
    ),
)


def prepare(raw: pd.DataFrame, sizes: Mapping[str, int]) -> dict[str, Array]:
    """Holds out each user's last rating; of several at that second, the last in a fixed order.

    415 users have several ratings at their last second. That order is one shuffle of the item ids,
    not the ids themselves: low ids are popular films, and picking the highest id of a tie would
    lower popularity's HR@10 from 0.39 to 0.31, the lowest raise it to 0.47.
    """
    shuffled_id = np.random.RandomState(SEED).permutation(ITEMS)[raw["item"]]
    order = np.lexsort((shuffled_id, raw["time"], raw["user"]))
    ratings = raw.iloc[order].reset_index(drop=True)
    last = ~ratings.duplicated("user", keep="last")
    train, test = ratings[~last], ratings[last]
    return {
        "train_inputs": _pairs(train),
        "train_ratings": scaled(train["rating"].to_numpy(np.float32)),
        "negatives": np.array(_negatives(sizes), np.int32),
        "test_inputs": _candidates(_pairs(test), seen_matrix(_pairs(ratings))),
        "test_targets": _test_targets(test["rating"].to_numpy(np.float32)),
    }


def scaled(stars: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stars 1 to 5 as 0 to 1."""
    return (stars - np.float32(1)) / np.float32(4)


def seen_matrix(pairs: Ids) -> NDArray[np.bool_]:
    """True at (user, item) for every pair."""
    seen = np.zeros((USERS, ITEMS), np.bool_)
    seen[pairs[:, 0], pairs[:, 1]] = True
    return seen


def batches(arrays: Mapping[str, Array], *, batch_size: int, seed: int, epoch: int) -> Batches:
    """Inputs (batch, 2) of user and item; targets (batch, 2) of observed (1 or 0) and rating.

    Every epoch has all training ratings, each with fresh unrated films of the same user.
    """
    inputs, targets = _epoch(arrays, seed, epoch)

    def make(number: int, rows: Rows) -> Batch:
        return inputs[rows], targets[rows]

    return shuffled(len(inputs), make, batch_size=batch_size, seed=seed, epoch=epoch)


def test_inputs(arrays: Mapping[str, Array], start: int, stop: int) -> Array:
    """Inputs of the held-out examples from `start` to before `stop`."""
    return arrays["test_inputs"][start:stop]


def quality(arrays: Mapping[str, Array], outputs: NDArray[np.float32]) -> dict[str, float]:
    """Ranking by column 0 of (N, 2), and the error in stars of column 1 on the held-out ratings.

    Only a candidate with a lower score ranks below the positive: ties and NaN count against it.
    """
    group = 1 + TEST_NEGATIVES
    scores = outputs[:, 0].reshape(-1, group)
    rank = TEST_NEGATIVES - (scores[:, 1:] < scores[:, :1]).sum(axis=1)
    gain = np.where(rank < CUTOFF, 1 / np.log2(rank + 2.0), 0.0)
    # Every group's positive is its first; four stars lie between 0 and 1.
    error = 4 * (outputs[::group, 1] - arrays["test_targets"][::group, 1]).astype(np.float64)
    return {
        "hit_rate_at_10": float((rank < CUTOFF).mean()),
        "ndcg_at_10": float(gain.mean()),
        "rating_rmse": float(np.sqrt(np.square(error).mean())),
    }


def _negatives(sizes: Mapping[str, int]) -> int:
    if sizes["negatives"] < 0:
        raise ValueError(f"negatives is {sizes['negatives']}, expected 0 or more per rating")
    return sizes["negatives"]


def _pairs(table: pd.DataFrame) -> Ids:
    return table[["user", "item"]].to_numpy(np.int32)


def _candidates(positives: Ids, seen: NDArray[np.bool_]) -> Ids:
    """(users * 100, 2): each held-out pair, then 99 films the user never rated."""
    # RandomState's stream is frozen by numpy's policy, a Generator's is not: the digest is pinned.
    random = np.random.RandomState(SEED)
    groups = np.repeat(positives[:, np.newaxis], 1 + TEST_NEGATIVES, axis=1)
    for group in groups:
        unrated = np.flatnonzero(~seen[group[0, 0]])
        group[1:, 1] = random.permutation(unrated)[:TEST_NEGATIVES]
    return groups.reshape(-1, 2)


def _test_targets(stars: NDArray[np.float32]) -> NDArray[np.float32]:
    targets = np.zeros((len(stars), 1 + TEST_NEGATIVES, 2), np.float32)
    targets[:, :, 1] = NO_RATING
    targets[:, 0, 0] = 1
    targets[:, 0, 1] = scaled(stars)
    return targets.reshape(-1, 2)


def _epoch(arrays: Mapping[str, Array], seed: int, epoch: int) -> Batch:
    """All of an epoch's examples in no useful order: the ratings, then the negatives."""
    observed = arrays["train_inputs"]
    negative = np.repeat(observed, int(arrays["negatives"]), axis=0)
    # A stream of its own: `shuffled` draws from [seed, epoch].
    random = np.random.default_rng([seed, epoch, 1])
    negative[:, 1] = _unrated(negative[:, 0], seen_matrix(observed), random)
    targets = np.zeros((len(observed) + len(negative), 2), np.float32)
    targets[: len(observed), 0] = 1
    targets[: len(observed), 1] = arrays["train_ratings"]
    targets[len(observed) :, 1] = NO_RATING
    return np.concatenate([observed, negative]), targets


def _unrated(users: Ids, seen: NDArray[np.bool_], random: np.random.Generator) -> Ids:
    """One uniformly drawn unrated item for each user: draws again until none was rated."""
    items = random.integers(0, ITEMS, len(users), dtype=np.int32)
    wrong = np.flatnonzero(seen[users, items])
    while len(wrong):
        items[wrong] = random.integers(0, ITEMS, len(wrong), dtype=np.int32)
        wrong = wrong[seen[users[wrong], items[wrong]]]
    return items
