"""What NVIDIA's driver tells of its devices, through NVML. Reads only: no setting is ever changed.

A device is named by its number in NVML's order, that of the PCI bus. Every question opens NVML and
closes it again, which costs little while `opened` holds it open.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import takewhile
from typing import Any, TypeVar

import pynvml

from harness.absence import Absence
from harness.environment import VISIBLE, digest, visible_devices
from harness.schema import Device, DeviceReading

Answer = TypeVar("Answer")

REASONS = {
    pynvml.nvmlClocksEventReasonGpuIdle: "gpu_idle",
    pynvml.nvmlClocksEventReasonApplicationsClocksSetting: "applications_clocks_setting",
    pynvml.nvmlClocksEventReasonSwPowerCap: "sw_power_cap",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hw_slowdown",
    pynvml.nvmlClocksEventReasonSyncBoost: "sync_boost",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "sw_thermal_slowdown",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "hw_thermal_slowdown",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "hw_power_brake_slowdown",
    pynvml.nvmlClocksEventReasonDisplayClockSetting: "display_clock_setting",
}
"""Why clocks are not at their highest, by bit; the names are those of nvidia-smi."""

SLOWDOWNS = frozenset(
    {"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"}
)
"""The reasons that mark a run as throttled: heat, or too little power from outside. The power cap
is none of them: under full load many devices run at it, as their maker means them to."""

# Errors that say no more than that there is no answer; any other ends the reading.
_NOT_TOLD = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NO_DATA,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_DEPRECATED,
    }
)

_ABSENCES = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: Absence(
        "no NVIDIA driver (its libnvidia-ml.so.1 was not found)",
        "use a machine with an NVIDIA GPU and install its driver, or let the container see it "
        "(docker run --gpus all)",
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: Absence(
        "an NVIDIA driver that is not loaded",
        "load it (modprobe nvidia), or start the machine again after installing it",
    ),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: Absence(
        "an NVIDIA driver of another version than its library",
        "start the machine again, so that the installed driver is the loaded one",
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: Absence(
        "no permission to ask the NVIDIA driver",
        "let this user read and write its device files",
    ),
}
_NONE_THERE = Absence(
    "an NVIDIA driver without a device",
    "use a machine with an NVIDIA GPU, or let the container see it (docker run --gpus all)",
)
_DIVIDED = Absence(
    "a GPU divided into instances (MIG), whose row would pass for that of a whole one",
    "let its administrator switch that off (nvidia-smi -mig 0)",
)
_HIDDEN = Absence(f"every GPU hidden by {VISIBLE}", f"unset {VISIBLE}, or name a GPU in it")
_INSTANCE = Absence(
    f"an instance of a GPU (MIG) named by {VISIBLE}, whose row would pass for that of a whole one",
    f"name a whole GPU in {VISIBLE}, after its administrator has switched MIG off "
    "(nvidia-smi -mig 0)",
)


@contextmanager
def opened() -> Iterator[None]:
    """NVML, held open: the driver may otherwise forget a device's state when nobody uses it.

    Raises OSError where there is no driver to ask.
    """
    with _as_os_error("NVML"):
        pynvml.nvmlInit()
    try:
        yield
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


@contextmanager
def _as_os_error(what: str) -> Iterator[None]:
    try:
        yield
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError) as error:
        raise OSError(f"{what}: {error}") from error


@cache
def cuda_devices() -> tuple[str, ...]:
    """Names of the CUDA devices, hidden ones too; empty where none can be asked."""
    try:
        return _names()
    except OSError:
        return ()


def _names() -> tuple[str, ...]:
    with opened(), _as_os_error("NVML"):
        count = int(pynvml.nvmlDeviceGetCount())
    return tuple(str(_of(number, pynvml.nvmlDeviceGetName)) for number in range(count))


@cache
def absence() -> Absence | None:
    """Why no run can have a GPU here; None where one can."""
    try:
        names = _names()
    except OSError as error:
        known = _ABSENCES.get(getattr(error.__cause__, "value", None))
        return known or failing(error)
    if not names:
        return _NONE_THERE
    try:
        used()
    except OSError:
        return _INSTANCE if visible_devices(1)[0].startswith("MIG-") else _HIDDEN
    return None


@cache
def divided(count: int) -> Absence | None:
    """Whether the devices that a run would use are whole; None where they are."""
    with suppress(OSError):
        if any(device(number).mig for number in used(count)):
            return _DIVIDED
    return None


def failing(error: OSError) -> Absence:
    """A driver or device that is there, and does not answer."""
    return Absence(f"a GPU that fails ({error})", "see what nvidia-smi and the kernel's log say")


def used(count: int = 1) -> tuple[int, ...]:
    """The devices that a run uses: the first of those that CUDA_VISIBLE_DEVICES leaves.

    Raises OSError where one of them is none.
    """
    return tuple(map(_number, visible_devices(count)))


def names_used(count: int = 1) -> tuple[str, ...]:
    """Names of the devices that a run uses; none where that cannot be said."""
    try:
        return tuple(cuda_devices()[number] for number in used(count))
    except OSError:
        return ()


def _number(name: str) -> int:
    """Of a device as CUDA_VISIBLE_DEVICES names it; OSError where there is none."""
    for number in range(len(cuda_devices())):
        if name == str(number) or (name.startswith("GPU-") and _uuid(number).startswith(name)):
            return number
    raise OSError(f"no CUDA device {name!r}")


def visible() -> int:
    """How many devices CUDA_VISIBLE_DEVICES leaves to a run: those before the first unknown one."""
    chosen = os.environ.get(VISIBLE)
    every = len(cuda_devices())
    if chosen is None:
        return every
    numbers = {str(number) for number in range(every)}
    known = takewhile(
        lambda name: name in numbers or name.startswith(("GPU-", "MIG-")),
        map(str.strip, chosen.split(",")),
    )
    return min(every, len(list(known)))


def _uuid(number: int) -> str:
    return str(_of(number, pynvml.nvmlDeviceGetUUID))


def device(number: int) -> Device:
    """What stays the same of a device. Raises OSError when it is lost."""
    return _of(number, _device)


def _device(handle: Any) -> Device:
    memory = _told(pynvml.nvmlDeviceGetMemoryInfo, handle)
    mig = _told(pynvml.nvmlDeviceGetMigMode, handle)
    return Device(
        probe="nvml",
        name=str(pynvml.nvmlDeviceGetName(handle)),
        uuid_digest=digest(str(pynvml.nvmlDeviceGetUUID(handle))),
        driver=str(pynvml.nvmlSystemGetDriverVersion()),
        memory_bytes=None if memory is None else int(memory.total),
        mig=None if mig is None else bool(mig[0]),
    )


def reading(number: int, own: Callable[[int], bool]) -> DeviceReading:
    """The device at this moment; `own` says which process identifiers are the run's.

    Raises OSError when it is lost.
    """
    return _of(number, lambda handle: _reading(handle, own))


def _reading(handle: Any, own: Callable[[int], bool]) -> DeviceReading:
    memory = _told(pynvml.nvmlDeviceGetMemoryInfo, handle)
    rates = _told(pynvml.nvmlDeviceGetUtilizationRates, handle)
    reasons = _reasons(handle)
    processes = _told(pynvml.nvmlDeviceGetComputeRunningProcesses, handle)
    ours = None if processes is None else [process for process in processes if own(process.pid)]
    clock = pynvml.nvmlDeviceGetClockInfo
    return DeviceReading(
        memory_used_bytes=None if memory is None else int(memory.used),
        own_memory_bytes=_memory(ours),
        utilisation=None if rates is None else rates.gpu / 100,
        power_w=_scaled(_told(pynvml.nvmlDeviceGetPowerUsage, handle), 1e-3),
        energy_j=_scaled(_told(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle), 1e-3),
        temperature_c=_scaled(
            _told(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU), 1.0
        ),
        sm_clock_hz=_scaled(_told(clock, handle, pynvml.NVML_CLOCK_SM), 1e6),
        memory_clock_hz=_scaled(_told(clock, handle, pynvml.NVML_CLOCK_MEM), 1e6),
        throttle_reasons=None if reasons is None else _named(reasons),
        processes=None if processes is None else len(processes),
        own_processes=None if ours is None else len(ours),
    )


def _memory(processes: list[Any] | None) -> int | None:
    """Bytes of these processes; None without any, or where the driver does not tell of one."""
    sizes = [process.usedGpuMemory for process in processes or ()]
    return None if not sizes or None in sizes else int(sum(sizes))


def _scaled(value: int | None, unit: float) -> float | None:
    return None if value is None else value * unit


def _reasons(handle: Any) -> int | None:
    """The bits; the older name of the question is for drivers before release 535."""
    found = _told(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if found is None:
        found = _told(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    return None if found is None else int(found)


def _named(bits: int) -> tuple[str, ...]:
    unknown = bits & ~sum(REASONS)
    names = [name for bit, name in REASONS.items() if bits & bit]
    return (*names, *([f"unknown {unknown:#x}"] if unknown else []))


def persistent(number: int) -> bool | None:
    """Whether the driver stays loaded while nobody uses it; None where it does not tell."""
    mode = _of(number, lambda handle: _told(pynvml.nvmlDeviceGetPersistenceMode, handle))
    return None if mode is None else bool(mode)


def processes() -> int | None:
    """How many processes compute on the CUDA devices; None where that is not told."""
    found = []
    for number in range(len(cuda_devices())):
        with suppress(OSError):
            found.append(len(_of(number, pynvml.nvmlDeviceGetComputeRunningProcesses)))
    return sum(found) if found and len(found) == len(cuda_devices()) else None


def joules(number: int) -> float:
    """Energy of a device since its driver was loaded (Volta and later).

    Raises OSError where it does not tell.
    """
    return float(_of(number, pynvml.nvmlDeviceGetTotalEnergyConsumption)) / 1e3


def watts(number: int) -> float:
    """Power of a device, on most of them the mean of the last second.

    Raises OSError where it does not tell.
    """
    return float(_of(number, pynvml.nvmlDeviceGetPowerUsage)) / 1e3


def _of(number: int, ask: Callable[[Any], Answer]) -> Answer:
    """The answer for one device; OSError in place of NVML's errors, a lost device's too."""
    with opened(), _as_os_error(f"CUDA device {number}"):
        return ask(pynvml.nvmlDeviceGetHandleByIndex(number))


def _told(ask: Callable[..., Answer], *arguments: Any) -> Answer | None:
    """The answer; None where driver, device or rights leave none. Other errors pass."""
    try:
        return ask(*arguments)
    except pynvml.NVMLError as error:
        if error.value not in _NOT_TOLD:
            raise
    except pynvml.NVMLLibraryMismatchError:  # what pynvml makes of a missing function
        pass
    return None
