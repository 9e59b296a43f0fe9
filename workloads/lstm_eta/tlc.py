"""Yellow taxi trips of New York (NYC Taxi and Limousine Commission): how many minutes a trip takes.

The sequence is the last 48 trips between the same two zones that had ended before the pickup; the
last of the months is the test set. Public records, which the commission gives without warranty,
under the terms of use of nyc.gov. Target: the mean absolute error of a line in the distance,
fitted on the training trips, which `quality` gives beside the network's.

The distance is the taximeter's: it stands for the planned route's, which was known at the pickup.
Times are New York's own: a trip across the change to summer time counts an hour too long.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.batches import Batches, Rows, shuffled
from harness.data import Source, check_size
from harness.localdata import LocalFolder
from harness.workload import Array, Batch
from workloads.lstm_eta.data import last, packed

SEQUENCE_LENGTH = 48
SEQUENCE_FEATURES = 6  # present, minutes, distance, age, sine and cosine of the time of day
# Distance, had any trip ended and its means of minutes and distance over all of those, sine and
# cosine of time of day and of weekday.
STATIC_FEATURES = 8

COLUMNS = (
    "tpep_pickup_datetime",
    "tpep_dropoff_datetime",
    "PULocationID",
    "DOLocationID",
    "trip_distance",
)
# What counts as a trip: picked up in the file's month, longer than nothing and at most this long,
# from and to a zone on the map (264 is unknown, 265 outside the city).
LONGEST_S = 3 * 60 * 60
FARTHEST = 100 * 100  # hundredths of a mile
ZONES = 263

DAY_S = 24 * 60 * 60
EPOCH = np.datetime64("2009-01-01T00:00:00", "s")  # the first month that was published
SPLIT_SEED = 20261122

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

FOLDER = LocalFolder(
    "tlc",
    ("yellow_tripdata_*.parquet",),
    origin="the trip record page of the NYC Taxi and Limousine Commission",
    licence="public, nyc.gov's terms of use",
)


def decode(folder: Path) -> dict[str, Path]:
    """The months' files by name; `prepare` reads those it is told to."""
    return {path.name: path for path in folder.glob(FOLDER.layout[0])}


SOURCES = (
    Source("NYC TLC trip records in a local folder", (FOLDER,), lambda _: decode(FOLDER.path())),
)


def prepare(raw: Mapping[str, Path], sizes: Mapping[str, int]) -> dict[str, Array]:
    """One row per trip, sorted by its pair of zones and then by its end.

    `first_month` reads 201901, `months` follow each other, the last is the test set.
    `train_examples` and `test_examples` choose so many at random; without them all are used.
    A trip's history is the rows from `known` backwards, not beyond `first`.
    """
    months = _months(sizes)
    trips = _sorted(pd.concat([_trips(raw, month) for month in months], ignore_index=True))
    boundary = _seconds(months[-1])
    train = np.flatnonzero((trips["pickup"] + trips["seconds"]).to_numpy() <= boundary)
    test = np.flatnonzero(trips["pickup"].to_numpy() >= boundary)
    seconds, distance = (trips[name].to_numpy(np.int64) for name in ("seconds", "distance"))
    moments = (*_moments(seconds[train]), *_moments(distance[train]))
    test = _chosen(test, sizes, "test_examples")
    return {
        "pickup": trips["pickup"].to_numpy(np.int32),
        "seconds": trips["seconds"].to_numpy(np.int16),
        "distance": trips["distance"].to_numpy(np.int16),
        **_history(trips),
        "moments": np.array(moments),
        "line": np.array(_line(distance[train], seconds[train])),
        "train_rows": _chosen(train, sizes, "train_examples").astype(np.int32),
        "test_rows": test.astype(np.int32),
        "test_targets": ((seconds[test] - moments[0]) / moments[1]).astype(np.float32),
    }


def _months(sizes: Mapping[str, int]) -> list[np.datetime64]:
    if sizes["months"] < 2:
        raise ValueError(f"months is {sizes['months']}, expected 2 or more, the last one for tests")
    year, month = divmod(sizes["first_month"], 100)
    first = np.datetime64(f"{year}-{month:02}", "M")
    return [first + number for number in range(sizes["months"])]


def _trips(raw: Mapping[str, Path], month: np.datetime64) -> pd.DataFrame:
    """The month's trips: pair of zones, pickup in seconds since `EPOCH`, seconds, distance."""
    name = f"yellow_tripdata_{month}.parquet"
    if name not in raw:
        raise ValueError(f"{FOLDER.name} has no {name}, expected a file for each month")
    table = read(raw[name])
    try:
        pickup, end = (table[column].to_numpy("datetime64[s]") for column in COLUMNS[:2])
        origin, destination = (table[column].to_numpy(np.int64) for column in COLUMNS[2:4])
        distance = np.rint(table["trip_distance"].to_numpy(np.float64) * 100)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{FOLDER.name}/{name} has columns of another type, expected times under "
            f"{' and '.join(COLUMNS[:2])}, numbers under {', '.join(COLUMNS[2:])}"
        ) from error
    seconds = (end - pickup).astype(np.int64)
    valid = (
        (pickup >= month.astype("datetime64[s]"))
        & (pickup < (month + 1).astype("datetime64[s]"))
        & ((seconds > 0) & (seconds <= LONGEST_S))
        & ((distance > 0) & (distance <= FARTHEST))
        & ((origin >= 1) & (origin <= ZONES) & (destination >= 1) & (destination <= ZONES))
    )
    if not valid.any():
        raise ValueError(f"{FOLDER.name}/{name} holds no valid trip, expected those of its month")
    columns = {
        "pair": origin * (ZONES + 1) + destination,
        "pickup": (pickup - EPOCH).astype(np.int64),
        "seconds": seconds,
        "distance": distance,
    }
    return pd.DataFrame({key: column[valid].astype(np.int32) for key, column in columns.items()})


def read(path: Path) -> pd.DataFrame:
    """The columns that are used, rows with a gap in them left out."""
    from pyarrow import parquet  # only preparation needs it

    name = f"{path.parent.name}/{path.name}"
    try:
        with parquet.ParquetFile(path) as file:
            missing = set(COLUMNS) - set(file.schema_arrow.names)
            table: pd.DataFrame = file.read(columns=list(COLUMNS)).to_pandas()
    except Exception as error:  # a damaged file can fail in any layer of the reader
        raise ValueError(f"{name} cannot be read, expected a whole Parquet file") from error
    if missing:
        wanted = ", ".join(COLUMNS)
        raise ValueError(f"{name} has no column {min(missing)!r}, expected {wanted}")
    return table.dropna()


def _seconds(month: np.datetime64) -> int:
    return int((month.astype("datetime64[s]") - EPOCH).astype(np.int64))


def _sorted(trips: pd.DataFrame) -> pd.DataFrame:
    """By pair and end; trips that tie in every key are the same, so the files' order is nothing."""
    end = trips["pickup"] + trips["seconds"]
    order = np.lexsort((trips["distance"], trips["seconds"], end, trips["pair"]))
    return trips.iloc[order].reset_index(drop=True)


def _history(trips: pd.DataFrame) -> dict[str, Array]:
    """What was known of each trip's pair when it began.

    The rows from `first` to before `known` are the pair's trips that had ended before the pickup;
    then their means, 0 where there are none.
    """
    pair, pickup, seconds, distance = (
        trips[name].to_numpy(np.int64) for name in ("pair", "pickup", "seconds", "distance")
    )
    span = int((pickup + seconds).max()) + 1
    keys = pair * span + pickup + seconds
    first = np.searchsorted(pair, pair)
    known = np.searchsorted(keys, pair * span + pickup)
    return {
        "first": first.astype(np.int32),
        "known": known.astype(np.int32),
        "mean_seconds": _means(seconds, first, known),
        "mean_distance": _means(distance, first, known),
    }


def _means(values: Ints, first: Ints, known: Ints) -> NDArray[np.float32]:
    # Sums of whole numbers are exact in any order, so the digest holds on every machine.
    total = np.concatenate([[0], np.cumsum(values)])
    means: Floats = (total[known] - total[first]) / np.maximum(known - first, 1)
    return means.astype(np.float32)


def _moments(values: Ints) -> tuple[float, float]:
    """Mean and standard deviation, from exact sums; a deviation of 0 becomes 1."""
    count, total, square = len(values), int(values.sum()), int(values @ values)
    if not count:
        raise ValueError(
            f"no trip in {FOLDER.name} ends before the last month, expected some for training"
        )
    spread: float = (count * square - total * total) / (count * count)
    return total / count, spread**0.5 or 1.0


def _line(distance: Ints, seconds: Ints) -> tuple[float, float]:
    """Slope and intercept of the least squares line, from exact sums."""
    count, x, y = len(distance), int(distance.sum()), int(seconds.sum())
    spread = count * int(distance @ distance) - x * x
    slope = (count * int(distance @ seconds) - x * y) / spread if spread else 0.0
    return slope, (y - slope * x) / count


def _chosen(rows: Ints, sizes: Mapping[str, int], key: str) -> Ints:
    size = check_size({key: sizes.get(key, len(rows))}, key, len(rows))
    # RandomState's stream is frozen by numpy's policy, a Generator's is not.
    return np.sort(rows[np.random.RandomState(SPLIT_SEED).permutation(len(rows))[:size]])


def inputs(arrays: Mapping[str, Array], rows: Ints) -> NDArray[np.float32]:
    """Packed inputs: (48, 6) flattened by row, oldest trip first, then the static features."""
    earlier, present = last(arrays["first"][rows], arrays["known"][rows], SEQUENCE_LENGTH)
    sequence = _sequence(arrays, rows, earlier) * present[..., np.newaxis]
    return packed(sequence, _static(arrays, rows))


def _sequence(arrays: Mapping[str, Array], rows: Ints, earlier: Ints) -> Floats:
    """(N, 48, 6); the features of absent trips are those of a wrong row, for `inputs` to mask."""
    pickup = arrays["pickup"][earlier].astype(np.int64)
    age = arrays["pickup"][rows, np.newaxis] - pickup
    features = [
        np.ones(earlier.shape),
        _standard(arrays["seconds"][earlier], arrays["moments"][:2]),
        _standard(arrays["distance"][earlier], arrays["moments"][2:]),
        np.minimum(age, DAY_S) / DAY_S,
        *_circle(pickup, DAY_S),
    ]
    return np.stack(features, axis=-1)


def _static(arrays: Mapping[str, Array], rows: Ints) -> Floats:
    pickup = arrays["pickup"][rows].astype(np.int64)
    any_known = arrays["known"][rows] > arrays["first"][rows]
    features = [
        _standard(arrays["distance"][rows], arrays["moments"][2:]),
        any_known.astype(np.float64),
        _standard(arrays["mean_seconds"][rows], arrays["moments"][:2]) * any_known,
        _standard(arrays["mean_distance"][rows], arrays["moments"][2:]) * any_known,
        *_circle(pickup, DAY_S),
        *_circle(pickup // DAY_S, 7),
    ]
    return np.stack(features, axis=-1)


def _standard(values: Array, moments: Floats) -> Floats:
    mean, deviation = moments
    result: Floats = (values.astype(np.float64) - mean) / deviation
    return result


def _circle(values: Ints, period: int) -> tuple[Floats, Floats]:
    """Sine and cosine."""
    angle = (values % period) * (2 * np.pi / period)
    return np.sin(angle), np.cos(angle)


def batches(arrays: Mapping[str, Array], *, batch_size: int, seed: int, epoch: int) -> Batches:
    """Packed inputs (batch, 48 * 6 + 8) and standardised durations (batch,)."""
    rows = arrays["train_rows"]

    def make(number: int, places: Rows) -> Batch:
        chosen = rows[places]
        targets = _standard(arrays["seconds"][chosen], arrays["moments"][:2])
        return inputs(arrays, chosen), targets.astype(np.float32)

    return shuffled(len(rows), make, batch_size=batch_size, seed=seed, epoch=epoch)


def test_inputs(arrays: Mapping[str, Array], start: int, stop: int) -> Array:
    """Packed inputs of held-out trips (stop - start, 48 * 6 + 8)."""
    return inputs(arrays, arrays["test_rows"][start:stop])


def quality(arrays: Mapping[str, Array], outputs: NDArray[np.float32]) -> dict[str, float]:
    """Mean absolute errors in minutes: of the standardised outputs (N, 1), and of the line."""
    rows, (slope, intercept) = arrays["test_rows"], arrays["line"]
    seconds = arrays["seconds"][rows].astype(np.float64)
    mean, deviation = arrays["moments"][:2]
    predicted = outputs[:, 0].astype(np.float64) * deviation + mean
    line = slope * arrays["distance"][rows] + intercept
    return {
        "mae_minutes": float(np.abs(predicted - seconds).mean() / 60),
        "distance_mae_minutes": float(np.abs(line - seconds).mean() / 60),
    }
