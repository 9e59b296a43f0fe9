"""Where the time of a step at scale standard goes, by kind of operation: why a backend is slower.

`python -m tests.benchmarks.profiles all WORKLOAD [WORKLOAD ...]` profiles the functional float32
step on every backend, each in a process of its own, into results/profiles/<machine>.json, which the
workload's README shows. A profiled step is slower than a timed one, so the timed one is kept too.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

from harness.cells import BACKENDS, Cell
from harness.measure import time_block
from tests.benchmarks.overhead import built
from tests.benchmarks.paired import figures_of
from tests.benchmarks.record import record

Step = Callable[[], float]

BATCHES = 2
TIMED = 3
LEAST_S = 1e-4


def torch_seconds(step: Step, folder: Path) -> Counter[str]:
    """Seconds that each operation takes itself, without those that it calls."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    return Counter({one.key: one.self_cpu_time_total / 1e6 for one in found.key_averages()})


def jax_seconds(step: Step, folder: Path) -> Counter[str]:
    import jax

    with jax.profiler.trace(folder):
        step()
    return traced(folder, r"([a-z][\w-]*?)(\.\d+)*")


def tensorflow_seconds(step: Step, folder: Path) -> Counter[str]:
    import tensorflow as tf

    with tf.profiler.experimental.Profile(str(folder)):
        step()
    return traced(folder, r"[^$\s:]+:(\w+)")


PROFILERS = {"tensorflow": tensorflow_seconds, "jax": jax_seconds, "torch": torch_seconds}


def traced(folder: Path, form: str) -> Counter[str]:
    """The same from the trace that XLA's profiler wrote, of all threads of the host.

    An operation's event has a name of that form, whose first group is what it does; the others are
    of Python, the runtime and its waiting.
    """
    from jax.profiler import ProfileData

    (path,) = folder.rglob("*.xplane.pb")
    planes = [p for p in ProfileData.from_file(str(path)).planes if p.name.startswith("/host")]
    found: Counter[str] = Counter()
    for line in (line for plane in planes for line in plane.lines):
        for name, seconds in own_seconds(line.events).items():
            if operation := re.fullmatch(form, name):
                found[operation[1]] += seconds
    return found


def own_seconds(events: Any) -> Counter[str]:
    """Of one thread's events, some within others: what each takes without those within it."""
    found: Counter[str] = Counter()
    open_events: list[tuple[float, str]] = []
    for event in sorted(events, key=lambda event: (event.start_ns, -event.duration_ns)):
        while open_events and open_events[-1][0] <= event.start_ns:
            open_events.pop()
        if open_events:
            found[open_events[-1][1]] -= event.duration_ns / 1e9
        found[event.name] += event.duration_ns / 1e9
        open_events.append((event.start_ns + event.duration_ns, event.name))
    return found


def figures(backend: str, workload: str) -> dict[str, Any]:
    """The seconds of a step that is not profiled, and of its operations when it is."""
    measurement = built(
        Cell(workload, "standard", "train", backend, "float32", "functional", "cpu")
    )
    trainer: Any = measurement.trainer
    placed = cycle([trainer.place(one) for one in measurement._batches(0).first(BATCHES)])

    def step() -> float:
        return time_block(1, lambda: trainer.step(next(placed)), trainer.synchronise).seconds

    step()  # compiles
    timed = [step() for _ in range(TIMED)]
    with tempfile.TemporaryDirectory() as folder:
        operations = PROFILERS[backend](step, Path(folder))
    kept = {
        name: round(seconds, 6) for name, seconds in operations.most_common() if seconds > LEAST_S
    }
    return {"backend": backend, "step_s": median(timed), "operations_s": kept}


def main() -> None:
    first, *names = sys.argv[1:]
    if first in BACKENDS:
        print(json.dumps(figures(first, *names)))
        return
    for name in names:
        for backend in BACKENDS:
            found = figures_of("profiles", backend, name)
            record(name, found, key="backend", book="profiles")


if __name__ == "__main__":
    main()
