"""A session: plans, orders, starts one worker per run, waits, and writes each run as it ends."""

from __future__ import annotations

import hashlib
import random
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import (
    SUITE_VERSION,
    accelerators,
    child,
    data,
    energy,
    nvml,
    options,
    probes,
    stopping,
)
from harness.cells import Cell, parse_cell
from harness.clock import now, utc_now
from harness.errors import DataError, ResultsError, UsageError
from harness.limits import limited
from harness.metrics import derive, mostly_disturbed, shared
from harness.peak import peak_for
from harness.prices import covers
from harness.registry import workload, workloads
from harness.schema import Environment, Peak, Price, Protocol, Run, Samples, Session
from harness.stages import Job
from harness.store import SessionWriter, check_writable, read_file, results_files
from harness.support import support
from harness.workload import Scale

BASE_SEED = 2013


@dataclass(frozen=True)
class Planned:
    """One run to come: its number in the session's order, its cell, which replicate it is."""

    number: int
    cell: Cell
    replicate: int


@dataclass(frozen=True)
class Progress:
    """What is known after a run, or before it when `run` is None; `left_s` is an estimate."""

    position: int
    total: int
    cell: Cell
    run: Run | None
    left_s: float | None


Listener = Callable[[Progress], None]


def order(cells: Sequence[Cell], replicates: int, seed: int) -> list[Planned]:
    """Every replicate of every cell: each round holds all cells, shuffled anew by the seed.

    So drift of the machine hits all cells alike, and the replicates of a cell lie far apart.
    """
    shuffle = random.Random(seed)
    runs: list[tuple[Cell, int]] = []
    for replicate in range(replicates):
        turn = list(cells)
        shuffle.shuffle(turn)
        runs += [(cell, replicate) for cell in turn]
    return [Planned(number, *run) for number, run in enumerate(runs)]


def new_session(
    cells: Sequence[Cell],
    *,
    plan: str,
    only: Sequence[str],
    replicates: int,
    order_seed: int,
    protocol: Protocol,
) -> Session:
    """The header of a session that starts now."""
    started = utc_now()
    stamp = started.replace("-", "").replace(":", "")
    return Session(
        session=f"{stamp}-{random.SystemRandom().randrange(16**6):06x}",
        started_at=started,
        suite_version=SUITE_VERSION,
        suite_commit=suite_commit(),
        plan=plan,
        only=tuple(only),
        replicates=replicates,
        order_seed=order_seed,
        cells=tuple(cell.id for cell in cells),
        protocol=protocol,
        environment=probes.environment(),
    )


def suite_commit() -> str:
    """The commit of the suite's own source tree, `+` behind it when changed; empty without git."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = commit and git("status", "--porcelain", "--", ".", "../workloads")
    except FileNotFoundError:
        return ""
    return f"{commit}+" if changed else commit


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, with which job runners and asv cancel, ends a session as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def prepare_data(cells: Sequence[Cell], log: Callable[[str], None]) -> None:
    """Fetch what the runnable cells need and this machine lacks, before anything is timed.

    A data set that cannot be had is left to its cells, which end as `unavailable`.
    """
    runnable = [cell for cell in cells if support(cell).runs]
    wanted = {(cell.workload, cell.scale) for cell in runnable}
    wanted |= {(name, workload(name).scales[scale].gate_scale or scale) for name, scale in wanted}
    for name, scale in sorted(wanted):
        try:
            data.fetch(workload(name), scale, log=log)
        except DataError as error:
            log(str(error))


@dataclass(frozen=True)
class Extras:
    """What runs need beside their session.

    The price they are shown with, published weights to train from, and this machine's peaks by
    precision.
    """

    price: Price | None = None
    weights: Path | None = None
    peaks: Mapping[str, Peak] = field(default_factory=dict)


def run_session(session: Session, results: Path, *, extras: Extras, listener: Listener) -> Path:
    """Measure every run of the session into a new results file; returns its path."""
    check_writable(results)
    with SessionWriter(results, session) as writer:
        _run_all(session, set(), writer, extras, listener)
        return writer.path


def resume(
    results: Path,
    name: str | None,
    *,
    extras: Extras,
    listener: Listener,
    say: Callable[[str], None],
) -> Path:
    """Go on with an unfinished session: the named one, or the newest of this machine.

    Raises UsageError when there is none, or when it started from other weights.
    """
    for path in reversed(results_files(results, [name] if name else ())):
        try:
            stored = read_file(path)
        except ResultsError as error:
            say(str(error))
            continue
        done = {run.run for run in stored.runs}
        if len(done) < len(stored.session.cells) * stored.session.replicates and (
            stored.session.environment.machine == probes.machine_name()
        ):
            check_weights(extras.weights, stored.session)
            with SessionWriter.resume(path) as writer:
                for notice in writer.notices:
                    say(notice)
                # The rest is measured by this code on this machine, whatever the header says.
                present = replace(
                    stored.session,
                    suite_version=SUITE_VERSION,
                    suite_commit=suite_commit(),
                    environment=probes.environment(),
                )
                _run_all(present, done, writer, extras, listener)
            return path
    raise UsageError(f"There is no unfinished session in {str(results)!r} to resume.")


def digest_of(weights: Path | None) -> str:
    """The first 16 hex digits of the file's SHA-256; empty without a file."""
    if weights is None:
        return ""
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def check_weights(weights: Path | None, session: Session) -> None:
    """Raises UsageError when a session would go on with other weights than it began with."""
    began = session.protocol.weights_digest
    if digest_of(weights) != began:
        wanted = f"the --weights file with SHA-256 {began}" if began else "no --weights"
        raise UsageError(f"Session {session.session!r} began with {wanted}. Resume it with that.")


def _run_all(
    session: Session,
    done: set[str],
    writer: SessionWriter,
    extras: Extras,
    listener: Listener,
) -> None:
    cells = [parse_cell(text, list(workloads())) for text in session.cells]
    planned = order(cells, session.replicates, session.order_seed)
    left = [p for p in planned if run_id(session, p) not in done]
    began, measured = now(), 0
    for index, turn in enumerate(left):
        average = (now() - began) / measured if measured else None
        remaining = sum(support(p.cell).runs for p in left[index:])
        left_s = average * remaining if average is not None else None
        position = len(planned) - len(left) + index + 1
        listener(Progress(position, len(planned), turn.cell, None, left_s))
        run = execute(session, turn, extras)
        writer.append(run)
        measured += support(turn.cell).runs
        listener(Progress(position, len(planned), turn.cell, run, None))


def run_one(session: Session, planned: Planned, results: Path, extras: Extras) -> Run:
    """A session of one run: measured, and written into a file of its own."""
    check_writable(results)
    with SessionWriter(results, session) as writer:
        run = execute(session, planned, extras)
        writer.append(run)
        return run


def write_each(session: Session, runs: Iterable[Run], results: Path) -> Path:
    """A session of runs that somebody else makes, each written as it comes; returns the file."""
    check_writable(results)
    with SessionWriter(results, session) as writer:
        for run in runs:
            writer.append(run)
        return writer.path


def run_id(session: Session, planned: Planned) -> str:
    """The run's name: unique, and the same when the session is resumed."""
    return f"{session.session}-{planned.number:04d}"


def execute(session: Session, planned: Planned, extras: Extras) -> Run:
    """One run from start to record; a cell that cannot run gets its row without a process."""
    cell = planned.cell
    declared = workload(cell.workload)
    scale = declared.scales.get(cell.scale)
    possible = support(cell)
    protocol = limited(session.protocol, cell.scale)
    blank = Run(
        session=session.session,
        run=run_id(session, planned),
        replicate=planned.replicate,
        suite_version=session.suite_version,
        suite_commit=session.suite_commit,
        workload_version=declared.version,
        cell=cell.id,
        seed=BASE_SEED + planned.replicate,
        batch_size=scale.batch_size if scale else 0,
        started_at=utc_now(),
        status=possible.status,
        reason=possible.reason,
        environment=session.environment,
        protocol=protocol,
        replay=replay_command(cell, protocol, extras.price),
        quality_metric=declared.quality_metric,
        higher_is_better=declared.higher_is_better,
        quality_target=scale.quality_target if scale else None,
        flops_per_example=_flops(scale, cell) if scale else None,
        peak=_peak(cell, extras, nvml.names_used()),
    )
    if possible.runs and (absent := accelerators.busy(cell.device)):
        return replace(blank, status="unavailable", reason=absent.told("no free GPU"))
    return _measured(blank, cell, extras) if possible.runs else blank


def _peak(cell: Cell, extras: Extras, used: Sequence[str]) -> Peak | None:
    """Of the one device, by the name of what is used in place of a processor.

    Devices that share a batch have no peak that was measured or documented.
    """
    if cell.device_count > 1:
        return None
    return peak_for(extras.peaks, device=cell.device, precision=cell.precision, accelerators=used)


def _target(cell: Cell, samples: Samples) -> float | None:
    """The quality that was enough, which may be a baseline's on the data at hand."""
    scale = workload(cell.workload).scales[cell.scale]
    return stopping.target(scale, samples.epochs[-1].quality if samples.epochs else {})


def _flops(scale: Scale, cell: Cell) -> int:
    return scale.training_flops if cell.phase == "train" else scale.forward_flops


def replay_command(cell: Cell, protocol: Protocol, price: Price | None = None) -> str:
    """The command that measures the cell again; FILE stands for weights, whose path is no fact."""
    epochs = f" --epochs {protocol.epochs}" if protocol.epochs else ""
    if protocol.stop_s_per_tenth and price is not None:
        limit = protocol.stop_s_per_tenth * price.usd_per_hour / 3600
        epochs += f" --stop-at {limit:.6g} --price {price.id}"
    if chosen := options.told(protocol):
        epochs += f" {chosen}"
    steps = f" --steps {protocol.train_steps}" if protocol.train_steps else ""
    steps += " --gate-only" if protocol.stop_after == "gate" else ""
    weights = " --weights FILE" if protocol.weights_digest else ""
    pipeline = f" --pipeline {protocol.pipeline}" if protocol.pipeline else ""
    return f"epochmark run --only {shlex.quote(cell.id)}{steps}{epochs}{pipeline}{weights}"


def _measured(blank: Run, cell: Cell, extras: Extras) -> Run:
    before = probes.CpuReading.take()
    job = Job(
        cell=cell,
        seed=blank.seed,
        protocol=blank.protocol,
        weights=str(extras.weights.absolute()) if extras.weights else "",
    )
    with (
        accelerators.watched(cell.device) as watches,
        energy.Sampler(energy.counters(cell.device_kind)) as sampler,
    ):
        ended = child.run_worker(job, on_mark=sampler.mark)
    samples = ended.report.samples if ended.report else Samples()
    contention = probes.contention(before, probes.CpuReading.take(), ended.cpu_s)
    seen = accelerators.seen(watches)
    if shared(seen) or mostly_disturbed(samples.steady or samples.infer):
        contention = replace(contention, contended=True)
    run = replace(
        blank,
        status=ended.status,
        reason=child.without_paths(ended.reason),
        log_tail=ended.log_tail,
        contention=contention,
        energy=sampler.energy(),
        accelerators=seen,
        price=extras.price if extras.price and covers(extras.price, cell.device) else None,
    )
    report = ended.report
    if report is not None:
        environment: Environment = report.environment
        run = replace(
            run,
            batch_size=report.batch_size,
            environment=environment,
            numerics=report.numerics,
            stages=report.stages,
            samples=report.samples,
            memory=report.memory,
            gate=report.gate,
            loss_scaling=report.loss_scaling,
            data=report.data,
            accelerators=seen or report.accelerators,
            quality_target=_target(cell, report.samples),
        )
        if cell.device_kind == "tpu":
            # Only the process that held it knows what it is.
            run = replace(run, peak=_peak(cell, extras, [report.numerics.get("device_kind", "")]))
    return replace(run, metrics=derive(run))
