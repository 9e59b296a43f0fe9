"""What the paired benchmarks share: a process of its own, and turns that favour neither side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.workers import answer, finished


def figures_of(module: str, backend: str, name: str) -> dict[str, Any]:
    """What `python -m tests.benchmarks.MODULE BACKEND WORKLOAD` prints last, as JSON."""
    found: dict[str, Any] = answer(finished(f"benchmarks.{module}", backend, name, backend=backend))
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
