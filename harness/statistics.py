"""Intervals and verdicts from one figure per process; reads no files and knows no metric.

The process is the unit of replication: blocks of one process share its memory layout and its
moment, so their spread says little about the next process. With the few processes that a benchmark
can afford, Student's t on logarithms keeps its error rates; a bootstrap of five processes does not
(a nominal 95 % interval covers about 83 %; `tests/test_statistics.py` shows both).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special  # scipy.stats takes a second to import

ALPHA = 0.01
"""False alarms that a whole comparison may give when nothing differs, over all of its cells."""

POWER = 0.9
"""How often an effect of the smallest detectable size is found."""

EFFECT = 4.0
"""Variance of the prior of a sequential test, in squared standard deviations of a pair: about the
effects that eight pairs or so can tell."""

LEVEL = 0.95
"""Of the intervals that describe a single row."""

ROUNDING = 1e-12
"""Logarithms that spread by less are of one and the same figure: the rest is rounding."""

Floats = NDArray[np.float64]


class Variance(NamedTuple):
    """An estimated variance of logarithms, with its degrees of freedom."""

    value: float
    freedom: float


@dataclass(frozen=True)
class Difference:
    """The mean of a logarithm of ratios, with its standard error and degrees of freedom."""

    log: float
    error: float
    freedom: float

    def ratio(self) -> float:
        return math.exp(self.log)

    def widened(self, *others: Variance) -> Difference:
        """With variances that its own error has nothing of."""
        parts = [Variance(self.error**2, self.freedom), *others]
        values, freedoms = zip(*parts, strict=True)
        return Difference(self.log, math.sqrt(sum(values)), _pooled_freedom(values, freedoms))

    def interval(self, alpha: float) -> tuple[float, float]:
        """The ratio's two-sided interval that misses it in a share of `alpha`."""
        half = self.bound(alpha) * self.error
        if half > 700:  # beyond what exp can hold
            return 0.0, math.inf
        return math.exp(self.log - half), math.exp(self.log + half)

    def bound(self, alpha: float) -> float:
        """Half of the interval, in standard errors."""
        return float(special.stdtrit(self.freedom, 1 - alpha / 2))

    def detectable(self, alpha: float) -> float:
        """The slowdown, as a share, that a test at `alpha` finds in `POWER` of the attempts.

        The error that it is told from is an estimate, as that of every such attempt will be:
        `POWER` is the share over both.
        """
        bound = self.bound(alpha)
        if bound == math.inf:
            return math.inf
        effect = _reached(bound, self.freedom) * self.error
        return math.expm1(effect) if effect < 700 else math.inf


class Sequential(Difference):
    """A mean of pairs that may be looked at after every pair, and the pairing ended at any look.

    Its interval misses the true ratio at any look at all in a share of `alpha` at most: it is what
    a Bayes factor below 1 / alpha leaves over, which is a martingale where the ratio is true
    (Ville's inequality). Of the t-test with a normal prior of variance EFFECT on the standardised
    effect and the right Haar prior on its scale, as in Rouder et al., Psychonomic Bulletin &
    Review 16 (2009), and Wang and Ramdas, Anytime-valid t-tests, arXiv:2310.03722.
    """

    def bound(self, alpha: float) -> float:
        """Half of the interval, in standard errors; infinite for the first pairs."""
        pairs = self.freedom + 1
        grown = 1 + pairs * EFFECT
        limit = (math.sqrt(grown) / alpha) ** (2 / pairs)
        if limit >= grown:
            return math.inf
        return math.sqrt(self.freedom * (limit - 1) / (1 - limit / grown))


def interval(
    values: Sequence[float], *, level: float = LEVEL, drift: Variance | None = None
) -> tuple[float, float] | None:
    """Where the typical process lies while the session runs, from one positive figure of each.

    With `drift`, the variance of the difference of two sessions: where the typical one of another
    session of as many processes lies.
    None for fewer than two processes, and where a figure is not positive.
    """
    if len(values) < 2 or not all(value > 0 for value in values):
        return None
    found = _mean(np.log(np.array(values, np.float64)))
    if drift:
        found = replace(found, error=math.sqrt(2) * found.error).widened(drift)
    return found.interval(1 - level)


def difference(baseline: Sequence[float], contender: Sequence[float]) -> Difference:
    """Contender to baseline by Welch's test; two or more positive figures on each side."""
    one, other = (np.log(np.array(side, np.float64)) for side in (baseline, contender))
    variances = [_spread(side) ** 2 / len(side) for side in (one, other)]
    freedom = _pooled_freedom(variances, [len(one) - 1, len(other) - 1])
    return Difference(float(other.mean() - one.mean()), math.sqrt(sum(variances)), freedom)


def paired_difference(baseline: Sequence[float], contender: Sequence[float]) -> Difference:
    """Contender to baseline where the figures at one place were measured side by side."""
    return _mean(np.log(np.array(contender, np.float64)) - np.log(np.array(baseline, np.float64)))


def sequential_difference(logs: Sequence[float]) -> Sequential:
    """From the logarithms of the pairs' ratios so far, at least two."""
    mean = _mean(np.array(logs, np.float64))
    return Sequential(mean.log, mean.error, mean.freedom)


Rounds = Sequence[tuple[Hashable, float]]
"""A cell's positive figures, each with the round of the machine's that it was measured in."""


def mean_difference(cells: Sequence[tuple[Rounds, Rounds]]) -> Difference | None:
    """The geometric mean over cells of contender to baseline; None where a side has one round.

    Cells of one round share what the machine did then, so the round is the unit: its figure is the
    mean over cells of how far each is from its own mean. In pairs where both sides have the same
    rounds. Cells that share no round know nothing of each other's.
    """
    log = sum(_level(other) - _level(one) for one, other in cells) / len(cells)
    parts = []
    for group in _connected(cells):
        found = _of_rounds(group)
        if found is None:
            return None
        parts.append(Variance((len(group) / len(cells) * found.error) ** 2, found.freedom))
    values, freedoms = zip(*parts, strict=True)
    return Difference(log, math.sqrt(sum(values)), _pooled_freedom(values, freedoms))


def _connected(cells: Sequence[tuple[Rounds, Rounds]]) -> list[list[tuple[Rounds, Rounds]]]:
    """The cells in groups that share rounds, directly or by others of the group."""
    groups: list[tuple[set[Hashable], list[tuple[Rounds, Rounds]]]] = []
    for cell in cells:
        rounds, members = {name for side in cell for name, _ in side}, [cell]
        for other in [other for other in groups if other[0] & rounds]:
            groups.remove(other)
            rounds |= other[0]
            members += other[1]
        groups.append((rounds, members))
    return [members for _, members in groups]


def _of_rounds(cells: Sequence[tuple[Rounds, Rounds]]) -> Difference | None:
    """The error of the mean over cells that share rounds."""
    one, other = (_by_round([cell[place] for cell in cells]) for place in (0, 1))
    if min(len(one), len(other)) < 2:
        return None
    if one.keys() == other.keys():
        return _mean(np.array([other[name] - one[name] for name in one]))
    sides = [_mean(np.array(list(side.values()))) for side in (one, other)]
    variances = [side.error**2 for side in sides]
    freedom = _pooled_freedom(variances, [side.freedom for side in sides])
    return Difference(0.0, math.sqrt(sum(variances)), freedom)


def _level(side: Rounds) -> float:
    return float(np.mean([math.log(value) for _, value in side]))


def _by_round(cells: Sequence[Rounds]) -> dict[Hashable, float]:
    """Of each round, how far its figures are from those of the other rounds, over the cells."""
    distances: dict[Hashable, list[float]] = {}
    for side in cells:
        level = _level(side)
        for name, value in side:
            distances.setdefault(name, []).append(math.log(value) - level)
    return {name: float(np.mean(found)) for name, found in distances.items()}


def _reached(bound: float, freedom: float) -> float:
    """The effect, in estimated standard errors, that gets past `bound` in `POWER` of attempts.

    Where an effect is k estimated errors and an attempt's own error is another estimate, k times
    the one less `bound` times the other is about normal with variance
    1 + (k^2 + bound^2) / (2 freedom): Johnson and Welch's noncentral t (Biometrika 31, 1940) with
    a term for the first estimate. Solved for k.
    """
    quantile = float(special.ndtri(POWER))
    lost = quantile**2 / (2 * freedom)
    if lost >= 1:
        return math.inf
    kept = 1 - lost
    return (bound + math.sqrt(bound**2 * (1 - kept**2) + kept * quantile**2)) / kept


def _spread(logs: Floats) -> float:
    found = float(logs.std(ddof=1))
    return found if found > ROUNDING else 0.0


def _mean(logs: Floats) -> Difference:
    error = _spread(logs) / math.sqrt(len(logs))
    return Difference(float(logs.mean()), error, len(logs) - 1)


def _pooled_freedom(variances: Sequence[float], freedoms: Sequence[float]) -> float:
    """Of a sum of independent means, by Welch and Satterthwaite; the least where none varies."""
    total = sum(variances)
    if total == 0:
        return float(min(freedoms))
    return total**2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
