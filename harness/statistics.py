"""Intervals and verdicts from one figure per process; reads no files and knows no metric.

The process is the unit of replication: blocks of one process share its memory layout and its
moment, so their spread says little about the next process. With the few processes that a benchmark
can afford, Student's t on logarithms keeps its error rates; a bootstrap of five processes does not
(a nominal 95 % interval covers about 83 %; `tests/test_statistics.py` shows both).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """The mean of a logarithm of ratios, with its standard error and degrees of freedom."""

    log: float
    error: float
    freedom: float

    def ratio(self) -> float:
        return math.exp(self.log)

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
        """The slowdown, as a share, that a test at `alpha` finds in `POWER` of the attempts."""
        # The noncentral t of Johnson and Welch (Biometrika 31, 1940): no equation to solve.
        bound = self.bound(alpha)
        spread = math.sqrt(1 + bound**2 / (2 * self.freedom))
        effect = (bound + float(special.ndtri(POWER)) * spread) * self.error
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


def interval(values: Sequence[float], *, level: float = LEVEL) -> tuple[float, float] | None:
    """Where the typical process lies, from one positive figure per process.

    None for fewer than two processes, and where a figure is not positive.
    """
    if len(values) < 2 or not all(value > 0 for value in values):
        return None
    return _mean(np.log(np.array(values, np.float64))).interval(1 - level)


def difference(baseline: Sequence[float], contender: Sequence[float]) -> Difference:
    """Contender to baseline by Welch's test; two or more positive figures on each side."""
    one, other = (np.log(np.array(side, np.float64)) for side in (baseline, contender))
    variances = [float(side.var(ddof=1)) / len(side) for side in (one, other)]
    freedom = _pooled_freedom(variances, [len(one) - 1, len(other) - 1])
    return Difference(float(other.mean() - one.mean()), math.sqrt(sum(variances)), freedom)


def paired_difference(baseline: Sequence[float], contender: Sequence[float]) -> Difference:
    """Contender to baseline where the figures at one place were measured side by side."""
    return _mean(np.log(np.array(contender, np.float64)) - np.log(np.array(baseline, np.float64)))


def sequential_difference(logs: Sequence[float]) -> Sequential:
    """From the logarithms of the pairs' ratios so far, at least two."""
    mean = _mean(np.array(logs, np.float64))
    return Sequential(mean.log, mean.error, mean.freedom)


def mean_difference(parts: Sequence[Difference]) -> Difference:
    """The geometric mean over cells."""
    count = len(parts)
    variances = [part.error**2 for part in parts]
    freedom = _pooled_freedom(variances, [part.freedom for part in parts])
    log = sum(part.log for part in parts) / count
    return Difference(log, math.sqrt(sum(variances)) / count, freedom)


def _mean(logs: Floats) -> Difference:
    error = float(logs.std(ddof=1)) / math.sqrt(len(logs))
    return Difference(float(logs.mean()), error, len(logs) - 1)


def _pooled_freedom(variances: Sequence[float], freedoms: Sequence[float]) -> float:
    """Of a sum of independent means, by Welch and Satterthwaite; the least where none varies."""
    total = sum(variances)
    if total == 0:
        return float(min(freedoms))
    return total**2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
