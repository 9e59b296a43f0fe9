"""What an interruption costs: a training that is really killed, and resumed from its checkpoint.

Kept in results/interruptions/<machine>.json, a cell's newest figures in place of the older ones.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from harness.cellbook import CellBook
from harness.cells import Cell
from harness.child import Ended, Worker
from harness.clock import now, pause
from harness.errors import ResultsError
from harness.runner import BASE_SEED
from harness.schema import Protocol
from harness.stages import Job, Segment

STEPS = 12
"""Of a segment."""

BEFORE, AFTER = 3, 3
"""Segments before the kill, and from the checkpoint on."""


@dataclass(frozen=True)
class Interruption:
    """What was seen of a cell, a figure for each kill.

    `checkpoint_s` is the median time of a checkpoint, `restart_s` from the start of the new process
    until its first new step would begin if nothing had to be loaded, built or compiled.
    `loss_deviation` is the largest relative difference between the losses of the interrupted
    training and of one that was left alone.
    """

    as_of: str
    suite_commit: str
    checkpoint_bytes: int
    checkpoint_s: tuple[float, ...]
    restart_s: tuple[float, ...]
    loss_deviation: tuple[float, ...]


@dataclass(frozen=True)
class Kill:
    """One training left alone, and one killed in its fourth segment and resumed."""

    alone: tuple[Segment, ...]
    before: tuple[Segment, ...]
    after: tuple[Segment, ...]
    until_first_s: float

    @property
    def checkpoint_s(self) -> float:
        return median(segment.save_s for segment in self._all)

    @property
    def restart_s(self) -> float:
        segment = self.after[0]
        further_s = segment.train_s - segment.first_s
        # What a step takes that need not compile is no restart; the rest of the first one is.
        step_s = further_s / (segment.steps - 1)
        return self.until_first_s - further_s - segment.save_s - step_s

    @property
    def loss_deviation(self) -> float:
        alone = {segment.first_step: segment.loss for segment in self.alone}
        killed = (*self.before, *self.after)
        return max(abs(one.loss / alone[one.first_step] - 1) for one in killed)

    @property
    def _all(self) -> tuple[Segment, ...]:
        return (*self.alone, *self.before, *self.after)


def kill_and_resume(cell: Cell, *, number: int = 0, timeout_s: float = 300.0) -> Kill | Ended:
    """Train twice, the second time with a SIGKILL in the middle; how a worker ended if it failed.

    Raises ResultsError when the second training did not go on where its checkpoint was.
    """
    with tempfile.TemporaryDirectory() as folder:
        alone, path = (Path(folder, name) for name in ("alone.npz", "killed.npz"))
        job = Job(cell, BASE_SEED + number, Protocol(timeout_s=timeout_s), checkpoint=str(alone))
        with Worker(job) as worker:
            left_alone = _segments(worker, BEFORE + AFTER)
            if len(left_alone) < BEFORE + AFTER:
                return worker.wait()
        job = Job(cell, job.seed, job.protocol, checkpoint=str(path))
        with Worker(job) as worker:
            before = _segments(worker, BEFORE)
            if len(before) < BEFORE:
                return worker.wait()
            worker.order(STEPS)
            pause(min(segment.train_s for segment in before) / 2)
        began = now()
        with Worker(job) as worker:
            first = _segments(worker, 1)
            until_first_s = now() - began
            after = first + _segments(worker, _left(first))
            if not first or len(after) <= _left(first):
                return worker.wait()
    if after[0].first_step < BEFORE * STEPS:
        raise ResultsError(
            f"After the kill {cell.id} went on at step {after[0].first_step}, before its checkpoint"
            f" of step {BEFORE * STEPS}."
        )
    return Kill(tuple(left_alone), tuple(before), tuple(after), until_first_s)


def _left(first: Sequence[Segment]) -> int:
    """Segments from the one after these to the end of the training that was left alone.

    The kill may come a moment after a further checkpoint: the training then goes on from there.
    """
    return BEFORE + AFTER - sum(s.first_step // STEPS + 1 for s in first)


def _segments(worker: Worker, count: int) -> list[Segment]:
    found: list[Segment] = []
    if worker.ready():
        while len(found) < count and (segment := worker.train(STEPS)) is not None:
            found.append(segment)
    return found


def interruption_of(kills: Sequence[Kill], *, as_of: str, suite_commit: str) -> Interruption:
    """Figures of a cell from one or more kills."""
    return Interruption(
        as_of=as_of,
        suite_commit=suite_commit,
        checkpoint_bytes=kills[0].alone[0].checkpoint_bytes,
        checkpoint_s=tuple(kill.checkpoint_s for kill in kills),
        restart_s=tuple(kill.restart_s for kill in kills),
        loss_deviation=tuple(kill.loss_deviation for kill in kills),
    )


def _interruption(fields: Mapping[str, Any]) -> Interruption:
    names = ("checkpoint_s", "restart_s", "loss_deviation")
    figures = {name: tuple(map(float, fields[name])) for name in names}
    if not all(0 <= value < math.inf for values in figures.values() for value in values):
        raise ValueError("a figure that is negative or not finite")
    size = int(fields["checkpoint_bytes"])
    return Interruption(str(fields["as_of"]), str(fields["suite_commit"]), size, **figures)


_BOOK = CellBook(
    "interruptions", "interruptions", "measure again with `epochmark interrupt`", _interruption
)
read_interruptions = _BOOK.read
write_interruptions = _BOOK.write
