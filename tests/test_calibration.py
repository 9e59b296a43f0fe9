"""The calibration finds what is planted in it, and keeps its parts in one record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.noise import Floor
from tests.benchmarks import calibration
from tests.benchmarks import record as book
from tests.benchmarks.calibration import Processes, alarms, between, foretold, halves
from tests.test_drift import made

RANDOM = np.random.default_rng(1)


def processes(count: int = 6, *, later: float = 1.0) -> list[Processes]:
    """Forty cells; the later half of each cell's processes takes so many times as long."""
    found = []
    for _ in range(40):
        times = 0.01 * np.exp(RANDOM.normal(0, 0.02, count))
        times[count // 2 :] *= later
        found.append(Processes("s", times.tolist()))
    return found


def test_halves_of_the_same_code_agree_and_intervals_hold_as_theory_says() -> None:
    """The median of as many processes has noise of its own, so 95 % becomes about 85."""
    found = halves(processes())
    assert found["comparisons"] == 40
    assert found["alarms"] <= 2
    resampled = found["resampled"]
    assert resampled["comparisons"] == calibration.RESAMPLED
    assert resampled["alarms"] <= 0.015 * resampled["comparisons"]
    assert 0.8 < resampled["covered"] / resampled["intervals"] < 0.95


def test_a_later_half_that_is_slower_is_told_by_the_order_of_time_alone() -> None:
    found = halves(processes(later=1.3))
    assert found["alarms"] >= 35
    assert found["resampled"]["alarms"] < 0.3 * found["resampled"]["comparisons"]


def test_sessions_that_drift_are_judged_by_what_the_others_show() -> None:
    """Each is as far from the next as any two: the drift of all but one foretells that one."""
    levels = np.exp(RANDOM.normal(0, 0.2, 8))
    cells = {f"cell{number}": made(tuple(map(figures, levels))) for number in range(20)}
    found = between(cells)
    assert found["comparisons"] == 20 * 28
    assert found["alarms"] > 0.7 * found["comparisons"]
    assert found["covered"] < 0.3 * found["intervals"]
    drifted = found["drifted"]
    assert drifted["comparisons"] == found["comparisons"]
    assert drifted["alarms"] <= 0.01 * drifted["comparisons"]
    assert drifted["covered"] > 0.9 * drifted["intervals"]
    assert found["speeds"][0] == pytest.approx(levels[0] / levels[1], rel=0.02)


def test_two_sessions_alone_foretell_no_third() -> None:
    found = between({"c": made((figures(1.0), figures(2.0)))})
    assert (found["comparisons"], found["alarms"], found["covered"]) == (1, 1, 0)
    assert found["drifted"]["comparisons"] == 0


def figures(level: float, noise: float = 0.02) -> tuple[float, ...]:
    return tuple(0.01 * level * np.exp(RANDOM.normal(0, noise, 6)))


def test_a_slowdown_of_the_size_that_is_foretold_is_found_as_often_as_said() -> None:
    cells = {f"cell{number}": made([figures(1.0) for _ in range(8)]) for number in range(40)}
    searches = [
        {"cell": f"c{n}", "pair_ratios": 1.05 * np.exp(logs)} for n, logs in enumerate(pairs())
    ]
    found = foretold(cells, searches)
    for command in ("compare", "ab"):
        told = found[command]
        assert told["attempts"] > 0.9 * calibration.RESAMPLED
        assert 0.85 < told["found"] / told["attempts"] < 0.95
    assert found["ab"]["size"] < found["compare"]["size"]


def test_an_hour_whose_processes_differ_more_finds_less_than_another_foretold() -> None:
    cells = {f"c{n}": made([figures(1.0, noise) for noise in (0.01, 0.05)]) for n in range(40)}
    found = foretold(cells, [])
    told = found["compare"]
    assert told["found"] < 0.8 * told["attempts"]
    assert found["ab"] == {"attempts": 0, "found": 0, "size": None}


def pairs() -> Iterator[NDArray[np.float64]]:
    return (RANDOM.normal(0, 0.01, 40) for _ in range(40))


def test_pairs_that_lean_to_one_side_alarm() -> None:
    """Which side is the baseline is drawn by nobody: a lean is a false alarm like any other."""
    leaning = np.exp(RANDOM.normal(0.05, 0.003, 10))
    quiet = np.exp(RANDOM.normal(0.0, 0.01, 10))
    few = Floor("", "", (1.0, 1.01), (1.0, 1.0))
    floors = {
        "leaning": Floor("", "", tuple(leaning), ()),
        "quiet": Floor("", "", tuple(quiet), ()),
        "few": few,
    }
    found = alarms(floors)
    assert (found["cells"], found["pairs"], found["real"], found["real_alarms"]) == (2, 20, 4, 2)
    assert found["resampled_alarms"] / found["resampled"] == pytest.approx(0.5, abs=0.05)
    with pytest.raises(SystemExit, match=r"^No cell has 5 pairs\."):
        alarms({"few": few})


def test_a_part_takes_the_place_of_its_own_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "RESULTS", tmp_path)
    monkeypatch.setenv("EPOCHMARK_MACHINE", "m")
    for cell, value in (("a", 1), ("b", 2), ("a", 3)):
        book.record("overhead", {"cell": cell, "value": value}, key="cell")
    book.record("alarms", {"value": 1})
    book.record("alarms", {"value": 2})
    found = json.loads((tmp_path / "calibration" / "m.json").read_text())
    assert [(part["cell"], part["value"]) for part in found["overhead"]] == [("b", 2), ("a", 3)]
    assert found["alarms"]["value"] == 2
    assert len(found["alarms"]["suite_commit"]) >= 7
