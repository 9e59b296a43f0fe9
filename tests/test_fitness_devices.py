"""What `epochmark doctor --device` says without a device; `test_nvml.py` has those with a GPU."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness import device_checks, drivers, fitness, fitness_devices, tpu, venvs
from harness.absence import Absence
from harness.cli import app
from harness.errors import UsageError
from harness.fitness import Check
from harness.fitness_devices import Examined

ABSENT = Absence("none was built in", "buy one")
FOUND = Examined(
    "tpu",
    needed=(Check("TPU", "none", "one", False, "buy one"),),
    wanted=(Check("heat", "20 °C", "below 85 °C", True),),
)


def test_device_files_of_both_kinds_are_found(tmp_path: Path) -> None:
    for name in ("accel0", "accel1", "accelerator", "vfio/vfio", "vfio/0", "null"):
        path = tmp_path / "dev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert tpu.device_files(tmp_path) == ["/dev/accel0", "/dev/accel1", "/dev/vfio/0"]
    assert tpu.absence(tmp_path) is None


def test_without_device_files_there_is_no_tpu(tmp_path: Path) -> None:
    absent = tpu.absence(tmp_path)
    assert absent is not None
    assert absent.told("no TPU").startswith("no TPU: no device file of one; use a machine with")


def test_the_libtpu_that_jax_names_is_read_from_its_own_requirements() -> None:
    found = tpu.wanted_driver(["numpy>=2", 'libtpu==0.0.42.*; extra == "tpu"'])
    assert found is not None
    assert str(found.specifier) == "==0.0.42.*"
    assert tpu.wanted_driver(["numpy>=2"]) is None
    installed = tpu.wanted_driver()
    assert installed is not None, "the installed jax names one"
    assert installed.name == "libtpu"


@pytest.mark.parametrize(
    ("packages", "fit", "found"),
    [
        ({"jax": "0.10.2", "libtpu": "0.0.42"}, True, "0.0.42"),
        ({"jax": "0.10.2", "libtpu": "0.0.42.1"}, True, "0.0.42.1"),
        ({"jax": "0.10.2", "libtpu": "0.0.41"}, False, "0.0.41"),
        ({"jax": "0.10.2"}, False, "not installed"),
        ({}, False, "no jax that names one"),
    ],
)
def test_libtpu_has_to_be_the_one_that_jax_names(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    packages: dict[str, str],
    fit: bool,
    found: str,
) -> None:
    def requires(name: str) -> list[str]:
        if name not in packages:
            raise PackageNotFoundError(name)
        return ['libtpu==0.0.42.*; extra == "tpu"']

    monkeypatch.setenv("EPOCHMARK_CACHE", str(tmp_path))
    monkeypatch.setattr(tpu, "requires", requires)
    monkeypatch.setattr(drivers, "installed", packages.get)
    monkeypatch.setattr(tpu, "device_files", lambda: ["/dev/accel0"])
    monkeypatch.setattr(tpu, "absence", lambda: None)
    examined = fitness_devices.examine("tpu")
    there, libtpu = examined.needed
    assert (there.fit, there.found) == (True, "/dev/accel0")
    assert (libtpu.fit, libtpu.found) == (fit, found)
    assert examined.status == ("available" if fit else "unavailable")
    assert libtpu.remedy.endswith("epochmark env create tpu-jax")


@pytest.mark.parametrize(
    ("package", "version", "found"),
    [
        ("libtpu", "0.0.42.1", "0.0.42.1"),
        ("libtpu", "0.0.41", "0.0.41"),
        ("other", "1", "not installed"),
    ],
)
def test_the_libtpu_of_the_environment_that_was_made_is_what_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, version: str, found: str
) -> None:
    """A night makes it one step before; whatever this environment has, cells run in that one."""
    monkeypatch.setenv("EPOCHMARK_CACHE", str(tmp_path))
    monkeypatch.setattr(drivers, "installed", {"jax": "9", "libtpu": "9"}.get)
    made = venvs.Venv("tpu-jax")
    needs = 'Requires-Dist: libtpu==0.0.42.*; extra == "tpu"\n'
    for name, at, more in (("jax", "0.10.2", needs), (package, version, "")):
        info = made.folder / "lib/python3.11/site-packages" / f"{name}-{at}.dist-info"
        info.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {at}\n{more}"
        (info / "METADATA").write_text(text)
    libtpu = fitness_devices.examine("tpu").needed[1]
    fit = found.startswith("0.0.42.")
    assert (libtpu.name, libtpu.found, libtpu.fit) == ("tpu-jax: libtpu", found, fit)
    assert libtpu.yardstick == "==0.0.42.*, which jax 0.10.2 names"
    absent = drivers.tpu_absence(made)
    drivers.tpu_absence.cache_clear()
    if fit:
        assert absent is None
        return
    assert absent is not None
    there = "no libtpu" if found == "not installed" else f"libtpu {found}"
    assert absent.told("no TPU") == (
        f"no TPU: {there}, and jax 0.10.2 names ==0.0.42.*; "
        "make the environment that has both: epochmark env create tpu-jax"
    )


@pytest.fixture
def _asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitness, "checks", list)
    monkeypatch.setattr(fitness, "render", lambda found, say: None)
    monkeypatch.setattr(fitness_devices, "examine", lambda device: FOUND)
    monkeypatch.setattr(device_checks, "shown", lambda device: iter(()))


@pytest.mark.usefixtures("_asked")
def test_the_answer_in_each_form() -> None:
    ask = ["doctor", "--device", "tpu"]
    table = CliRunner().invoke(app, ask)
    assert table.exit_code == 0
    assert table.stdout.splitlines() == [
        "tpu: unavailable. TPU: none.",
        "TPU   unfit  none   one",
        "heat  ok     20 °C  below 85 °C",
        "TPU: buy one.",
    ]
    found = json.loads(CliRunner().invoke(app, [*ask, "--format", "json"]).stdout)
    assert (found["device"], found["status"]) == ("tpu", "unavailable")
    assert found["needed"][0]["remedy"] == "buy one"
    csv = CliRunner().invoke(app, [*ask, "--format", "csv"]).stdout
    assert csv.splitlines()[1] == "TPU,False,none,one,buy one"


@pytest.mark.usefixtures("_asked")
def test_strict_fails_where_no_cell_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = ["doctor", "--device", "tpu", "--strict"]
    assert CliRunner().invoke(app, ask).exit_code == 1
    fit = replace(FOUND, needed=())
    monkeypatch.setattr(fitness_devices, "examine", lambda device: fit)
    assert CliRunner().invoke(app, ask).exit_code == 0


def test_a_cuda_build_in_an_environment_of_its_own_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPOCHMARK_CACHE", str(tmp_path))
    assert not any("cuda-jax" in name for name in fitness_devices.cuda_runtimes())
    packages = tmp_path / "environments" / "cuda-jax" / "lib" / "python3.11" / "site-packages"
    metadata = packages / "nvidia_cuda_runtime-13.5.37.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: nvidia-cuda-runtime\nVersion: 13.5.37\n")
    assert fitness_devices.cuda_runtimes()["cuda-jax: nvidia-cuda-runtime"] == "13.5.37"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--device", "xpu"], "Unknown device 'xpu'. Known devices: cpu, gpu, tpu."),
        (
            ["--device", "gpu", "--calibrate"],
            "--device is not for --calibrate, which goes by cells: use --only.",
        ),
    ],
)
def test_a_wrong_call_is_told(arguments: list[str], sentence: str) -> None:
    answer = CliRunner().invoke(app, ["doctor", *arguments])
    assert isinstance(answer.exception, UsageError)
    assert str(answer.exception) == sentence
