"""What `epochmark run` does: data, session, progress lines, closing table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import options, runner
from harness.cellbook import book
from harness.cells import Cell, parse_cell, simulated
from harness.errors import UsageError
from harness.metrics import throttled
from harness.paths import LOST
from harness.peak import peaks_of
from harness.plans import planned
from harness.prices import configured_price, covers, find_price
from harness.probes import machine_name
from harness.registry import workloads
from harness.schema import Gate, Price, Protocol, Run
from harness.store import check_writable, read_file
from harness.units import formatted

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """The arguments of the command."""

    plan: str | None
    only: tuple[str, ...]
    replicates: int
    resume: bool
    session: str | None
    price: str | None
    results: Path
    order_seed: int
    timeout_s: float
    gate_only: bool = False
    train_steps: int = 0
    epochs: int = 0
    stop_at_usd: float = 0.0
    accumulate: int = 1
    batch_memory_gib: float = 0.0
    plateau_factor: float = 0.0
    pipeline: str = ""
    weights: Path | None = None


def carry_out(request: Request, say: Say) -> tuple[bool, bool]:
    """Measure what is asked for; returns whether every run is accounted for, and all are ok."""
    extras = runner.Extras(
        chosen_price(request.price, request.results),
        request.weights,
        peaks_of(book(request.results, "peaks"), machine_name()),
    )
    _check_readable(request.weights)
    counts: Counter[str] = Counter()

    def listen(progress: runner.Progress) -> None:
        say(line(progress))
        if progress.run is not None:
            counts[progress.run.status] += 1

    try:
        with runner.terminated_as_interrupted():
            path = _resume(request, extras, listen, say) or _start(request, extras, listen, say)
    except KeyboardInterrupt:
        say("Interrupted. Finished runs are kept; go on with `epochmark run --resume`.")
        return False, False
    say(closing(counts, path))
    return True, set(counts) <= {"ok"}


def chosen_price(name: str | None, results: Path) -> Price | None:
    """The price of --price, else of the project's configuration, else none."""
    name = name or configured_price(Path.cwd())
    return None if name is None else find_price(name, book(results, "prices"))


def _resume(
    request: Request, extras: runner.Extras, listen: runner.Listener, say: Say
) -> Path | None:
    if not request.resume:
        return None
    return runner.resume(request.results, request.session, extras=extras, listener=listen, say=say)


def _start(request: Request, extras: runner.Extras, listen: runner.Listener, say: Say) -> Path:
    cells = planned(request.plan, request.only)
    _check_weights(request.weights, cells)
    protocol = _protocol(request, extras)
    options.check(protocol, cells)
    _tell_unpriced(extras.price, cells, say)
    # Before anything is fetched or measured; a mistake above leaves no folder behind.
    check_writable(request.results)
    runner.prepare_data(cells, say)
    session = runner.new_session(
        cells,
        plan=request.plan or "",
        only=request.only,
        replicates=request.replicates,
        order_seed=request.order_seed,
        protocol=protocol,
    )
    return runner.run_session(session, request.results, extras=extras, listener=listen)


def _protocol(request: Request, extras: runner.Extras) -> Protocol:
    return Protocol(
        timeout_s=request.timeout_s,
        stop_after="gate" if request.gate_only else "",
        train_steps=request.train_steps,
        epochs=request.epochs,
        stop_s_per_tenth=_seconds_for(request.stop_at_usd, extras.price),
        accumulate=request.accumulate,
        batch_memory_bytes=round(request.batch_memory_gib * 2**30),
        plateau_factor=request.plateau_factor,
        pipeline=request.pipeline,
        weights_digest=runner.digest_of(request.weights),
    )


def _tell_unpriced(price: Price | None, cells: Sequence[Cell], say: Say) -> None:
    """Which cells the price is not for, before hours are spent."""
    if price is None:
        return
    devices = sorted({cell.device for cell in cells if not covers(price, cell.device)})
    if devices:
        say(
            f"Cells on {' and '.join(devices)} will have no cost: {price.id} is of "
            f"{price.accelerator}. Name a price with --price ID, or later with `epochmark reprice`."
        )


def _seconds_for(usd: float, price: Price | None) -> float:
    """What a bound on money buys at the price; 0 for no bound."""
    if usd and price is None:
        raise UsageError("--stop-at is in US dollars: choose a price with --price ID.")
    return 3600 * usd / price.usd_per_hour if usd and price else 0.0


def _check_readable(path: Path | None) -> None:
    if path is not None and not path.is_file():
        raise UsageError(f"There is no file {str(path)!r} to read weights from.")


def _check_weights(path: Path | None, cells: Sequence[Cell]) -> None:
    """Before anything is measured: every cell takes published weights, and these fit it."""
    if path is None:
        return
    for name, scale in sorted({(cell.workload, cell.scale) for cell in cells}):
        declared = workloads()[name]
        if scale not in declared.scales:
            continue
        if not declared.checkpoint:
            able = ", ".join(w.name for w in workloads().values() if w.checkpoint)
            raise UsageError(f"Workload {name!r} reads no published weights; these do: {able}.")
        declared.published(path, declared.scales[scale])


def line(progress: runner.Progress) -> str:
    """One line of progress: before a run what starts and how long is left, after it the outcome."""
    head = f"[{progress.position:>3}/{progress.total}]"
    if progress.run is None:
        left = "" if progress.left_s is None else f", about {duration(progress.left_s)} left"
        return f"{head} {progress.cell.id} ...{left}"
    return f"{head} {' ' * 4}{outcome(progress.run)}"


def outcome(run: Run) -> str:
    """The status of a finished run, with its main figures or its reason."""
    if run.status != "ok":
        return f"{run.status}: {run.reason}"
    if run.protocol.stop_after:
        return f"ok, {_deviations(run.gate)}"
    names = ("step_time_s", "epoch_time_s", "quality", "infer_latency_s")
    unit = workloads()[parse_cell(run.cell, list(workloads())).workload].quality_unit
    figures = [
        f"{name.removesuffix('_s').replace('_', ' ')} "
        f"{formatted(name, run.metrics[name], quality_unit=unit)}"
        for name in names
        if name in run.metrics
    ]
    marks = {
        "contended": run.contention.contended,
        "throttled": throttled(run.accelerators),
        "simulated": simulated(run.cell.rpartition("/")[2]),
        f"without its fast path: {run.numerics.get(LOST, '')}": LOST in run.numerics,
    }
    marked = ", ".join(mark for mark, holds in marks.items() if holds)
    return f"ok, {', '.join(figures)}{f' ({marked})' if marked else ''}"


def _deviations(gate: Gate) -> str:
    """How far the run is from the reference, figure by figure."""
    found = [
        f"{name.replace('_', ' ')} {gate.deviation[name]:.1e} of {gate.tolerance[name]:.1e}"
        for name in gate.deviation
    ]
    return f"off the reference by {', '.join(found)}"


def duration(seconds: float) -> str:
    """Seconds or minutes, rounded."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def closing(counts: Counter[str], path: Path) -> str:
    """The session's table, what became of its runs, and where they are."""
    from harness.drift import known_drifts
    from harness.show import show
    from harness.table import load_table

    said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    session = read_file(path).session.session
    results = path.parents[2]
    frame = load_table(results, [session]).frame
    table = show(frame, known_drifts(results, frame), output="table")
    return (
        f"\n{table}\n\n{sum(counts.values())} runs: {said}. Results: {path}\n"
        f"See the table again with `epochmark show {session}`."
    )
