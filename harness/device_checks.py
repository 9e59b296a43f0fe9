"""What every backend shows on a device when it is tried out there, and whether that is right.

The figures come from a process of each backend (`device_child`), in the environment in which its
cells run. Imports no framework.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from harness.asking import asked
from harness.cells import BACKENDS, Cell
from harness.errors import EpochmarkError
from harness.fitness import Check
from harness.peak import documented
from harness.units import scaled, seconds, size
from harness.venvs import SOURCE, chosen, fitting

TIMEOUT_S = 300.0

IEEE_ERROR = 1e-5
"""Most that products in float32 are off; TensorFloat-32, of ten bits, and bfloat16 are farther."""
TF32_ERROR = 2e-3

READ_SHARE = 0.25
"""Most of the time that reading may take after the wait: what is left then was not waited for."""
READ_S = 0.02

PEAK_SLACK_BYTES = 64 * 2**20
"""What an allocator may take at once beside what it is asked for."""


@dataclass(frozen=True)
class Tried:
    """What a backend showed; None for what it was not asked, `reason` where it has no device.

    Errors are shares of the exact result. Steps take `given_s` to be given to the device,
    `waited_s` to be waited for, and their last result `read_s` to be read then.
    """

    reason: str = ""
    device_kind: str = ""
    product_error: float | None = None
    convolution_error: float | None = None
    given_s: float = 0.0
    waited_s: float = 0.0
    read_s: float | None = None
    flops: int = 0
    allocated_bytes: int = 0
    peak_before_bytes: int | None = None
    peak_bytes: int | None = None
    refusal: str | None = None
    refusal_known: bool = False


def shown(device: str) -> Iterator[Check]:
    """The checks of every backend that reaches the device, one after the other."""
    for backend in BACKENDS if device != "tpu" else ("jax",):
        cell = Cell("", "", "train", backend, "float32", "functional", device)
        try:
            plain = _tried(cell, "float32")
            # A backend that nobody has made an environment for is not missed.
            missed = chosen(cell) is not None or not plain.reason
            yield from judged(backend, device, plain, missed=missed)
            if device == "gpu" and not plain.reason:
                yield from _tf32(backend, _tried(cell, "tensorfloat32"))
        except EpochmarkError as error:
            yield Check(backend, str(error), "a process that ends well", False, _REMEDY)


_REMEDY = "look at what `python -m harness.device_child` says on this device"


def _tried(cell: Cell, precision: str) -> Tried:
    environment = chosen(cell)
    python = str(environment.python) if environment else sys.executable
    root = SOURCE if environment else None
    return Tried(
        **asked(
            "device_child",
            cell.backend,
            *(cell.device, precision),
            device=cell.device,
            timeout_s=TIMEOUT_S,
            python=python,
            root=root,
        )
    )


def judged(backend: str, device: str, found: Tried, *, missed: bool = True) -> Iterator[Check]:
    """What a process in float32 showed; `missed` says that it counts when it sees no device."""
    if found.reason:
        remedy = f"epochmark env create {fitting(_cell(backend, device))[0].name}"
        fit = False if missed else None
        yield Check(f"{backend}: device", found.reason, "one that it sees", fit, remedy)
        return
    kind = found.device_kind or device
    yield Check(f"{backend}: device", kind, "one that it sees", True)
    for name, error in _errors(found):
        yield Check(
            f"{backend}: {name}",
            f"off by {error:.1e} in float32",
            f"at most {IEEE_ERROR:g}",
            error <= IEEE_ERROR,
            "unset NVIDIA_TF32_OVERRIDE and XLA_FLAGS: float32 is not computed in float32 here",
        )
    yield _waiting(backend, found)
    yield _peak(backend, found)
    yield Check(
        f"{backend}: out of memory",
        found.refusal or "an array of 256 TiB was given",
        "an error that is known for one",
        found.refusal_known,
        "report the error with the backend's version",
    )


def _cell(backend: str, device: str) -> Cell:
    return Cell("", "", "train", backend, "float32", "functional", device)


def _errors(found: Tried) -> list[tuple[str, float]]:
    every = {"product": found.product_error, "convolution": found.convolution_error}
    return [(name, error) for name, error in every.items() if error is not None]


def _waiting(backend: str, found: Tried) -> Check:
    """Nothing is left to do after the wait, and the whole is not faster than the device can be."""
    taken, read = found.given_s + found.waited_s, found.read_s or 0.0
    peak = documented(found.device_kind, "float32")
    least = found.flops / peak.flops_per_s if peak else 0.0
    late = read > max(READ_SHARE * (taken + read), READ_S)
    bound = f", the whole at least {seconds(least)} by the documented peak" if peak else ""
    return Check(
        f"{backend}: waiting",
        f"{seconds(taken)} for {scaled(found.flops)}FLOP, then {seconds(read)} to read",
        f"at most {100 * READ_SHARE:.0f} % left to read{bound}",
        not late and taken >= least,
        "believe no time of this backend on this device: a step is not waited for",
    )


def _peak(backend: str, found: Tried) -> Check:
    peak, before, there = found.peak_bytes, found.peak_before_bytes, found.allocated_bytes
    name, told = f"{backend}: allocator's peak", f"{size(there)}, asked for"
    if peak is None or before is None:
        return Check(name, "not told", told, None)
    return Check(
        name,
        f"{size(peak)}, {size(before)} before",
        told,
        there <= peak <= before + there + PEAK_SLACK_BYTES,
        "believe no peak memory of this backend: unset what chooses its allocator",
    )


def _tf32(backend: str, found: Tried) -> Iterator[Check]:
    """Off by as much as ten bits are; where the device is not known to have it, nothing follows."""
    has_it = documented(found.device_kind, "tensorfloat32") is not None
    for name, error in _errors(found):
        yield Check(
            f"{backend}: {name} in TensorFloat-32",
            f"off by {error:.1e}",
            f"between {IEEE_ERROR:g} and {TF32_ERROR:g}",
            IEEE_ERROR < error <= TF32_ERROR if has_it else None,
            "believe no row in tensorfloat32 of this backend: its switch has no effect",
        )
