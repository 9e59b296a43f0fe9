"""What drives an accelerator, held against what the backend of an environment was built for.

NVIDIA's driver has to be new enough for the CUDA that a backend brought, and libtpu the one that
JAX names. Imports no framework.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from harness import tpu, venvs
from harness.absence import Absence
from harness.probes import CUDA_RUNTIMES, installed

LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
"""By CUDA's major version, the least release of the driver that runs all builds of it."""
LEAST_DRIVER_SOURCE = (
    "https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"
)


def cuda_runtimes(environment: venvs.Venv | None) -> dict[str, str]:
    """The CUDA runtimes that backends brought, with their versions.

    Into an environment that was made for cells, or, without one, into this process's own.
    """
    if environment is not None:
        found: Mapping[str, str | None] = venvs.contents(environment)
    else:
        found = {name: installed(name) for name in CUDA_RUNTIMES if not _of_the_compiler(name)}
    return {name: version for name in CUDA_RUNTIMES if (version := found.get(name)) is not None}


def _of_the_compiler(runtime: str) -> bool:
    """Whether it came with what `preflight` compiles with, and no backend is built for it."""
    alone = installed("nvidia-cuda-nvcc") is not None and installed("nvidia-cudnn-cu13") is None
    return runtime == "nvidia-cuda-runtime" and alone


def majors(runtimes: Mapping[str, str]) -> list[int]:
    """CUDA's major versions among them."""
    return sorted({int(version.split(".")[0]) for version in runtimes.values()})


def new_enough(driver: str, cuda: int) -> bool | None:
    """Whether the driver runs all builds for that CUDA; None where that is not known."""
    least, release = LEAST_DRIVER.get(cuda), re.match(r"\d+", driver)
    return None if least is None or release is None else int(release.group()) >= least


def newer(cuda: int) -> str:
    """What to do about a driver that is too old."""
    least = LEAST_DRIVER[cuda]
    return f"install driver {least} or later, or backends that are built for an older CUDA"


def outdated(driver: str, environment: venvs.Venv | None) -> Absence | None:
    """Why the driver runs no cell of the environment; None where it does, or nobody knows."""
    for cuda in majors(cuda_runtimes(environment)):
        if new_enough(driver, cuda) is False:
            return Absence(
                f"NVIDIA's driver {driver}, and CUDA {cuda}, which the backend is built for, wants "
                f"{LEAST_DRIVER[cuda]} or later",
                newer(cuda),
            )
    return None


@dataclass(frozen=True)
class Libtpu:
    """JAX's version, that of libtpu, and which ones JAX names; None for what is not there."""

    jax: str | None
    found: str | None
    wanted: str | None
    fits: bool
    remedy: str


def libtpu(environment: venvs.Venv | None) -> Libtpu:
    """Of an environment that was made for cells or, without one, of this process's own."""
    remedy = "make the environment that has both: epochmark env create tpu-jax"
    if environment is not None:
        versions = venvs.contents(environment)
        jax, found = versions.get("jax"), versions.get(tpu.DRIVER)
        wanted = tpu.wanted_driver(venvs.needed(environment, "jax"))
    else:
        jax, found, wanted = installed("jax"), installed(tpu.DRIVER), tpu.wanted_driver()
    if jax is None or wanted is None:
        return Libtpu(jax, found, None, fits=False, remedy=remedy)
    fits = found is not None and wanted.specifier.contains(found)
    return Libtpu(jax, found, str(wanted.specifier), fits, remedy)


@cache
def tpu_absence(environment: venvs.Venv | None) -> Absence | None:
    """Why the environment's JAX drives no TPU; None where it does."""
    one = libtpu(environment)
    if one.fits:
        return None
    if one.wanted is None:
        return Absence("no jax that names a libtpu", one.remedy)
    there = f"libtpu {one.found}" if one.found else "no libtpu"
    return Absence(f"{there}, and jax {one.jax} names {one.wanted}", one.remedy)
