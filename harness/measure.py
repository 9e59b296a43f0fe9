"""Timing of steps in synchronised blocks. Knows no backend: it is given a step and a synchroniser.

Between two readings of the clock there is nothing but steps and the synchronisation that ends
them. Losses are never read inside a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from harness.clock import Clock, now
from harness.schema import Block, Protocol

Result = TypeVar("Result")


@dataclass(frozen=True)
class Steady:
    """Warm-up blocks with the outcome of the rule that ended them, then the timed blocks."""

    warmup: tuple[Block, ...]
    outcome: str
    blocks: tuple[Block, ...]


def time_block(
    steps: int,
    step: Callable[[], Result],
    synchronise: Callable[[Result], None],
    *,
    clock: Clock = now,
) -> Block:
    """Time `steps` steps whose last result is ready before the clock is read again.

    The caller has synchronised whatever ran before.
    """
    began = clock()
    for _ in range(steps - 1):
        step()
    synchronise(step())
    return Block(steps=steps, seconds=clock() - began)


def measure_steady(
    step: Callable[[], Result],
    synchronise: Callable[[Result], None],
    protocol: Protocol,
    *,
    clock: Clock = now,
) -> Steady:
    """Warm up until the step time is steady by rule, then time blocks within the budget.

    Rule: after `warmup_floor_blocks`, warm-up ends when the median step time of the last two
    blocks is within `warmup_tolerance` of that of the two before them; `warmup_ceiling_blocks`
    ends it in any case, and so does the budget. The outcome is `steady`, `ceiling` or `budget`.
    """
    synchronise(step())
    steps = 1
    warmup: list[Block] = []
    outcome = ""
    began = clock()
    while not outcome:
        block = time_block(steps, step, synchronise, clock=clock)
        warmup.append(block)
        steps = steps_per_block(block, protocol)
        outcome = _warmup_outcome(warmup, clock() - began, protocol)
    blocks: list[Block] = []
    began = clock()
    while len(blocks) < protocol.min_blocks or (
        clock() - began < protocol.steady_budget_s and len(blocks) < protocol.max_blocks
    ):
        blocks.append(time_block(steps, step, synchronise, clock=clock))
    return Steady(warmup=tuple(warmup), outcome=outcome, blocks=tuple(blocks))


def steps_per_block(block: Block, protocol: Protocol) -> int:
    """How many steps make a block of at least `block_min_s`, judged by an earlier block."""
    if block.seconds <= 0:
        return block.steps * 2
    return max(1, math.ceil(protocol.block_min_s * block.steps / block.seconds))


def _warmup_outcome(warmup: list[Block], elapsed: float, protocol: Protocol) -> str:
    if len(warmup) < protocol.warmup_floor_blocks:
        return ""
    if len(warmup) >= 4:
        times = [block.seconds / block.steps for block in warmup[-4:]]
        before, after = median(times[:2]), median(times[2:])
        if abs(after - before) <= protocol.warmup_tolerance * before:
            return "steady"
    if len(warmup) >= protocol.warmup_ceiling_blocks:
        return "ceiling"
    return "budget" if elapsed > 2 * protocol.steady_budget_s else ""
