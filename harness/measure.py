"""Timing of steps in synchronised blocks. Knows no backend: it is given a step and a synchroniser.

Between two readings of the clock there is nothing but steps and the synchronisation that ends
them. Losses are never read inside a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from harness.clock import Clock, now
from harness.errors import WorkerError
from harness.probes import Watch, beside, watched
from harness.schema import Block, Protocol

Result = TypeVar("Result")

LEVEL = 0.95
"""Of the interval whose width ends the timed blocks."""


@dataclass(frozen=True)
class WarmUp:
    """The blocks that were run, the outcome of the rule, and the steps of a block from now on."""

    blocks: tuple[Block, ...]
    outcome: str
    steps: int


@dataclass(frozen=True)
class Steady:
    """Warm-up, then the timed blocks with the outcome of the rule that ended them."""

    warmup: WarmUp
    blocks: tuple[Block, ...]
    outcome: str


def time_block(
    steps: int,
    step: Callable[[], Result],
    synchronise: Callable[[Result], None],
    *,
    clock: Clock = now,
    watch: Watch = watched,
) -> Block:
    """Time `steps` steps whose last result is ready before the clock is read again.

    The caller has synchronised whatever ran before. `watch` looks at the machine before the first
    and after the last reading of the clock. Raises WorkerError when the clock went back.
    """
    before = watch()
    began = clock()
    for _ in range(steps - 1):
        step()
    synchronise(step())
    seconds = clock() - began
    if seconds < 0:
        raise WorkerError("error", f"the clock went back by {-seconds:g} s over {_steps(steps)}")
    return beside(Block(steps=steps, seconds=seconds), before, watch())


def measure_steady(
    step: Callable[[], Result],
    synchronise: Callable[[Result], None],
    protocol: Protocol,
    *,
    clock: Clock = now,
    watch: Watch = watched,
    warmed: Callable[[WarmUp], None] = lambda warmup: None,
) -> Steady:
    """Warm up until the step time is steady by rule, then time blocks until they suffice.

    `warmed` is called between the two.
    """

    def timed(steps: int) -> Block:
        return time_block(steps, step, synchronise, clock=clock, watch=watch)

    synchronise(step())
    warmup = warm_up(timed, protocol, clock=clock)
    warmed(warmup)
    blocks, outcome = timed_blocks(timed, warmup.steps, protocol, clock=clock)
    return Steady(warmup, blocks, outcome)


def warm_up(timed: Callable[[int], Block], protocol: Protocol, *, clock: Clock = now) -> WarmUp:
    """Run blocks until the step time is steady by rule.

    Rule: after `warmup_floor_blocks`, warm-up ends when the median step time of the last two
    blocks is within `warmup_tolerance` of that of the two before them; `warmup_ceiling_blocks`
    ends it in any case, and so does twice the budget. The outcome is `steady`, `ceiling` or
    `budget`.
    """
    steps = 1
    blocks: list[Block] = []
    outcome = ""
    began = clock()
    while not outcome:
        block = timed(steps)
        blocks.append(block)
        steps = steps_per_block(block, protocol)
        outcome = _warmup_outcome(blocks, clock() - began, protocol)
    return WarmUp(tuple(blocks), outcome, steps)


def timed_blocks(
    timed: Callable[[int], Block], steps: int, protocol: Protocol, *, clock: Clock = now
) -> tuple[tuple[Block, ...], str]:
    """Time blocks until the median is known well enough, and which rule ended that.

    Rule: after `min_blocks`, `narrow` when the interval of the median of the undisturbed blocks is
    narrower than `interval_width` of it; `budget` when that is spent; `blocks` at `max_blocks`.
    """
    blocks: list[Block] = []
    outcome = ""
    began = clock()
    while not outcome:
        blocks.append(moved(timed(steps)))
        outcome = _timing_outcome(blocks, clock() - began, protocol)
    return tuple(blocks), outcome


def moved(block: Block) -> Block:
    """The block, if the clock moved in it: no figure follows from one of no seconds.

    Raises WorkerError.
    """
    if block.seconds == 0:
        raise WorkerError("error", f"the clock did not move over {_steps(block.steps)}")
    return block


def _steps(count: int) -> str:
    return f"{count} step{'s' if count != 1 else ''}"


def steps_per_block(block: Block, protocol: Protocol) -> int:
    """How many steps make a block of at least `block_min_s`, judged by an earlier block."""
    if block.seconds <= 0:
        return block.steps * 2
    return max(1, math.ceil(protocol.block_min_s * block.steps / block.seconds))


def median_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """Between which two of the values the median lies, whatever their distribution is.

    By order statistics: how many values lie below the median is binomial. None for fewer values
    than the level needs (six for 95 %).
    """
    count = len(values)
    outside, tail = 0, 0.5**count
    while 2 * tail <= 1 - level:
        outside += 1
        tail += math.comb(count, outside) * 0.5**count
    if not outside:
        return None
    ordered = sorted(values)
    return ordered[outside - 1], ordered[count - outside]


def _warmup_outcome(blocks: Sequence[Block], elapsed: float, protocol: Protocol) -> str:
    if len(blocks) < protocol.warmup_floor_blocks:
        return ""
    if len(blocks) >= 4:
        times = [block.seconds / block.steps for block in blocks[-4:]]
        before, after = median(times[:2]), median(times[2:])
        if abs(after - before) <= protocol.warmup_tolerance * before:
            return "steady"
    if len(blocks) >= protocol.warmup_ceiling_blocks:
        return "ceiling"
    return "budget" if elapsed > 2 * protocol.steady_budget_s else ""


def _timing_outcome(blocks: Sequence[Block], elapsed: float, protocol: Protocol) -> str:
    if len(blocks) < protocol.min_blocks:
        return ""
    times = [block.seconds / block.steps for block in blocks if not block.disturbed]
    ends = median_interval(times)
    if ends is not None and ends[1] - ends[0] < protocol.interval_width * median(times):
        return "narrow"
    if len(blocks) >= protocol.max_blocks:
        return "blocks"
    return "budget" if elapsed >= protocol.steady_budget_s else ""
