"""What `epochmark doctor --device gpu` (or `tpu`) checks: can cells run on it, and is it fit.

Nothing is changed on the device, and no framework is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from harness import amd, answers, device_checks, drivers, nvml, tpu, venvs
from harness.absence import Absence
from harness.fitness import HOT_CELSIUS, IDLE_SHARE, Check, render
from harness.schema import Device, DeviceReading

MEMORY_SHARE = 0.05
"""A driver keeps some of the memory for itself, so that an idle device has some in use as well."""


@dataclass(frozen=True)
class Examined:
    """`needed` is what no cell is measured without, `wanted` what good figures ask for besides.

    `shown` is what the backends did when they were tried out on it.
    """

    device: str
    needed: tuple[Check, ...]
    wanted: tuple[Check, ...] = ()
    shown: tuple[Check, ...] = ()

    @property
    def lacking(self) -> tuple[Check, ...]:
        """What keeps every cell from running."""
        every = (*self.needed, *self.shown)
        return tuple(check for check in every if check.fit is False)

    @property
    def status(self) -> str:
        """`available` or `unavailable`."""
        return "unavailable" if self.lacking else "available"


def examine(device: str) -> Examined:
    """The checks of a `gpu` or a `tpu`."""
    return _gpu() if device == "gpu" else _tpu()


def tried_out(found: Examined, say: Callable[[str], None]) -> Examined:
    """With what every backend shows on the device, where there is one that cells could run on."""
    if found.lacking:
        return found
    checks = []
    for check in device_checks.shown(found.device):
        say(f"{check.name}: {check.found}")
        checks.append(check)
    return replace(found, shown=tuple(checks))


def _gpu() -> Examined:
    runtimes = cuda_runtimes()
    absent = nvml.absence()
    if absent is None:
        try:
            with nvml.opened():
                (number,) = nvml.used()
                return _nvidia(number, runtimes)
        except OSError as error:
            absent = nvml.failing(error)
    return Examined("gpu", (_missing("GPU", absent), _cuda_build(runtimes)), _amd())


def _amd() -> tuple[Check, ...]:
    """AMD's GPUs, which can be read, and on which no cell runs."""
    names = [probe.device.name for probe in amd.probes()]
    told = Check("AMD GPU", ", ".join(names), "one of NVIDIA's: no cell runs on another", None)
    return (told,) if names else ()


def _missing(name: str, absent: Absence) -> Check:
    return Check(name, absent.reason, "one that a run can use", False, absent.remedy)


def _nvidia(number: int, runtimes: Mapping[str, str]) -> Examined:
    device = nvml.device(number)
    reading = nvml.reading(number, lambda process: False)
    place = f"number {number} of {len(nvml.cuda_devices())}"
    there = Check("GPU", f"{device.name}, {place}", "one that a run can use", True)
    return Examined(
        "gpu",
        (
            there,
            _cuda_build(runtimes),
            *_drivers(device.driver, runtimes),
            _processes(reading),
            _utilisation(reading),
            _mig(device),
        ),
        (
            _memory(device, reading),
            _throttling(reading),
            _temperature(reading),
            _persistence(nvml.persistent(number)),
            _energy(reading),
        ),
    )


def cuda_runtimes() -> dict[str, str]:
    """Those of this environment, and of those made for cells, whose name then stands before."""
    found = drivers.cuda_runtimes(None)
    for environment in filter(lambda one: one.made, venvs.every()):
        brought = drivers.cuda_runtimes(environment)
        found |= {f"{environment.name}: {name}": at for name, at in brought.items()}
    return found


def _cuda_build(runtimes: Mapping[str, str]) -> Check:
    return Check(
        "CUDA build",
        ", ".join(f"{name} {version}" for name, version in runtimes.items()) or "none installed",
        "a backend that is built for CUDA",
        bool(runtimes),
        "make one for a backend: epochmark env create cuda-jax, cuda-tensorflow or cuda-torch",
    )


def _drivers(driver: str, runtimes: Mapping[str, str]) -> list[Check]:
    """A check per major version of CUDA: its least driver, by NVIDIA's table."""
    return [_driver(driver, major) for major in drivers.majors(runtimes)]


def _driver(driver: str, cuda: int) -> Check:
    name, fit = f"driver for CUDA {cuda}", drivers.new_enough(driver, cuda)
    if fit is None:
        return Check(name, driver or "not told", "not known", None)
    least = drivers.LEAST_DRIVER[cuda]
    yardstick = f"at least {least} ({drivers.LEAST_DRIVER_SOURCE})"
    return Check(name, driver, yardstick, fit, drivers.newer(cuda))


def _processes(reading: DeviceReading) -> Check:
    count = reading.processes
    return Check(
        "other processes",
        "not told" if count is None else str(count),
        "0",
        None if count is None else count == 0,
        "end the other processes on the GPU; nvidia-smi names them",
    )


def _share(share: float | None, most: float) -> tuple[str, bool | None]:
    if share is None:
        return "not told", None
    return f"{100 * share:.0f} %", share <= most


def _utilisation(reading: DeviceReading) -> Check:
    found, fit = _share(reading.utilisation, IDLE_SHARE)
    return Check(
        "utilisation", found, f"at most {100 * IDLE_SHARE:.0f} %", fit,
        "end what computes on the GPU, in other containers too, which this one cannot see",
    )  # fmt: skip


def _memory(device: Device, reading: DeviceReading) -> Check:
    used, total = reading.memory_used_bytes, device.memory_bytes
    found, fit = _share(used / total if used is not None and total else None, MEMORY_SHARE)
    return Check(
        "memory in use", found, f"at most {100 * MEMORY_SHARE:.0f} % (the driver keeps some)", fit,
        "end what holds the GPU's memory",
    )  # fmt: skip


def _mig(device: Device) -> Check:
    return Check(
        "MIG",
        {True: "on", False: "off", None: "not told"}[device.mig],
        "off: an instance is a part of the device, whose peak and power are not its own",
        None if device.mig is None else not device.mig,
        "let its administrator switch it off (nvidia-smi -mig 0)",
    )


def _throttling(reading: DeviceReading) -> Check:
    reasons = reading.throttle_reasons
    return Check(
        "throttling",
        "not told" if reasons is None else ", ".join(reasons) or "none",
        f"none of {', '.join(sorted(nvml.SLOWDOWNS))}",
        None if reasons is None else nvml.SLOWDOWNS.isdisjoint(reasons),
        "let the GPU cool down, and look at its fans and its supply of power",
    )


def _temperature(reading: DeviceReading) -> Check:
    found = reading.temperature_c
    return Check(
        "temperature",
        "not told" if found is None else f"{found:.0f} °C",
        f"below {HOT_CELSIUS:.0f} °C",
        None if found is None else found < HOT_CELSIUS,
        "let the GPU cool down, and look at its fans",
    )


def _persistence(on: bool | None) -> Check:
    return Check(
        "persistence",
        {True: "on", False: "off", None: "not told"}[on],
        "on: else the driver starts anew with each run, and so does its energy counter",
        on,
        "let its administrator switch it on (nvidia-persistenced, or nvidia-smi -pm 1)",
    )


def _energy(reading: DeviceReading) -> Check:
    counted, told = reading.energy_j is not None, reading.power_w is not None
    without = "power only, which is integrated" if told else "not told"
    return Check(
        "energy", "counted by the device" if counted else without, "counted", counted or None
    )


def _tpu() -> Examined:
    files = tpu.device_files()
    absent = tpu.absence()
    there = Check("TPU", ", ".join(files), "a device file of one", True)
    return Examined("tpu", (_missing("TPU", absent) if absent else there, _libtpu()))


def _libtpu() -> Check:
    """Of the environment that was made for TPUs; without one, of this one."""
    made = venvs.venv("tpu-jax")
    one = drivers.libtpu(made if made.made else None)
    name = f"{made.name}: {tpu.DRIVER}" if made.made else tpu.DRIVER
    if one.wanted is None:
        found, wanted = "no jax that names one", "the one that jax names"
    else:
        found, wanted = one.found or "not installed", f"{one.wanted}, which jax {one.jax} names"
    return Check(name, found, wanted, one.fits, one.remedy)


def told(found: Examined, output: str, say: Callable[[str], None]) -> None:
    """The answer as aligned lines with the remedies below, as JSON, or as CSV."""
    every = [*found.needed, *found.wanted, *found.shown]
    if output == "json":
        say(answers.as_json({**asdict(found), "status": found.status}))
    elif output == "csv":
        columns = ["name", "fit", "found", "yardstick", "remedy"]
        say(answers.as_csv([asdict(check) for check in every], columns))
    else:
        say(_headline(found.device, found.lacking))
        render(every, say)


def _headline(device: str, lacking: Sequence[Check]) -> str:
    if not lacking:
        return f"{device}: available"
    reasons = "; ".join(f"{check.name}: {check.found}" for check in lacking)
    return f"{device}: unavailable. {reasons}."
