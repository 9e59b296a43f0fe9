"""Intervals and tests keep the error rates that they state, on made samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.statistics import (
    ALPHA,
    EFFECT,
    POWER,
    Difference,
    difference,
    interval,
    mean_difference,
    paired_difference,
    sequential_difference,
)

ROUNDS = 1500
SPREAD = 0.03  # of processes' logarithms, as on a shared machine


def processes(random: np.random.Generator, count: int, *, ratio: float = 1.0) -> list[float]:
    """Step times of several processes around 10 ms."""
    found: list[float] = (0.01 * ratio * np.exp(random.normal(0, SPREAD, count))).tolist()
    return found


def share(hits: int) -> float:
    return hits / ROUNDS


def test_the_interval_of_a_row_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(ROUNDS):
        found = interval(processes(random, 5))
        assert found is not None
        hits += found[0] <= 0.01 <= found[1]
    assert share(hits) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("block_spread", [0.0, 0.03])
def test_a_hierarchical_bootstrap_of_five_processes_would_not(block_spread: float) -> None:
    """Why there is none here, even where blocks spread as much as processes do.

    Processes are drawn, then blocks of each. That misses more often than it says, where Student's t
    on the processes' figures, which their blocks' noise is a part of, does not.
    """
    random = np.random.default_rng(2)
    hits = {"bootstrap": 0, "t": 0}
    for _ in range(600):
        levels = random.normal(0, SPREAD, (5, 1))
        blocks = levels + random.normal(0, block_spread, (5, 12))
        chosen = random.integers(5, size=(400, 5))
        drawn = random.integers(12, size=(400, 5, 12))
        means = np.median(blocks[chosen[..., None], drawn], axis=2).mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        hits["bootstrap"] += low <= 0 <= high
        found = interval(np.exp(np.median(blocks, axis=1)).tolist())
        assert found is not None
        hits["t"] += found[0] <= 1.0 <= found[1]
    assert hits["bootstrap"] / 600 < 0.92
    assert hits["t"] / 600 == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize(
    ("test", "counts"),
    [
        (difference, (3, 3)),
        (difference, (5, 5)),
        (difference, (5, 12)),
        (paired_difference, (3, 3)),
        (paired_difference, (8, 8)),
    ],
)
def test_equal_sides_give_no_more_false_alarms_than_stated(
    test: Callable[..., Difference], counts: tuple[int, int]
) -> None:
    random = np.random.default_rng(3)
    alarms = 0
    for _ in range(ROUNDS):
        low, high = test(*(processes(random, count) for count in counts)).interval(ALPHA)
        alarms += not low <= 1.0 <= high
    # Three standard errors of a share of 1 % above it.
    assert share(alarms) <= ALPHA + 3 * math.sqrt(ALPHA / ROUNDS)


@pytest.mark.parametrize("count", [3, 5, 8])
def test_the_smallest_detectable_slowdown_is_found_as_often_as_it_says(count: int) -> None:
    """What one attempt prints, from its own estimate of the noise, the next ones find."""
    random = np.random.default_rng(4)
    found = 0
    for _ in range(ROUNDS):
        printed = difference(processes(random, count), processes(random, count)).detectable(ALPHA)
        sides = processes(random, count), processes(random, count, ratio=1 + printed)
        found += difference(*sides).interval(ALPHA)[0] > 1.0
    assert share(found) == pytest.approx(POWER, abs=0.03)


def test_pairs_take_out_what_moves_both_sides() -> None:
    random = np.random.default_rng(5)
    drift = np.exp(random.normal(0, 0.3, 10))
    noise = np.exp(random.normal(0, 0.001, 10))
    one, other = (0.01 * drift).tolist(), (0.0105 * drift * noise).tolist()
    low, high = paired_difference(one, other).interval(ALPHA)
    assert 1.045 < low < 1.05 < high < 1.055
    low, high = difference(one, other).interval(ALPHA)
    assert low < 1.0 < high


def test_welch_agrees_with_scipy() -> None:
    from scipy import stats

    random = np.random.default_rng(6)
    one, other = processes(random, 4), processes(random, 9, ratio=1.1)
    found = difference(one, other)
    expected = stats.ttest_ind(np.log(other), np.log(one), equal_var=False)
    low, high = expected.confidence_interval(0.99)
    assert found.interval(0.01) == pytest.approx((math.exp(low), math.exp(high)), rel=1e-9)
    assert found.freedom == pytest.approx(expected.df)


def test_the_mean_over_cells_is_geometric() -> None:
    one = [("a", 1.0), ("b", 1.1)]
    mean = mean_difference([(one, [("c", 2.0), ("d", 2.2)]), (one, [("c", 0.5), ("d", 0.55)])])
    assert mean is not None
    assert mean.ratio() == pytest.approx(1.0)
    assert mean_difference([(one, [("c", 2.0)])]) is None


@pytest.mark.parametrize("drift", [0.0, 0.05])
@pytest.mark.parametrize("same_rounds", [True, False])
def test_the_mean_over_cells_alarms_no_more_often_when_rounds_drift(
    drift: float, same_rounds: bool
) -> None:
    """Cells of one round share what the machine did: as many cells make it no surer."""
    random = np.random.default_rng(12)

    def cells() -> list[Sides]:
        moved = random.normal(0, drift, (2, 5))
        if same_rounds:
            moved[1] = moved[0]
        names = [f"{'' if same_rounds else side}{number}" for side in "ab" for number in range(5)]
        logs = [moved + random.normal(0, 0.02, (2, 5)) for _ in range(10)]
        return [sides(names[:5], names[5:], np.exp(one)) for one in logs]

    alarms_as_rarely_as_said(cells)


Sides = tuple[list[tuple[str, float]], list[tuple[str, float]]]
"""A cell's baseline and contender: figures with their rounds."""


def sides(one: list[str], other: list[str], figures: NDArray[np.float64]) -> Sides:
    baseline, contender = figures.tolist()
    return list(zip(one, baseline, strict=True)), list(zip(other, contender, strict=True))


def alarms_as_rarely_as_said(draw: Callable[[], list[Sides]]) -> None:
    """Of a thousand comparisons of cells of the same code."""
    alarms, rounds = 0, 1000
    for _ in range(rounds):
        found = mean_difference(draw())
        assert found is not None
        alarms += missed(found)
    assert alarms / rounds <= ALPHA + 3 * math.sqrt(ALPHA / rounds)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("count", [2, 5])
def test_the_mean_over_cells_of_different_sessions_alarms_as_rarely(
    paired: bool, count: int
) -> None:
    """Each cell has rounds of its own, and with them its own degrees of freedom."""
    random = np.random.default_rng(14)

    def drawn(cell: int) -> Sides:
        one, other = ([f"{cell} {s} {n}" for n in range(count)] for s in "ab")
        figures = np.exp(random.normal(0, 0.02, (2, count)))
        return sides(one, one if paired else other, figures)

    alarms_as_rarely_as_said(lambda: list(map(drawn, range(8))))


def test_identical_figures_do_not_differ_by_rounding() -> None:
    """The logarithms of equal figures can have a variance of 1e-32."""
    for value in np.random.default_rng(13).uniform(0.001, 10.0, 200):
        for count in (2, 3, 5, 6, 7, 10):
            same, other = [float(value)] * count, [float(value) * 1.001] * count
            assert difference(same, other).error == 0.0
            assert paired_difference(same, other).error == 0.0
            assert sequential_difference([math.log(1.001 * value)] * count).error == 0.0


@pytest.mark.parametrize("values", [[], [0.01], [0.01, 0.0], [0.01, -1.0], [0.01, math.nan]])
def test_too_few_or_impossible_figures_have_no_interval(values: list[float]) -> None:
    assert interval(values) is None


def test_identical_figures_have_an_interval_of_no_width() -> None:
    assert interval([0.01, 0.01, 0.01]) == pytest.approx((0.01, 0.01))
    same = difference([0.01, 0.01], [0.02, 0.02])
    assert same.error == 0.0
    assert same.ratio() == pytest.approx(2.0)


# Looking after every pair


def bayes_factor(logs: list[float]) -> float:
    """Of Rouder et al. 2009, equation for a normal prior, written out from the t statistic."""
    count = len(logs)
    error = float(np.std(logs, ddof=1)) / math.sqrt(count)
    t2 = (float(np.mean(logs)) / error) ** 2
    grown = 1 + count * EFFECT
    odds = (1 + t2 / (count - 1)) / (1 + t2 / ((count - 1) * grown))
    return math.pow(odds, count / 2) / math.sqrt(grown)


@pytest.mark.parametrize("count", [5, 8, 30])
def test_the_interval_ends_where_the_bayes_factor_is_one_in_alpha(count: int) -> None:
    logs = np.random.default_rng(count).normal(0.03, 0.02, count)
    found = sequential_difference(logs.tolist())
    for end in found.interval(ALPHA):
        assert bayes_factor((logs - math.log(end)).tolist()) == pytest.approx(1 / ALPHA)


def test_the_first_pairs_tell_nothing_yet() -> None:
    found = sequential_difference([0.5, 0.50001])
    assert found.interval(ALPHA) == (0.0, math.inf)
    assert found.detectable(ALPHA) == math.inf


def test_no_look_of_many_is_a_false_alarm_more_often_than_stated() -> None:
    """The same looks with a fixed test give false alarms several times as often."""
    random = np.random.default_rng(7)
    sequential = fixed = 0
    for _ in range(ROUNDS):
        logs = random.normal(0, SPREAD, 25).tolist()
        looks = range(2, len(logs) + 1)
        sequential += any(missed(sequential_difference(logs[:n])) for n in looks)
        fixed += any(missed(paired_difference([1.0] * n, np.exp(logs[:n]).tolist())) for n in looks)
    assert share(sequential) <= ALPHA
    assert share(fixed) > 3 * ALPHA


def missed(found: Difference) -> bool:
    low, high = found.interval(ALPHA)
    return not low <= 1.0 <= high


@pytest.mark.parametrize("count", [5, 12])
def test_the_smallest_detectable_slowdown_of_a_sequence_is_honest(count: int) -> None:
    """Of pairs with the slowdown that others printed, the last look alone finds as many."""
    random = np.random.default_rng(8)
    hits = 0
    for _ in range(ROUNDS):
        printed = sequential_difference(random.normal(0, SPREAD, count).tolist()).detectable(ALPHA)
        effect = math.log1p(printed)
        found = sequential_difference(random.normal(effect, SPREAD, count).tolist())
        hits += found.interval(ALPHA)[0] > 1.0
    assert share(hits) == pytest.approx(POWER, abs=0.04)
