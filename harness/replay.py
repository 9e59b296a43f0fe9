"""Runs a published row's cell again, as it was run, and says whether its figure came out again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import runner
from harness.cellbook import book
from harness.cells import Cell, parse_cell
from harness.drift import machine_drift
from harness.errors import UsageError
from harness.metrics import OF_BLOCKS, throttled
from harness.noise import read_floors
from harness.peak import peaks_of
from harness.registry import workloads
from harness.run_command import outcome
from harness.schema import NOT_TRIED, REPLAY, Run
from harness.store import check_writable, read_file, results_files
from harness.units import differing, formatted, percent

WIDEST = 0.5
"""Within a floor above this share no figure is called reproduced: half as much again would do."""

ATTEMPTS = 3
"""So many must fail before a figure is called not reproduced: what slows a virtual machine from
outside shows in no counter of it (seen: 1.65 times as slow, in two of three attempts in a row)."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Replay:
    """A published run and those made now; `floor` is None where this machine has none."""

    published: Run
    attempts: tuple[Run, ...]
    floor: float | None

    @property
    def metric(self) -> str:
        """The compared figure's name."""
        return OF_BLOCKS[self.published.cell.split("/")[2]]

    @property
    def again(self) -> Run:
        """The attempt that counts: one that ended otherwise; an undisturbed one; the closest."""
        if self.attempts[-1].status != self.published.status:
            return self.attempts[-1]
        return min(self.attempts, key=lambda run: (bool(_disturbance(run)), self._miss(run)))

    @property
    def ratio(self) -> float | None:
        """Now to published."""
        return self._ratio(self.again)

    def _ratio(self, again: Run) -> float | None:
        values = [run.metrics.get(self.metric) for run in (again, self.published)]
        return values[0] / values[1] if values[0] and values[1] else None

    def _miss(self, again: Run) -> float:
        ratio = self._ratio(again)
        return abs(math.log(ratio)) if ratio else math.inf

    @property
    def disturbed(self) -> str:
        """Whose figure does not count, and why; empty if both count."""
        sides = {"published": self.published, "new": self.again}
        told = ((name, _disturbance(run)) for name, run in sides.items())
        return " and ".join(f"the {name} run {why}" for name, why in told if why)

    @property
    def reproduced(self) -> bool | None:
        """Whether the figure is within the floor; None where nobody can say."""
        if self.again.status != self.published.status:
            return None if self.again.status in NOT_TRIED else False
        if self.ratio is None or self.floor is None or self.disturbed:
            return None
        within = 1 / (1 + self.floor) <= self.ratio <= 1 + self.floor
        return None if within and self.floor > WIDEST else within

    @property
    def settled(self) -> bool:
        """Whether one more attempt could not change the verdict."""
        last = self.attempts[-1]
        if last.status != self.published.status or self._ratio(last) is None:
            return True  # it ended otherwise, or there is no figure to come out again
        quiet = _disturbance(self.published) or not _disturbance(self.again)
        return self.reproduced is not False and bool(quiet)


def _disturbance(run: Run) -> str:
    if run.contention.contended:
        return "was beside other work"
    return "had its accelerator slowed down" if throttled(run.accelerators) else ""


def replay(name: str, results: Path, *, weights: Path | None, say: Say) -> Replay:
    """Measure the cell of FILE:RUN again, with its seed and protocol, until its figure comes out.

    That is tried at most ATTEMPTS times, each a session of its own.
    Raises UsageError when there is no such run, or when it needs weights that were not named.
    """
    published = find(name, results)
    wanted = published.protocol.weights_digest
    if runner.digest_of(weights) != wanted:
        needed = f"the file with SHA-256 {wanted}" if wanted else "no --weights"
        raise UsageError(f"Run {published.run!r} was trained from {needed}. Replay it with that.")
    cell = parse_cell(published.cell, list(workloads()))
    check_writable(results)
    runner.prepare_data([cell], say)
    attempts: list[Run] = []
    with runner.terminated_as_interrupted():
        while True:
            say(f"{cell.id}, attempt {len(attempts) + 1} of at most {ATTEMPTS} ...")
            attempts.append(_again(published, cell, weights, results))
            found = Replay(published, tuple(attempts), _floor(results, attempts[0]))
            if found.settled or len(attempts) == ATTEMPTS:
                return found


def _again(published: Run, cell: Cell, weights: Path | None, results: Path) -> Run:
    session = runner.new_session(
        [cell],
        plan=REPLAY,
        only=(cell.id,),
        replicates=1,
        order_seed=0,
        protocol=published.protocol,
    )
    peaks = peaks_of(book(results, "peaks"), session.environment.machine)
    extras = runner.Extras(published.price, weights, peaks)
    turn = runner.Planned(0, cell, published.seed - runner.BASE_SEED)
    return runner.run_one(session, turn, results, extras)


def _floor(results: Path, run: Run) -> float | None:
    """What a process of this machine may differ by from one of another session, if known."""
    machine = run.environment.machine
    known = read_floors(book(results, "noise"), machine).get(run.cell)
    if known is None or not known.known:
        return None
    drift = machine_drift(results, machine)
    return known.between(1, *([drift.between] if drift else []))


def find(name: str, results: Path) -> Run:
    """The run that FILE:RUN names; RUN is its id, or the number in it with or without its zeros.

    Raises UsageError when there is none, or when its figures are not those of its samples.
    """
    file, colon, wanted = name.rpartition(":")
    if not colon or not wanted:
        raise UsageError(f"{name!r} names no run: write FILE:RUN, a results file and a run's id.")
    (path, *more) = results_files(results, [file])
    if more:
        raise UsageError(f"{file!r} names {1 + len(more)} results files.")
    read = read_file(path)
    runs = read.runs
    found = [run for run in runs if wanted in _names(run)]
    if not found:
        known = f" It has {runs[0].run} to {runs[-1].run}." if runs else " It has none."
        raise UsageError(f"There is no run {wanted!r} in {path.name}.{known}")
    if found[-1].run in read.altered:
        raise UsageError(
            f"Run {wanted!r} in {path.name} was changed by hand: its metrics are not those of its "
            "samples. There is nothing to replay."
        )
    return found[-1]


def _names(run: Run) -> tuple[str, ...]:
    number = run.run.rpartition("-")[2]
    return run.run, number, number.lstrip("0") or "0"


def differences(published: Run, again: Run) -> list[str]:
    """Every setting, version and piece of hardware that is not the same, as `name: then, now`."""
    return differing(_facts(published), _facts(again))


def _facts(run: Run) -> dict[str, Any]:
    environment = asdict(run.environment)
    packages, variables = environment.pop("packages"), environment.pop("variables")
    return {
        "suite commit": run.suite_commit,
        "workload version": run.workload_version,
        "batch size": run.batch_size,
        "data": run.data.digest[:16] if run.data else "absent",
        **environment,
        **packages,
        **variables,
        **run.numerics,
    }


def text(found: Replay) -> str:
    """Both figures, what differs, and the verdict."""
    lines = [f"published  {outcome(found.published)}"]
    lines += [f"now        {outcome(run)}" for run in found.attempts]
    told = differences(found.published, found.again)
    if told:
        lines += ["", "Not the same (published, now):", *(f"  {line}" for line in told)]
    return "\n".join([*lines, "", _verdict(found)])


def _verdict(found: Replay) -> str:
    ended = f"{found.published.status!r} then, {found.again.status!r} now."
    if found.again.status != found.published.status:
        if found.reproduced is None:
            return f"No verdict: {ended} {found.again.reason}"
        return f"Not reproduced: {ended}"
    if found.ratio is None:
        return f"It ended as it did then: {ended}"
    shown = formatted(found.metric, found.again.metrics[found.metric])
    head = f"{found.metric} is {shown}, {found.ratio:.3f} times the published one"
    if found.disturbed:
        return f"No verdict: {head}, but {found.disturbed}."
    if found.floor is None:
        return (
            f"No verdict: {head}, and this machine's noise is not known for the cell. Measure it "
            f"with `epochmark doctor --calibrate --only '{found.published.cell}'`."
        )
    if found.reproduced is None:
        return (
            f"No verdict: {head}, and runs of the same code differ by up to "
            f"{percent(found.floor)} here."
        )
    told = f"{head}; the noise floor here is {percent(found.floor)}."
    count = len(found.attempts)
    if found.reproduced:
        return f"Reproduced{f' by attempt {count}' if count > 1 else ''}: {told}"
    return f"Not reproduced in {count} attempts; the closest: {told}"
