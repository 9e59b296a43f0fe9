"""What `epochmark preflight` does: plans the cells one by one, keeps what it found, prints it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from textwrap import wrap
from typing import Any

from harness import answers, data, probes, runner
from harness.cells import Cell
from harness.clock import now, utc_now
from harness.planned import PLANNERS, in_short, largest, matrix, where_peaks_come_from
from harness.preflight import (
    ERROR,
    FITS,
    TOO_LARGE,
    UNAVAILABLE,
    UNSUPPORTED,
    Forecast,
    Planner,
    Stamp,
    barred,
    forecast,
    largest_batch,
    name_of,
    planner,
    read_forecasts,
    write_forecasts,
)
from harness.registry import workload
from harness.targets import TARGETS, Target
from harness.units import ABSENT, percent, ruled, seconds, size

WIDTH = 100
Say = Callable[[str], None]


def preflight(
    cells: Sequence[Cell],
    target: Target,
    *,
    optimised: bool,
    find_largest: bool,
    results: Path,
    say: Say,
) -> tuple[Path, dict[str, Forecast]]:
    """Plan every cell, and keep each as it is found; what cannot be tried here is not kept.

    Returns the target's file, and this call's forecasts by cell name.
    """
    path = write_forecasts(results, target.name, {})  # a damaged file is told before the work
    stamp = Stamp(utc_now()[:10], runner.suite_commit(), probes.package_versions())
    _prepare_data([cell for cell in cells if barred(cell, target) is None], say)
    found: dict[str, Forecast] = {}
    with planner(target, stamp, optimised=optimised) as plan:
        for number, cell in enumerate(cells, start=1):
            name, began = name_of(cell, target), now()
            declared = workload(cell.workload).scales[cell.scale].batch_size
            one = forecast(cell, target, declared, plan, stamp, optimised=optimised)
            if find_largest and one.outcome in (FITS, TOO_LARGE):
                one = _with_largest(one, cell, target, plan, stamp)
            found[name] = one
            if one.outcome != UNAVAILABLE:
                path = write_forecasts(results, target.name, {name: one})
            if one.outcome not in (UNSUPPORTED, UNAVAILABLE):
                told = f"{one.outcome}, {now() - began:.1f} s"
                say(f"[{number}/{len(cells)}] {name}: {told}")
    return path, found


def _prepare_data(cells: Sequence[Cell], say: Say) -> None:
    """The smallest scale's, which tells what the targets of a batch look like."""
    for name in sorted({cell.workload for cell in cells}):
        declared = workload(name)
        data.fetch(declared, next(iter(declared.scales)), log=say)


def _with_largest(
    one: Forecast, cell: Cell, target: Target, plan: Planner, stamp: Stamp
) -> Forecast:
    def fits(batch_size: int) -> bool:
        tried = forecast(cell, target, batch_size, plan, stamp, optimised=one.optimised)
        if tried.outcome not in (FITS, TOO_LARGE):
            raise _NotPlannedError(tried)
        return tried.outcome == FITS

    try:
        largest, refused = largest_batch(one.batch_size, fits)
    except _NotPlannedError as error:
        reason = f"in the search of the largest batch, at {error.tried.batch_size}: "
        return replace(one, outcome=error.tried.outcome, reason=reason + error.tried.reason)
    return replace(one, largest_batch=largest, refused_batch=refused)


class _NotPlannedError(Exception):
    """Whether that batch fits is not known."""

    def __init__(self, tried: Forecast) -> None:
        super().__init__(tried.reason)
        self.tried = tried


HEAD = ("workload", "backend", "precision", "API style", "batch", "outcome", "peak", "of memory",
        "step at least", "largest batch")  # fmt: skip


def text(found: Mapping[str, Forecast], target: Target) -> str:
    """A line per cell that was tried, what was not under it, and what the figures are."""
    tried = {name: one for name, one in found.items() if one.outcome not in (
        UNSUPPORTED, UNAVAILABLE)}  # fmt: skip
    lines = ruled(HEAD, [_row(name, one, target) for name, one in tried.items()])
    told: dict[str, list[str]] = {}
    for name, one in found.items():
        if one.reason:
            told.setdefault(f"{one.outcome}: {one.reason}", []).append(name)
    notes = [f"{_cells(names)} {reason}" for reason, names in told.items()]
    notes.append(_what_this_is(target, tried.values()))
    wrapped = [line for note in notes for line in wrap(note, WIDTH)]
    return "\n".join([*(lines if tried else []), *([""] if tried else []), *wrapped])


def _cells(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} cells like {names[0]}"


def _row(name: str, one: Forecast, target: Target) -> tuple[str, ...]:
    workload_name, _, _, backend, precision, api_style, _ = name.split("/")
    peak = one.peak_bytes
    return (
        workload_name,
        backend,
        precision,
        api_style,
        str(one.batch_size),
        one.outcome,
        ABSENT if peak is None else size(peak),
        ABSENT if peak is None else percent(peak / target.memory_bytes),
        ABSENT if one.bound_s is None else seconds(one.bound_s),
        largest(one),
    )


def _what_this_is(target: Target, tried: Collection[Forecast]) -> str:
    memory = where_peaks_come_from(target.device, tried)
    return (
        f"Estimates and bounds for {target.accelerator}, no measurements: {memory}. A "
        "step takes at least the time of its declared FLOPs at the documented peak, and of reading "
        f"and writing its state once. Source: {target.documented.source}"
    )


def failed(found: Mapping[str, Forecast]) -> bool:
    """Whether something went wrong, or nothing could be tried here."""
    outcomes = {one.outcome for one in found.values()}
    return ERROR in outcomes or not outcomes & {FITS, TOO_LARGE}


COLUMNS = ("cell", *(field.name for field in fields(Forecast) if field.name != "packages"))


def _rows(found: Mapping[str, Forecast]) -> list[dict[str, Any]]:
    return [{"cell": name, **asdict(one)} for name, one in found.items()]


def as_json(found: Mapping[str, Forecast], target: Target) -> str:
    return answers.as_json({"target": target.name, "forecasts": _rows(found)})


def as_csv(found: Mapping[str, Forecast], target: Target) -> str:
    return answers.as_csv(_rows(found), COLUMNS)


def markdown(results: Path, scale: str) -> str:
    """Peaks of the functional models at the declared batch, a column per target."""
    books = {name: read_forecasts(results, name) for name in TARGETS}
    lines = []
    for device in PLANNERS:
        found = matrix(books, scale, device)
        head = ["workload", "batch", "backend", "precision"]
        head += [one.accelerator for one in found.targets]
        lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        for line in found.lines:
            labels = [line.workload, str(line.batch), line.backend, line.precision]
            told = [in_short(one, of) for one, of in zip(line.found, found.targets, strict=True)]
            lines.append(f"| {' | '.join([*labels, *told])} |")
        lines.append("")
    return "\n".join(lines).strip()
