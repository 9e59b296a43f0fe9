"""What the options of a training loop do to its batch and its learning rate.

Knows no framework and no file; `harness.stopping` has the rule that ends a training by its cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil, sqrt

from harness.cells import Cell
from harness.errors import UsageError
from harness.registry import workloads
from harness.schema import Protocol
from harness.workload import Scale

LEAST_STEPS = 8
"""An epoch has at least so many, however much memory there is for a larger batch."""


def told(protocol: Protocol) -> str:
    """The options as `epochmark run` takes them; empty where there are none.

    The bound on cost is none of them: its dollars depend on a price.
    """
    options = {
        "--accumulate": protocol.accumulate if protocol.accumulate > 1 else 0,
        "--batch-memory": protocol.batch_memory_bytes / 2**30,
        "--plateau": protocol.plateau_factor,
    }
    return " ".join(f"{name} {value:g}" for name, value in options.items() if value)


def check(protocol: Protocol, cells: Sequence[Cell]) -> None:
    """Raises UsageError for options that a cell cannot take, or that exclude each other."""
    if protocol.accumulate > 1 and protocol.batch_memory_bytes:
        raise UsageError(
            "--accumulate divides the declared batch and --batch-memory replaces it: choose one."
        )
    for cell in cells:
        scale = workloads()[cell.workload].scales.get(cell.scale)
        reason = _reason(protocol, cell, scale) if scale else ""
        if reason:
            raise UsageError(f"{cell.id}: {reason}.")


def _reason(protocol: Protocol, cell: Cell, scale: Scale) -> str:
    """Why the cell cannot take the options; empty if it can."""
    batched = protocol.accumulate > 1 or protocol.batch_memory_bytes
    if (batched or protocol.plateau_factor) and cell.phase != "train":
        return "--accumulate, --batch-memory and --plateau are options of training"
    if batched and cell.device_count > 1:
        return "--accumulate and --batch-memory are for one device"
    if scale.batch_size % protocol.accumulate:
        return (
            f"its batch of {scale.batch_size} has no {protocol.accumulate} equal parts for "
            "--accumulate"
        )
    if protocol.accumulate > 1 and cell.precision == "mixed_float16":
        return (
            "--accumulate is not for mixed_float16, where a part that overflows would be missing "
            "in its update"
        )
    if protocol.plateau_factor and scale.optimizer.schedule is not None:
        return "--plateau is for a constant learning rate, this one follows a schedule"
    return ""


def largest(
    declared: int, examples: int, limit_bytes: int, peak_of: Callable[[int], int | None]
) -> tuple[int, dict[int, int]]:
    """The largest doubling of the declared batch that fits, and the peak in bytes of each tried.

    `peak_of` tells the peak of a step on a batch of that size, None if memory ran out. A size is
    not tried where the growth so far says that it will not fit, nor where the `examples` would make
    fewer than LEAST_STEPS steps. The result is 0 where not even the declared batch fits.
    """
    tried: dict[int, int] = {}
    found, size = 0, declared
    while size == declared or size * LEAST_STEPS <= examples:
        if _expected(tried) > limit_bytes:
            break
        peak = peak_of(size)
        if peak is None:
            break
        tried[size] = peak
        if peak > limit_bytes:
            break
        found, size = size, 2 * size
    return found, tried


def _expected(tried: dict[int, int]) -> int:
    """What the next doubling will take, growing with the examples; 0 where that is not known."""
    if len(tried) < 2:
        return 0
    before, last = list(tried.values())[-2:]
    return last + 2 * max(0, last - before)


def rebatched(scale: Scale, batch_size: int) -> Scale:
    """The scale with another batch, and its learning rate and schedule made to go with that.

    The rate grows like the batch for SGD (Goyal et al. 2017, arXiv:1706.02677) and like its square
    root for Adam and its kin (Malladi et al. 2022, arXiv:2205.10287).
    """
    factor = batch_size / scale.batch_size
    declared = scale.optimizer
    rate = factor if declared.name == "SGD" else sqrt(factor)
    arguments = {**declared.arguments, "learning_rate": declared.arguments["learning_rate"] * rate}
    schedule = declared.schedule
    if schedule is not None:
        schedule = replace(
            schedule,
            warmup_steps=max(1, round(schedule.warmup_steps / factor)),
            total_steps=ceil(schedule.total_steps / factor),
        )
    optimizer = replace(declared, arguments=arguments, schedule=schedule)
    return replace(scale, batch_size=batch_size, optimizer=optimizer)
