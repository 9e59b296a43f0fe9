"""Two sides of one cell, measured in turns, until the difference is known or the budget is spent.

A pair is one worker of each side, alive at the same time; they run one block each, again and
again, while the other one waits. Whatever the machine does meanwhile then hits both alike. Their
ratio is one figure: the process is the unit, so the test counts pairs and not blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median

from harness import accelerators, statistics
from harness.cells import Cell
from harness.child import Ended, Installation, Worker
from harness.clock import Clock, now
from harness.measure import steps_per_block
from harness.metrics import MIN_UNDISTURBED, hampered
from harness.runner import BASE_SEED
from harness.schema import Block, Protocol, Report
from harness.stages import WARM_UP, Job
from harness.statistics import Sequential
from harness.units import differing

PROTOCOL = replace(Protocol(), block_min_s=0.05)
"""Short turns: what the machine does in one of them, it most often still does in the next."""

TURNS = 200
"""Blocks of each side in a pair: the ratio of two such blocks spreads by a tenth on a shared
machine, the median of so many by a hundredth. Slow steps have fewer, as TURNS_S allows."""

TURNS_S = 30.0
LEAST_TURNS = 20


@dataclass(frozen=True)
class Pair:
    """The blocks of two workers, in turns; those at one place were run one after the other.

    A `hampered` pair does not count: its accelerator was throttled, or others computed on it.
    """

    baseline: tuple[Block, ...]
    contender: tuple[Block, ...]
    reports: tuple[Report, Report] | None = None
    hampered: bool = False

    @property
    def log_ratio(self) -> float | None:
        """The median of the logarithms of the blocks' ratios, contender to baseline.

        Turns in which either block was disturbed are left out; None if too few are left.
        """
        if self.hampered:
            return None
        logs = [
            math.log((other.seconds * one.steps) / (one.seconds * other.steps))
            for one, other in zip(self.baseline, self.contender, strict=True)
            if not (one.disturbed or other.disturbed)
        ]
        return median(logs) if len(logs) >= MIN_UNDISTURBED else None


@dataclass(frozen=True)
class Failure:
    """A side that did not get as far as its turns, or did not last."""

    side: str
    ended: Ended


@dataclass(frozen=True)
class Outcome:
    """What is known of a cell so far, or in the end.

    `threshold` is the slowdown, as a share, that is no regression yet. `ended` says which rule
    ended the pairing: `decided`, `budget`, or `failed`; empty before.
    """

    cell: Cell
    threshold: float = 0.0
    pairs: tuple[Pair, ...] = ()
    seconds: float = 0.0
    ended: str = ""
    failure: Failure | None = None

    @property
    def logs(self) -> list[float]:
        """The pairs' figures, without pairs that were mostly disturbed."""
        return [log for log in (pair.log_ratio for pair in self.pairs) if log is not None]

    @property
    def difference(self) -> Sequential | None:
        """Of the pairs so far; None before two of them, or where they do not differ at all."""
        if len(self.logs) < 2:
            return None
        found = statistics.sequential_difference(self.logs)
        return found if found.error > 0 else None

    def verdict(self, alpha: float) -> str:
        """`slower`, `faster` or `no difference found`; else why there is none."""
        if self.failure is not None:
            status = self.failure.ended.status
            return f"no verdict: the {self.failure.side} ended as {status!r}"
        if self.difference is None:
            if len(self.logs) >= 2:
                return "no verdict: identical samples"
            kind = "undisturbed pairs" if len(self.logs) < len(self.pairs) else "pairs"
            return f"no verdict: too few {kind}"
        low, high = self.difference.interval(alpha)
        if low > 1.0:
            return "slower"
        return "faster" if high < 1.0 else "no difference found"

    def regressed(self, alpha: float) -> bool:
        """Whether the contender is surely slower by more than the threshold, or does not run."""
        if self.failure is not None:
            return self.failure.side == "contender"
        found = self.difference
        return found is not None and found.interval(alpha)[0] > 1 + self.threshold


def duel(
    cell: Cell,
    meet: Callable[[int], Pair | Failure],
    *,
    alpha: float,
    threshold: float,
    budget_s: float,
    listener: Callable[[Outcome], None] = lambda outcome: None,
    clock: Clock = now,
) -> Outcome:
    """Pair after pair, until the ratio is surely on one side of 1 + `threshold`.

    `meet` measures the pair of a number. The budget bounds the seconds: no pair is begun that
    would, by the longest so far, end after it; one pair is measured in any case.
    """
    outcome = Outcome(cell, threshold)
    began = clock()
    longest = 0.0
    while not outcome.ended:
        pair = meet(len(outcome.pairs))
        elapsed = clock() - began
        longest = max(longest, elapsed - outcome.seconds)
        outcome = replace(outcome, seconds=elapsed)
        if isinstance(pair, Failure):
            outcome = replace(outcome, failure=pair, ended="failed")
        else:
            outcome = replace(outcome, pairs=(*outcome.pairs, pair))
            if decided(outcome.difference, alpha, threshold):
                outcome = replace(outcome, ended="decided")
            elif elapsed + longest > budget_s:
                outcome = replace(outcome, ended="budget")
        listener(outcome)
    return outcome


def decided(difference: Sequential | None, alpha: float, threshold: float) -> bool:
    """Whether the interval lies wholly on one side of the largest slowdown that is tolerated."""
    if difference is None:
        return False
    low, high = difference.interval(alpha)
    return not low <= 1 + threshold <= high


def measure_pair(
    cell: Cell,
    baseline: Installation,
    contender: Installation,
    *,
    number: int,
    protocol: Protocol = PROTOCOL,
    turns: int = TURNS,
) -> Pair | Failure:
    """One worker of each side, with one seed; who goes first alternates from turn to turn.

    Which worker is started first alternates from pair to pair: on a machine of few processors the
    first one to start can stay the slower one by a hundredth as long as it lives.
    """
    job = Job(cell, BASE_SEED + number, protocol, turns=True)
    sides = [("baseline", baseline), ("contender", contender)]
    with ExitStack() as stack:
        watches = stack.enter_context(accelerators.watched(cell.device))
        workers = {
            name: stack.enter_context(Worker(job, side))
            for name, side in (sides if number % 2 == 0 else sides[::-1])
        }
        try:
            # Both start at once; nothing is timed before both wait for their first turn.
            for name, worker in workers.items():
                if not worker.ready():
                    raise _EndedError(name)
            found = _in_turns(workers, protocol, turns)
        except _EndedError as early:
            return Failure(early.side, workers[early.side].wait())
        ended = {name: worker.wait() for name, worker in workers.items()}
    for name, end in ended.items():
        if end.report is None or end.status != "ok":
            return Failure(name, end)
    one, other = (ended[name].report for name, _ in sides)
    assert one is not None
    assert other is not None
    marked = hampered(accelerators.seen(watches))
    return Pair(tuple(found["baseline"]), tuple(found["contender"]), (one, other), marked)


class _EndedError(Exception):
    """A worker ended before its last turn."""

    def __init__(self, side: str) -> None:
        super().__init__(side)
        self.side = side


def _in_turns(
    workers: Mapping[str, Worker], protocol: Protocol, turns: int
) -> dict[str, list[Block]]:
    """Warm both up, then let them run as many blocks, of as many steps each."""

    def turn(name: str, steps: int) -> Block:
        block = workers[name].turn(steps)
        if block is None:
            raise _EndedError(name)
        return block

    steps = max(steps_per_block(turn(name, WARM_UP), protocol) for name in workers)
    found: dict[str, list[Block]] = {name: [] for name in workers}
    names = list(workers)
    began = now()
    for place in range(turns):
        if place >= LEAST_TURNS and now() - began > TURNS_S:
            break
        for name in names if place % 2 == 0 else reversed(names):
            found[name].append(turn(name, steps))
    return found


def differences(outcome: Outcome) -> list[str]:
    """What differs between the sides' environments and numerics, as `name: one, other`."""
    reports = outcome.pairs[-1].reports if outcome.pairs else None
    if reports is None:
        return []
    return differing(*map(_facts, reports))


def _facts(report: Report) -> dict[str, str]:
    environment = report.environment
    data = {"data": report.data.digest[:16]} if report.data else {}
    return {
        "python": environment.python,
        "batch": str(report.batch_size),
        **environment.packages,
        **environment.variables,
        **report.numerics,
        **data,
    }
