"""Data of `lstm_eta` and `recommender` at scale standard: put together batch by batch, no leaks.

On tiny files of the real formats, against slow code that builds one example at a time; and what is
declared, on the real data. No framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from harness import data
from harness.workload import Array, Scale
from tests.test_data import ratings, trips
from workloads.lstm_eta import WORKLOAD as LSTM_ETA
from workloads.lstm_eta import data as flights
from workloads.lstm_eta import history
from workloads.recommender import WORKLOAD as RECOMMENDER
from workloads.recommender import data as movies
from workloads.recommender import spread

Sizes = dict[str, int]
Arrays = Mapping[str, Array]

TRIPS: Sizes = {"train_examples": 100, "test_examples": 60, "sequence_length": 48}
TABLES: Sizes = {"negatives": 2, "users": 5_000, "items": 4_000}


# lstm_eta


def by_landing(raw: pd.DataFrame) -> NDArray[np.int64]:
    """Row numbers in the order in which the prepared arrays hold them."""
    landing = raw["departure"] + raw["air_time"] + flights.TAXI_MINUTES
    return np.lexsort((landing, raw["origin"] + raw["dest"]))


def slow_inputs(raw: Any, row: int, length: int) -> list[float]:
    """One flight's inputs, read off the table."""
    flight = raw.loc[row]
    route = raw[(raw["origin"] == flight["origin"]) & (raw["dest"] == flight["dest"])]
    landing = route["departure"] + route["air_time"] + flights.TAXI_MINUTES
    landed = route.assign(landing=landing)[landing < flight["departure"]]
    landed = landed.sort_values("landing", kind="stable")
    values = []
    for earlier in landed.tail(length).itertuples():
        minutes = (earlier.air_time - 149.04) / 93.01
        age = min(flight["departure"] - earlier.departure, 1440) / 1440
        values += [1.0, minutes, lateness(earlier.delay), age, *circle(earlier.local, 1440)]
    values = [0.0] * (6 * length - len(values)) + values
    mean = [0.0, 0.0]
    if len(landed):
        mean = [1.0, (landed["air_time"].mean() - 149.04) / 93.01]
    distance = (flight["distance"] - 1045.24) / 736.89
    clock = [*circle(flight["local"], 1440), *circle(flight["local"] // 1440, 7)]
    return [*values, distance, *mean, lateness(flight["delay"]), *clock]


def lateness(minutes: float) -> float:
    return float(min(max(minutes, -60), 180)) / 60


def circle(value: float, period: int) -> tuple[float, float]:
    angle = value % period * (2 * np.pi / period)
    return float(np.sin(angle)), float(np.cos(angle))


@pytest.mark.parametrize("length", [8, 48])
def test_a_batch_is_what_slow_code_reads_off_the_table(tmp_path: Path, length: int) -> None:
    raw = trips(tmp_path)
    arrays = history.prepare(raw, TRIPS | {"sequence_length": length})
    packed = history.inputs(arrays, np.arange(len(raw)))
    assert packed.dtype == np.float32
    expected = [slow_inputs(raw, row, length) for row in by_landing(raw)]
    # The workload rounds sines and cosines to six digits.
    np.testing.assert_allclose(packed, np.array(expected), rtol=0, atol=1e-6)
    lengths = packed[:, : 6 * length].reshape(-1, length, 6)[:, :, 0].sum(axis=1)
    assert {0, length} < set(lengths.astype(int))


def test_a_history_of_eight_is_what_smoke_packs_beforehand(tmp_path: Path) -> None:
    raw = trips(tmp_path)
    sizes = TRIPS | {"sequence_length": 8}
    one, other = history.prepare(raw, sizes), flights.prepare(raw, sizes)
    assert history.test_inputs(one, 0, 60).tolist() == other["test_inputs"].tolist()
    assert one["test_targets"].tolist() == other["test_targets"].tolist()
    batches = [
        module.batches(arrays, batch_size=20, seed=1, epoch=2)
        for module, arrays in ((history, one), (flights, other))
    ]
    for (inputs, targets), (packed, minutes) in zip(*batches, strict=True):
        assert inputs.tolist() == packed.tolist()
        assert targets.tolist() == minutes.tolist()


def test_a_batch_does_not_change_with_what_was_unknown_at_departure(tmp_path: Path) -> None:
    raw = trips(tmp_path)
    landing = raw["departure"] + raw["air_time"] + flights.TAXI_MINUTES
    before = history.prepare(raw, TRIPS)
    for row in range(0, len(raw), 7):
        unknown = landing >= raw["departure"][row]
        changed = raw.assign(air_time=raw["air_time"].where(~unknown, raw["air_time"] + 500))
        after = history.prepare(changed, TRIPS)
        one, other = (
            history.inputs(arrays, np.flatnonzero(by_landing(table) == row)).tolist()
            for arrays, table in ((before, raw), (after, changed))
        )
        assert one == other
        assert before["told"].tolist() != after["told"].tolist()


def test_a_batch_changes_with_what_was_known_at_departure(tmp_path: Path) -> None:
    raw = trips(tmp_path)
    last = by_landing(raw)[-1]
    landed = raw["departure"] + raw["air_time"] + flights.TAXI_MINUTES < raw["departure"][last]
    changed = raw.assign(air_time=raw["air_time"].where(~landed, raw["air_time"] + 1))
    one, other = (
        history.inputs(history.prepare(table, TRIPS), np.array([len(raw) - 1]))
        for table in (raw, changed)
    )
    assert by_landing(changed)[-1] == last
    assert one.tolist() != other.tolist()


def test_flights_are_split_by_time(tmp_path: Path) -> None:
    raw = trips(tmp_path)
    train, test = flights.split(raw)
    arrays = history.prepare(
        raw, {"train_examples": len(train), "test_examples": len(test), "sequence_length": 8}
    )
    order = by_landing(raw)
    assert sorted(order[arrays["train_rows"]]) == train.tolist()
    assert sorted(order[arrays["test_rows"]]) == test.tolist()


def test_an_epoch_has_every_flight_once_with_its_minutes(tmp_path: Path) -> None:
    raw = trips(tmp_path)
    arrays = history.prepare(raw, TRIPS)
    epochs = []
    for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0)):
        batches = list(history.batches(arrays, batch_size=10, seed=seed, epoch=epoch))
        assert len(batches) == 10
        assert {inputs.shape for inputs, _ in batches} == {(10, 48 * 6 + 8)}
        assert {(targets.shape, targets.dtype.name) for _, targets in batches} == {
            ((10,), "float32")
        }
        epochs.append(np.concatenate([targets for _, targets in batches]).tolist())
    minutes = raw["air_time"].to_numpy()[by_landing(raw)][arrays["train_rows"]]
    expected = (minutes - flights.TARGET_MEAN) / flights.TARGET_STD
    assert sorted(epochs[0]) == pytest.approx(sorted(expected), abs=1e-6)
    assert epochs[0] == epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[2]) == sorted(epochs[3])
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_test_inputs_are_parts_of_one_whole(tmp_path: Path) -> None:
    arrays = history.prepare(trips(tmp_path), TRIPS)
    whole = history.test_inputs(arrays, 0, 60)
    assert len(whole) == len(arrays["test_targets"]) == 60
    assert history.test_inputs(arrays, 25, 40).tolist() == whole[25:40].tolist()
    assert history.test_inputs(arrays, 50, 90).tolist() == whole[50:].tolist()


def test_sizes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    raw = trips(tmp_path)
    with pytest.raises(ValueError, match=r"^sequence_length is 0, expected 1 or more$"):
        history.prepare(raw, TRIPS | {"sequence_length": 0})
    with pytest.raises(ValueError, match=r"^test_examples is 9999, expected 1 to \d+, all"):
        history.prepare(raw, TRIPS | {"test_examples": 9999})


# recommender


@pytest.fixture
def tables(tmp_path: Path) -> tuple[pd.DataFrame, dict[str, Array]]:
    raw = ratings(tmp_path)
    return raw, spread.prepare(raw, TABLES)


Tables = tuple[pd.DataFrame, dict[str, Array]]


def test_every_user_and_film_has_a_row_of_its_own(tables: Tables) -> None:
    for name, count, size in (("user_rows", 943, 5_000), ("item_rows", 1682, 4_000)):
        rows = tables[1][name]
        assert rows.dtype == np.int32
        assert len(rows) == len(set(rows.tolist())) == count
        assert 0 <= rows.min() < 0.05 * size
        assert 0.95 * size < rows.max() < size
        assert (np.abs(np.diff(rows)) > 100).mean() > 0.9  # neighbours do not stay neighbours


def small(arrays: Arrays, pairs: Array) -> list[tuple[int, int]]:
    """The pairs in the ids of the file; fails for a row that nobody has."""
    users, items = (
        {row: number for number, row in enumerate(arrays[name].tolist())}
        for name in ("user_rows", "item_rows")
    )
    return [(users[user], items[item]) for user, item in pairs.tolist()]


def test_batches_are_those_of_the_small_tables_spread(tables: Tables) -> None:
    raw, arrays = tables
    original = movies.prepare(raw, TABLES)
    both = [
        module.batches(found, batch_size=16, seed=3, epoch=1)
        for module, found in ((spread, arrays), (movies, original))
    ]
    count = 0
    for (rows, targets), (pairs, expected) in zip(*both, strict=True):
        assert rows.shape == (16, 2)
        assert rows.dtype == np.int32
        assert small(arrays, rows) == [tuple(pair) for pair in pairs.tolist()]
        assert targets.tolist() == expected.tolist()
        count += 1
    assert count == len(both[0]) > 0


def test_negatives_were_never_rated_in_training(tables: Tables) -> None:
    raw, arrays = tables
    rated = set(zip(raw["user"], raw["item"], strict=True))
    held_out = set(small(arrays, spread.test_inputs(arrays, 0, 600)[::100]))
    observed: list[tuple[int, int]] = []
    negative: list[tuple[int, int]] = []
    for rows, targets in spread.batches(arrays, batch_size=1, seed=0, epoch=0):
        (observed if targets[0, 0] == 1 else negative).extend(small(arrays, rows))
    assert sorted(observed) == sorted(rated - held_out)
    assert len(negative) == 2 * len(observed)
    assert not set(negative) & (rated - held_out)


def test_held_out_films_are_ranked_among_unrated_ones(tables: Tables) -> None:
    raw, arrays = tables
    rated = set(zip(raw["user"], raw["item"], strict=True))
    groups = [
        small(arrays, spread.test_inputs(arrays, start, start + 100))
        for start in range(0, len(arrays["test_targets"]), 100)
    ]
    assert len(groups) == raw["user"].nunique()
    for user, group in enumerate(groups):
        assert {who for who, _ in group} == {user}
        assert len({film for _, film in group}) == 100
        assert group[0] in rated
        assert not rated & set(group[1:])
    assert len(spread.test_inputs(arrays, 550, 700)) == 50


def test_tables_too_small_for_the_data_are_refused(tmp_path: Path) -> None:
    for name, count in (("users", 943), ("items", 1682)):
        sentence = f"^{name} is {count - 1}, expected {count} or more, all that there are$"
        with pytest.raises(ValueError, match=sentence):
            spread.prepare(ratings(tmp_path), TABLES | {name: count - 1})


# What is declared


def lstm_multiply_adds(scale: Scale) -> dict[str, int]:
    """Multiply-adds of one trip, by what the other factor is: data, an own output, the rest."""
    a = scale.architecture
    inputs, found = a.sequence_features, {"kernels": 0, "states": 0}
    for units in a.units:
        found["kernels"] += a.sequence_length * 4 * units * inputs
        found["states"] += a.sequence_length * 4 * units * units
        inputs = units
    return found | {"dense": (inputs + a.static_features) * a.dense + a.dense}


@pytest.mark.parametrize("scale", LSTM_ETA.scales.values(), ids=LSTM_ETA.scales)
def test_declared_flops_of_the_lstm_are_two_per_multiply_add(scale: Scale) -> None:
    """No gradient of the sequence, nor of the states that a layer starts with."""
    a = scale.architecture
    forward = 2 * sum(lstm_multiply_adds(scale).values())
    sequence = 2 * a.sequence_length * 4 * a.units[0] * a.sequence_features
    starts = sum(2 * 4 * units * units for units in a.units)
    assert scale.forward_flops == forward
    assert scale.training_flops == 3 * forward - sequence - starts


@pytest.mark.parametrize("scale", LSTM_ETA.scales.values(), ids=LSTM_ETA.scales)
def test_declared_parameters_of_the_lstm(scale: Scale) -> None:
    a = scale.architecture
    inputs, count = a.sequence_features, 0
    for units in a.units:
        count += 4 * units * (inputs + units + 1)
        inputs = units
    count += (inputs + a.static_features + 1) * a.dense + a.dense + 1
    assert scale.parameters == count


def test_the_standard_lstm_reads_the_sequence_that_the_data_has() -> None:
    scale = LSTM_ETA.scales["standard"]
    a = scale.architecture
    assert a.sequence_length == scale.sizes["sequence_length"] == 48
    assert (a.sequence_features, a.static_features) == (
        flights.SEQUENCE_FEATURES,
        flights.STATIC_FEATURES,
    )
    assert scale.input_shape == (48 * a.sequence_features + a.static_features,)


@pytest.fixture(scope="module")
def real_flights() -> Mapping[str, Array]:
    return data.fetch(LSTM_ETA, "standard").arrays


@pytest.fixture(scope="module")
def real_ratings() -> Mapping[str, Array]:
    return data.fetch(RECOMMENDER, "standard").arrays


def test_the_declared_arrays_hold_all_flights(real_flights: Arrays) -> None:
    assert len(real_flights["departure"]) == 327_346
    train, test = set(real_flights["train_rows"]), set(real_flights["test_rows"])
    assert (len(train), len(test)) == (273_307, 53_991)
    assert not train & test
    assert len(history.batches(real_flights, batch_size=400, seed=0, epoch=0)) == 683


def test_the_declared_baseline_is_a_line_in_the_distance(real_flights: Arrays) -> None:
    """Least squares on all training flights; the distance is the first static feature."""
    train, distance = real_flights["train_rows"], real_flights["static"][:, 0].astype(np.float64)
    line = np.polyfit(distance[train], real_flights["told"][train, 0].astype(np.float64), 1)
    predicted = np.polyval(line, distance[real_flights["test_rows"]]).astype(np.float32)
    found = history.quality(real_flights, predicted[:, np.newaxis])["mae_minutes"]
    assert found == pytest.approx(LSTM_ETA.scales["standard"].baseline[1], abs=0.005)


def test_the_declared_ratings_touch_few_rows_all_over_the_tables(real_ratings: Arrays) -> None:
    inputs, _ = spread.batches(real_ratings, batch_size=100_000, seed=0, epoch=0)[0]
    users, items = (len(set(column)) for column in inputs.T.tolist())
    assert (users, items) == (943, 1682)
    assert inputs.max(axis=0).tolist() > [138_000, 26_500]
    sizes = RECOMMENDER.scales["standard"].sizes
    assert (inputs.max(axis=0) < [sizes["users"], sizes["items"]]).all()


def test_the_declared_baseline_ranks_by_popularity(real_ratings: Arrays) -> None:
    """A film's score is how often it was rated in training; ties count against the held-out one."""
    counts = np.bincount(real_ratings["train_inputs"][:, 1], minlength=movies.ITEMS)
    scores = counts[real_ratings["test_inputs"][:, 1]].astype(np.float32)
    outputs = np.stack([scores, np.zeros_like(scores)], axis=1)
    found = spread.quality(real_ratings, outputs)["hit_rate_at_10"]
    assert found == pytest.approx(RECOMMENDER.scales["standard"].baseline[1], abs=0.0005)
