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
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from harness.clock import now
from harness.environment import worker_environment
from harness.limits import limited
from harness.schema import Block, Report
from harness.stages import RESUMABLE, TURNS, Job, Segment
from harness.venvs import SOURCE, chosen

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


@dataclass(frozen=True)
class Installation:
    """Whose code a worker runs.

    An interpreter, if not that of the cell's own environment or, where none was made, this
    process's; a source tree that comes before what is installed there, if any; and variables
    beside those that the cell decides.
    """

    python: str | None = None
    root: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


HERE = Installation()


def run_worker(
    job: Job,
    installation: Installation = HERE,
    *,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_mark: Callable[[str], None] = lambda mark: None,
) -> Ended:
    """Run the job in a process of its own and wait for it, asleep.

    Kills the worker and its children when the time limit is over, and on KeyboardInterrupt.
    """
    with Worker(job, installation, on_stage=on_stage, on_mark=on_mark) as worker:
        return worker.wait()


class Worker:
    """A live worker process; none is left behind when its context ends."""

    def __init__(
        self,
        job: Job,
        installation: Installation = HERE,
        *,
        on_stage: Callable[[str], None] = lambda stage: None,
        on_mark: Callable[[str], None] = lambda mark: None,
    ) -> None:
        job = replace(job, protocol=limited(job.protocol, job.cell.scale))
        self._job = job
        self._cpu_before_s = _children_cpu_s()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the context
        self._read_end, write_end = os.pipe()
        self._process = _start(job, installation, write_end, self._log)
        os.close(write_end)
        self._reader = _Reader(self._read_end, on_stage, on_mark)
        self._deadline = now() + job.protocol.timeout_s
        self._say(json.dumps(asdict(job)))

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        _kill(self._process)
        self._hang_up()
        os.close(self._read_end)
        self._log.close()

    def ready(self) -> bool:
        """Wait until a worker that takes orders waits for its first; False when it ended before."""
        stages = (TURNS, RESUMABLE)
        return self._reader.read(self._deadline, until=lambda: self._reader.stage in stages)

    def turn(self, steps: int) -> Block | None:
        """One more timed block, or the last one of the warm-up for `WARM_UP`; None if it ended."""
        answer = self._answer(steps)
        return None if answer is None else Block(**answer)

    def train(self, steps: int) -> Segment | None:
        """So many more training steps and a checkpoint; None if it ended."""
        answer = self._answer(steps)
        return None if answer is None else Segment(**answer)

    def order(self, steps: int) -> None:
        """Tell it what to do without waiting for the answer."""
        self._say(str(steps))

    def _answer(self, steps: int) -> dict[str, Any] | None:
        have = len(self._reader.answers)
        self.order(steps)
        if self._reader.read(self._deadline, until=lambda: len(self._reader.answers) > have):
            return self._reader.answers[-1]
        return None

    def wait(self) -> Ended:
        """No more turns: wait for the end, and say how it came."""
        self._hang_up()
        finished = self._reader.read(self._deadline)
        finished = _reap(self._process, EXIT_GRACE_S if finished else 0.0) and finished
        _kill(self._process)
        status, reason = _verdict(self._reader, self._process, self._job, timed_out=not finished)
        cpu_s = _children_cpu_s() - self._cpu_before_s
        return Ended(self._reader.report, status, reason, _tail(self._log), cpu_s)

    def _hang_up(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what it did not read is lost
            self._process.stdin.close()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; its exit code tells
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()


def _start(
    job: Job, installation: Installation, write_end: int, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    own = None if installation.python else chosen(job.cell)
    # Another environment than this process's has the suite's packages, but not the suite.
    root = installation.root or (SOURCE if own else None)
    # A session of its own: Ctrl-C reaches the parent alone, and a kill reaches grandchildren.
    return subprocess.Popen(
        [
            installation.python or str(own.python if own else sys.executable),
            "-m",
            "harness.worker",
            str(write_end),
        ],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        # The working folder comes first on the path of a module that is run.
        cwd=root,
        env=worker_environment(
            backend=job.cell.backend,
            device=job.cell.device,
            root=root,
            variables=installation.variables,
        ),
        pass_fds=(write_end,),
        start_new_session=True,
    )


class _Reader:
    """Splits the pipe's bytes into events and keeps the stage, the answers and the report."""

    def __init__(
        self,
        descriptor: int,
        on_stage: Callable[[str], None],
        on_mark: Callable[[str], None],
    ) -> None:
        self.stage = "start"
        self.answers: list[dict[str, Any]] = []
        self.report: Report | None = None
        self._descriptor = descriptor
        self._on_stage = on_stage
        self._on_mark = on_mark
        self._rest = b""

    def read(self, deadline: float, until: Callable[[], bool] | None = None) -> bool:
        """Read until that is so, or the worker closes its end; False when this did not come."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            while (left := deadline - now()) > 0:
                if until is not None and until():
                    return True
                if not selector.select(left):
                    continue
                chunk = os.read(self._descriptor, 1 << 16)
                if not chunk:
                    return until is None or until()
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                for line in lines:
                    self._handle(json.loads(line))
        return False

    def _handle(self, event: dict[str, Any]) -> None:
        if event["event"] == "stage":
            self.stage = event["stage"]
            self._on_stage(self.stage)
        elif event["event"] == "mark":
            self._on_mark(event["mark"])
        elif event["event"] == "answer":
            self.answers.append(event["answer"])
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
