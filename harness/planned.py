"""What preflight found, in the forms that its command, README.md and the report have in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product

from harness.cells import PRECISIONS, Cell
from harness.preflight import FITS, UNSUPPORTED, Forecast, name_of
from harness.registry import workload, workloads
from harness.targets import TARGETS, Target
from harness.units import ABSENT, percent, size

Books = Mapping[str, Mapping[str, Forecast]]
"""By target and cell name."""

PLANNERS = {"tpu": ("jax",), "gpu": ("jax", "torch")}
"""The backends whose steps can be planned without the device."""


@dataclass(frozen=True)
class Line:
    """A step's forecasts, one for each target of the matrix."""

    workload: str
    batch: int
    backend: str
    precision: str
    found: tuple[Forecast | None, ...]


@dataclass(frozen=True)
class Matrix:
    """The functional models at the declared batch: a line per step, a column per target."""

    targets: tuple[Target, ...]
    lines: tuple[Line, ...]


def matrix(books: Books, scale: str, device: str) -> Matrix:
    """Of one scale and one kind of device; steps that no target was planned for are left out."""
    chosen = tuple(one for one in TARGETS.values() if one.device == device)
    # A step in TensorFloat-32 has the tensors of one in float32.
    precisions = [one for one in PRECISIONS if one != "tensorfloat32"]
    lines = []
    for name, backend, precision in product(workloads(), PLANNERS[device], precisions):
        cell = Cell(name, scale, "train", backend, precision, "functional", device)
        found = tuple(books.get(one.name, {}).get(name_of(cell, one)) for one in chosen)
        if any(one is not None and one.outcome != UNSUPPORTED for one in found):
            batch = workload(name).scales[scale].batch_size
            lines.append(Line(name, batch, backend, precision, found))
    return Matrix(chosen, tuple(lines))


def in_short(one: Forecast | None, target: Target) -> str:
    """The peak and its share of the target's memory, and the outcome where it does not fit."""
    if one is None or one.outcome == UNSUPPORTED or (one.peak_bytes is None and not one.reason):
        return ABSENT
    if one.peak_bytes is None:
        return one.outcome
    told = f"{size(one.peak_bytes)}, {percent(one.peak_bytes / target.memory_bytes)}"
    return told if one.outcome == FITS else f"{told}: {one.outcome}"


def largest(one: Forecast) -> str:
    """The largest batch that fits, and the smallest that was tried and does not."""
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


def where_peaks_come_from(device: str, tried: Collection[Forecast]) -> str:
    """How the peaks of these forecasts for a kind of device were found, and what they miss."""
    if device == "tpu":
        # One that was not planned says nothing of the effort.
        efforts = {one.optimised for one in tried if one.peak_bytes is not None}
        lowest = "" if efforts == {True} else LOWEST
        return PLANNED_FOR_TPU.format(effort=lowest)
    methods = {one.method for one in tried}
    told = {"compiled": PLANNED_FOR_GPU, "traced": TRACED}
    return "; ".join(said for method, said in told.items() if method in methods or not methods)
