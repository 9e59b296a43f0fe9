"""Watches a GPU in a process of its own, which has the stand-in for NVML in place of a driver.

Every line of standard input is an order, and has one line of JSON as its answer. Watched is what
a cell on the device of the first argument uses, without one a GPU.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import accelerators, child, energy, fitness_devices, nvml, runner
from harness.cells import device_count, parse_cell
from harness.clock import now, pause
from harness.energy import Sampler
from harness.registry import workloads
from harness.schema import Gate, Memory, Protocol, Report
from harness.stages import BEGIN, END, Job
from harness.support import Support
from tests.records import CELL, ENVIRONMENT, SAMPLES

HZ = 200.0
PATIENCE_S = 30.0


def main() -> None:
    """Obey until the end of the orders."""
    device = sys.argv[1] if len(sys.argv) > 1 else "gpu"
    watches: tuple[accelerators.Watch, ...] = ()
    sampler = Sampler([])
    with ExitStack() as stack:
        for line in sys.stdin:
            order = line.strip()
            answer: Any = None
            if order == "watch":
                watches = stack.enter_context(accelerators.watched(device, HZ))
                sampler = stack.enter_context(Sampler(energy.devices(), HZ))
            elif order == "samples":
                answer = min(map(more_samples, watches), default=0)
            elif order in (BEGIN, END):
                sampler.mark(order)
            elif order == "stop":
                stack.close()
                joules = sampler.energy()
                found = [asdict(one) for one in accelerators.seen(watches)]
                answer = [found, joules and asdict(joules)]
            elif order == "processes":
                answer = nvml.processes()
            elif order == "used":
                answer = nvml.used(device_count(device))
            elif order == "doctor":
                examined = fitness_devices.examine("gpu")
                answer = {"status": examined.status, **asdict(examined)}
            elif order.startswith("run "):
                run(Path(order.removeprefix("run ")))
            print(json.dumps(answer), flush=True)


def more_samples(watch: accelerators.Watch) -> int:
    """Wait until the device was read anew, or cannot be any more."""
    have, began = watch.samples, now()
    # The reading that is under way may be of what was before.
    while watch.samples < have + 2 and not watch.failure:
        if now() - began > PATIENCE_S:
            raise TimeoutError("the sampler takes no samples")
        pause(1 / HZ)
    return watch.samples - have


def run(results: Path) -> None:
    """One run of a cell on a GPU, whose worker sends what a run on a CPU did."""
    report = Report(
        status="ok", reason="", batch_size=256, environment=ENVIRONMENT, numerics={}, stages={},
        samples=SAMPLES, memory=Memory(), gate=Gate(), data=None,
    )  # fmt: skip

    def run_worker(job: Job, **_: object) -> child.Ended:
        """What the file beside the stand-in's says, holds from then on."""
        state = Path(os.environ["NVML_STANDIN"])
        if (during := state.with_suffix(".during")).exists():
            during.replace(state)
        return child.Ended(report, "ok", "", "", 1.0)

    for module, name, stand_in in (
        (accelerators, "PATIENCE_S", 0.0),
        (runner, "support", lambda cell: Support("supported")),
        (child, "run_worker", run_worker),
    ):
        setattr(module, name, stand_in)
    cell = parse_cell(CELL.replace("/cpu", "/gpu"), list(workloads()))
    session = runner.new_session(
        [cell], plan="", only=(), replicates=1, order_seed=1, protocol=Protocol()
    )
    runner.run_one(session, runner.Planned(0, cell, 0), results, runner.Extras())


if __name__ == "__main__":
    main()
