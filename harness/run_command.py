"""What `epochmark run` does: data, session, progress lines, closing table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from harness import runner
from harness.cells import parse_cell
from harness.plans import planned
from harness.prices import configured_price, find_price
from harness.registry import workloads
from harness.schema import Price, Protocol, Run
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


def carry_out(request: Request, say: Say) -> tuple[bool, bool]:
    """Measure what is asked for; returns whether every run is accounted for, and all are ok."""
    price = chosen_price(request.price, request.results)
    counts: Counter[str] = Counter()

    def listen(progress: runner.Progress) -> None:
        say(line(progress))
        if progress.run is not None:
            counts[progress.run.status] += 1

    try:
        with runner.terminated_as_interrupted():
            path = _resume(request, price, listen, say) or _start(request, price, listen, say)
    except KeyboardInterrupt:
        say("Interrupted. Finished runs are kept; go on with `epochmark run --resume`.")
        return False, False
    say(closing(counts, path))
    return True, set(counts) <= {"ok"}


def chosen_price(name: str | None, results: Path) -> Price | None:
    """The price of --price, else of the project's configuration, else none.

    A results folder of one's own usually has no price book: the project's is then asked.
    """
    name = name or configured_price(Path.cwd())
    if name is None:
        return None
    book = results if (results / "prices").is_dir() else Path("results")
    return find_price(name, book)


def _resume(
    request: Request, price: Price | None, listen: runner.Listener, say: Say
) -> Path | None:
    if not request.resume:
        return None
    return runner.resume(request.results, request.session, price=price, listener=listen, say=say)


def _start(request: Request, price: Price | None, listen: runner.Listener, say: Say) -> Path:
    cells = planned(request.plan, request.only)
    # Before anything is fetched or measured; a mistake above leaves no folder behind.
    check_writable(request.results)
    runner.prepare_data(cells, say)
    session = runner.new_session(
        cells,
        plan=request.plan or "",
        only=request.only,
        replicates=request.replicates,
        order_seed=request.order_seed,
        protocol=replace(Protocol(), timeout_s=request.timeout_s),
    )
    return runner.run_session(session, request.results, price=price, listener=listen)


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
    names = ("step_time_s", "epoch_time_s", "quality", "infer_latency_s")
    unit = workloads()[parse_cell(run.cell, list(workloads())).workload].quality_unit
    figures = [
        f"{name.removesuffix('_s').replace('_', ' ')} "
        f"{formatted(name, run.metrics[name], quality_unit=unit)}"
        for name in names
        if name in run.metrics
    ]
    marked = " (contended)" if run.contention.contended else ""
    return f"ok, {', '.join(figures)}{marked}"


def duration(seconds: float) -> str:
    """Seconds or minutes, rounded."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def closing(counts: Counter[str], path: Path) -> str:
    """The session's table, what became of its runs, and where they are."""
    from harness.show import show
    from harness.table import load_table

    said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    session = read_file(path).session.session
    table = show(load_table(path.parents[2], [session]).frame, output="table")
    return (
        f"\n{table}\n\n{sum(counts.values())} runs: {said}. Results: {path}\n"
        f"See the table again with `epochmark show {session}`."
    )
