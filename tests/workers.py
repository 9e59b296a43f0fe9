"""Starts real workers for tests, on the suite's own workloads and on the planted ones.

And the tests' own modules that import a framework, each in a process like a worker's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from harness import data
from harness.cells import Cell
from harness.child import Ended, run_worker
from harness.environment import worker_environment
from harness.registry import workload
from harness.schema import Protocol
from harness.stages import Job
from harness.workload import Workload

ROOT = Path(__file__).parents[1]
PLANTED = Path(__file__).parent / "planted"
GATE_ONLY = Protocol(stop_after="gate")
BRIEF = Protocol(warmup_floor_blocks=1, warmup_ceiling_blocks=1, min_blocks=1, max_blocks=1)
"""As little timing as there can be, for tests that look at what is trained."""

# Backend, precision and API style of the cells whose gate is tested for real: every backend with
# every workload, and over all workloads every precision and style with every backend.
GATE_CELLS = tuple(
    Cell(workload, "smoke", "train", backend, precision, api_style, "cpu")
    for workload, backend, precision, api_style in (
        ("resnet50", "tensorflow", "mixed_float16", "subclassing"),
        ("resnet50", "jax", "mixed_bfloat16", "functional"),
        ("resnet50", "torch", "float32", "custom_loop"),
        ("bert", "tensorflow", "float32", "sequential"),
        ("bert", "jax", "mixed_float16", "custom_loop"),
        ("bert", "torch", "mixed_bfloat16", "subclassing"),
        ("lstm_eta", "tensorflow", "mixed_bfloat16", "custom_loop"),
        ("lstm_eta", "jax", "float32", "sequential"),
        ("lstm_eta", "torch", "mixed_float16", "functional"),
        ("recommender", "tensorflow", "mixed_float16", "custom_loop"),
        ("recommender", "jax", "float32", "subclassing"),
        ("recommender", "torch", "mixed_bfloat16", "sequential"),
    )
)


def run(
    cell: Cell, protocol: Protocol, *, on_stage: Callable[[str], None] = lambda stage: None
) -> Ended:
    """One worker on the cell, with a fixed seed."""
    return run_worker(Job(cell=cell, seed=2013, protocol=protocol), on_stage=on_stage)


@cache
def gate_of(cell: Cell) -> Ended:
    """A real cell, stopped after its gate; run once for all tests that look at it."""
    data.fetch(workload(cell.workload), cell.scale)
    return run(cell, GATE_ONLY)


def finished(
    module: str, *arguments: str, backend: str, device: str = "cpu", **variables: str
) -> subprocess.CompletedProcess[str]:
    """`python -m tests.MODULE ARGUMENTS` in a worker's environment; it must end well."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.{module}", *arguments],
        cwd=ROOT,
        env=worker_environment(backend=backend, device=device, variables=variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    """What a process printed last, as JSON."""
    return json.loads(done.stdout.splitlines()[-1])


def planted_workload(where: str) -> Workload:
    """A planted workload's declaration, named like `wrong:EPSILON`, in this process."""
    module, _, name = where.partition(":")
    sys.path.insert(0, str(PLANTED))
    try:
        found: Workload = getattr(import_module(f"planted_workloads.{module}"), name)
    finally:
        sys.path.remove(str(PLANTED))
    return found


def show_workers_the_planted_workloads(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Workers find them by entry point, and their data in this cache."""
    monkeypatch.setenv("PYTHONPATH", str(PLANTED))
    monkeypatch.setenv("EPOCHMARK_CACHE", str(cache))
