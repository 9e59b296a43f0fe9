"""Environments for cells: which there are, what locks each, which one a cell's worker runs in.

Each is a virtual environment in the cache folder, made from the requirements file of its name: the
CUDA packages of the backends do not fit into one. Imports no framework.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness.absence import Absence
from harness.cache import cache_folder
from harness.cells import Cell
from harness.errors import EpochmarkError, unknown

SOURCE = Path(__file__).parents[1]
"""The suite's own source tree."""

CELLS = {
    "cuda-tensorflow": "*/tensorflow/*/gpu",
    "cuda-jax": "*/jax/*/gpu",
    "cuda-torch": "*/torch/*/gpu",
    "tpu-jax": "*/jax/*/tpu",
    "cpu-jax": "*/jax/*/cpu",
    "cpu": "*/cpu",
}
"""The cells that each environment is for; of several that were made, the first one is taken."""

NOTHING_INSTALLED = "no interpreter that runs"


@dataclass(frozen=True)
class Venv:
    """An environment by name, whether it was made or not."""

    name: str

    @property
    def folder(self) -> Path:
        return cache_folder().absolute() / "environments" / self.name

    @property
    def python(self) -> Path:
        """Its interpreter. The link is kept: resolved, it would be the one of the system."""
        return self.folder / "bin" / "python"

    @property
    def lock(self) -> Path:
        """The requirements file that it is made from."""
        return SOURCE / "requirements" / f"{self.name}.txt"

    @property
    def made(self) -> bool:
        return self.folder.is_dir()


def venv(name: str) -> Venv:
    """The environment of that name; raises UsageError when there is none such."""
    if name not in CELLS:
        raise unknown("environment", name, sorted(CELLS))
    return Venv(name)


def fitting(cell: Cell) -> list[Venv]:
    """The environments that the cell could run in, best first."""
    one = replace(cell, device=cell.device_kind)
    return [Venv(name) for name, cells in CELLS.items() if fnmatchcase(one.id, cells)]


def chosen(cell: Cell) -> Venv | None:
    """The one that was made for the cell; None leaves it to the parent's own interpreter."""
    return next((found for found in fitting(cell) if found.made), None)


def pins(lock: Path) -> dict[str, Requirement]:
    """The packages that a requirements file and those it names ask for, by normalised name."""
    found: dict[str, Requirement] = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if named := re.match(r"(?:-r|--requirement)\s+(\S+)", text):
            found |= pins(lock.parent / named.group(1))
        elif text:
            requirement = Requirement(text)
            found[canonicalize_name(requirement.name)] = requirement
    return found


def differences(environment: Venv) -> list[str]:
    """How what is installed differs from the lock, a phrase per package; what the lock does not
    name is not looked at, since CUDA's libraries are chosen by the packages that bring them."""
    if not environment.python.is_file():
        return [NOTHING_INSTALLED]
    installed = contents(environment)
    return [
        phrase
        for name, wanted in sorted(pins(environment.lock).items())
        if (phrase := _difference(wanted, installed.get(name), cuda=_for_cuda(environment)))
    ]


def contents(environment: Venv) -> dict[str, str]:
    """Versions of what is installed in it, by normalised name."""
    folders = environment.folder.glob("lib/python*/site-packages")
    every = distributions(path=[str(folder) for folder in folders])
    return {canonicalize_name(package.name): package.version for package in every}


def needed(environment: Venv, package: str) -> list[str]:
    """What a package that is installed in it asks for, with its extras."""
    folders = environment.folder.glob("lib/python*/site-packages")
    every = distributions(path=[str(folder) for folder in folders], name=package)
    return [text for found in every for text in found.requires or ()]


def _for_cuda(environment: Venv) -> bool:
    return CELLS[environment.name].endswith("/gpu")


def _difference(wanted: Requirement, version: str | None, *, cuda: bool) -> str:
    """A phrase, or nothing when the version is the wanted one."""
    if version is None:
        return f"{wanted.name} missing"
    if not wanted.specifier.contains(version, prereleases=True):
        return f"{wanted.name} {version} in place of {str(wanted.specifier).removeprefix('==')}"
    if cuda and version.endswith("+cpu"):
        return f"{wanted.name} {version}, a build for CPUs"
    return ""


def absence(environment: Venv) -> Absence | None:
    """Why no cell can run in the environment that was made, and what to do; None where it can."""
    found = differences(environment)
    if not found:
        return None
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    remedy = f"make it again with `epochmark env create {environment.name}`"
    return Absence(f"{found[0]}{more}", remedy)


def create(environment: Venv) -> None:
    """Make it, in place of one that differs from its lock; pip says what it does meanwhile.

    Raises EpochmarkError when it cannot be made; then nothing of it is left.
    """
    python = str(environment.python)
    # Without the caller's PYTHONPATH, whose packages pip would take for those of the environment.
    pip = [python, "-I", "-m", "pip", "--disable-pip-version-check", "install", "--no-input"]
    try:
        _step("venv", [sys.executable, "-m", "venv", "--clear", str(environment.folder)])
        _step("pip", [*pip, "--requirement", str(environment.lock)])
        left = differences(environment)
        if left:
            raise EpochmarkError(
                f"Environment {environment.name!r} was not made as locked: {'; '.join(left)}. "
                "Look at the index that pip takes its packages from."
            )
    except BaseException:
        shutil.rmtree(environment.folder, ignore_errors=True)
        raise


def _step(what: str, command: list[str]) -> None:
    status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    if status != 0:
        raise EpochmarkError(
            f"The environment was not made: {what} ended with exit status {status}, "
            "and what it wrote above says why."
        )


def every() -> Iterator[Venv]:
    """All environments, by name."""
    return map(Venv, sorted(CELLS))
