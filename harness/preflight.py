"""What training steps will need on an accelerator, found on a machine without it.

Estimates and bounds, no measurements: each target has a file of its own in results/preflight/, and
no run is ever ranked by them. A cell's newest figures stand in place of the older ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from harness import derived, tpu
from harness.backends.ahead import COMPILERS, Figures, decisive, has_way
from harness.cellbook import CellBook
from harness.cells import API_STYLES, BACKENDS, PRECISIONS, Cell
from harness.environment import worker_environment
from harness.errors import UsageError
from harness.registry import workload, workloads
from harness.support import unsupported
from harness.targets import Target

TIMEOUT_S = 1800.0
"""For one step; the TPU's compiler takes minutes for a large one at full effort."""

FITS, TOO_LARGE, UNSUPPORTED, UNAVAILABLE, ERROR = (
    "fits", "too large", "unsupported", "unavailable", "error",
)  # fmt: skip

_CHILD = "harness.preflight_child"

_TPU_COMPILER = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""For libtpu on a machine that is no TPU host: it asks nobody what it is."""


@dataclass(frozen=True)
class Forecast:
    """What was found of one cell at one batch size.

    `method` is `compiled` (by the target's own compiler; that of TPUs says whether it fits) or
    `traced` (tensor bytes); for GPUs the peak is held against the documented memory. Sizes are
    `ahead.Figures`'. `flops` are declared. `bound_s` is the least time of a step: the declared
    FLOPs at the documented peak, or the crossing bytes at the documented bandwidth, whichever is
    longer.
    `largest_batch` fits and `refused_batch` does not; both are None where nobody asked.
    """

    as_of: str
    suite_commit: str
    batch_size: int
    outcome: str
    reason: str = ""
    method: str = ""
    optimised: bool = False
    peak_bytes: int | None = None
    moved_bytes: int | None = None
    crossing_bytes: int | None = None
    flops: int | None = None
    bound_s: float | None = None
    program: str = ""
    packages: dict[str, str] | None = None
    largest_batch: int | None = None
    refused_batch: int | None = None


def _forecast(fields: Mapping[str, Any]) -> Forecast:
    found = Forecast(**fields)
    sizes = (found.peak_bytes, found.moved_bytes, found.crossing_bytes, found.flops, found.bound_s)
    if found.batch_size < 1 or any(size is not None and not size > 0 for size in sizes):
        raise ValueError("a size that is not positive")
    return found


_BOOK = CellBook("preflight", "forecasts", "make it again with `epochmark preflight`", _forecast)
read_forecasts = _BOOK.read
write_forecasts = _BOOK.write


def cells_of(target: Target, scale: str, patterns: Sequence[str]) -> list[Cell]:
    """The training cells of that scale on the target's kind of device whose name matches a glob.

    Raises UsageError when none does.
    """
    every = [
        Cell(name, scale, "train", backend, precision, api_style, target.device)
        for name in workloads()
        for backend in (BACKENDS if target.device == "gpu" else ("jax",))
        for precision in PRECISIONS
        for api_style in API_STYLES
    ]
    chosen = [
        cell
        for cell in every
        if not patterns or any(fnmatchcase(name_of(cell, target), one) for one in patterns)
    ]
    if not chosen:
        raise UsageError(
            f"No cell matches {', '.join(map(repr, patterns))}. They read like "
            f"{name_of(every[0], target)}; `*` stands for anything."
        )
    return chosen


def name_of(cell: Cell, target: Target) -> str:
    """The cell's id with the phase `preflight` and the target in place of its kind of device."""
    return replace(cell, phase="preflight", device=target.name).id


def barred(cell: Cell, target: Target) -> tuple[str, str] | None:
    """The outcome and reason of a cell that is not even tried."""
    if reason := unsupported(cell):
        return UNSUPPORTED, reason
    if target.device == "gpu" and cell.precision not in target.documented.flops_per_s:
        return UNSUPPORTED, f"no units for {cell.precision} on {target.accelerator}"
    if not has_way(cell.backend):
        return UNSUPPORTED, f"no way to plan a step of {cell.backend} without the accelerator"
    reason = _missing(cell.backend, target.device)
    return (UNAVAILABLE, reason) if reason else None


@cache
def _missing(backend: str, device: str) -> str:
    """What has to be installed first; empty when everything is there."""
    remedy = "`pip install --requirement requirements/preflight.txt` has what fits together"
    for package in (backend, *COMPILERS.get((backend, device), ())):
        try:
            found = version(package)
        except PackageNotFoundError:
            return f"no package {package} in this environment; {remedy}"
        wanted = tpu.wanted_driver() if package == tpu.DRIVER else None
        if wanted is not None and not wanted.specifier.contains(found):
            return f"libtpu {found} does not match jax, which asks for {wanted.specifier}; {remedy}"
    return ""


@dataclass(frozen=True)
class Stamp:
    """When and with what the forecasts are made."""

    as_of: str
    suite_commit: str
    packages: Mapping[str, str]


class Planner:
    """Child processes that plan steps, one of each backend, started when first asked."""

    def __init__(self, target: Target, stamp: Stamp, *, optimised: bool) -> None:
        self._target = target
        self._stamp = stamp
        self._optimised = optimised
        self._children: dict[str, _Child] = {}

    def figures(self, cell: Cell, batch_size: int) -> Figures | str:
        """The figures, or why there are none; a process that ends on the way counts as that.

        What one commit and its packages found once is not looked for again.
        """
        key = self._key(cell, batch_size)
        known = derived.read("preflight", key) if key else None
        if known is not None:
            return Figures(**known)
        found = self._asked(cell, batch_size)
        if key and isinstance(found, Figures):
            derived.keep("preflight", key, asdict(found))
        return found

    def _key(self, cell: Cell, batch_size: int) -> str:
        """Of all that decides the figures; empty where the source is not that of a commit."""
        commit = self._stamp.suite_commit
        if not commit or commit.endswith("+"):
            return ""
        # A trace knows the kind of device alone.
        device = "gpu" if cell.backend == "torch" else self._target.name
        parts = [commit, cell.id, batch_size, device, self._optimised, self._stamp.packages]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _asked(self, cell: Cell, batch_size: int) -> Figures | str:
        child = self._child(cell.backend)
        order = {
            "cell": asdict(cell),
            "batch_size": batch_size,
            "target": self._target.name,
            "optimised": self._optimised,
        }
        answer = child.ask(order)
        return str(answer["error"]) if "error" in answer else Figures(**answer)

    def _child(self, backend: str) -> _Child:
        """The backend's process; a new one in place of one that ended."""
        child = self._children.get(backend)
        if child is None or not child.alive:
            if child is not None:
                child.close()
            child = self._children[backend] = _Child(backend)
        return child

    def close(self) -> None:
        for child in self._children.values():
            child.close()


def planner(target: Target, stamp: Stamp, *, optimised: bool) -> closing[Planner]:
    """A planner whose processes are gone when the context ends."""
    return closing(Planner(target, stamp, optimised=optimised))


class _Child:
    """A process of `preflight_child`, asked one order at a time."""

    def __init__(self, backend: str) -> None:
        self._read_end, write_end = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", _CHILD, str(write_end)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=worker_environment(backend=backend, device="cpu", variables=_TPU_COMPILER),
            pass_fds=(write_end,),
            start_new_session=True,
        )
        os.close(write_end)
        self._answers = os.fdopen(self._read_end, "rb")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return self._ended()
        with selectors.DefaultSelector() as selector:
            selector.register(self._read_end, selectors.EVENT_READ)
            if not selector.select(TIMEOUT_S):
                self.close()
                return {"error": f"not done after {TIMEOUT_S:g} s"}
        line = self._answers.readline()
        answer: dict[str, Any] = json.loads(line) if line else self._ended()
        return answer

    def _ended(self) -> dict[str, Any]:
        code = self._process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return {"error": f"the planning process ended: {how}"}

    def close(self) -> None:
        if self.alive:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):  # it went before it read the last order
                self._process.stdin.close()
        self._answers.close()


def forecast(
    cell: Cell, target: Target, batch_size: int, plan: Planner, stamp: Stamp, *, optimised: bool
) -> Forecast:
    """The cell's at that batch size."""
    wanted = decisive(cell.backend, target.device)
    versions = {name: stamp.packages[name] for name in wanted if name in stamp.packages}
    made = Forecast(stamp.as_of, stamp.suite_commit, batch_size, ERROR, packages=versions)
    found = barred(cell, target)
    if found is not None:
        return replace(made, outcome=found[0], reason=found[1])
    figures = plan.figures(cell, batch_size)
    if isinstance(figures, str):
        return replace(made, reason=figures)
    return judged(made, figures, cell, target, optimised=optimised)


def judged(
    made: Forecast, figures: Figures, cell: Cell, target: Target, *, optimised: bool
) -> Forecast:
    """Whether it fits, and the bound on the step's time."""
    compiled = cell.backend == "jax"
    flops = made.batch_size * workload(cell.workload).scales[cell.scale].training_flops
    made = replace(
        made,
        method="compiled" if compiled else "traced",
        optimised=optimised and compiled,
        program=figures.program,
        flops=flops,
        peak_bytes=figures.peak_bytes,
        moved_bytes=figures.moved_bytes,
        crossing_bytes=figures.crossing_bytes,
    )
    if figures.refusal or figures.peak_bytes is None or figures.crossing_bytes is None:
        return replace(made, outcome=TOO_LARGE, reason=figures.refusal)
    bound_s = max(
        flops / target.flops_per_s(cell.precision),
        figures.crossing_bytes / target.bandwidth_bytes_per_s,
    )
    # The TPU's compiler has said so by then.
    fits = target.device == "tpu" or figures.peak_bytes <= target.memory_bytes
    what = "bytes planned" if compiled else "tensor bytes"
    reason = "" if fits else f"more {what} than the documented memory"
    return replace(made, bound_s=bound_s, outcome=FITS if fits else TOO_LARGE, reason=reason)


RESOLUTION = 1 / 32
"""How close, as a share, the largest batch that fits and the smallest refused one end up."""


def largest_batch(
    declared: int, fits: Callable[[int], bool], *, limit: int = 1 << 20
) -> tuple[int | None, int | None]:
    """The largest batch found to fit and the smallest found not to, by doubling and bisection.

    None in place of the first where not even one example fits, and of the second where
    `limit` still does.
    """
    low, high = None, None
    batch = declared
    while low is None or high is None:
        if fits(batch):
            low = batch
            if high is None and batch >= limit:
                return low, None
            batch = min(limit, 2 * batch)
        else:
            high = batch
            if batch == 1:
                return None, 1
            batch = batch // 2 if low is None else batch
    while high - low > max(1, RESOLUTION * low):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low, high
