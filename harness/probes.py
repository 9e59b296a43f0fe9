"""Facts about this machine and process: hardware, packages, memory, what else is running.

Nothing here identifies a person or a host, and no framework is imported.
"""

from __future__ import annotations

import os
import platform
import re
import resource
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from harness.clock import process_cpu
from harness.environment import cpu_count, recorded_variables
from harness.nvml import cuda_devices
from harness.schema import Block, Contention, Environment

CUDA_RUNTIMES = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime-cu11")
"""What the CUDA builds of all three backends bring; its version is CUDA's."""

PACKAGES = (
    "keras", "tensorflow", "tensorflow-cpu", "torch", "jax", "jaxlib", "numpy", "ml-dtypes",
    "epochmark", "libtpu", *CUDA_RUNTIMES, "nvidia-cudnn-cu12", "nvidia-cudnn-cu13",
    "jax-cuda13-plugin", "jax-cuda13-pjrt", "nvidia-cuda-nvcc", "nvidia-nvvm",
)  # fmt: skip

# As the kernel names them, on x86 and on Arm.
_GENERATION = {
    "cpu family": "family",
    "model": "model",
    "CPU implementer": "implementer",
    "CPU part": "part",
}
_UNITS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "avx", "sve2", "sve", "asimd")

CONTENDED_SHARE = 0.10
"""Above this share of all CPU time used by others, a run is marked as contended, and so is a
block as disturbed."""

# The kernel counts busy time in ticks of 10 ms for each kind of it; less than this says nothing.
_TICKS_S = 0.03


def environment() -> Environment:
    """This process's hardware, system and packages."""
    return Environment(
        machine=machine_name(),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        cpu=cpu_model(),
        cpu_count=cpu_count(),
        memory_bytes=psutil.virtual_memory().total,
        accelerators=cuda_devices(),
        packages=package_versions(),
        variables=recorded_variables(),
    )


def machine_name() -> str:
    """The machine's short name: EPOCHMARK_MACHINE, or one made of its hardware."""
    gpu = f"-{cuda_devices()[0]}" if cuda_devices() else ""
    gibibytes = round(psutil.virtual_memory().total / 2**30)
    made = f"{cpu_model()}-{cpu_count()}cpu-{gibibytes}gib{gpu}"
    return slug(os.environ.get("EPOCHMARK_MACHINE") or made)


def slug(text: str) -> str:
    """Lower case letters, digits and single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


@cache
def cpu_model() -> str:
    """The processor's name, then what tells apart those that share it: generation and widest units.

    Hypervisors hide names: an `AMD EPYC` of AVX2 and one of AVX-512 and bfloat16, two to six times
    as fast in matrix products, would pass for one machine.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    return told_processor(text) or platform.processor() or platform.machine()


def told_processor(cpuinfo: str) -> str:
    """What a Linux kernel's /proc/cpuinfo tells of its first processor; empty if nothing."""
    fields = dict(re.findall(r"^([^\t:]+?)\s*:[ \t]*(\S.*)$", cpuinfo.partition("\n\n")[0], re.M))
    known = (fields.get("flags") or fields.get("Features", "")).split()
    told = [f"{word} {fields[name]}" for name, word in _GENERATION.items() if name in fields]
    units = [name for name in _UNITS if name in known][:1]
    return ", ".join([*filter(None, [fields.get("model name")]), *told, *units])


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide a figure, those that are installed."""
    found = {name: installed(name) for name in PACKAGES}
    return {name: version for name, version in found.items() if version is not None}


def installed(package: str) -> str | None:
    """The version of a package in this environment."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def resident_bytes() -> int | None:
    """This process's resident set now (VmRSS)."""
    return _status_bytes("VmRSS")


def peak_resident_bytes() -> int | None:
    """This process's largest resident set since the last reset (VmHWM)."""
    return _status_bytes("VmHWM")


def reset_peak() -> bool:
    """Set VmHWM back to the present size; False where the kernel does not allow it (proc(5))."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _status_bytes(name: str) -> int | None:
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(rf"^{name}:\s*(\d+) kB$", text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


@dataclass(frozen=True)
class CpuReading:
    """Busy CPU seconds of the whole machine, pressure and load at one moment."""

    busy_s: float
    total_s: float
    pressure_us: int | None
    load_1m: float
    stolen_s: float = 0.0

    @classmethod
    def take(cls) -> CpuReading:
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        # Guest time is already inside user time.
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        stolen = getattr(times, "steal", 0.0)
        return cls(total - idle, total, _pressure_us(), psutil.getloadavg()[0], stolen)


def contention(before: CpuReading, after: CpuReading, own_cpu_s: float) -> Contention:
    """What others did between two readings, given the CPU seconds of the run itself."""
    total = after.total_s - before.total_s
    share = None
    if total > 0:
        share = max(0.0, (after.busy_s - before.busy_s - own_cpu_s) / total)
    pressure = None
    if before.pressure_us is not None and after.pressure_us is not None and total > 0:
        wall = total / (psutil.cpu_count() or 1)
        pressure = (after.pressure_us - before.pressure_us) / 1e6 / wall
    return Contention(
        load_1m_before=before.load_1m,
        load_1m_after=after.load_1m,
        cpu_pressure_share=pressure,
        others_cpu_share=share,
        contended=share is not None and share > CONTENDED_SHARE,
    )


# What ran beside a block


@dataclass(frozen=True)
class Moment:
    """What the kernel has counted so far, of the machine and of this process."""

    machine: CpuReading
    cpu_s: float
    queued_s: float | None
    preempted: int


Watch = Callable[[], Moment | None]


def watched() -> Moment | None:
    """The counters now; takes some tenths of a millisecond."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Moment(CpuReading.take(), process_cpu(), _queued_s(), usage.ru_nivcsw)


def _queued_s() -> float | None:
    """Seconds that the threads of this process stood in the run queue, added up.

    Source: the second field of /proc/PID/task/TID/schedstat, in nanoseconds
    (Documentation/scheduler/sched-stats of the kernel).
    """
    total = 0
    try:
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - it runs often
            with open(f"/proc/self/task/{thread}/schedstat", "rb") as file:  # noqa: PTH123
                total += int(file.read().split()[1])
    except (OSError, IndexError, ValueError):
        return None  # no such counters, or a thread that ended meanwhile
    return total / 1e9


def beside(block: Block, before: Moment | None, after: Moment | None) -> Block:
    """The block with what happened on the machine between the two moments around it."""
    if before is None or after is None:
        return block
    cpu_s = after.cpu_s - before.cpu_s
    busy_s = after.machine.busy_s - before.machine.busy_s
    others_s = max(0.0, busy_s - cpu_s)
    return replace(
        block,
        cpu_s=_microseconds(cpu_s),
        others_cpu_s=_microseconds(others_s),
        stolen_s=_microseconds(after.machine.stolen_s - before.machine.stolen_s),
        queued_s=_microseconds(_grown(before.queued_s, after.queued_s)),
        pressure_s=_microseconds(
            _grown(before.machine.pressure_us, after.machine.pressure_us, 1e6)
        ),
        preempted=after.preempted - before.preempted,
        disturbed=disturbed(others_s, block.seconds, psutil.cpu_count() or 1),
    )


def disturbed(others_cpu_s: float, seconds: float, processors: int) -> bool:
    """The rule: others used more than CONTENDED_SHARE of the machine while the block ran."""
    return others_cpu_s > max(CONTENDED_SHARE * processors * seconds, _TICKS_S)


def _grown(before: float | None, after: float | None, per_second: float = 1.0) -> float | None:
    if before is None or after is None:
        return None
    # Threads that ended took their count with them.
    return max(0.0, after - before) / per_second


def _microseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _pressure_us() -> int | None:
    try:
        text = Path("/proc/pressure/cpu").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^some .*total=(\d+)", text, re.MULTILINE)
    return int(found.group(1)) if found else None
