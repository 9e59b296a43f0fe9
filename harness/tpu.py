"""What can be said of a TPU without using it: its device files, and the package that drives it.

Its memory, clocks and load are not here: only the process that holds a TPU can ask for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import TYPE_CHECKING

from harness.absence import Absence

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
