"""A machine's noise floor: how far pairs of the same code differ, cell by cell.

Kept in results/noise/<machine>.json, a cell's newest calibration in place of the older one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, variance
from typing import TYPE_CHECKING, Any

from harness.cellbook import CellBook
from harness.metrics import seconds_per_step
from harness.statistics import Difference, Variance

if TYPE_CHECKING:  # what measures pairs is not needed to read what they showed
    from harness.ab import Pair

LEVEL = 0.99
"""So many of further pairs of the same code differ by less than the floor."""


@dataclass(frozen=True)
class Floor:
    """What pairs of the same code showed of one cell; a floor is infinite where too few did.

    `pair_ratios` are of workers that ran in turns; `step_times_s` of these workers, the two of a
    pair behind each other. Both are raw, and the floors are computed from them.
    """

    as_of: str
    suite_commit: str
    pair_ratios: tuple[float, ...]
    step_times_s: tuple[float, ...]

    @property
    def in_turns(self) -> float:
        """The difference, as a share, that a further pair of workers in turns stays below."""
        count = len(self.pair_ratios)
        if count < 2:
            return math.inf
        return _bound(_varied(list(map(math.log, self.pair_ratios)), 1 + 1 / count))

    @property
    def apart(self) -> float:
        """Of two workers, each alone and at any time, drift of the machine included."""
        return self.between(1)

    def between(self, workers: int, *drifts: Variance) -> float:
        """Of the means of so many workers each, at any time; with the drift of their sessions."""
        logs = list(map(math.log, self.step_times_s))
        pairs = list(zip(logs[::2], logs[1::2], strict=True))
        if len(pairs) < 2:
            return math.inf
        # The workers of a pair ran at one time, which they share: as many levels as pairs.
        levels = _varied([mean(pair) for pair in pairs], 2 / workers)
        inside = sum((one - other) ** 2 for one, other in pairs) / (4 * len(pairs))
        return _bound(levels, Variance(inside * 2 / workers, len(pairs)), *drifts)

    @property
    def known(self) -> bool:
        """Whether enough pairs were measured for a floor to follow from them."""
        return math.isfinite(self.apart) and math.isfinite(self.in_turns)


def floor_of(pairs: Sequence[Pair], *, as_of: str, suite_commit: str) -> Floor:
    """From A/A pairs; those that were mostly disturbed are left out."""
    kept = [pair for pair in pairs if pair.log_ratio is not None]
    times = [seconds_per_step(side) for pair in kept for side in (pair.baseline, pair.contender)]
    ratios = [math.exp(pair.log_ratio) for pair in kept if pair.log_ratio is not None]
    return Floor(as_of, suite_commit, tuple(ratios), tuple(times))


def _varied(logs: Sequence[float], times: float) -> Variance:
    """So many times the variance of the logarithms."""
    return Variance(variance(logs) * times, len(logs) - 1)


def _bound(first: Variance, *others: Variance) -> float:
    """What a difference with these variances stays below, as a share."""
    found = Difference(0.0, math.sqrt(first.value), first.freedom).widened(*others)
    return found.interval(1 - LEVEL)[1] - 1


def _floor(fields: Mapping[str, Any]) -> Floor:
    ratios, times = (tuple(map(float, fields[name])) for name in ("pair_ratios", "step_times_s"))
    if not all(0 < value < math.inf for value in (*ratios, *times)):
        raise ValueError("a ratio or time that is not positive")
    if len(times) != 2 * len(ratios):
        raise ValueError("not two step times of each pair")
    return Floor(str(fields["as_of"]), str(fields["suite_commit"]), ratios, times)


_BOOK = CellBook(
    "noise", "noise floors", "calibrate again with `epochmark doctor --calibrate`", _floor
)
read_floors = _BOOK.read
write_floors = _BOOK.write


def floors_of(results: Path, machines: Iterable[str]) -> dict[tuple[str, str], Floor]:
    """The floors of several machines, by machine and cell."""
    return {
        (machine, cell): floor
        for machine in machines
        for cell, floor in read_floors(results, machine).items()
    }
