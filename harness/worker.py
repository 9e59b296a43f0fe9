"""The process of one run: reads its job, measures, and reports over a pipe of its own.

Started as `python -m harness.worker FD` with the job as JSON in the first line of standard input;
for one that takes orders, every further line is the steps of a block or segment. Every line
written to FD is one JSON event; standard output and error belong to the frameworks.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, TextIO

from harness import probes, several, tpu
from harness.accelerators import Watch, seen
from harness.backends import Backend, backend
from harness.cells import BACKENDS, Cell
from harness.clock import since_process_start
from harness.environment import cpu_count
from harness.errors import EpochmarkError, WorkerError
from harness.registry import workload
from harness.schema import Protocol, Report
from harness.stages import Finished, Job, Measurement


def read_job(text: str) -> Job:
    """The job from the parent's JSON."""
    fields: dict[str, Any] = json.loads(text)
    return Job(
        cell=Cell(**fields["cell"]),
        seed=fields["seed"],
        protocol=Protocol(**fields["protocol"]),
        weights=fields["weights"],
        turns=fields["turns"],
        checkpoint=fields["checkpoint"],
    )


def main() -> None:
    """Run the job and report; the exit status is 0 whenever a report was sent."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    job = read_job(sys.stdin.readline())
    with os.fdopen(descriptor, "w", encoding="utf-8") as pipe:
        send(pipe, {"event": "report", "report": asdict(measure(job, pipe))})


def send(pipe: TextIO, event: dict[str, Any]) -> None:
    """One event as one line, at once."""
    pipe.write(json.dumps(event, allow_nan=False) + "\n")
    pipe.flush()


def measure(job: Job, pipe: TextIO) -> Report:
    """Every stage of the job; whatever was measured before a failure is in the report."""
    send(pipe, {"event": "stage", "stage": "start"})
    measurement = Measurement(
        job,
        workload(job.cell.workload),
        lambda stage: send(pipe, {"event": "stage", "stage": stage}),
        orders=map(int, sys.stdin),
        answer=lambda part: send(pipe, {"event": "answer", "answer": asdict(part)}),
        mark=lambda mark: send(pipe, {"event": "mark", "mark": mark}),
    )
    baseline = None
    framework: Backend | None = None
    held = ExitStack()
    watches: list[Watch] = []
    try:
        framework = backend(job.cell.backend)
        measurement.numerics |= framework.configure(job.cell.precision, cpu_count())
        if job.cell.device_kind != "cpu":
            measurement.numerics |= framework.accelerator(job.cell.device_kind)
            probed = (tpu.probe(device) for device in framework.tpus()[: job.cell.device_count])
            watches = [held.enter_context(Watch(probe, hz=0.0)) for probe in probed]
        if job.cell.device_count > 1:
            several.spread(measurement, framework)
        started = since_process_start()
        if started is not None:
            measurement.watch.seconds["start"] = started
        baseline = probes.resident_bytes() if probes.reset_peak() else None
        measurement.run()
        status, reason = "ok", ""
    except Finished:
        status, reason = "ok", ""
    except Exception as error:
        status, reason = (measurement.ranks and measurement.ranks.failure()) or outcome(
            error, framework
        )
    measurement.watch.stop()
    held.close()
    others = [name for name in BACKENDS if name != job.cell.backend and name in sys.modules]
    measurement.numerics["other_frameworks_loaded"] = ", ".join(others) or "none"
    if framework is not None:
        try:
            measurement.note_memory(baseline)
        except Exception as error:  # what was measured counts, whatever a lost device answers
            if status == "ok":
                status, reason = outcome(error, framework)
    if measurement.ranks is not None:
        measurement.ranks.close()
    return Report(
        status=status,
        reason=reason,
        batch_size=measurement.batch_size,
        environment=probes.environment(),
        numerics=measurement.numerics,
        stages=measurement.watch.seconds,
        samples=measurement.samples,
        memory=measurement.memory,
        gate=measurement.gate,
        data=measurement.origin,
        loss_scaling=measurement.loss_scaling,
        accelerators=seen(watches),
    )


def outcome(error: Exception, framework: Backend | None) -> tuple[str, str]:
    """The status and reason of a run that ended with this exception."""
    if isinstance(error, WorkerError):
        return error.status, str(error)
    if isinstance(error, EpochmarkError):
        return "unavailable", str(error)
    out_of_memory = isinstance(error, MemoryError)
    if out_of_memory or (framework is not None and framework.is_out_of_memory(error)):
        return "oom", f"memory ran out: {first_line(error)}"
    if isinstance(error, ModuleNotFoundError) and framework is None:
        return "unavailable", f"{error.name} is not installed"
    traceback.print_exc()
    return "error", first_line(error)


def first_line(error: BaseException) -> str:
    """The exception's type and the first line of its text."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


if __name__ == "__main__":
    main()
