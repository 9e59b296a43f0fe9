"""Steps in the history: found, told with what changed, and reported as new once."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import special

from harness import cli, trend_command
from harness.errors import UsageError
from harness.noise import Floor
from harness.schema import Block
from harness.trend import CAUSES, SEGMENT, History, every_series, history
from tests.records import CELL, ENVIRONMENT, SAMPLES, make_run, write_session

METRIC = "step_time_s"
NIGHTS = 20


def nights(
    levels: Sequence[float], *, spread: float = 0.01, seed: int = 1, **columns: Sequence[Any]
) -> pd.DataFrame:
    """A session per night with a run whose step time is around the level of its night."""
    random = np.random.default_rng(seed)
    first = datetime(2026, 1, 1, tzinfo=UTC)
    values = np.array(levels) * np.exp(random.normal(0, spread, len(levels)))
    fields: dict[str, Any] = {
        "machine": "m",
        "cell": CELL,
        "workload": "recommender",
        "quality_metric": "HR@10",
        "higher_is_better": True,
        "batch_size": 32,
        "session": [f"s{night:03d}" for night in range(len(levels))],
        "started_at": [
            (first + timedelta(days=night)).strftime("%Y-%m-%dT%H:%M:%SZ")
            for night in range(len(levels))
        ],
        "status": "ok",
        "contended": False,
        "throttled": False,
        "simulated": False,
        "altered": False,
        "untimed": False,
        METRIC: values,
        **dict.fromkeys(CAUSES, "same"),
    }
    return pd.DataFrame(fields | columns)


def steps_of(frame: pd.DataFrame, **options: Any) -> History:
    return history(frame, metrics=[METRIC], **options)


SLOWER = [1.0] * 12 + [1.1] * 8


def test_a_step_is_found_where_it_is() -> None:
    (step,) = steps_of(nights(SLOWER)).steps
    assert (step.before, step.session) == ("s011", "s012")
    assert step.worse
    assert step.difference.ratio() == pytest.approx(1.1, abs=0.02)
    assert step.levels == pytest.approx((1.0, 1.1), abs=0.02)


def test_two_steps_are_two() -> None:
    found = steps_of(nights([1.0] * 12 + [1.2] * 12 + [1.05] * 12)).steps
    assert [(step.session, step.worse) for step in found] == [("s012", True), ("s024", False)]


def test_direction_comes_from_the_metric() -> None:
    frame = nights(SLOWER).rename(columns={METRIC: "throughput_examples_per_s"})
    (step,) = history(frame, metrics=["throughput_examples_per_s"]).steps
    assert not step.worse


def test_one_bad_night_is_no_step() -> None:
    levels = [1.0] * NIGHTS
    levels[10] = 1.5
    assert steps_of(nights(levels)).steps == ()


def test_a_step_below_the_least_magnitude_is_not_told() -> None:
    frame = nights([1.0] * 30 + [1.015] * 30, spread=0.002)
    assert steps_of(frame).steps == ()
    assert len(steps_of(frame, magnitude=0.01).steps) == 1


def floor(share: float, machine: str = "m") -> dict[tuple[str, str], Floor]:
    """Six pairs whose spread makes the means of two segments differ by less than that share."""
    half = math.log1p(share) / (special.stdtrit(5, 0.995) * math.sqrt(2 * 6 / 5 / SEGMENT))
    times = tuple(math.exp(half * sign) for sign in (1, 1, -1, -1) * 3)
    found = Floor("2026-11-23", "abc", (1.0,) * 6, times)
    assert found.between(SEGMENT) == pytest.approx(share)
    return {(machine, CELL): found}


def test_the_noise_floor_of_the_machine_is_the_least_magnitude() -> None:
    assert len(steps_of(nights(SLOWER), floors=floor(0.15, "another machine")).steps) == 1
    assert steps_of(nights(SLOWER), floors=floor(0.15)).steps == ()
    assert len(steps_of(nights(SLOWER), floors=floor(0.05)).steps) == 1


def test_a_floor_that_nothing_is_known_of_silences_no_alarm() -> None:
    empty = {("m", CELL): Floor("2026-11-23", "abc", (), ())}
    assert len(steps_of(nights(SLOWER), floors=empty).steps) == 1


def test_noise_alone_gives_few_alarms() -> None:
    """A hundred histories in which nothing happens: the rate is of all of them together."""
    frames = [
        nights([1.0] * 40, spread=0.05, seed=seed).assign(batch_size=seed) for seed in range(100)
    ]
    found = steps_of(pd.concat(frames))
    assert len(found.series) == 100
    assert found.steps == ()


def test_a_step_is_new_until_the_next_session() -> None:
    """As nights go by, the same regression is reported as new once and no more."""
    told = []
    for night in range(12, NIGHTS + 1):
        steps = steps_of(nights(SLOWER[:night])).steps
        told += [night for step in steps if step.new]
        assert len(steps) <= 1
    assert len(told) == 1
    assert 12 + 3 <= told[0] <= 12 + 6


@pytest.mark.parametrize("seed", [3, 4, 6, 7, 10, 11])
def test_a_small_step_that_comes_and_goes_is_told_once(seed: int) -> None:
    """A step of twice the spread is found on some nights and not on the next ones."""
    levels = [1.0] * 12 + [1.04] * 28
    told = 0
    for night in range(12, len(levels) + 1):
        steps = steps_of(nights(levels[:night], spread=0.02, seed=seed)).steps
        told += sum(step.new for step in steps)
    assert told <= 1


def test_a_cell_that_is_not_measured_any_more_has_no_new_step() -> None:
    """Nor has another machine: the newest session did not look at it."""
    (first,) = [night for night in range(12, NIGHTS) if _new(nights(SLOWER[:night]))]
    stopped = nights(SLOWER[:first])
    assert _new(stopped)
    for change in ({"cell": CELL.replace("jax", "torch")}, {"machine": "other"}):
        later = nights([1.0] * NIGHTS).assign(**change)
        assert not _new(pd.concat([stopped, later]))


def _new(frame: pd.DataFrame) -> bool:
    return any(step.new for step in steps_of(frame).steps)


def test_what_changed_at_the_step_is_named() -> None:
    keras = ["3.15.0"] * 12 + ["3.16.0"] * 8
    numerics = ["a" * 60] * 12 + ["b" * 60] * 8
    driver = ["570.1"] * 12 + ["580.2"] * 8
    frame = nights(SLOWER, keras=keras, numerics=numerics, driver=driver)
    (step,) = steps_of(frame).steps
    assert step.changed == ("keras 3.15.0 to 3.16.0", "driver 570.1 to 580.2", "numerics")


def test_short_histories_are_counted_and_not_judged() -> None:
    found = steps_of(nights([1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]))
    assert (found.steps, len(found.series), found.short) == ((), 1, 1)


def test_identical_values_are_no_division_by_zero() -> None:
    assert steps_of(nights([1.0] * NIGHTS, spread=0.0)).steps == ()
    (step,) = steps_of(nights(SLOWER, spread=0.0)).steps
    assert step.session == "s012"


def test_rows_that_are_not_ranked_are_no_history() -> None:
    """Failed, contended, edited and zero rows at another level make no step."""
    frame = nights([1.0] * NIGHTS)
    for change in (
        {"status": "numerics"},
        {"contended": True},
        {"throttled": True},
        {"altered": True},
        {METRIC: 0.0},
        {METRIC: -1.0},
    ):
        spoilt = nights([9.0] * NIGHTS, seed=2).assign(**change)
        spoilt["session"] += "x"
        assert steps_of(pd.concat([frame, spoilt])).steps == ()


def test_machines_and_batch_sizes_are_histories_of_their_own() -> None:
    frame = nights([1.0] * NIGHTS)
    other = nights([2.0] * NIGHTS, seed=2).assign(machine="other")
    batch = nights([3.0] * NIGHTS, seed=3).assign(batch_size=64)
    found = steps_of(pd.concat([frame, other, batch]))
    assert (len(found.series), found.steps) == (3, ())


def test_an_unknown_metric_is_named() -> None:
    with pytest.raises(UsageError, match=r"^Unknown metric 'speed'\. Known metrics: step_time_s, "):
        history(nights([1.0]), metrics=["speed"])


# The command, on results files


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Sixteen nights of two processes each; Keras is replaced before the ninth."""
    random = np.random.default_rng(3)
    for night in range(16):
        step = 0.01 if night < 8 else 0.013
        packages = ENVIRONMENT.packages | {"keras": "3.15.1" if night < 8 else "3.16.0"}
        runs = [
            make_run(
                run=f"r{night}-{replicate}",
                replicate=replicate,
                started_at=f"2026-10-{night + 1:02d}T01:00:0{replicate}Z",
                environment=replace(ENVIRONMENT, packages=packages),
                samples=replace(
                    SAMPLES, steady=(Block(10, float(10 * step * random.normal(1, 0.005))),) * 3
                ),
            )
            for replicate in range(2)
        ]
        write_session(
            tmp_path,
            *runs,
            session=f"night{night}",
            started_at=f"2026-10-{night + 1:02d}T01:00:00Z",
        )
    return tmp_path


def test_a_step_is_told_with_its_cause(results: Path) -> None:
    found, broken = trend_command.trend(results, metrics=[METRIC], only=(), say=print)
    assert broken == 0
    said = trend_command.text(found)
    assert said.startswith(f"worse: {CELL}\n    step_time_s ")
    assert "(+30 %) with session night8\n    changed there: keras 3.15.1 to 3.16.0" in said
    assert said.endswith("1 steps in 1 histories.")
    record = json.loads(trend_command.as_json(found))["steps"][0]
    assert (record["verdict"], record["session"]) == ("worse", "night8")
    assert trend_command.as_csv(found).splitlines()[1].endswith("keras 3.15.1 to 3.16.0")


@pytest.mark.parametrize(("last", "status"), [(7, 0), (11, 1), (15, 0)])
def test_the_alarm_rings_on_the_first_night_that_shows_it(
    results: Path, last: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted((results / "runs").glob("*/*"))
    for path in files[last + 1 :]:
        path.unlink()
    arguments = ["trend", "--metric", METRIC, "--fail-on", "regression"]
    monkeypatch.setattr("sys.argv", ["epochmark", *arguments, "--results", str(results)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == status


@pytest.mark.parametrize("higher", [True, False])
def test_a_quality_gets_worse_as_the_workload_has_it(higher: bool) -> None:
    """An accuracy that rises is better, an error in minutes that rises is worse."""
    frame = nights(SLOWER).assign(quality=lambda one: one[METRIC], higher_is_better=higher)
    (step,) = history(frame, metrics=["quality"]).steps
    assert step.worse != higher


def test_a_session_counts_as_a_whole_or_not_at_all() -> None:
    """A compile time below zero is as good as one above it: to leave it out would lean."""
    quiet = nights([1.0] * 20)
    below = quiet.assign(**{METRIC: -0.5})
    (series,) = every_series(pd.concat([quiet, quiet, below]), [METRIC])
    assert series.values == pytest.approx(quiet[METRIC].to_numpy())
    assert series.rows["low"].isna().all()
    assert list(every_series(pd.concat([quiet, below, below]), [METRIC])) == []


def test_what_is_wrong_with_a_file_is_told_where_it_is_the_exit_status(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sorted((results / "runs").glob("*/*"))[0]
    path.write_text(path.read_text() + "{}\n{}\n")
    sides = [str(one) for one in sorted((results / "runs").glob("*/*"))[:2]]
    for arguments in (["trend", "--metric", METRIC], ["compare", *sides]):
        monkeypatch.setattr("sys.argv", ["epochmark", *arguments, "--results", str(results)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 1
        assert path.name in capsys.readouterr().err
