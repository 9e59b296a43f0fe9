"""One worker process, from start to reaping: its events, its time limit, its end as a status.

The parent sleeps in `select` until the worker says something or its time is over.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from harness.clock import now
from harness.environment import worker_environment
from harness.schema import Report
from harness.stages import Job

LOG_TAIL_CHARACTERS = 2000
EXIT_GRACE_S = 10.0


@dataclass(frozen=True)
class Ended:
    """How a worker ended. `report` is None when it never sent one."""

    report: Report | None
    status: str
    reason: str
    log_tail: str
    cpu_s: float


def run_worker(
    job: Job, *, python: str = sys.executable, on_stage: Callable[[str], None] = lambda stage: None
) -> Ended:
    """Run the job in a process of its own and wait for it, asleep.

    Kills the worker and its children when the time limit is over, and on KeyboardInterrupt.
    """
    before = _children_cpu_s()
    with tempfile.TemporaryFile() as log:
        read_end, write_end = os.pipe()
        process = _start(job, python, write_end, log)
        os.close(write_end)
        reader = _Reader(read_end, on_stage)
        try:
            _hand_over(process, job)
            finished = reader.read(now() + job.protocol.timeout_s)
            finished = _reap(process, EXIT_GRACE_S if finished else 0.0) and finished
        finally:
            _kill(process)
            os.close(read_end)
        status, reason = _verdict(reader, process, job, timed_out=not finished)
        return Ended(reader.report, status, reason, _tail(log), _children_cpu_s() - before)


def _start(job: Job, python: str, write_end: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches the parent alone, and a kill reaches grandchildren.
    return subprocess.Popen(
        [python, "-m", "harness.worker", str(write_end)],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=worker_environment(backend=job.cell.backend, device=job.cell.device),
        pass_fds=(write_end,),
        start_new_session=True,
    )


def _hand_over(process: subprocess.Popen[bytes], job: Job) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(asdict(job)).encode())
        process.stdin.close()
    except BrokenPipeError:
        pass  # it died at once; its exit code tells


class _Reader:
    """Splits the pipe's bytes into events and keeps the stage and the report."""

    def __init__(self, descriptor: int, on_stage: Callable[[str], None]) -> None:
        self.stage = "start"
        self.report: Report | None = None
        self._descriptor = descriptor
        self._on_stage = on_stage
        self._rest = b""

    def read(self, deadline: float) -> bool:
        """Read until the worker closes its end; False when the deadline came first."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            while (left := deadline - now()) > 0:
                if not selector.select(left):
                    continue
                chunk = os.read(self._descriptor, 1 << 16)
                if not chunk:
                    return True
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                for line in lines:
                    self._handle(json.loads(line))
        return False

    def _handle(self, event: dict[str, Any]) -> None:
        if event["event"] == "stage":
            self.stage = event["stage"]
            self._on_stage(self.stage)
        else:
            from pydantic import TypeAdapter

            self.report = TypeAdapter(Report).validate_python(event["report"])


def _reap(process: subprocess.Popen[bytes], grace_s: float) -> bool:
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _verdict(
    reader: _Reader, process: subprocess.Popen[bytes], job: Job, *, timed_out: bool
) -> tuple[str, str]:
    if reader.report is not None:
        # Whatever happened after the report (a hang at exit) does not touch what was measured.
        return reader.report.status, reader.report.reason
    where = f"in stage {reader.stage!r}"
    if timed_out:
        return "timeout", f"not done after {job.protocol.timeout_s:g} s, {where}"
    code = process.returncode
    if code == -signal.SIGKILL:
        return "oom", f"killed by the system (SIGKILL) {where}, as it does when memory runs out"
    if code < 0:
        return "error", f"killed by {signal.Signals(-code).name} {where}"
    return "error", f"the worker ended with exit code {code} and no report, {where}"


def _tail(log: IO[bytes]) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - 4 * LOG_TAIL_CHARACTERS))
    return without_paths(log.read().decode("utf-8", "replace"))[-LOG_TAIL_CHARACTERS:]


def without_paths(text: str) -> str:
    """The text with absolute paths cut to the file's name: a record names no machine's folders."""
    home = str(Path.home())
    if len(home) > 1:  # a container may have / for it
        text = text.replace(home, "~")
    return re.sub(r"(?<![\w.~])(?:~|/)(?:[\w.+@~-]*/)+([\w.+@-]*)", r"\1", text)


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
