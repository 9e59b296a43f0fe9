"""What `epochmark preflight` does: plans the cells one by one, keeps what it found, prints it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, fields, replace
from itertools import product
from pathlib import Path
from textwrap import wrap
from typing import Any

from harness import answers, data, probes, runner
from harness.cells import PRECISIONS, Cell
from harness.clock import now, utc_now
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
from harness.registry import workload, workloads
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
        return tried.outcome == FITS

    largest, refused = largest_batch(one.batch_size, fits)
    return replace(one, largest_batch=largest, refused_batch=refused)


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
        _largest(one),
    )


def _largest(one: Forecast) -> str:
    if one.largest_batch is None and one.refused_batch is None:
        return ABSENT
    if one.refused_batch is None:
        return f"{one.largest_batch} or more"
    return f"{one.largest_batch or 0} (not {one.refused_batch})"


PLANNED_FOR_TPU = "the peak is planned by the TPU's own compiler{effort} and it says what fits"
LOWEST = " at its lowest effort, which often plans a little more,"
PLANNED_FOR_GPU = (
    "the peak under jax is planned by XLA's compiler for GPUs, which tries out no kernels here: "
    "some of them take more, and Keras chose the processor's forms of attention and LSTM"
)
TRACED = (
    "the peak under torch is traced tensor bytes of the processor's operations: a GPU's kernels "
    "and libraries take more"
)


def _what_this_is(target: Target, tried: Collection[Forecast]) -> str:
    if target.device == "tpu":
        lowest = "" if {one.optimised for one in tried} == {True} else LOWEST
        memory = [PLANNED_FOR_TPU.format(effort=lowest)]
    else:
        methods = {one.method for one in tried}
        told = {"compiled": PLANNED_FOR_GPU, "traced": TRACED}
        memory = [said for method, said in told.items() if method in methods or not methods]
    return (
        f"Estimates and bounds for {target.accelerator}, no measurements: {'; '.join(memory)}. A "
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
    lines = []
    for device, backends in (("tpu", ("jax",)), ("gpu", ("jax", "torch"))):
        chosen = [one for one in TARGETS.values() if one.device == device]
        books = [read_forecasts(results, one.name) for one in chosen]
        head = ["workload", "batch", "backend", "precision", *(one.accelerator for one in chosen)]
        lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        # A step in TensorFloat-32 has the tensors of one in float32.
        precisions = [one for one in PRECISIONS if one != "tensorfloat32"]
        for name, backend, precision in product(workloads(), backends, precisions):
            cell = Cell(name, scale, "train", backend, precision, "functional", device)
            found = [book.get(name_of(cell, one)) for one, book in zip(chosen, books, strict=True)]
            if any(one is not None and one.outcome != UNSUPPORTED for one in found):
                batch = str(workload(name).scales[scale].batch_size)
                told = [_in_short(one, of) for one, of in zip(found, chosen, strict=True)]
                lines.append(f"| {' | '.join([name, batch, backend, precision, *told])} |")
        lines.append("")
    return "\n".join(lines).strip()


def _in_short(one: Forecast | None, target: Target) -> str:
    if one is None or one.outcome == UNSUPPORTED or (one.peak_bytes is None and not one.reason):
        return ABSENT
    if one.peak_bytes is None:
        return one.outcome
    told = f"{size(one.peak_bytes)}, {percent(one.peak_bytes / target.memory_bytes)}"
    return told if one.outcome == FITS else f"{told}: {one.outcome}"
