"""MovieLens-20M (Harper & Konstan 2015): 138,493 people's 20,000,263 timed ratings of 26,744 films.

From GroupLens, for research: no passing on, and no commercial use, without permission.
Target: HR@10 0.635 with 999 negatives a user (MLPerf training v0.5, which raised the paper's 99
because with those NeuMF reaches 0.95): the sizes say how many.

Made for size: what a user rated is looked up in one sorted array, and negatives are drawn batch by
batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.batches import Batches, Rows, shuffled
from harness.data import Source
from harness.localdata import LocalFolder
from harness.workload import Array, Batch
from workloads.recommender.data import CUTOFF, NO_RATING, SEED

COLUMNS = {"userId": "int32", "movieId": "int32", "rating": "float32", "timestamp": "int64"}
# Ratings go from half a star to five, and are kept as 1 to 10 halves.
MOST_HALVES = 10
MOST_ITEMS = 2**16  # so that the items of 138 million held-out pairs fit in two bytes each
NEGATIVES = 1  # a stream of its own beside the shuffle's

Ints = NDArray[np.int64]

FOLDER = LocalFolder(
    "ml-20m",
    ("ratings.csv",),
    origin="grouplens.org, ml-20m",
    licence="research; no passing on, no commercial use without permission",
)


def decode(folder: Path) -> pd.DataFrame:
    """The ratings as the file has them."""
    path = folder / "ratings.csv"
    name = f"{folder.name}/{path.name}"
    wanted = ", ".join(COLUMNS)
    try:
        present = _header(path)
        missing = [column for column in COLUMNS if column not in present]
        if not missing:
            return pd.read_csv(path, usecols=list(COLUMNS), dtype=dict(COLUMNS))
    except ValueError as error:
        raise ValueError(f"{name} cannot be read, expected numbers under {wanted}") from error
    raise ValueError(f"{name} has no column {missing[0]!r}, expected {wanted}")


def _header(path: Path) -> list[str]:
    """The columns' names; none of an empty file."""
    try:
        return list(pd.read_csv(path, nrows=0).columns)
    except pd.errors.EmptyDataError:
        return []


SOURCES = (Source("MovieLens-20M in a local folder", (FOLDER,), lambda _: decode(FOLDER.path())),)


def prepare(raw: pd.DataFrame, sizes: Mapping[str, int]) -> dict[str, Array]:
    """Users and items numbered from 0 in the order of their ids; each user's last rating held out.

    Of several ratings at a user's last second, the last in one fixed shuffle of the items: ids are
    no chance, low ones are popular films. A user's training ratings are those from the user's
    offset to the next.
    Raises ValueError unless there are `users` and `items`.
    """
    user, item = (_numbered(raw, column, sizes) for column in ("userId", "movieId"))
    halves = _halves(raw["rating"].to_numpy(np.float64))
    users, items = sizes["users"], sizes["items"]
    shuffled_id = np.random.RandomState(SEED).permutation(items)[item]
    order = np.lexsort((shuffled_id, raw["timestamp"].to_numpy(), user))
    last = order[np.flatnonzero(np.diff(user[order], append=users))]
    train = np.delete(np.arange(len(user)), last)
    train = train[np.argsort(user[train] * items + item[train])]
    candidates = _candidates(user, item, last, sizes)
    targets = np.zeros(candidates.shape, np.uint8)
    targets[:, 0] = halves[last]
    counts = np.bincount(user[train], minlength=users)
    return {
        "items": np.array(items, np.int32),
        "negatives": np.array(_at_least(sizes, "negatives", 0), np.int32),
        "train_offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        "train_items": item[train].astype(np.uint16),
        "train_halves": halves[train],
        "test_items": candidates,
        "test_targets": targets.reshape(-1),
    }


def _numbered(raw: pd.DataFrame, column: str, sizes: Mapping[str, int]) -> Ints:
    kind = {"userId": "users", "movieId": "items"}[column]
    ids, numbers = np.unique(raw[column].to_numpy(), return_inverse=True)
    if len(ids) != sizes[kind]:
        where = f"{FOLDER.name}/ratings.csv"
        raise ValueError(f"{where} has {len(ids)} {kind}, expected {sizes[kind]}")
    if len(ids) > MOST_ITEMS and kind == "items":
        raise ValueError(f"items is {len(ids)}, expected at most {MOST_ITEMS}")
    return numbers.astype(np.int64)


def _halves(stars: NDArray[np.float64]) -> NDArray[np.uint8]:
    wrong = ~np.isin(stars, np.arange(1, MOST_HALVES + 1) / 2)
    if wrong.any():
        where = f"{FOLDER.name}/ratings.csv"
        raise ValueError(f"{where} has the rating {stars[wrong][0]:g}, expected 0.5 to 5 in halves")
    return (2 * stars).astype(np.uint8)


def _at_least(sizes: Mapping[str, int], key: str, least: int) -> int:
    if sizes[key] < least:
        raise ValueError(f"{key} is {sizes[key]}, expected {least} or more")
    return sizes[key]


def _candidates(user: Ints, item: Ints, last: Ints, sizes: Mapping[str, int]) -> Array:
    """(users, 1 + test_negatives): each held-out item, then items that the user never rated."""
    count = _at_least(sizes, "test_negatives", 1)
    rated = np.split(item[np.argsort(user, kind="stable")], np.cumsum(np.bincount(user))[:-1])
    # RandomState's stream is frozen by numpy's policy, a Generator's is not.
    random = np.random.RandomState(SEED)
    found = np.empty((sizes["users"], 1 + count), np.uint16)
    found[:, 0] = item[last]
    for group, own in zip(found, rated, strict=True):
        free = np.ones(sizes["items"], np.bool_)
        free[own] = False
        unrated = np.flatnonzero(free)
        if len(unrated) < count:
            raise ValueError(
                f"a user of {FOLDER.name}/ratings.csv left {len(unrated)} items unrated, "
                f"expected {count} or more"
            )
        group[1:] = random.permutation(unrated)[:count]
    return found


def batches(arrays: Mapping[str, Array], *, batch_size: int, seed: int, epoch: int) -> Batches:
    """Inputs (batch, 2) of user and item; targets (batch, 2) of observed (1 or 0) and rating.

    Every epoch has all training ratings, each with fresh films that its user did not rate there.
    """
    items, group = int(arrays["items"]), 1 + int(arrays["negatives"])
    user, item, halves = _observed(arrays)
    keys = user * np.int64(items) + item  # sorted, as the ratings are

    def make(number: int, rows: Rows) -> Batch:
        rating, place = np.divmod(rows, group)
        drawn = place > 0
        random = np.random.default_rng([seed, epoch, NEGATIVES, number])
        inputs = np.stack([user[rating], item[rating]], axis=1).astype(np.int32)
        inputs[drawn, 1] = unrated(inputs[drawn, 0], keys, items, random)
        targets = np.stack([~drawn, np.where(drawn, NO_RATING, scaled(halves[rating]))], axis=1)
        return inputs, targets.astype(np.float32)

    return shuffled(len(item) * group, make, batch_size=batch_size, seed=seed, epoch=epoch)


def _observed(arrays: Mapping[str, Array]) -> tuple[Array, Array, Array]:
    """User, item and half stars of each training rating."""
    counts = np.diff(arrays["train_offsets"])
    user = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return user, arrays["train_items"], arrays["train_halves"]


def unrated(users: Array, keys: Ints, items: int, random: np.random.Generator) -> Ints:
    """One uniformly drawn item for each user whose key, user * items + item, is not in `keys`."""
    drawn = random.integers(0, items, len(users))
    wrong = np.flatnonzero(contains(keys, users * np.int64(items) + drawn))
    while len(wrong):
        drawn[wrong] = random.integers(0, items, len(wrong))
        wrong = wrong[contains(keys, users[wrong] * np.int64(items) + drawn[wrong])]
    return drawn


def contains(keys: Ints, wanted: Ints) -> NDArray[np.bool_]:
    """Which of the wanted numbers are among the sorted keys."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found: NDArray[np.bool_] = keys[places] == wanted
    return found


def scaled(halves: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Half a star to five stars as 0 to 1."""
    return (halves.astype(np.float32) - 1) / np.float32(MOST_HALVES - 1)


def test_inputs(arrays: Mapping[str, Array], start: int, stop: int) -> Array:
    """Users and items of held-out pairs (stop - start, 2), user by user, the rated one first."""
    items = arrays["test_items"].reshape(-1)[start:stop].astype(np.int32)
    users = np.arange(start, start + len(items), dtype=np.int32) // arrays["test_items"].shape[1]
    return np.stack([users, items], axis=1)


def quality(arrays: Mapping[str, Array], outputs: NDArray[np.float32]) -> dict[str, float]:
    """Ranking by column 0 of (N, 2), and the error in stars of column 1 on the held-out ratings.

    Only a candidate with a lower score ranks below the positive: ties and NaN count against it.
    """
    group = arrays["test_items"].shape[1]
    scores = outputs[:, 0].reshape(-1, group)
    rank = group - 1 - (scores[:, 1:] < scores[:, :1]).sum(axis=1)
    gain = np.where(rank < CUTOFF, 1 / np.log2(rank + 2.0), 0.0)
    stars = arrays["test_targets"][::group] / 2
    # 4.5 stars lie between 0 and 1.
    error = 0.5 + 4.5 * outputs[::group, 1].astype(np.float64) - stars
    return {
        "hit_rate_at_10": float((rank < CUTOFF).mean()),
        "ndcg_at_10": float(gain.mean()),
        "rating_rmse": float(np.sqrt(np.square(error).mean())),
    }
