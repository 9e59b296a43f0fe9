"""The measuring core: what stands between two readings of the clock, and when warm-up ends.

A fake device runs steps only when it is synchronised, as an accelerator does, and writes down what
happened in which order. All times are powers of two, so that they add up exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.errors import WorkerError
from harness.measure import (
    Steady,
    measure_steady,
    median_interval,
    steps_per_block,
    time_block,
    timed_blocks,
)
from harness.metrics import seconds_per_step
from harness.probes import Moment
from harness.schema import Block, Protocol

STEP_S = 2.0**-7
PROTOCOL = Protocol(
    block_min_s=2.0**-3,
    warmup_floor_blocks=3,
    warmup_ceiling_blocks=12,
    warmup_tolerance=0.05,
    min_blocks=5,
    max_blocks=30,
    interval_width=0.0,
    steady_budget_s=1.5,
)


class Device:
    """Steps queue up and take no time; synchronising takes the time of all that are queued."""

    def __init__(self, seconds_of: Callable[[int], float] = lambda number: STEP_S) -> None:
        self.seconds_of = seconds_of
        self.time = 0.0
        self.steps = 0
        self.queued: list[int] = []
        self.events: list[str] = []

    def clock(self) -> float:
        assert not self.queued, "the clock was read while steps were still running"
        self.events.append("clock")
        return self.time

    def step(self) -> int:
        self.events.append("step")
        self.steps += 1
        self.queued.append(self.steps)
        return self.steps

    def synchronise(self, result: int) -> None:
        assert result == self.steps, "not the last step's result was waited for"
        self.events.append("synchronise")
        self.time += sum(self.seconds_of(number) for number in self.queued)
        self.queued.clear()

    def measure(self, protocol: Protocol = PROTOCOL) -> Steady:
        return measure_steady(
            self.step, self.synchronise, protocol, clock=self.clock, watch=unwatched
        )

    def spans(self) -> list[list[str]]:
        """What happened before the first, between each two, and after the last clock reading."""
        found: list[list[str]] = [[]]
        for event in self.events:
            if event == "clock":
                found.append([])
            else:
                found[-1].append(event)
        return found


def unwatched() -> Moment | None:
    return None


def steps_of(blocks: tuple[Block, ...]) -> list[int]:
    return [block.steps for block in blocks]


# One block


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_block_is_steps_and_one_synchronisation_between_two_readings(steps: int) -> None:
    device = Device()

    def watch() -> Moment | None:
        device.events.append("watch")
        return None

    block = time_block(steps, device.step, device.synchronise, clock=device.clock, watch=watch)
    timed = ["clock", *["step"] * steps, "synchronise", "clock"]
    assert device.events == ["watch", *timed, "watch"], "nothing is looked up while time runs"
    assert block == Block(steps=steps, seconds=steps * STEP_S)


# The order of events


def test_only_steps_and_the_closing_synchronisation_are_timed() -> None:
    device = Device()
    steady = device.measure()
    before, *timed, after = device.spans()
    assert before == ["step", "synchronise"], "the first step ends before any clock is read"
    assert after == []
    timed = [span for span in timed if span]
    blocks = steady.warmup.blocks + steady.blocks
    assert timed == [["step"] * block.steps + ["synchronise"] for block in blocks]


def test_every_reading_follows_a_synchronisation_or_another_reading() -> None:
    device = Device()
    device.measure()
    pairs = set(zip(device.events, device.events[1:], strict=False))
    assert ("step", "clock") not in pairs
    assert ("synchronise", "step") not in pairs, "a block begins with a reading"
    assert ("clock", "synchronise") not in pairs


def test_a_block_holds_the_time_of_its_own_steps_and_no_others() -> None:
    """Every step takes another time, so a step counted in a wrong block would show."""
    device = Device(lambda number: number * 2.0**-10)
    steady = device.measure(replace(PROTOCOL, warmup_ceiling_blocks=4))
    number = 2  # the first step belongs to no block
    for block in steady.warmup.blocks + steady.blocks:
        own = range(number, number + block.steps)
        assert block.seconds == sum(own) * 2.0**-10
        number += block.steps
    assert number == device.steps + 1


# Warm-up


def test_warmup_is_kept_raw_and_apart_from_the_timed_blocks() -> None:
    """Two slow starts: the first step of all, and the first step of warm-up."""
    device = Device(lambda number: {1: 64.0, 2: 1.0}.get(number, STEP_S))
    steady = device.measure()
    assert steady.warmup.blocks[0] == Block(steps=1, seconds=1.0)
    assert all(block.seconds / block.steps == STEP_S for block in steady.warmup.blocks[1:])
    assert all(block.seconds / block.steps == STEP_S for block in steady.blocks)
    assert sum(steps_of(steady.warmup.blocks + steady.blocks)) == device.steps - 1


def test_equal_steps_are_steady_after_four_blocks() -> None:
    steady = Device().measure()
    assert (steady.warmup.outcome, len(steady.warmup.blocks)) == ("steady", 4)


@pytest.mark.parametrize("floor", [5, 9])
def test_warmup_lasts_at_least_its_floor(floor: int) -> None:
    steady = Device().measure(replace(PROTOCOL, warmup_floor_blocks=floor))
    assert (steady.warmup.outcome, len(steady.warmup.blocks)) == ("steady", floor)


def test_steps_that_never_settle_end_at_the_ceiling() -> None:
    device = Device(lambda number: 2.0**-number)
    steady = device.measure(replace(PROTOCOL, block_min_s=2.0**-30, warmup_ceiling_blocks=9))
    assert (steady.warmup.outcome, len(steady.warmup.blocks)) == ("ceiling", 9)
    assert len(steady.blocks) >= PROTOCOL.min_blocks, "and are still measured"


def test_slow_steps_end_warmup_by_the_budget() -> None:
    """Three blocks of 4 s are too few to judge and above twice the budget of 1.5 s."""
    steady = Device(lambda number: 4.0).measure()
    assert (steady.warmup.outcome, steps_of(steady.warmup.blocks)) == ("budget", [1, 1, 1])


@pytest.mark.parametrize(("later", "outcome"), [(1.04, "steady"), (1.06, "budget")])
def test_steady_means_medians_within_the_tolerance(later: float, outcome: str) -> None:
    """Of four blocks of one step, the last two are slower by 4 or by 6 percent."""
    device = Device(lambda number: 1.0 if number <= 3 else later)
    steady = device.measure(replace(PROTOCOL, steady_budget_s=2.0))
    assert (steady.warmup.outcome, len(steady.warmup.blocks)) == (outcome, 4)


def test_a_slow_start_is_forgotten_when_four_later_blocks_agree() -> None:
    device = Device(lambda number: 0.5 if number <= 3 else STEP_S)
    steady = device.measure()
    assert steady.warmup.outcome == "steady"
    times = [block.seconds / block.steps for block in steady.warmup.blocks]
    assert times == [0.5, 0.5, *[STEP_S] * 4]


# The length and number of blocks


def test_a_block_is_as_long_as_the_least_block_time() -> None:
    steady = Device().measure()
    assert steps_of(steady.warmup.blocks) == [1, 16, 16, 16]
    assert set(steps_of(steady.blocks)) == {16}
    assert all(block.seconds >= PROTOCOL.block_min_s for block in steady.blocks)


def test_the_length_follows_steps_that_become_faster() -> None:
    """0.5 s a step at first, then 2^-7 s: blocks grow as soon as that is seen."""
    device = Device(lambda number: 0.5 if number <= 2 else STEP_S)
    assert steps_of(device.measure().warmup.blocks)[:3] == [1, 1, 16]


@pytest.mark.parametrize(
    ("block", "steps"),
    [
        (Block(1, 2.0**-7), 16),
        (Block(16, 2.0**-3), 16),
        (Block(16, 2.0**-4), 32),
        (Block(3, 2.0**-3 * 0.9), 4),
        (Block(1, 10.0), 1),
        (Block(50, 1000.0), 1),
        (Block(8, 0.0), 16),
    ],
)
def test_steps_per_block(block: Block, steps: int) -> None:
    assert steps_per_block(block, PROTOCOL) == steps


def test_timed_blocks_end_with_the_budget() -> None:
    """1.5 s in blocks of an eighth of a second."""
    steady = Device().measure()
    assert (len(steady.blocks), steady.outcome) == (12, "budget")


def test_timed_blocks_are_at_least_the_least_number_however_slow() -> None:
    steady = Device(lambda number: 4.0).measure()
    assert (len(steady.blocks), steady.outcome) == (PROTOCOL.min_blocks, "budget")


def test_timed_blocks_are_at_most_the_largest_number_however_fast() -> None:
    steady = Device().measure(replace(PROTOCOL, max_blocks=7))
    assert (len(steady.blocks), steady.outcome) == (7, "blocks")


# When the median is known well enough


def ended_after(times: list[float], protocol: Protocol) -> tuple[int, str]:
    """How many of these blocks of one step are timed, and the outcome; the last ones repeat."""
    left = iter(times + [times[-1]] * 100)
    clock = Device().clock
    blocks, outcome = timed_blocks(lambda steps: Block(steps, next(left)), 1, protocol, clock=clock)
    return len(blocks), outcome


NARROW = replace(PROTOCOL, min_blocks=6, interval_width=0.02)


@pytest.mark.parametrize(
    ("times", "blocks"),
    [
        ([1.0] * 6, 6),
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.019], 6),
        # Six blocks leave out none, so the first is an end of the interval; of nine, it leaves
        # out one on either side.
        ([1.021, 1.0, 1.0, 1.0, 1.0, 1.0], 9),
        ([1.1, 1.2, 0.9, 1.0, 1.0, 1.0], 12),
    ],
)
def test_timed_blocks_end_when_the_interval_of_their_median_is_narrow(
    times: list[float], blocks: int
) -> None:
    assert ended_after(times, NARROW) == (blocks, "narrow")


def test_an_interval_that_stays_wide_ends_with_the_last_block() -> None:
    assert ended_after([1.0, 1.1] * 30, NARROW) == (30, "blocks")


def test_disturbed_blocks_do_not_narrow_the_interval() -> None:
    """Every other block is disturbed: twelve are timed for six that count."""
    counted = iter([False, True] * 30)
    blocks, outcome = timed_blocks(
        lambda steps: Block(steps, 1.0, disturbed=next(counted)), 1, NARROW, clock=Device().clock
    )
    assert ([block.disturbed for block in blocks].count(False), outcome) == (6, "narrow")


@pytest.mark.parametrize(
    ("count", "ends"),
    [(6, (0, 5)), (8, (0, 7)), (9, (1, 7)), (12, (2, 9)), (15, (3, 11)), (30, (9, 20))],
)
def test_the_interval_of_a_median_is_two_of_the_values(count: int, ends: tuple[int, int]) -> None:
    """The ranks of the usual table for 95 % (Conover, Practical Nonparametric Statistics)."""
    shuffled = [float(number * 7 % count) for number in range(count)] if count % 7 else None
    values = shuffled or [float(number) for number in range(count)]
    assert median_interval(values) == ends


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_few_values_have_no_interval(count: int) -> None:
    assert median_interval([1.0] * count) is None


# Clocks that jump


def test_a_clock_that_goes_back_ends_the_run_in_one_sentence() -> None:
    readings = iter([5.0, 4.5])
    with pytest.raises(
        WorkerError, match=r"^the clock went back by 0\.5 s over 3 steps$"
    ) as raised:
        time_block(3, lambda: 0, lambda result: None, clock=lambda: next(readings))
    assert raised.value.status == "error"


def test_a_clock_that_stands_still_gives_no_block_of_no_seconds() -> None:
    stopped = Block(4, 0.0)
    with pytest.raises(WorkerError, match=r"^the clock did not move over 4 steps$"):
        timed_blocks(lambda steps: stopped, 4, PROTOCOL, clock=lambda: 0.0)


def test_a_clock_that_leaps_ahead_in_one_block_does_not_move_the_median() -> None:
    """As after the machine was put to sleep."""
    device = Device(lambda number: STEP_S if number != 100 else 3600.0)
    steady = measure_steady(device.step, device.synchronise, PROTOCOL, clock=device.clock)
    assert max(block.seconds for block in (*steady.warmup.blocks, *steady.blocks)) > 3600.0
    assert seconds_per_step(steady.blocks) == STEP_S
