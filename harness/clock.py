"""The one file that reads a clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], float]

now: Clock = time.perf_counter

process_cpu: Clock = time.process_time
"""CPU seconds of this process, all of its threads."""


pause = time.sleep


def utc_now() -> str:
    """The current UTC time as ISO 8601 with seconds, such as 2026-11-22T10:15:30Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def since_process_start() -> float | None:
    """Seconds since the kernel started this process; None where /proc does not say.

    Source: field 22 of /proc/self/stat (proc(5)), in clock ticks on the boot-time clock.
    """
    import os

    try:
        with open("/proc/self/stat", encoding="ascii") as stat:  # noqa: PTH123
            after_name = stat.read().rpartition(")")[2].split()
        started = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, IndexError, ValueError):
        return None


class Stopwatch:
    """Named spans of wall time; a name that is opened twice adds up."""

    def __init__(self, clock: Clock = now) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = {}
        self._open: tuple[str, float] | None = None

    def start(self, name: str) -> None:
        """Close the open span, if any, and open another."""
        self.stop()
        self._open = (name, self._clock())

    def stop(self) -> None:
        """Close the open span, if any."""
        if self._open is not None:
            name, began = self._open
            self.seconds[name] = self.seconds.get(name, 0.0) + self._clock() - began
            self._open = None
