"""An accelerator, watched by the parent while a worker uses it: before, after and in between.

A probe is a device and a function that reads it. NVIDIA's devices have one (`harness.nvml`), AMD's
(`harness.amd`), on which no cell runs, and TPUs (`harness.tpu`). A TPU answers only the process
that holds it, so the worker itself reads it, at both ends of the run: nothing samples beside a
timed step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TypeVar

import psutil

from harness import nvml
from harness.absence import Absence
from harness.cells import device_count, device_kind
from harness.clock import now, pause
from harness.sampling import Periodic
from harness.schema import Accelerator, Device, DeviceReading
from harness.units import percent

Number = TypeVar("Number", int, float)

SAMPLING_HZ = 1.0

IDLE_SHARE = 0.05
"""Of the time: the most that an idle GPU computes."""
PATIENCE_S = 5.0
"""How long a GPU may go on looking busy after the run before: the driver's utilisation is of the
last second, and its list of processes may be a little late."""
_AGAIN_S = 0.5


@dataclass(frozen=True)
class Probe:
    """`read` raises OSError when the device is lost."""

    device: Device
    read: Callable[[], DeviceReading]


@contextmanager
def watched(device: str, hz: float = SAMPLING_HZ) -> Iterator[tuple[Watch, ...]]:
    """A watch over each accelerator that a cell on `device` uses.

    None on a `cpu`, or where no driver answers.
    """
    with ExitStack() as stack:
        probes: list[Probe] = []
        if device_kind(device) == "gpu":
            with suppress(OSError):
                stack.enter_context(nvml.opened())
                probes = [_nvidia(number) for number in nvml.used(device_count(device))]
        yield tuple(stack.enter_context(Watch(probe, hz)) for probe in probes)


def busy(device: str) -> Absence | None:
    """Whether others compute on what a cell on `device` would use; None where it is free.

    Waits a little for it to become free.
    """
    if device_kind(device) != "gpu":
        return None
    began = now()
    while (found := _occupied(device)) is not None and now() - began < PATIENCE_S:
        pause(_AGAIN_S)
    return found


def _occupied(device: str) -> Absence | None:
    with suppress(OSError):  # the run itself finds out what is wrong with a device that fails
        for number in nvml.used(device_count(device)):
            reading = nvml.reading(number, Own())
            others = (reading.processes or 0) - (reading.own_processes or 0)
            if others:
                told = "another process" if others == 1 else f"{others} other processes"
                return Absence(f"a GPU busy with {told}", "end them; nvidia-smi names them")
            if (reading.utilisation or 0.0) > IDLE_SHARE:
                return Absence(
                    f"a GPU that computes {percent(reading.utilisation or 0.0)} of the time",
                    "end what computes on it, in other containers too, which this one cannot see",
                )
    return None


def seen(watches: Sequence[Watch]) -> tuple[Accelerator, ...]:
    """What the watches saw, device by device."""
    return tuple(watch.accelerator() for watch in watches)


def _nvidia(number: int) -> Probe:
    return Probe(nvml.device(number), partial(nvml.reading, number, Own()))


class Own:
    """Which processes belong to this one: itself and all below it, also after they have ended."""

    def __init__(self) -> None:
        self._known = {os.getpid()}

    def __call__(self, process: int) -> bool:
        if process not in self._known and self._is_below(process):
            self._known.add(process)
        return process in self._known

    @staticmethod
    def _is_below(process: int) -> bool:
        try:
            return os.getpid() in [parent.pid for parent in psutil.Process(process).parents()]
        except psutil.Error:  # ended, or of another container
            return False


class Watch:
    """Reads a probe when its context is entered and left, and `hz` times a second in between.

    0 is not at all in between.
    """

    def __init__(self, probe: Probe, hz: float = SAMPLING_HZ) -> None:
        self._probe = probe
        self._hz = hz
        self._sampling = Periodic(self._sample, hz)
        self._before: DeviceReading | None = None
        self._after: DeviceReading | None = None
        self._between: list[DeviceReading] = []
        self._failure = ""

    def __enter__(self) -> Watch:
        self._before = self._read()
        if self._hz:
            self._sampling.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._hz:
            self._sampling.stop()
        self._after = self._read()

    @property
    def samples(self) -> int:
        """How many readings there are in between, so far."""
        return len(self._between)

    @property
    def failure(self) -> str:
        """Why the device can't be read any more; empty as long as it can."""
        return self._failure

    def _sample(self) -> None:
        found = self._read()
        if found is not None:
            self._between.append(found)

    def _read(self) -> DeviceReading | None:
        """None from the first failure on: a device that was lost does not come back to a run."""
        if self._failure:
            return None
        try:
            return self._probe.read()
        except OSError as error:
            self._failure = str(error)
            return None

    def accelerator(self) -> Accelerator:
        """What was seen."""
        ends = [reading for reading in (self._before, self._after) if reading is not None]
        every = [*ends, *self._between]
        busy = [reading for reading in self._between if reading.utilisation != 0]
        reasons = _seen(every)
        return Accelerator(
            device=self._probe.device,
            sampling_hz=self._hz,
            samples=len(self._between),
            before=self._before,
            after=self._after,
            peak_memory_used_bytes=_most([reading.memory_used_bytes for reading in every]),
            peak_own_memory_bytes=_most([reading.own_memory_bytes for reading in every]),
            mean_utilisation=_mean([reading.utilisation for reading in self._between]),
            mean_power_w=_mean([reading.power_w for reading in self._between]),
            max_temperature_c=_most([reading.temperature_c for reading in every]),
            # An idle device lowers its clock: while a run imports, that is no slowdown.
            min_sm_clock_hz=min(_present([r.sm_clock_hz for r in busy]), default=None),
            throttle_reasons=reasons,
            throttled=bool(nvml.SLOWDOWNS.intersection(reasons or ())),
            other_processes=_others(ends, self._between),
            failure=self._failure,
        )


def _present(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float | None]) -> float | None:
    present = _present(values)
    return fmean(present) if present else None


def _most(values: Sequence[Number | None]) -> Number | None:
    return max((value for value in values if value is not None), default=None)


def _seen(readings: Sequence[DeviceReading]) -> tuple[str, ...] | None:
    """Each reason once, in order of appearance; None where no reading tells."""
    told = [r.throttle_reasons for r in readings if r.throttle_reasons is not None]
    return tuple(dict.fromkeys(reason for reasons in told for reason in reasons)) if told else None


def _others(ends: Sequence[DeviceReading], between: Sequence[DeviceReading]) -> int | None:
    """The most processes of others at a time.

    In a container the driver may tell identifiers of another namespace, where the run's own is not
    found: then only the ends count, when the run has no process.
    """
    recognised = any(reading.own_processes for reading in between)
    return _most(
        [
            None
            if reading.processes is None or reading.own_processes is None
            else reading.processes - reading.own_processes
            for reading in (*ends, *(between if recognised else ()))
        ]
    )
