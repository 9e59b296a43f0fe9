"""A machine's noise floor: how far pairs of the same code differ, cell by cell.

Kept in results/noise/<machine>.json, a cell's newest calibration in place of the older one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
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

    `pair_ratios` are of workers that ran in turns; `step_times_s` of every one of these workers,
    in the order of time. Both are raw, and the floors are computed from them.
    """

    as_of: str
    suite_commit: str
    pair_ratios: tuple[float, ...]
    step_times_s: tuple[float, ...]

    @property
    def in_turns(self) -> float:
        """The difference, as a share, that a further pair of workers in turns stays below."""
        count = len(self.pair_ratios)
        return _bound(self.pair_ratios, variances=1 + 1 / count) if count else math.inf

    @property
    def apart(self) -> float:
        """Of two workers, each alone and at any time, drift of the machine included."""
        return self.between(1)

    def between(self, workers: int, *drifts: Variance) -> float:
        """Of the means of so many workers each, at any time; with the drift of their sessions."""
        return _bound(self.step_times_s, *drifts, variances=2 / workers)

    @property
    def known(self) -> bool:
        """Whether enough pairs were measured for a floor to follow from them."""
        return math.isfinite(self.apart)


def floor_of(pairs: Sequence[Pair], *, as_of: str, suite_commit: str) -> Floor:
    """From A/A pairs; those that were mostly disturbed are left out."""
    kept = [pair for pair in pairs if pair.log_ratio is not None]
    times = [seconds_per_step(side) for pair in kept for side in (pair.baseline, pair.contender)]
    ratios = [math.exp(pair.log_ratio) for pair in kept if pair.log_ratio is not None]
    return Floor(as_of, suite_commit, tuple(ratios), tuple(times))


def _bound(values: Sequence[float], *others: Variance, variances: float) -> float:
    """What a difference of so many times the values' variance stays below, as a share."""
    count = len(values)
    if count < 2:
        return math.inf
    error = stdev(map(math.log, values)) * variances**0.5
    return Difference(0.0, error, count - 1).widened(*others).interval(1 - LEVEL)[1] - 1


def _floor(fields: Mapping[str, Any]) -> Floor:
    ratios, times = (tuple(map(float, fields[name])) for name in ("pair_ratios", "step_times_s"))
    if not all(0 < value < math.inf for value in (*ratios, *times)):
        raise ValueError("a ratio or time that is not positive")
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
