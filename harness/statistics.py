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
from scipy import stats

ALPHA = 0.01
"""False alarms that a whole comparison may give when nothing differs, over all of its cells."""

POWER = 0.9
"""How often an effect of the smallest detectable size is found."""

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
        half = self._quantile(1 - alpha / 2) * self.error
        return math.exp(self.log - half), math.exp(self.log + half)

    def detectable(self, alpha: float) -> float:
        """The slowdown, as a share, that a test at `alpha` finds in `POWER` of the attempts."""
        # The noncentral t of Johnson and Welch (Biometrika 31, 1940): no equation to solve.
        bound = self._quantile(1 - alpha / 2)
        spread = math.sqrt(1 + bound**2 / (2 * self.freedom))
        return math.expm1((bound + float(stats.norm.ppf(POWER)) * spread) * self.error)

    def _quantile(self, share: float) -> float:
        return float(stats.t.ppf(share, self.freedom))


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
