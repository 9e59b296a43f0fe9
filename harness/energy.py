"""Energy counters of the machine, read by the parent while a worker runs.

RAPL counters wrap around (the largest value is told, some minutes of full load), so a thread reads
them once a second; NVML's count since the driver was loaded. A machine without counters has no
energy in its records, never a zero; nor has one of whose sockets or devices some cannot be read,
for a part of the energy would pass for all of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness import nvml
from harness.clock import now
from harness.sampling import Periodic
from harness.schema import Energy
from harness.stages import BEGIN, END

POWERCAP = Path("/sys/class/powercap")
SAMPLING_HZ = 1.0


@dataclass
class Counter:
    """Joules since some moment. `read` gives the raw value; it starts again at 0 after `range_j`
    (None: never).

    Raises OSError when it cannot be read any more, or began anew where it never should.
    """

    method: str
    domain: str
    read: Callable[[], float]
    range_j: float | None = None
    _last: float | None = None
    _total: float = field(default=0.0)

    def joules(self) -> float:
        """Since the first call; right as long as calls are less than a range apart."""
        value = self.read()
        if self._last is not None:
            step = value - self._last
            if step < 0:
                step += self.range_j or 0.0
            if step < 0:  # as after the driver was loaded again
                raise OSError(f"the counter of {self.domain} began anew")
            self._total += step
        self._last = value
        return self._total


def counters(device: str, root: Path | None = None) -> list[Counter]:
    """What this machine has for a cell on that device: processors, memory, and on a GPU those.

    None for an accelerator that does not tell, as no TPU does: what the processors took beside it
    is not the cell's energy.
    """
    found = rapl(root or POWERCAP)
    if device == "cpu":
        return found
    if device != "gpu":
        return []
    accelerators = devices()
    return found + accelerators if accelerators else []


def rapl(root: Path) -> list[Counter]:
    """A counter per processor package, and per memory that is counted beside it; all or none.

    A package's cores and graphics are inside its own counter, `psys` holds the packages, and
    `intel-rapl-mmio` shows the same ones again: none of these is counted. Linux documents the tree
    in Documentation/power/powercap.
    """
    found = []
    for zone in sorted(root.glob("intel-rapl:*")):
        name = _text(zone / "name")
        if name.startswith("package") or name == "dram":
            counter = _zone(zone, name)
            if counter is None:
                return []
            found.append(counter)
    return found


def _zone(zone: Path, name: str) -> Counter | None:
    limit = _text(zone / "max_energy_range_uj")

    def read() -> float:
        return int((zone / "energy_uj").read_text(encoding="ascii")) / 1e6

    try:
        read()
    except (OSError, ValueError):  # since 2020 the kernel lets only root read it
        return None
    domain = f"{name} {zone.name.removeprefix('intel-rapl:')}"
    return Counter("rapl", domain, read, int(limit) / 1e6 if limit.isdigit() else None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def devices() -> list[Counter]:
    """A counter per CUDA device, or its power integrated where it has none; all or none."""
    found = [_device(number) for number in range(len(nvml.cuda_devices()))]
    known = [counter for counter in found if counter is not None]
    return known if len(known) == len(found) else []


def _device(number: int) -> Counter | None:
    ways: dict[str, Callable[[], float]] = {
        "nvml": partial(nvml.joules, number),
        "nvml-power": integrated(partial(nvml.watts, number)),
    }
    for method, read in ways.items():
        with suppress(OSError):
            read()
            return Counter(method, f"gpu {number}", read)
    return None


def integrated(watts: Callable[[], float]) -> Callable[[], float]:
    """Joules since the first call, from the power at each call (trapezoidal rule)."""
    last: tuple[float, float] | None = None
    joules = 0.0

    def read() -> float:
        nonlocal last, joules
        moment, power = now(), watts()
        if last is not None:
            joules += (moment - last[0]) * (power + last[1]) / 2
        last = moment, power
        return joules

    return read


class Sampler:
    """Reads counters in a thread of its own, from entering its context to leaving it.

    `mark` is told when an epoch begins and ends. A counter that fails ends the sampling, and what
    was read is no longer told.
    """

    def __init__(self, found: Sequence[Counter], hz: float = SAMPLING_HZ) -> None:
        self._counters = found
        self._hz = hz
        self._lock = threading.Lock()
        self._sampling = Periodic(self._read, hz)
        self._failed = False
        self._began: float | None = None
        self._epochs: list[float] = []

    def __enter__(self) -> Sampler:
        if self._counters:
            self._read()
            self._sampling.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._counters:
            self._sampling.stop()

    def mark(self, mark: str) -> None:
        """An epoch's training begins or ends now."""
        if not self._counters:
            return
        joules = self._read()
        if mark == BEGIN:
            self._began = joules
        elif mark == END and self._began is not None:
            self._epochs.append(joules - self._began)
            self._began = None

    def energy(self) -> Energy | None:
        """What was counted; None without counters, or when one failed on the way."""
        if not self._counters or self._failed:
            return None
        return Energy(
            method="+".join(dict.fromkeys(counter.method for counter in self._counters)),
            domains=tuple(counter.domain for counter in self._counters),
            sampling_hz=self._hz,
            epochs_j=tuple(self._epochs),
        )

    def _read(self) -> float:
        with self._lock:
            try:
                return sum(counter.joules() for counter in self._counters)
            except (OSError, ValueError):
                self._failed = True
                return 0.0
