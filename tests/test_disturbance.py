"""What ran beside a block: read from the kernel, marked by rule, left out of the median."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest

from harness.measure import time_block
from harness.metrics import MIN_UNDISTURBED, derive, mostly_disturbed, step_times
from harness.probes import CpuReading, Moment, beside, disturbed, watched
from harness.schema import Block, Samples
from tests.records import make_run

BEFORE = Moment(
    CpuReading(busy_s=100.0, total_s=500.0, pressure_us=1_000_000, load_1m=0.0, stolen_s=2.0),
    cpu_s=10.0,
    queued_s=1.0,
    preempted=3,
)


def after(*, busy_s: float, cpu_s: float, queued_s: float | None = 1.25) -> Moment:
    machine = CpuReading(
        busy_s=100.0 + busy_s, total_s=0.0, pressure_us=1_500_000, load_1m=0.0, stolen_s=2.05
    )
    return Moment(machine, cpu_s=10.0 + cpu_s, queued_s=queued_s, preempted=10)


@pytest.fixture
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.probes.psutil.cpu_count", lambda: 2)


@pytest.mark.usefixtures("two_processors")
def test_a_block_holds_what_happened_between_the_two_moments() -> None:
    found = beside(Block(10, 1.0), BEFORE, after(busy_s=1.5, cpu_s=1.25))
    assert found == Block(
        10,
        1.0,
        cpu_s=1.25,
        others_cpu_s=0.25,
        stolen_s=0.05,
        queued_s=0.25,
        pressure_s=0.5,
        preempted=7,
        disturbed=True,
    )


@pytest.mark.usefixtures("two_processors")
def test_what_the_kernel_does_not_say_is_absent() -> None:
    found = beside(Block(10, 1.0), BEFORE, after(busy_s=1.25, cpu_s=1.25, queued_s=None))
    assert (found.queued_s, found.others_cpu_s, found.disturbed) == (None, 0.0, False)
    assert beside(Block(10, 1.0), None, None) == Block(10, 1.0)


@pytest.mark.parametrize(
    ("others_cpu_s", "seconds", "processors", "marked"),
    [
        (0.2, 1.0, 2, False),  # a tenth of two processors
        (0.21, 1.0, 2, True),
        (0.21, 1.0, 4, False),
        (0.029, 0.05, 2, False),  # less than the kernel's ticks can tell
        (0.031, 0.05, 2, True),
    ],
)
def test_the_rule(others_cpu_s: float, seconds: float, processors: int, marked: bool) -> None:
    assert disturbed(others_cpu_s, seconds, processors) == marked


# What counts


def blocks(*times: float, marked: int = 0) -> tuple[Block, ...]:
    """Blocks of one step; the first `marked` of them are disturbed."""
    return tuple(Block(1, time, disturbed=place < marked) for place, time in enumerate(times))


def test_disturbed_blocks_are_kept_and_do_not_count() -> None:
    steady = blocks(9.0, 8.0, 1.0, 2.0, 3.0, marked=2)
    assert step_times(steady) == [1.0, 2.0, 3.0]
    assert not mostly_disturbed(steady)
    run = make_run(samples=Samples(steady=steady, first_step_s=10.0))
    assert derive(run)["step_time_s"] == 2.0
    assert run.samples.steady == steady


def test_with_too_few_others_they_count_and_the_run_is_marked() -> None:
    steady = blocks(9.0, 8.0, 1.0, 2.0, marked=2)
    assert MIN_UNDISTURBED == 3
    assert step_times(steady) == [9.0, 8.0, 1.0, 2.0]
    assert mostly_disturbed(steady)


def test_few_blocks_without_a_mark_are_no_contention() -> None:
    assert not mostly_disturbed(blocks(1.0, 2.0))
    assert not mostly_disturbed(())


# The real kernel


@contextmanager
def a_competitor_on_every_processor() -> Iterator[None]:
    found = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(psutil.cpu_count() or 1)
    ]
    try:
        time.sleep(0.5)  # they start, which is work of another kind
        yield
    finally:
        for process in found:
            process.kill()
            process.wait()


def spin() -> None:
    """A quarter of a second of CPU time."""
    end = time.process_time() + 0.25
    while time.process_time() < end:
        pass


def test_a_competing_process_is_seen_in_every_counter() -> None:
    """As many busy processes as processors: half of the machine is theirs at least."""
    with a_competitor_on_every_processor():
        block = time_block(2, spin, lambda result: None)
    assert block.disturbed
    assert block.cpu_s == pytest.approx(0.5, abs=0.1)
    assert block.others_cpu_s is not None
    assert block.others_cpu_s > 0.3 * (psutil.cpu_count() or 1) * block.seconds
    if block.queued_s is not None:  # a kernel without schedstat
        assert block.queued_s > 0.05, "it had to wait for its turns"
    assert block.preempted is not None
    assert block.preempted > 0


def test_the_own_work_is_not_that_of_others() -> None:
    """Of a block that keeps one processor busy, the process's own time is taken off."""
    block = time_block(2, spin, lambda result: None)
    moment = watched()
    assert moment is not None
    assert block.cpu_s is not None
    assert block.others_cpu_s is not None
    own = replace(moment, machine=replace(moment.machine, busy_s=moment.machine.busy_s + 0.5))
    same = beside(Block(2, 0.5), moment, replace(own, cpu_s=moment.cpu_s + 0.5))
    assert same.others_cpu_s == 0.0
    assert block.others_cpu_s < (psutil.cpu_count() or 1) * block.seconds - block.cpu_s + 0.1
