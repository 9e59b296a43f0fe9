"""The axes, a cell as one point of their product, and selection by glob. Knows no framework."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from fnmatch import fnmatchcase
from itertools import product

from harness.errors import UsageError, unknown

SCALES = ("smoke", "standard", "full")
PHASES = ("train", "infer")
BACKENDS = ("tensorflow", "jax", "torch")
PRECISIONS = (
    "float32", "tensorfloat32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float8",
)  # fmt: skip
API_STYLES = ("sequential", "functional", "subclassing", "custom_loop")
DEVICE_KINDS = ("cpu", "gpu", "tpu")
DEVICE_COUNTS = (1, 2, 4, 8)
DEVICES = tuple(
    kind if count == 1 else f"{kind}-x{count}" for count in DEVICE_COUNTS for kind in DEVICE_KINDS
)
"""One device bears the name of its kind, as it always has; `cpu-x2` is two of them."""


def device_kind(device: str) -> str:
    """Of `cpu-x2`, the `cpu`."""
    return device.partition("-x")[0]


def device_count(device: str) -> int:
    """Of `cpu-x2`, the 2."""
    return int(device.partition("-x")[2] or 1)


def simulated(device: str) -> bool:
    """Several devices on a processor are made up: they share it, and no figure is a device's."""
    return device_kind(device) == "cpu" and device_count(device) > 1


@dataclass(frozen=True, order=True)
class Cell:
    """One point of workload x scale x phase x backend x precision x API style x device."""

    workload: str
    scale: str
    phase: str
    backend: str
    precision: str
    api_style: str
    device: str

    @property
    def id(self) -> str:
        """The cell's name: its axes in order, joined by slashes."""
        return "/".join(astuple(self))

    @property
    def device_kind(self) -> str:
        """What it runs on: `cpu`, `gpu` or `tpu`."""
        return device_kind(self.device)

    @property
    def device_count(self) -> int:
        """How many of these share each batch."""
        return device_count(self.device)

    @property
    def on_request(self) -> bool:
        """Whether no plan and no asv suite holds it: a glob names it."""
        return self.precision == "bfloat16" or self.device_count > 1


AXES = tuple(field.name for field in fields(Cell))


def axis_values(workloads: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The known values of each axis, in the order of a cell id."""
    return {
        "workload": tuple(workloads),
        "scale": SCALES,
        "phase": PHASES,
        "backend": BACKENDS,
        "precision": PRECISIONS,
        "api_style": API_STYLES,
        "device": DEVICES,
    }


def all_cells(workloads: Sequence[str]) -> Iterator[Cell]:
    """Every point of the product, supported or not."""
    for point in product(*axis_values(workloads).values()):
        yield Cell(*point)


def parse_cell(text: str, workloads: Sequence[str]) -> Cell:
    """The cell that an id names.

    Raises UsageError that names the first axis with an unknown value.
    """
    parts = text.split("/")
    if len(parts) != len(AXES):
        raise UsageError(
            f"Cell {text!r} has {len(parts)} parts. A cell id has {len(AXES)}: {'/'.join(AXES)}."
        )
    for (axis, values), part in zip(axis_values(workloads).items(), parts, strict=True):
        if part not in values:
            raise unknown(axis.replace("_", " "), part, sorted(values), where=text)
    return Cell(*parts)


def select(cells: Iterable[Cell], patterns: Sequence[str], workloads: Sequence[str]) -> list[Cell]:
    """The cells whose id matches one of the globs, in their given order.

    A `*` also spans slashes, so `*/jax/*` means every cell of that backend. No pattern selects all.
    Cells on request are selected only by a pattern that names what makes them so: a number of
    devices as in `*/cpu-x2`, or the precision as in `*/bfloat16/*`.
    Raises UsageError for a pattern that matches no cell of the whole product, naming the axis
    value at fault where one stands in it plainly.
    """
    chosen = list(cells)
    if not patterns:
        return chosen
    every = list(all_cells(workloads))
    for pattern in patterns:
        if not any(_matches(cell, pattern) for cell in every):
            raise _no_match(pattern, workloads)
    return [c for c in chosen if any(_matches(c, pattern) for pattern in patterns)]


def _matches(cell: Cell, pattern: str) -> bool:
    named = ("-x" in pattern or cell.device_count == 1) and (
        "/bfloat16" in pattern or cell.precision != "bfloat16"
    )
    return named and fnmatchcase(cell.id, pattern)


def _no_match(pattern: str, workloads: Sequence[str]) -> UsageError:
    parts = pattern.split("/")
    axes = axis_values(workloads)
    plain = [part for part in parts if part and not any(mark in part for mark in "*?[")]
    if len(parts) == len(AXES):
        for (axis, values), part in zip(axes.items(), parts, strict=True):
            if part in plain and part not in values:
                return unknown(axis.replace("_", " "), part, sorted(values), where=pattern)
    known = {value for values in axes.values() for value in values}
    for part in plain:
        if part not in known:
            return UsageError(
                f"Unknown name {part!r} in {pattern!r}. `epochmark list` shows every cell id."
            )
    return UsageError(
        f"No cell matches {pattern!r}. A cell id reads {'/'.join(AXES)}; `*` stands for anything."
    )
