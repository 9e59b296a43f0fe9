"""Environments for cells: their locks agree, each is told from its lock, workers run in their own.

The last test makes one from the index and measures a real cell in it; the others make theirs of
files written here.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner, Result

from harness import data, support, tpu, venvs
from harness.cells import Cell
from harness.child import run_worker
from harness.cli import app
from harness.errors import EpochmarkError, UsageError
from harness.registry import workload
from harness.schema import Protocol
from harness.stages import Job
from harness.support import Support
from harness.venvs import CELLS, SOURCE, Venv

REQUIREMENTS = SOURCE / "requirements"
CPU = venvs.pins(REQUIREMENTS / "cpu.txt")
BACKEND_PACKAGES = {
    "tensorflow": {"tensorflow", "tensorflow-cpu"},
    "jax": {"jax"},
    "torch": {"torch"},
}
CUDA = ("nvidia-", "cuda-")
CELL = Cell("lstm_eta", "smoke", "train", "jax", "float32", "functional", "cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of its own."""
    monkeypatch.setenv("EPOCHMARK_CACHE", str(tmp_path / "cache"))
    support._broken.cache_clear()
    return tmp_path / "cache"


def put(folder: Path, name: str, version: str) -> None:
    """A package as installers leave it, without its code."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def make(name: str, changed: dict[str, str | None] | None = None) -> Venv:
    """The environment as its lock has it, but for the changed versions; None leaves one out."""
    found = Venv(name)
    packages = found.folder / "lib" / "python3.11" / "site-packages"
    versions: dict[str, str | None] = {
        name: str(pin.specifier).removeprefix("==") for name, pin in venvs.pins(found.lock).items()
    }
    for package, version in (versions | (changed or {})).items():
        if version is not None:
            put(packages, package, version)
    found.python.parent.mkdir(parents=True)
    found.python.write_text("")
    return found


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["env", *arguments])


# The locks


def test_every_environment_has_a_lock_and_every_lock_an_environment() -> None:
    others = {"dev", "preflight", "worker"}
    assert {path.stem for path in REQUIREMENTS.glob("*.txt")} - others == set(CELLS)


@pytest.mark.parametrize("name", CELLS)
def test_every_pin_is_exact_and_that_of_the_measuring_environment(name: str) -> None:
    found = venvs.pins(Venv(name).lock)
    assert len(found) > 40
    for package, pin in found.items():
        (clause,) = pin.specifier
        assert clause.operator == "==", package
        assert not clause.version.endswith("*"), package
        if package in CPU:
            assert pin.specifier == CPU[package].specifier, package


def test_packages_that_the_measuring_environment_lacks_fit_those_that_it_has() -> None:
    added = {
        package: str(pin.specifier)
        for name in CELLS
        for package, pin in venvs.pins(Venv(name).lock).items()
        if package not in CPU
    }
    jax = str(CPU["jax"].specifier)
    wanted = tpu.wanted_driver()
    assert wanted is not None
    assert wanted.specifier.contains(added["libtpu"].removeprefix("=="))
    assert added == {
        "tensorflow": str(CPU["tensorflow-cpu"].specifier),
        "jax-cuda13-plugin": jax,
        "jax-cuda13-pjrt": jax,
        "libtpu": str(venvs.pins(REQUIREMENTS / "preflight.txt")["libtpu"].specifier),
    }


@pytest.mark.parametrize("name", [name for name in CELLS if name != "cpu"])
def test_an_environment_of_one_backend_has_no_other(name: str) -> None:
    own = name.split("-")[1]
    found = set(venvs.pins(Venv(name).lock))
    assert [b for b, packages in BACKEND_PACKAGES.items() if packages & found] == [own]


@pytest.mark.parametrize("name", CELLS)
def test_a_lock_names_all_that_its_packages_need(name: str) -> None:
    """By what the packages that are installed here say; the CUDA libraries are left to pip."""
    found = set(venvs.pins(Venv(name).lock))
    for package in found:
        known = "tensorflow-cpu" if package == "tensorflow" else package
        try:
            needed = map(Requirement, requires(known) or ())
        except PackageNotFoundError:
            assert package in {"jax-cuda13-plugin", "jax-cuda13-pjrt", "libtpu"}
            continue
        assert plainly(needed) - found == set(), package


def plainly(needed: Iterable[Requirement]) -> set[str]:
    """Names of what is needed without any extra, but for CUDA's libraries."""
    plain = [r for r in needed if not r.marker or r.marker.evaluate({"extra": ""})]
    names = {str(canonicalize_name(r.name)) for r in plain}
    return {name for name in names if not name.startswith(CUDA) and name != "triton"}


def test_the_libraries_of_torchs_build_for_gpus_are_left_to_pip() -> None:
    """Python's index has that one for Linux, and it needs them without any extra."""
    linux = 'platform_system == "Linux"'
    texts = [
        f'cuda-toolkit[cublas,cudart]==13.0.2; {linux}', f'nvidia-cudnn-cu13==9.19.0.56; {linux}',
        f'triton==3.6.0; {linux}', 'sympy>=1.13.3', 'opt-einsum>=3.3; extra == "opt-einsum"',
    ]  # fmt: skip
    assert plainly(map(Requirement, texts)) == {"sympy"}


# Which one a cell takes


@pytest.mark.parametrize(
    ("backend", "device", "names"),
    [
        ("tensorflow", "gpu", ["cuda-tensorflow"]),
        ("jax", "gpu", ["cuda-jax"]),
        ("torch", "gpu", ["cuda-torch"]),
        ("jax", "tpu", ["tpu-jax"]),
        ("jax", "cpu", ["cpu-jax", "cpu"]),
        ("torch", "cpu", ["cpu"]),
    ],
)
def test_a_cell_fits_the_environments_of_its_backend_and_device(
    backend: str, device: str, names: list[str]
) -> None:
    found = venvs.fitting(replace(CELL, backend=backend, device=device))
    assert [environment.name for environment in found] == names


def test_a_cell_takes_the_best_environment_that_was_made(cache: Path) -> None:
    assert venvs.chosen(CELL) is None
    make("cuda-jax")
    assert venvs.chosen(CELL) is None
    everything = make("cpu")
    assert venvs.chosen(CELL) == everything
    assert venvs.chosen(replace(CELL, backend="torch")) == everything
    assert venvs.chosen(replace(CELL, device="tpu")) is None
    assert make("cpu-jax") == venvs.chosen(CELL)


def test_an_environment_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(UsageError) as raised:
        venvs.venv("cpu-jaxx")
    assert str(raised.value) == (
        "Unknown environment 'cpu-jaxx'. Known environments: "
        "cpu, cpu-jax, cuda-jax, cuda-tensorflow, cuda-torch, tpu-jax."
    )


# What is there against the lock


def test_an_environment_as_locked_differs_in_nothing(cache: Path) -> None:
    for name in CELLS:
        assert venvs.differences(make(name)) == []


def test_names_are_compared_as_indexes_do_and_builds_by_their_version(cache: Path) -> None:
    found = make("cpu-jax", {"opt-einsum": None, "jaxlib": "0.10.2+local"})
    put(found.folder / "lib" / "python3.11" / "site-packages", "Opt_Einsum", "3.4.0")
    assert venvs.differences(found) == []


def test_differences_name_the_package_and_both_versions(cache: Path) -> None:
    found = make("cpu-jax", {"jax": "0.10.1", "keras": None, "scipy": "1.18.0"})
    assert venvs.differences(found) == [
        "jax 0.10.1 in place of 0.10.2",
        "keras missing",
        "scipy 1.18.0 in place of 1.17.1",
    ]


def test_a_build_for_cpus_is_no_environment_for_gpus(cache: Path) -> None:
    found = make("cuda-torch", {"torch": "2.13.0+cpu"})
    assert venvs.differences(found) == ["torch 2.13.0+cpu, a build for CPUs"]
    assert venvs.differences(make("cpu", {"torch": "2.13.0+cpu"})) == []


def test_an_environment_without_its_interpreter_is_told(cache: Path) -> None:
    found = make("cpu-jax")
    found.python.unlink()
    found.python.symlink_to(cache / "gone")
    assert venvs.differences(found) == ["no interpreter that runs"]


def test_cells_of_an_environment_that_differs_are_unavailable_and_say_what_to_do(
    cache: Path,
) -> None:
    make("cpu-jax", {"jax": "0.10.1", "keras": None})
    why = (
        "environment cpu-jax not as locked: jax 0.10.1 in place of 0.10.2 and 1 more; "
        "make it again with `epochmark env create cpu-jax`"
    )
    assert support.support(CELL) == Support("unavailable", why)


def test_cells_of_an_environment_as_locked_need_no_framework_of_the_parent(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "_installed", lambda module: False)
    assert not support.support(CELL).runs
    make("cpu-jax")
    assert support.support(CELL) == Support("supported")


# The command


def test_the_list_says_which_were_made_and_are_as_locked(cache: Path) -> None:
    make("cpu-jax")
    make("cuda-torch", {"torch": None})
    lines = call("list").stdout.splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "environment cells status",
        "cpu */cpu not made",
        "cpu-jax */jax/*/cpu as locked",
        "cuda-jax */jax/*/gpu not made",
        "cuda-tensorflow */tensorflow/*/gpu not made",
        "cuda-torch */torch/*/gpu differs torch missing",
        "tpu-jax */jax/*/tpu not made",
    ]


def test_the_list_for_programs(cache: Path) -> None:
    make("cpu-jax", {"jax": None, "keras": None})
    rows = json.loads(call("list", "--format", "json").stdout)
    (row,) = [row for row in rows if row["name"] == "cpu-jax"]
    assert row == {
        "name": "cpu-jax",
        "cells": "*/jax/*/cpu",
        "status": "differs",
        "packages": len(venvs.pins(Venv("cpu-jax").lock)),
        "differences": ["jax missing", "keras missing"],
    }
    table = list(csv.DictReader(io.StringIO(call("list", "--format", "csv").stdout)))
    assert [row["name"] for row in table] == sorted(CELLS)
    assert table[1]["differences"] == "jax missing; keras missing"


def test_check_says_it_in_a_sentence_and_by_its_exit_status(cache: Path) -> None:
    found = call("check", "cpu-jax")
    assert (found.exit_code, found.stdout) == (
        1,
        "cpu-jax: not made; `epochmark env create cpu-jax` makes it.\n",
    )
    make("cpu-jax")
    found = call("check", "cpu-jax")
    assert (found.exit_code, found.stdout) == (0, "cpu-jax: as locked, 43 packages.\n")
    make("tpu-jax", {"libtpu": "0.0.41"})
    found = call("check", "tpu-jax")
    assert (found.exit_code, found.stdout) == (
        1,
        "tpu-jax: differs from its lock: libtpu 0.0.41 in place of 0.0.42.1; "
        "`epochmark env create tpu-jax` makes it again.\n",
    )


# Making one


@pytest.fixture
def small(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Locks cpu-jax to a version of a package that is served here in version 1.0 alone."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "planted-1.0-py3-none-any.whl", "w") as wheel:
        info = "planted-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setattr(venvs, "SOURCE", tmp_path)
    (tmp_path / "requirements").mkdir()

    def lock(version: str) -> None:
        (tmp_path / "requirements" / "cpu-jax.txt").write_text(f"planted=={version}  # why\n")

    return lock


def test_an_environment_is_made_as_locked_once(small: Callable[[str], None]) -> None:
    small("1.0")
    made = call("create", "cpu-jax")
    assert (made.exit_code, made.stdout) == (0, "cpu-jax: as locked, 1 packages.\n")
    before = Venv("cpu-jax").python.lstat().st_mtime_ns
    assert call("create", "cpu-jax").exit_code == 0
    assert Venv("cpu-jax").python.lstat().st_mtime_ns == before


def test_nothing_is_left_of_one_that_could_not_be_made(small: Callable[[str], None]) -> None:
    small("2.0")
    with pytest.raises(EpochmarkError) as raised:
        venvs.create(Venv("cpu-jax"))
    assert str(raised.value) == (
        "The environment was not made: pip ended with exit status 1, "
        "and what it wrote above says why."
    )
    assert not Venv("cpu-jax").made


# Workers


def test_a_worker_runs_in_the_environment_of_its_cell_with_this_source_tree(cache: Path) -> None:
    found = make("cpu-jax")
    found.python.write_text('#!/bin/sh\necho "$2 from $(basename "$PYTHONPATH")"\nexit 7\n')
    found.python.chmod(0o755)
    ended = run_worker(Job(cell=CELL, seed=1, protocol=Protocol()))
    assert ended.reason.startswith("the worker ended with exit code 7")
    assert ended.log_tail.strip() == f"harness.worker from {SOURCE.name}"


@pytest.mark.frameworks
def test_a_real_environment_is_made_from_the_index_and_runs_a_cell(cache: Path) -> None:
    data.fetch(workload(CELL.workload), CELL.scale)
    made = call("create", "cpu-jax")
    assert (made.exit_code, made.stdout) == (0, "cpu-jax: as locked, 43 packages.\n")
    ended = run_worker(Job(cell=CELL, seed=2013, protocol=Protocol(stop_after="gate")))
    assert (ended.status, ended.reason) == ("ok", "")
    assert ended.report is not None
    assert ended.report.gate.outcome == "passed"
    packages = ended.report.environment.packages
    assert packages.keys() & {"tensorflow-cpu", "torch"} == set()
    assert packages["jax"] == str(CPU["jax"].specifier).removeprefix("==")


# What is not made here, because of its size

TOO_LARGE = {"cuda-jax", "cuda-tensorflow"}


def pip(*arguments: str) -> str:
    """What it writes; the test is skipped where the index has no build for this machine."""
    command = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No matching distribution found" in done.stderr:
        pytest.skip(f"the index here lacks it: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.frameworks
@pytest.mark.parametrize("name", sorted(set(CELLS) - TOO_LARGE - {"cpu", "cpu-jax"}))
def test_a_lock_can_be_resolved(name: str, tmp_path: Path) -> None:
    """By pip, which installs nothing: all pins at once, with what they need, and nothing else.

    Of torch an index may have a build for processors, which then stands in place of CUDA's.
    """
    pins, report = venvs.pins(Venv(name).lock), tmp_path / "report.json"
    ask = ["install", "--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
    pip(*ask, "--requirement", str(Venv(name).lock))
    chosen = [one["metadata"] for one in json.loads(report.read_text())["install"]]
    found = {str(canonicalize_name(one["name"])): one["version"] for one in chosen}
    assert pins.keys() <= found.keys()
    assert all(pins[package].specifier.contains(found[package]) for package in pins)
    added = found.keys() - pins.keys()
    assert all(package.startswith(CUDA) or package == "triton" for package in added), added


@pytest.mark.frameworks
@pytest.mark.parametrize("name", sorted(TOO_LARGE))
def test_the_index_has_what_a_lock_pins(name: str) -> None:
    """What these need in turn was resolved by hand once: 60 packages and 70."""
    for package, pin in venvs.pins(Venv(name).lock).items():
        if package not in CPU:
            versions = pip("index", "versions", package).split("Available versions:")[1]
            assert str(pin.specifier).removeprefix("==") in versions.replace(",", " ").split()
    pytest.skip(f"{name} not resolved further: pip would fetch 1 to 2 GB of CUDA for it")
