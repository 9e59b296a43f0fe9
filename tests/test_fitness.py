"""Checks of a machine, on made folders of the kernel's; each is seen to tell fit from unfit."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import fitness, nvml
from harness.fitness import Check
from harness.probes import CpuReading

SYS_CPU = "sys/devices/system/cpu"
CLOCK = "sys/devices/system/clocksource/clocksource0/current_clocksource"
Memory = namedtuple("Memory", "total")
Swap = namedtuple("Swap", "used")


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processors, a GiB, no swap used, no GPU, an idle second."""
    monkeypatch.setattr(fitness, "SAMPLE_S", 0.0)
    monkeypatch.setattr(fitness, "cpu_count", lambda: 2)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(2**30))
    monkeypatch.setattr(psutil, "swap_memory", lambda: Swap(0))
    monkeypatch.setattr(nvml, "processes", lambda: None)
    for name in fitness.THREADS:
        monkeypatch.delenv(name, raising=False)
    readings(monkeypatch)


def readings(
    monkeypatch: pytest.MonkeyPatch, *, busy_s: float = 0.0, stolen_s: float = 0.0
) -> None:
    """Of two seconds of CPU time, after a thousand without any work."""
    found = iter(
        [
            CpuReading(0.0, 1000.0, None, 0.1, 0.0),
            CpuReading(busy_s, 1002.0, None, 0.1, stolen_s),
        ]
    )
    monkeypatch.setattr(CpuReading, "take", lambda: next(found))


def folder(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return tmp_path


def check(root: Path, name: str) -> Check:
    (found,) = [check for check in fitness.checks(root) if check.name == name]
    return found


def test_a_machine_that_tells_nothing_is_not_called_unfit(tmp_path: Path) -> None:
    found = fitness.checks(tmp_path)
    assert {check.name for check in found if check.fit is None} == {
        "frequency governor",
        "turbo",
        "temperature",
        "clock source",
        "GPU processes",
    }
    assert all(check.fit is not False for check in found)


@pytest.mark.parametrize(
    ("name", "files", "fit", "told"),
    [
        (
            "frequency governor",
            {
                f"{SYS_CPU}/cpu0/cpufreq/scaling_governor": "performance",
                f"{SYS_CPU}/cpu1/cpufreq/scaling_governor": "performance",
            },
            True,
            "performance",
        ),
        (
            "frequency governor",
            {
                f"{SYS_CPU}/cpu0/cpufreq/scaling_governor": "performance",
                f"{SYS_CPU}/cpu1/cpufreq/scaling_governor": "powersave",
            },
            False,
            "performance, powersave",
        ),
        ("turbo", {f"{SYS_CPU}/intel_pstate/no_turbo": "1"}, True, "off"),
        ("turbo", {f"{SYS_CPU}/intel_pstate/no_turbo": "0"}, False, "on"),
        ("turbo", {f"{SYS_CPU}/cpufreq/boost": "0"}, True, "off"),
        ("turbo", {f"{SYS_CPU}/cpufreq/boost": "1"}, False, "on"),
        ("temperature", {"sys/class/thermal/thermal_zone0/temp": "61000"}, True, "61 °C"),
        (
            "temperature",
            {
                "sys/class/thermal/thermal_zone0/temp": "61000",
                "sys/class/thermal/thermal_zone1/temp": "92500",
            },
            False,
            "92 °C",
        ),
        ("processors", {"sys/fs/cgroup/cpu.max": "max 100000"}, True, "2 of 2"),
        ("processors", {"sys/fs/cgroup/cpu.max": "150000 100000"}, False, "2 of 2, 1.5 by quota"),
        ("processors", {"sys/fs/cgroup/cpu.max": "200000 100000"}, True, "2 of 2, 2 by quota"),
        ("processors", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1"}, True, "2 of 2"),
        (
            "processors",
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            False,
            "2 of 2, 0.5 by quota",
        ),
        ("memory", {"sys/fs/cgroup/memory.max": "max"}, True, "1.0 GiB of 1.0 GiB"),
        ("memory", {"sys/fs/cgroup/memory.max": f"{2**29}"}, False, "0.5 GiB of 1.0 GiB"),
        (
            "memory",
            {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"},
            True,
            "1.0 GiB of 1.0 GiB",
        ),
        ("clock source", {CLOCK: "tsc"}, True, "tsc"),
        ("clock source", {CLOCK: "hpet"}, False, "hpet"),
    ],
)
def test_what_the_kernel_tells(
    tmp_path: Path, name: str, files: dict[str, str], fit: bool, told: str
) -> None:
    found = check(folder(tmp_path, **files), name)
    assert (found.fit, found.found) == (fit, told)


@pytest.mark.parametrize(
    ("name", "counted", "fit"),
    [
        ("other work", {"busy_s": 0.08}, True),
        ("other work", {"busy_s": 0.2}, False),
        ("stolen time", {"stolen_s": 0.01}, True),
        ("stolen time", {"stolen_s": 0.1}, False),
    ],
)
def test_what_a_second_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, counted: dict[str, float], fit: bool
) -> None:
    readings(monkeypatch, **counted)
    assert check(tmp_path, name).fit == fit


@pytest.mark.parametrize(("used", "fit"), [(0, True), (2**20, False)])
def test_swap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: int, fit: bool) -> None:
    monkeypatch.setattr(psutil, "swap_memory", lambda: Swap(used))
    assert check(tmp_path, "swap in use").fit == fit


@pytest.mark.parametrize(("value", "fit"), [("2", True), ("1", False)])
def test_thread_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, fit: bool
) -> None:
    monkeypatch.setenv("MKL_NUM_THREADS", value)
    found = check(tmp_path, "thread settings")
    assert (found.fit, found.found) == (fit, f"MKL_NUM_THREADS={value}")


@pytest.mark.parametrize(("count", "fit"), [(0, True), (2, False), (None, None)])
def test_gpu_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Any, fit: bool | None
) -> None:
    monkeypatch.setattr(nvml, "processes", lambda: count)
    assert check(tmp_path, "GPU processes").fit is fit


@pytest.mark.parametrize(("devices", "found"), [((), "no GPU"), (("NVIDIA L4",), "not told")])
def test_processes_that_are_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: tuple[str, ...], found: str
) -> None:
    monkeypatch.setattr(nvml, "cuda_devices", lambda: devices)
    assert check(tmp_path, "GPU processes").found == found


def test_the_remedy_of_what_is_unfit_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    root = folder(tmp_path, **{CLOCK: "hpet"})
    fitness.render(fitness.checks(root), said.append)
    assert any(line.split()[:4] == ["clock", "source", "unfit", "hpet"] for line in said)
    assert said[-1].startswith("clock source: boot without clocksource=")
    assert sum("unfit" in line for line in said) == 1


def test_this_machine_answers_every_check() -> None:
    """The real folders; the second and psutil are still the fixture's."""
    for found in fitness.checks():
        assert found.found
        assert found.yardstick
        assert found.fit is not False or found.remedy
