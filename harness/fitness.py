"""What makes a machine unfit for measuring: each check with its number, its yardstick, its remedy.

Nothing is changed on the machine, and no framework is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness import nvml
from harness.clock import pause
from harness.environment import cpu_count
from harness.probes import CpuReading
from harness.units import aligned, percent

SAMPLE_S = 1.0

IDLE_SHARE = 0.05
STOLEN_SHARE = 0.01
HOT_CELSIUS = 85.0
PRECISE_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page")
THREADS = ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTEROP_THREADS")


@dataclass(frozen=True)
class Check:
    """`fit` is None where the machine does not tell."""

    name: str
    found: str
    yardstick: str
    fit: bool | None
    remedy: str = ""


def checks(root: Path = Path("/")) -> list[Check]:
    """Every check, in the order in which they matter; takes a second.

    `root` is where the kernel's folders `proc` and `sys` are.
    """
    before = CpuReading.take()
    pause(SAMPLE_S)
    after = CpuReading.take()
    return [
        _idle(before, after),
        _stolen(before, after),
        *_governor(root),
        _turbo(root),
        _temperature(root),
        _processor_limit(root),
        _memory_limit(root),
        _swap(),
        _clock(root),
        _threads(),
        _gpu(),
    ]


def _share(part: float, whole: float) -> float:
    return max(0.0, part / whole) if whole > 0 else 0.0


def _idle(before: CpuReading, after: CpuReading) -> Check:
    share = _share(after.busy_s - before.busy_s, after.total_s - before.total_s)
    return Check(
        "other work",
        f"{percent(share)} of the processors busy, load {after.load_1m:.2f}",
        f"at most {percent(IDLE_SHARE)}",
        share <= IDLE_SHARE,
        "end other programs, or wait until they have ended",
    )


def _stolen(before: CpuReading, after: CpuReading) -> Check:
    now = _share(after.stolen_s - before.stolen_s, after.total_s - before.total_s)
    since_start = _share(after.stolen_s, after.total_s)
    return Check(
        "stolen time",
        f"{percent(now)} now, {percent(since_start)} since start",
        f"at most {percent(STOLEN_SHARE)}",
        max(now, since_start) <= STOLEN_SHARE,
        "use a machine, or a kind of virtual machine, that shares its processors with nobody",
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _governor(root: Path) -> Iterator[Check]:
    folder = root / "sys/devices/system/cpu"
    found = sorted({_text(path) or "" for path in folder.glob("cpu*/cpufreq/scaling_governor")})
    yield Check(
        "frequency governor",
        ", ".join(found) or "not told",
        "performance",
        found == ["performance"] if found else None,
        "cpupower frequency-set --governor performance",
    )


def _turbo(root: Path) -> Check:
    folder = root / "sys/devices/system/cpu"
    off = {"intel_pstate/no_turbo": "1", "cpufreq/boost": "0"}
    found = {name: _text(folder / name) for name in off}
    told = {name: value for name, value in found.items() if value is not None}
    fit = all(value == off[name] for name, value in told.items()) if told else None
    state = {True: "off", False: "on", None: "not told"}[fit]
    return Check(
        "turbo", state, "off, so that heat does not set the speed", fit,
        "write 1 to intel_pstate/no_turbo, or 0 to cpufreq/boost",
    )  # fmt: skip


def _temperature(root: Path) -> Check:
    zones = (root / "sys/class/thermal").glob("thermal_zone*/temp")
    found = [int(text) / 1000 for zone in zones if (text := _text(zone)) and text.isdigit()]
    return Check(
        "temperature",
        f"{max(found):.0f} °C" if found else "not told",
        f"below {HOT_CELSIUS:.0f} °C",
        max(found) < HOT_CELSIUS if found else None,
        "let the machine cool down, and look at its fans",
    )


def _processor_limit(root: Path) -> Check:
    groups = root / "sys/fs/cgroup"
    second = (_text(groups / "cpu.max") or "").split()
    first = [_text(groups / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    quota, period = second if len(second) == 2 else first
    limit = None
    if quota not in (None, "max", "-1") and period:
        limit = int(str(quota)) / int(period)
    present = psutil.cpu_count() or 1
    limited = limit is not None and limit < cpu_count()
    found = f"{cpu_count()} of {present}" + (f", {limit:g} by quota" if limit is not None else "")
    return Check(
        "processors",
        found,
        "no quota below them: it stops all threads for parts of each tenth of a second",
        not limited,
        "give the container whole processors (a set of them), not a quota of their time",
    )


def _memory_limit(root: Path) -> Check:
    groups = root / "sys/fs/cgroup"
    texts = (_text(groups / name) for name in ("memory.max", "memory/memory.limit_in_bytes"))
    limits = [int(text) for text in texts if text and text.isdigit()]
    present = psutil.virtual_memory().total
    least = min([present, *limits])
    return Check(
        "memory",
        f"{least / 2**30:.1f} GiB of {present / 2**30:.1f} GiB",
        "all of it",
        least >= present,
        "raise the container's memory limit, or expect status oom earlier than the machine would",
    )


def _swap() -> Check:
    used = psutil.swap_memory().used
    return Check(
        "swap in use", f"{used / 2**20:.0f} MiB", "0 MiB", used == 0,
        "end what fills the memory, then swapoff --all && swapon --all",
    )  # fmt: skip


def _clock(root: Path) -> Check:
    found = _text(root / "sys/devices/system/clocksource/clocksource0/current_clocksource")
    return Check(
        "clock source",
        found or "not told",
        " or ".join(PRECISE_CLOCKS[:3]),
        found in PRECISE_CLOCKS if found else None,
        "boot without clocksource=, or look into why the kernel gave up the faster clock",
    )


def _threads() -> Check:
    wanted = str(cpu_count())
    told = {name: os.environ.get(name) for name in THREADS}
    found = {name: value for name, value in told.items() if value is not None}
    return Check(
        "thread settings",
        ", ".join(f"{name}={value}" for name, value in found.items()) or "none set",
        f"none, or {wanted}",
        all(value == wanted for value in found.values()),
        f"unset {' '.join(found) or 'them'}; a run sets what it needs",
    )


def _gpu() -> Check:
    found = nvml.processes()
    without = "not told" if nvml.cuda_devices() else "no GPU"
    return Check(
        "GPU processes",
        without if found is None else str(found),
        "0",
        None if found is None else found == 0,
        "end the other processes on the GPU",
    )


def render(found: list[Check], say: Callable[[str], None]) -> None:
    """Aligned lines; below them what to do about what is not fit."""
    marks = {True: "ok", False: "unfit", None: "-"}
    rows = [(check.name, marks[check.fit], check.found, check.yardstick) for check in found]
    for line in aligned(rows):
        say(line)
    unfit = [check for check in found if check.fit is False]
    for check in unfit:
        say(f"{check.name}: {check.remedy}.")
