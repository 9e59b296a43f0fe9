"""Interruptions: the formula against a simulation, and trainings that are really killed."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import accelerators, checkpoint, probes, runner, spot_command
from harness.cells import Cell, parse_cell
from harness.errors import ResultsError, UsageError, WorkerError
from harness.interruption import (
    BEFORE,
    STEPS,
    Interruption,
    Kill,
    interruption_of,
    kill_and_resume,
    read_interruptions,
    write_interruptions,
)
from harness.schema import Price
from harness.spot import HOUR_S, Outlook, best_interval_s, expected_s, outlook
from harness.stages import Segment
from harness.table import load_table
from tests.records import ACCELERATOR, CELL, PRICE, make_run, write_session

RESULTS = Path("results")


@pytest.fixture
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_CACHE", "cache")


# The formula


def simulated_s(
    random: np.random.Generator,
    segments: int,
    rate: float,
    segment_s: float,
    restart_s: float,
) -> float:
    """Time with interruptions drawn one by one; a restart may be interrupted too."""
    elapsed = 0.0
    for _ in range(segments):
        needed = segment_s
        while True:
            until = random.exponential(HOUR_S / rate)
            if until >= needed:
                elapsed += needed
                break
            elapsed += until
            needed = segment_s + restart_s
    return elapsed


@pytest.mark.parametrize("rate", [0.5, 6.0])
def test_the_expected_time_is_what_a_simulation_takes(rate: float) -> None:
    """Ten segments of 300 s, 20 s a checkpoint, 60 s a restart; 4,000 times.

    Daly's equation charges restarts to segments by a factor, so it is an approximation.
    """
    random = np.random.default_rng(5)
    times = [simulated_s(random, 10, rate, 320.0, 60.0) for _ in range(4000)]
    found = expected_s(3000.0, rate=rate, interval_s=300.0, checkpoint_s=20.0, restart_s=60.0)
    assert found == pytest.approx(float(np.mean(times)), rel=0.02)


def test_without_interruptions_only_checkpoints_are_added() -> None:
    found = expected_s(3000.0, rate=0.0, interval_s=300.0, checkpoint_s=30.0, restart_s=60.0)
    assert found == pytest.approx(3300.0)


def test_a_segment_that_is_never_finished() -> None:
    assert expected_s(1e9, rate=10.0, interval_s=1e9, checkpoint_s=1.0, restart_s=1.0) == math.inf


def test_the_best_interval_is_better_than_its_neighbours() -> None:
    best = best_interval_s(rate=0.2, checkpoint_s=10.0)
    assert best == pytest.approx(math.sqrt(2 * 10 * 5 * 3600))

    def at(interval_s: float) -> float:
        return expected_s(1e5, rate=0.2, interval_s=interval_s, checkpoint_s=10.0, restart_s=60.0)

    assert at(best) < min(at(best / 2), at(best * 2))
    assert best_interval_s(rate=0.0, checkpoint_s=10.0) == math.inf


def looked(rate: float, spot: float = 0.25) -> Outlook:
    return outlook(
        36_000.0,
        rate=rate,
        interval_s=600.0,
        checkpoint_s=10.0,
        restart_s=120.0,
        spot_usd_per_hour=spot,
        on_demand_usd_per_hour=1.0,
    )


def test_both_costs_by_hand_without_interruptions() -> None:
    """Ten hours on demand; 60 checkpoints of 10 s make ten minutes more on spot."""
    found = looked(0.0)
    assert float(found.on_demand_usd) == 10.0
    assert float(found.spot_usd) == pytest.approx(0.25 * (36_000 + 600) / 3600)


def test_spot_is_cheaper_up_to_the_bearable_rate() -> None:
    rate = looked(1.0).bearable_rate
    assert rate > 1.0
    assert looked(0.99 * rate).spot_usd < looked(rate).on_demand_usd < looked(1.01 * rate).spot_usd
    assert looked(1.0, spot=1.0).bearable_rate == 0.0


# Checkpoints


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int32)]
    size = checkpoint.write(path, 36, arrays)
    assert path.stat().st_size == size
    step, found = checkpoint.read(path)
    assert step == 36
    for one, other in zip(arrays, found, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    checkpoint.write(path, 1, [np.zeros(100)])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(WorkerError, match=r"the checkpoint state\.npz cannot be read"):
        checkpoint.read(path)


def test_an_interrupted_write_leaves_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.npz"
    checkpoint.write(path, 1, [np.zeros(100)])

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.checkpoint.os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(path, 2, [np.ones(100)])
    assert checkpoint.read(path)[0] == 1


# Real kills


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("backend", "style"),
    [("tensorflow", "functional"), ("jax", "custom_loop"), ("torch", "subclassing")],
)
def test_a_killed_training_goes_on_as_if_nothing_had_been(backend: str, style: str) -> None:
    cell = Cell("recommender", "smoke", "train", backend, "float32", style, "cpu")
    kill = kill_and_resume(cell)
    assert isinstance(kill, Kill), kill
    losses = [segment.loss for segment in kill.alone]
    assert losses[-1] < 0.9 * losses[0], "a loss that stays as it is would hide a fresh start"
    assert kill.after[0].first_step in (BEFORE * STEPS, (BEFORE + 1) * STEPS)
    assert kill.after[-1].first_step == kill.alone[-1].first_step
    assert kill.loss_deviation < 1e-4
    assert kill.restart_s > 0
    assert kill.checkpoint_s > 0


def segments(first: int, *losses: float) -> tuple[Segment, ...]:
    return tuple(
        Segment((first + place) * STEPS, STEPS, loss, 2.0, 3.1, 0.25, 1000)
        for place, loss in enumerate(losses)
    )


def test_a_kill_by_hand() -> None:
    """The first segment is done after 9 s. A quarter is its checkpoint, 1.1 s its eleven further
    steps, a tenth what a step takes without its compilation."""
    kill = Kill(
        alone=segments(0, 6, 5, 4, 3, 2, 1.0),
        before=segments(0, 6, 5, 4),
        after=segments(3, 3, 2, 1.1),
        until_first_s=9.0,
    )
    assert kill.restart_s == pytest.approx(9.0 - 0.25 - 1.1 - 0.1)
    assert kill.checkpoint_s == 0.25
    assert kill.loss_deviation == pytest.approx(0.1)


# The record and the command


@pytest.mark.usefixtures("_inside")
@pytest.mark.parametrize("changes", [{}, {"throttled": True}, {"other_processes": 1}])
def test_a_kill_on_a_hampered_accelerator_is_not_kept(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = (6, 5, 4, 3, 2, 1)
    kill = Kill(segments(0, *losses), segments(0, 6, 5, 4), segments(3, 3, 2, 1), 9.0)
    monkeypatch.setattr(runner, "prepare_data", lambda cells, say: None)
    monkeypatch.setattr(spot_command, "kill_and_resume", lambda cell, number: kill)
    monkeypatch.setattr(accelerators, "watched", lambda device: nullcontext(()))
    monkeypatch.setattr(accelerators, "seen", lambda watches: (replace(ACCELERATOR, **changes),))
    told: list[str] = []
    _, through = spot_command.interrupt(
        [parse_cell(CELL, ["recommender"])], 1, RESULTS, told.append
    )
    kept = read_interruptions(RESULTS, probes.machine_name())
    assert (through, list(kept)) == ((True, [CELL]) if not changes else (False, []))
    assert ("slowed down" in told[0]) is bool(changes)


def seen(**fields: tuple[float, ...]) -> Interruption:
    figures = {"checkpoint_s": (0.1,), "restart_s": (8.0,), "loss_deviation": (0.0,)}
    return Interruption("2026-11-23", "abc", 1000, **(figures | fields))


@pytest.mark.usefixtures("_inside")
def test_the_record_keeps_other_cells() -> None:
    write_interruptions(RESULTS, "m", {"a": seen()})
    write_interruptions(RESULTS, "m", {"b": seen(restart_s=(1.0, 2.0))})
    assert read_interruptions(RESULTS, "m") == {"a": seen(), "b": seen(restart_s=(1.0, 2.0))}
    assert read_interruptions(RESULTS, "other") == {}


@pytest.mark.usefixtures("_inside")
@pytest.mark.parametrize("text", ["{", "[]", '{"cells": {"a": {}}}'])
def test_a_damaged_record_is_told(text: str) -> None:
    path = write_interruptions(RESULTS, "m", {"a": seen()})
    path.write_text(text)
    with pytest.raises(ResultsError, match="is not a file of interruptions"):
        read_interruptions(RESULTS, "m")


@pytest.mark.usefixtures("_inside")
def test_a_negative_figure_in_the_record_is_told() -> None:
    write_interruptions(RESULTS, "m", {"a": seen(restart_s=(-1.0,))})
    with pytest.raises(ResultsError):
        read_interruptions(RESULTS, "m")


def book() -> dict[str, Price]:
    spot = replace(PRICE, id=PRICE.id.replace("on-demand", "spot"), kind="spot", usd_per_hour=0.1)
    return {price.id: price for price in (PRICE, spot)}


@pytest.mark.usefixtures("_inside")
def test_spot_against_on_demand_for_what_was_measured() -> None:
    other = CELL.replace("jax", "torch")
    write_session(RESULTS, make_run(run="a"), make_run(run="b", cell=other))
    frame = load_table(RESULTS).frame
    write_interruptions(RESULTS, "laptop", {CELL: seen()})
    found, notes = spot_command.outlooks(
        frame, book(), RESULTS, rate=0.05, interval_s=None, epochs=100
    )
    assert list(found) == [CELL]
    assert notes == ["Left out: 1 never interrupted (measure with `epochmark interrupt`)."]
    one = found[CELL]
    row = frame[frame["cell"] == CELL].iloc[0]
    work_s = row["startup_time_s"] + row["compile_time_s"] + 100 * row["epoch_time_s"]
    assert one.work_s == pytest.approx(work_s)
    assert float(one.on_demand_usd) == pytest.approx(work_s * PRICE.usd_per_hour / 3600)
    assert one.spot_usd < one.on_demand_usd
    text = spot_command.text(found, 0.05, notes)
    assert CELL in text
    assert "At 0.0500 interruptions an hour." in text
    assert spot_command.as_csv(found, 0.05, notes).count("\n") == 1
    assert '"bearable_rate_per_h"' in spot_command.as_json(found, 0.05, notes)


@pytest.mark.usefixtures("_inside")
def test_nothing_to_price_is_one_sentence() -> None:
    write_session(RESULTS, make_run())
    frame = load_table(RESULTS).frame
    with pytest.raises(UsageError, match=r"priced on spot capacity \(1 never interrupted"):
        spot_command.outlooks(frame, book(), RESULTS, rate=1, interval_s=None, epochs=None)
    write_interruptions(RESULTS, "laptop", {CELL: seen()})
    with pytest.raises(UsageError, match="1 without a price of both kinds"):
        spot_command.outlooks(frame, {}, RESULTS, rate=1, interval_s=None, epochs=None)


def test_figures_of_several_kills() -> None:
    kill = Kill(segments(0, 2, 1), segments(0, 2), segments(1, 1), 3.0)
    found = interruption_of([kill, kill], as_of="2026-11-23", suite_commit="abc")
    assert found.restart_s == pytest.approx((1.55, 1.55))
    assert found.checkpoint_bytes == 1000


def test_the_bearable_rate_does_not_depend_on_the_expected_one() -> None:
    """Where the interval is chosen, it is chosen for the rate that is looked at."""
    given = {"checkpoint_s": 10.0, "restart_s": 60.0}
    prices = {"spot_usd_per_hour": 1.0, "on_demand_usd_per_hour": 3.0}
    rates = [
        outlook(3600.0, rate=rate, interval_s=None, **given, **prices).bearable_rate
        for rate in (0.0, 0.05, 1.0)
    ]
    assert rates == pytest.approx([rates[0]] * 3)
    assert rates[0] > 20


@pytest.mark.usefixtures("_inside")
def test_a_cell_of_two_batch_sizes_has_two_rows() -> None:
    write_session(RESULTS, make_run(run="a"), make_run(run="b", batch_size=64))
    write_interruptions(RESULTS, "laptop", {CELL: seen()})
    found, _ = spot_command.outlooks(
        load_table(RESULTS).frame, book(), RESULTS, rate=0.05, interval_s=None, epochs=100
    )
    sizes = (make_run().batch_size, 64)
    assert set(found) == {f"{CELL} (batch {size}, laptop)" for size in sizes}
