"""What the paired benchmarks share: a process of its own, and turns that favour neither side."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.environment import worker_environment

ROOT = Path(__file__).parents[2]


def figures_of(module: str, backend: str, name: str) -> dict[str, Any]:
    """What `python -m tests.benchmarks.MODULE BACKEND WORKLOAD` prints last, as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{module}", backend, name],
        cwd=ROOT,
        env=worker_environment(backend=backend, device="cpu"),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def in_turns(
    ours: Callable[[], float], theirs: Callable[[], float], pairs: int
) -> tuple[list[float], list[float]]:
    """Seconds of both sides, pair by pair; who goes first alternates against drift."""
    one, other = [], []
    for pair in range(pairs):
        if pair % 2:
            other.append(theirs())
            one.append(ours())
        else:
            one.append(ours())
            other.append(theirs())
    return one, other
