"""What the driver of a GPU tells gets into the record, and nothing that it does not tell.

There is no GPU here. The real client (pynvml), in a real child process, loads a stand-in for
libnvidia-ml.so.1 that is built from `nvml_standin.c` and answers what a file says at that moment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from harness import accelerators
from harness.absence import Absence
from harness.accelerators import Own, Probe, Watch, watched
from harness.nvml import REASONS, SLOWDOWNS
from harness.peak import documented
from harness.schema import Accelerator, Device, DeviceReading
from harness.show import show
from harness.store import read_file
from harness.table import load_table
from tests.records import make_run, write_session

HERE = Path(__file__).parent
UUID = "GPU-8f2c1d2e-0000-1111-2222-333344445555"
GIB = 2**30

QUIET = {
    "count": 1,
    "name": "NVIDIA H100 80GB HBM3",
    "uuid0": UUID,
    "driver": "580.65.06",
    "memory_total": 80 * GIB,
    "memory_used": GIB,
    "utilisation": 0,
    "power_mw": 70_000,
    "energy_mj": 1_000_000,
    "temperature": 40,
    "sm_clock_mhz": 1980,
    "memory_clock_mhz": 2619,
    "reasons": 1,
    "mig": 0,
    "persistence": 1,
}
THREE: dict[str, Any] = {"count": 3, "uuid1": "GPU-77", "uuid2": "GPU-99"}
GPU_IS_LOST, NO_PERMISSION, NOT_SUPPORTED, DRIVER_NOT_LOADED = 15, 4, 3, 9


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the stand-in."""
    compiler = shutil.which("cc")
    assert compiler, "These tests build a C library: install a C compiler (cc), such as gcc."
    folder = tmp_path_factory.mktemp("nvml")
    subprocess.run(
        [
            *(compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"),
            *("-Wl,-soname,libnvidia-ml.so.1", "-o", folder / "libnvidia-ml.so.1"),
            HERE / "nvml_standin.c",
        ],
        check=True,
    )
    return folder


@dataclass
class Machine:
    """A machine with the stand-in: what it says, and processes that run on it."""

    library: Path
    state: Path

    def says(
        self,
        *,
        processes: tuple[tuple[int, int], ...] = (),
        errors: dict[str, int] | None = None,
        without: tuple[str, ...] = (),
        **changes: object,
    ) -> None:
        """From now on: a quiet GPU with these changes."""
        lines = [f"{k} {v}" for k, v in (QUIET | changes).items() if k not in without]
        lines += [f"process {pid} {size}" for pid, size in processes]
        lines += [f"error {name} {code}" for name, code in (errors or {}).items()]
        new = self.state.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(self.state)

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **{k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"},
            "LD_LIBRARY_PATH": str(self.library),
            "NVML_STANDIN": str(self.state),
            **more,
        }

    def command(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """The command `epochmark`, on this machine."""
        code = "from harness.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=self.environment(**more),
            capture_output=True,
            text=True,
            check=False,
        )


class Child:
    """`tests.nvml_child`, which obeys orders."""

    def __init__(self, machine: Machine, *device: str, **more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.nvml_child", *device],
            env=machine.environment(**more),
            cwd=HERE.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def obey(self, order: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def accelerators(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.obey("stop")[0]
        return found

    def accelerator(self) -> dict[str, Any]:
        (found,) = self.accelerators()
        return found

    def end(self) -> None:
        self.process.communicate()


@pytest.fixture
def machine(library: Path, tmp_path: Path) -> Machine:
    found = Machine(library, tmp_path / "state")
    found.says()
    return found


@pytest.fixture
def start(machine: Machine) -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def started(*device: str, **more: str) -> Child:
        children.append(Child(machine, *device, **more))
        return children[-1]

    yield started
    for child in children:
        child.end()


# Through the real client, in a real process


def test_what_a_quiet_device_tells(start: Callable[..., Child]) -> None:
    child = start()
    child.obey("watch")
    assert child.obey("samples") >= 2
    found = child.accelerator()
    assert found["device"] == {
        "probe": "nvml",
        "name": "NVIDIA H100 80GB HBM3",
        "uuid_digest": sha256(UUID.encode()).hexdigest()[:16],
        "driver": "580.65.06",
        "memory_bytes": 80 * GIB,
        "mig": False,
    }
    assert found["before"] == {
        "memory_used_bytes": GIB,
        "own_memory_bytes": None,
        "utilisation": 0.0,
        "power_w": 70.0,
        "energy_j": 1000.0,
        "temperature_c": 40.0,
        "sm_clock_hz": 1.98e9,
        "memory_clock_hz": 2.619e9,
        "throttle_reasons": ["gpu_idle"],
        "processes": 0,
        "own_processes": 0,
    }
    assert found["after"] == found["before"]
    assert (found["sampling_hz"], found["throttled"], found["failure"]) == (200.0, False, "")
    assert "8f2c1d2e" not in json.dumps(found), "the identifier itself stays here"


def test_a_run_is_seen_between_its_ends_and_throttling_marks_it(
    machine: Machine, start: Callable[..., Child]
) -> None:
    """A worker below the child computes; the device gets hot, and is cool again at the end."""
    child = start()
    child.obey("watch")
    ours = child.process.pid
    busy: dict[str, Any] = {"utilisation": 100, "power_mw": 700_000, "memory_used": 60 * GIB}
    machine.says(**busy, processes=((ours, 59 * GIB),), reasons=4)
    child.obey("samples")
    machine.says(
        **busy, processes=((ours, 30 * GIB),), reasons=0x20 | 0x4, temperature=88, sm_clock_mhz=1200
    )
    child.obey("samples")
    machine.says()
    found = child.accelerator()
    assert found["throttled"]
    assert set(found["throttle_reasons"]) == {"gpu_idle", "sw_power_cap", "sw_thermal_slowdown"}
    assert found["max_temperature_c"] == 88.0
    assert found["min_sm_clock_hz"] == 1.2e9
    assert found["peak_memory_used_bytes"] == 60 * GIB
    assert found["peak_own_memory_bytes"] == 59 * GIB
    assert 0.0 < found["mean_utilisation"] <= 1.0
    assert 70.0 < found["mean_power_w"] <= 700.0
    assert found["other_processes"] == 0
    assert found["before"]["throttle_reasons"] == found["after"]["throttle_reasons"] == ["gpu_idle"]


def test_the_power_cap_alone_is_no_throttling(
    machine: Machine, start: Callable[..., Child]
) -> None:
    machine.says(reasons=4 | 0x1000)
    child = start()
    child.obey("watch")
    found = child.accelerator()
    assert found["throttle_reasons"] == ["sw_power_cap", "unknown 0x1000"]
    assert not found["throttled"]


def test_processes_of_others_are_counted(machine: Machine, start: Callable[..., Child]) -> None:
    """Process 1 is above all others, so that it is never the run's."""
    child = start()
    child.obey("watch")
    machine.says(processes=((child.process.pid, 2 * GIB), (1, GIB), (0x7FFFFFFF, GIB)))
    child.obey("samples")
    assert child.obey("processes") == 3
    machine.says()
    found = child.accelerator()
    assert found["other_processes"] == 2
    assert found["peak_own_memory_bytes"] == 2 * GIB


def test_processes_by_identifiers_of_another_namespace_are_not_taken_for_others(
    machine: Machine, start: Callable[..., Child]
) -> None:
    """The run's own is among them under another name: only the ends, without it, can tell."""
    child = start()
    child.obey("watch")
    machine.says(processes=((0x7FFFFFFF, GIB),))
    child.obey("samples")
    machine.says()
    assert child.accelerator()["other_processes"] == 0


def test_what_may_not_be_asked_is_absent(machine: Machine, start: Callable[..., Child]) -> None:
    machine.says(
        errors={
            "nvmlDeviceGetComputeRunningProcesses_v3": NO_PERMISSION,
            "nvmlDeviceGetUtilizationRates": NOT_SUPPORTED,
            "nvmlDeviceGetCurrentClocksEventReasons": NOT_SUPPORTED,
            "nvmlDeviceGetCurrentClocksThrottleReasons": NOT_SUPPORTED,
        },
        without=("mig", "temperature"),
    )
    child = start()
    child.obey("watch")
    child.obey("samples")
    assert child.obey("processes") is None
    found = child.accelerator()
    for name in ("processes", "own_processes", "utilisation", "throttle_reasons", "temperature_c"):
        assert found["before"][name] is None, name
    for name in ("other_processes", "mean_utilisation", "throttle_reasons", "max_temperature_c"):
        assert found[name] is None, name
    assert found["device"]["mig"] is None
    assert (found["mean_power_w"], found["throttled"], found["failure"]) == (70.0, False, "")


def test_older_drivers_know_the_reasons_by_their_older_name(
    machine: Machine, start: Callable[..., Child]
) -> None:
    machine.says(errors={"nvmlDeviceGetCurrentClocksEventReasons": NOT_SUPPORTED}, reasons=0x40)
    child = start()
    child.obey("watch")
    assert child.accelerator()["throttle_reasons"] == ["hw_thermal_slowdown"]


def test_a_device_that_is_lost_ends_the_reading_and_nothing_else(
    machine: Machine, start: Callable[..., Child]
) -> None:
    child = start()
    child.obey("watch")
    child.obey("samples")
    child.obey("begin")
    machine.says(errors={"nvmlDeviceGetHandleByIndex_v2": GPU_IS_LOST})
    child.obey("samples")
    child.obey("end")
    machine.says()  # it does not come back to a run
    (found,), energy = child.obey("stop")
    assert found["failure"] == "CUDA device 0: GPU is lost"
    assert found["samples"] >= 2
    assert found["before"]["power_w"] == 70.0
    assert found["after"] is None
    assert energy is None


def test_energy_is_counted_or_integrated_where_the_driver_has_no_counter(
    machine: Machine, start: Callable[..., Child]
) -> None:
    for energy, method in ((5_000_000, "nvml"), (None, "nvml-power")):
        without = () if energy else ("energy_mj",)
        machine.says(without=without)
        child = start()
        child.obey("watch")
        child.obey("begin")
        machine.says(without=without, energy_mj=1_250_000)
        child.obey("samples")
        child.obey("end")
        (found,), joules = child.obey("stop")
        assert joules["method"] == method
        assert found["before"]["energy_j"] == (1000.0 if energy else None)
        (epoch,) = joules["epochs_j"]
        assert epoch == 250.0 if energy else epoch > 0


def test_a_run_uses_the_first_device_that_cuda_may_see(
    machine: Machine, start: Callable[..., Child]
) -> None:
    machine.says(count=2, uuid1="GPU-77")
    for visible, number in (("1,0", 1), ("GPU-77", 1), ("GPU-8f", 0)):
        assert start(CUDA_VISIBLE_DEVICES=visible).obey("used") == [number]
    assert start("gpu-x2", CUDA_VISIBLE_DEVICES="1, 0").obey("used") == [1, 0]
    assert start("gpu-x2").obey("used") == [0, 1]


def test_every_device_of_a_run_is_watched(machine: Machine, start: Callable[..., Child]) -> None:
    """Of three, the run has two; the second one of these gets hot."""
    machine.says(**THREE)
    child = start("gpu-x2")
    child.obey("watch")
    machine.says(**(THREE | {"reasons@1": 0x20, "reasons@2": 0x20}))
    child.obey("samples")
    machine.says(**THREE)
    first, second = child.accelerators()
    assert (first["throttled"], second["throttled"]) == (False, True)
    assert first["device"]["uuid_digest"] != second["device"]["uuid_digest"]


def test_a_record_is_marked(machine: Machine, start: Callable[..., Child], tmp_path: Path) -> None:
    """The whole way: the parent of a run watches, writes, and `show` prints the mark.

    Another process comes while the run goes on.
    """
    during = Machine(machine.library, machine.state.with_suffix(".during"))
    during.says(reasons=0x8, processes=((1, GIB),))
    results = tmp_path / "results"
    child = start(EPOCHMARK_CACHE=str(tmp_path / "cache"), CUDA_VISIBLE_DEVICES=UUID)
    child.obey(f"run {results}")
    (path,) = results.rglob("*.jsonl")
    found = read_file(path)
    (run,) = found.runs
    assert found.notices == ()
    (seen,) = run.accelerators
    assert seen.throttled
    assert seen.throttle_reasons == ("gpu_idle", "hw_slowdown")
    assert seen.other_processes == 1
    assert run.contention.contended, "others computed on the device"
    assert seen.sampling_hz == 1.0
    named = found.session.environment.variables["CUDA_VISIBLE_DEVICES"]
    assert named == f"GPU-{seen.device.uuid_digest}"
    assert "8f2c1d2e" not in path.read_text()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"processes": ((1, GIB),)},
            "no free GPU: a GPU busy with another process; end them; nvidia-smi names them",
        ),
        (
            {"processes": ((1, GIB), (2, GIB))},
            "no free GPU: a GPU busy with 2 other processes; end them; nvidia-smi names them",
        ),
        (
            {"utilisation": 93},
            "no free GPU: a GPU that computes 93 % of the time; end what computes on it, in other "
            "containers too, which this one cannot see",
        ),
    ],
)
def test_a_cell_does_not_run_on_a_busy_gpu(
    machine: Machine,
    start: Callable[..., Child],
    tmp_path: Path,
    changes: dict[str, Any],
    reason: str,
) -> None:
    machine.says(**changes)
    start(EPOCHMARK_CACHE=str(tmp_path / "cache")).obey(f"run {tmp_path / 'results'}")
    (path,) = (tmp_path / "results").rglob("*.jsonl")
    (run,) = read_file(path).runs
    assert (run.status, run.reason) == ("unavailable", reason)
    assert run.accelerators == ()


def test_a_gpu_is_given_time_to_become_idle_after_the_run_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([Absence("busy", "wait"), None])
    monkeypatch.setattr(accelerators, "_occupied", lambda device: next(answers))
    monkeypatch.setattr(accelerators, "pause", lambda seconds: None)
    assert accelerators.busy("gpu") is None
    assert accelerators.busy("cpu") is None, "and of a processor nobody asks"


def test_mfu_is_held_against_the_device_that_the_run_had(
    machine: Machine, start: Callable[..., Child], tmp_path: Path
) -> None:
    """Of two, the second, which is another one."""
    other: dict[str, Any] = {"name@1": "NVIDIA L4"}
    machine.says(count=2, uuid1="GPU-77", **other)
    child = start(EPOCHMARK_CACHE=str(tmp_path / "cache"), CUDA_VISIBLE_DEVICES="1")
    child.obey(f"run {tmp_path / 'results'}")
    (path,) = (tmp_path / "results").rglob("*.jsonl")
    (run,) = read_file(path).runs
    assert run.accelerators[0].device.name == "NVIDIA L4"
    assert run.peak == documented("NVIDIA L4", "float32")


# The doctor


def cuda(site: Path, version: str, name: str = "nvidia_cuda_runtime") -> dict[str, str]:
    """The environment of a child that has this CUDA runtime installed, and a cuDNN for it."""
    cudnn = "nvidia_cudnn_cu12" if name.endswith("cu12") else "nvidia_cudnn_cu13"
    for package, at in ((name, version), (cudnn, "9.10.0")):
        folder = site / f"{package}-{at}.dist-info"
        folder.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {package}\nVersion: {at}\n"
        (folder / "METADATA").write_text(text)
    return {"PYTHONPATH": os.pathsep.join([str(site), str(HERE.parent)])}


def unfit(child: Child) -> tuple[str, dict[str, str]]:
    """Status, and what each unfit check found."""
    answer = child.obey("doctor")
    every = [*answer["needed"], *answer["wanted"]]
    assert all(check["remedy"] for check in every if check["fit"] is False)
    return answer["status"], {c["name"]: c["found"] for c in every if c["fit"] is False}


def test_a_quiet_device_is_fit(start: Callable[..., Child], tmp_path: Path) -> None:
    child = start(**cuda(tmp_path / "site", "13.0.88"))
    answer = child.obey("doctor")
    assert answer["status"] == "available"
    found = {check["name"]: check for check in [*answer["needed"], *answer["wanted"]]}
    assert all(check["fit"] for check in found.values()), found
    assert found["GPU"]["found"] == "NVIDIA H100 80GB HBM3, number 0 of 1"
    assert found["CUDA build"]["found"] == "nvidia-cuda-runtime 13.0.88"
    assert found["driver for CUDA 13"]["found"] == "580.65.06"
    assert found["driver for CUDA 13"]["yardstick"].startswith("at least 580 (https://docs.nvidia")
    assert found["energy"]["found"] == "counted by the device"


@pytest.mark.parametrize(
    ("changes", "status", "found"),
    [
        ({"processes": ((1, GIB), (2, GIB))}, "unavailable", {"other processes": "2"}),
        ({"utilisation": 93}, "unavailable", {"utilisation": "93 %"}),
        ({"mig": 1}, "unavailable", {"MIG": "on"}),
        ({"memory_used": 20 * GIB}, "available", {"memory in use": "25 %"}),
        ({"reasons": 0x21}, "available", {"throttling": "gpu_idle, sw_thermal_slowdown"}),
        ({"temperature": 85}, "available", {"temperature": "85 °C"}),
        ({"persistence": 0}, "available", {"persistence": "off"}),
        # Not told is not unfit.
        (
            {
                "without": ("utilisation", "mig", "reasons", "temperature", "persistence",
                            "energy_mj", "power_mw", "memory_total"),
                "errors": {"nvmlDeviceGetComputeRunningProcesses_v3": NO_PERMISSION},
            },
            "available",
            {},
        ),
    ],
)  # fmt: skip
def test_what_makes_a_device_unfit_is_named(
    machine: Machine,
    start: Callable[..., Child],
    tmp_path: Path,
    changes: dict[str, Any],
    status: str,
    found: dict[str, str],
) -> None:
    machine.says(**changes)
    child = start(**cuda(tmp_path / "site", "12.9.79", "nvidia_cuda_runtime_cu12"))
    assert unfit(child) == (status, found)


@pytest.mark.parametrize(
    ("driver", "version", "name", "found"),
    [
        ("570.195.03", "13.0.88", "nvidia_cuda_runtime", {"driver for CUDA 13": "570.195.03"}),
        ("524.9", "12.9.79", "nvidia_cuda_runtime_cu12", {"driver for CUDA 12": "524.9"}),
        ("525.60.13", "12.9.79", "nvidia_cuda_runtime_cu12", {}),
        ("600.1", "14.0.1", "nvidia_cuda_runtime", {}),  # nobody has said what it needs
    ],
)
def test_a_driver_too_old_for_the_cuda_of_a_backend(
    machine: Machine,
    start: Callable[..., Child],
    tmp_path: Path,
    driver: str,
    version: str,
    name: str,
    found: dict[str, str],
) -> None:
    machine.says(driver=driver)
    status = "unavailable" if found else "available"
    assert unfit(start(**cuda(tmp_path / "site", version, name))) == (status, found)


@pytest.mark.parametrize(
    ("changes", "variables", "reason"),
    [
        ({"errors": {"nvmlInitWithFlags": DRIVER_NOT_LOADED}}, {}, "driver that is not loaded"),
        ({"errors": {"nvmlInitWithFlags": 18}}, {}, "of another version than its library"),
        ({"errors": {"nvmlInitWithFlags": NO_PERMISSION}}, {}, "no permission to ask"),
        ({"errors": {"nvmlInitWithFlags": 999}}, {}, "a GPU that fails (NVML: Unknown Error)"),
        ({"count": 0}, {}, "driver without a device"),
        ({}, {"CUDA_VISIBLE_DEVICES": "-1"}, "every GPU hidden by CUDA_VISIBLE_DEVICES"),
        ({"errors": {"nvmlDeviceGetName": GPU_IS_LOST}}, {}, "fails (CUDA device 0: GPU is lost)"),
        ({"errors": {"nvmlDeviceGetPowerUsage": GPU_IS_LOST}}, {}, "(CUDA device 0: GPU is lost)"),
        ({}, {"LD_LIBRARY_PATH": "broken"}, "no NVIDIA driver (its libnvidia-ml.so.1 was not"),
    ],
)
def test_why_there_is_no_device(
    machine: Machine,
    start: Callable[..., Child],
    tmp_path: Path,
    changes: dict[str, Any],
    variables: dict[str, str],
    reason: str,
) -> None:
    machine.says(**changes)
    if "LD_LIBRARY_PATH" in variables:  # a library that can't be loaded comes before any driver's
        variables = {"LD_LIBRARY_PATH": str(tmp_path)}
        (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    child = start(**cuda(tmp_path / "site", "13.0.88"), **variables)
    status, found = unfit(child)
    assert (status, list(found)) == ("unavailable", ["GPU"])
    assert reason in found["GPU"]


def test_the_command_says_it_with_the_remedy(machine: Machine) -> None:
    """And its exit status is for scripts that ask before a night."""
    machine.says(mig=1, reasons=0x40, driver="390.1")
    answer = machine.command("doctor", "--device", "gpu")
    assert answer.returncode == 0, answer.stderr
    headline, *lines = answer.stdout.splitlines()
    assert headline == "gpu: unavailable. CUDA build: none installed; MIG: on."
    marks = {line[:16].strip(): line[16:].split()[0] for line in lines if "  " in line}
    assert (marks["MIG"], marks["throttling"], marks["utilisation"]) == ("unfit", "unfit", "ok")
    assert "MIG: let its administrator switch it off (nvidia-smi -mig 0)." in lines


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"mig": 1}, 1),
        ({"processes": ((1, GIB),)}, 1),
        ({"utilisation": 50}, 1),
        # The backends here are built for processors: none sees a GPU, and none was made for one.
        pytest.param({}, 0, marks=pytest.mark.frameworks),
    ],
)
def test_strict_minds_a_busy_and_a_divided_gpu(
    machine: Machine, tmp_path: Path, changes: dict[str, Any], code: int
) -> None:
    machine.says(**changes)
    ask = ("doctor", "--device", "gpu", "--strict")
    cache = {"EPOCHMARK_CACHE": str(tmp_path / "cache")}
    answer = machine.command(*ask, **cuda(tmp_path / "site", "13.0.88"), **cache)
    assert answer.returncode == code, answer.stdout
    assert code == 1 or "jax sees no GPU" in answer.stdout


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (
            "470.82.01",
            "no CUDA device: NVIDIA's driver 470.82.01, and CUDA 13, which the backend is built "
            "for, wants 580 or later; install driver 580 or later, or backends that are built for "
            "an older CUDA",
        ),
        ("580.65.06", ""),
    ],
)
def test_a_cell_does_not_run_with_a_driver_too_old_for_its_backend(
    machine: Machine, tmp_path: Path, driver: str, said: str
) -> None:
    machine.says(driver=driver)
    only = ("--only", "bert/smoke/train/jax/float32/functional/gpu", "--format", "json")
    answer = machine.command("list", *only, **cuda(tmp_path / "site", "13.0.88"))
    (cell,) = json.loads(answer.stdout)
    assert (cell["status"], cell["reason"]) == ("unavailable" if said else "supported", said)


def test_a_cell_is_told_why_it_has_no_device(machine: Machine) -> None:
    machine.says(errors={"nvmlInitWithFlags": DRIVER_NOT_LOADED})
    answer = machine.command(
        "list", "--only", "bert/smoke/train/jax/float32/functional/gpu", "--format", "json"
    )
    assert "no CUDA device: an NVIDIA driver that is not loaded; load it" in answer.stdout


def test_a_cell_does_not_run_on_a_part_of_a_gpu(machine: Machine) -> None:
    """It would be compared with those of whole ones."""
    told = []
    for mig in (0, 1):
        machine.says(mig=mig)
        only = ("--only", "bert/smoke/train/jax/float32/functional/gpu")
        told.append(machine.command("list", *only, "--format", "json").stdout)
    assert "MIG" not in told[0]
    assert "no CUDA device: a GPU divided into instances (MIG)" in told[1]
    assert "nvidia-smi -mig 0" in told[1]
    machine.says()
    part = {"CUDA_VISIBLE_DEVICES": "MIG-8f2c1d2e-0000-1111-2222-333344445555"}
    answer = machine.command("list", *only, "--format", "json", **part)
    assert "no CUDA device: an instance of a GPU (MIG) named by CUDA_VISIBLE_DEV" in answer.stdout


# The watch, on made-up readings

DEVICE = Device("nvml", "a GPU", "0" * 16, "580.65.06", GIB, mig=False)


def seen(*readings: DeviceReading | OSError) -> Accelerator:
    """Before, after."""
    left = iter(readings)

    def read() -> DeviceReading:
        found = next(left)
        if isinstance(found, OSError):
            raise found
        return found

    with Watch(Probe(DEVICE, read), hz=1e-3) as watch:
        pass
    return watch.accelerator()


def test_without_samples_there_are_no_means() -> None:
    found = seen(DeviceReading(utilisation=0.5, power_w=100.0, sm_clock_hz=1e9), DeviceReading())
    assert (found.samples, found.mean_utilisation, found.mean_power_w) == (0, None, None)
    assert found.min_sm_clock_hz is None, "an idle device's clock is no run's"


def test_the_lowest_clock_is_of_a_device_that_computed() -> None:
    idle, busy = (DeviceReading(utilisation=u, sm_clock_hz=c) for u, c in ((0.0, 2e8), (0.9, 1e9)))
    readings = iter([idle, idle, busy])
    with Watch(Probe(DEVICE, lambda: next(readings, idle)), hz=1e3) as watch:
        while watch.samples < 3:
            pass
    assert watch.accelerator().min_sm_clock_hz == 1e9


def test_a_device_that_is_hot_before_marks_the_run() -> None:
    hot = DeviceReading(throttle_reasons=("hw_thermal_slowdown",))
    assert seen(hot, DeviceReading(throttle_reasons=())).throttled


def test_a_device_lost_at_once_has_no_readings() -> None:
    found = seen(OSError("gone"))
    assert (found.before, found.after, found.failure) == (None, None, "gone")


def test_slowdowns_are_known_reasons() -> None:
    assert set(REASONS.values()) > SLOWDOWNS


def test_nothing_is_watched_on_a_processor() -> None:
    for device in ("cpu", "cpu-x2"):
        with watched(device) as watches:
            assert watches == ()


def test_a_process_below_is_ours_also_after_its_end() -> None:
    own = Own()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert own(process.pid)
        assert own(os.getpid())
        assert not own(1)
    assert own(process.pid)
    assert not Own()(process.pid)


# The record


@pytest.fixture
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_CACHE", "cache")


@pytest.mark.usefixtures("_inside")
def test_a_throttled_row_is_shown_with_its_mark() -> None:
    """In an older file there is at most one accelerator."""
    accelerator = seen(DeviceReading(throttle_reasons=("hw_slowdown",)), DeviceReading())
    another = "bert/smoke/train/jax/float32/functional/cpu"
    cool, kept = make_run(run="r0000", cell=another), make_run(accelerators=(accelerator,))
    path = write_session(Path("results"), cool, kept)
    assert read_file(path).runs == (cool, kept)
    text = show(load_table(Path("results")).frame, output="table")
    assert [line.split()[3] for line in text.splitlines() if " ok " in line] == ["11.0", "^"], text
    assert "^ The accelerator was slowed down by heat or by its supply of power" in text
    age(path, 7)
    assert [run.accelerators for run in read_file(path).runs] == [(), (accelerator,)]
    age(path, 5)
    assert [run.accelerators for run in read_file(path).runs] == [(), ()]
    assert "^" not in show(load_table(Path("results")).frame, output="table")


def age(path: Path, version: int) -> None:
    """Turn the runs of a file into those of before schema 8: one accelerator, or before 6 none."""
    lines = []
    for line in path.read_text().splitlines():
        fields = json.loads(line) | {"schema_version": version}
        if fields["kind"] == "run":
            found = fields.pop("accelerators", None) or [fields.pop("accelerator", None)]
            fields |= {"accelerator": found[0]} if version > 5 else {}
        lines.append(json.dumps(fields))
    path.write_text("\n".join(lines) + "\n")


# Tests that know no GPU, on a machine that has two

FRAMEWORK_FREE = (
    "cells", "runner", "parallel", "device", "doctor", "fitness", "fitness_devices", "peak",
)  # fmt: skip


def test_what_is_tested_without_a_gpu_holds_beside_two(machine: Machine) -> None:
    """The first day on such a machine begins with these tests."""
    machine.says(count=2, uuid1="GPU-77")
    files = [f"tests/test_{name}.py" for name in FRAMEWORK_FREE]
    which = ["-m", "not frameworks", "-k", "not product and not globs and not axes"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", *which, *files],
        env=machine.environment(),
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
