"""What can be said of a TPU without using it: its device files, and the package that drives it.

And what JAX tells of one's memory, to the process that holds it alone. Nothing tells its clocks,
power or load.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.absence import Absence
from harness.accelerators import Probe
from harness.probes import installed
from harness.schema import Device, DeviceReading

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DRIVER = "libtpu"
_ABSENCE = Absence(
    "no device file of one",
    "use a machine with a TPU (a Cloud TPU VM), or let the container see its device files",
)


def device_files(root: Path = Path("/")) -> list[str]:
    """Device files as TPUs have them.

    /dev/accel<n> up to v4; /dev/vfio/<n> from v5e on, which may also be another passed-on device.
    """
    dev = root / "dev"
    found = sorted([*dev.glob("accel*"), *dev.glob("vfio/*")])
    names = [f"/{path.relative_to(root).as_posix()}" for path in found]
    return [name for name in names if re.search(r"accel\d+$|vfio/\d+$", name)]


@cache
def absence(root: Path = Path("/")) -> Absence | None:
    """Why no run can have a TPU here; None where there is a device file like a TPU's."""
    return None if device_files(root) else _ABSENCE


def wanted_driver(requirements: Iterable[str] | None = None) -> Requirement | None:
    """The libtpu that the installed JAX names in its extra `tpu`; None without JAX."""
    from packaging.requirements import Requirement

    if requirements is None:
        try:
            requirements = requires("jax") or ()
        except PackageNotFoundError:
            return None
    parsed = map(Requirement, requirements)
    return next((found for found in parsed if found.name == DRIVER), None)


def probe(device: Any) -> Probe:
    """Of a TPU that this process holds, as JAX has it: its kind and its `memory_stats`."""
    told = Device(
        probe="jax",
        name=device.device_kind,
        uuid_digest="",
        driver=f"{DRIVER} {installed(DRIVER) or 'of the system'}",
        memory_bytes=_memory(device).get("bytes_limit"),
        mig=None,
    )
    return Probe(told, lambda: _reading(device))


def _reading(device: Any) -> DeviceReading:
    """What the allocator has given out is this process's own: no other can hold the device."""
    used = _memory(device).get("bytes_in_use")
    return DeviceReading(memory_used_bytes=used, own_memory_bytes=used)


def _memory(device: Any) -> dict[str, int]:
    """Empty where the device tells nothing; raises OSError when it is lost."""
    try:
        return device.memory_stats() or {}
    except RuntimeError as error:  # XLA's own errors are of this kind
        raise OSError(str(error).partition("\n")[0]) from error
