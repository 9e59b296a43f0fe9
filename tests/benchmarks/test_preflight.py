"""How long the plan of an accelerator takes: compiled from nothing, and from the cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.clock import now
from tests.benchmarks.record import record

EPOCHMARK = Path(sys.executable).with_name("epochmark")
DEVICE = "tpu-v5e"


@pytest.mark.frameworks
def test_plan_of_a_tpu(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Every workload, precision and style at scale smoke; the second time nothing is compiled."""
    pytest.importorskip("libtpu", reason="install requirements/preflight.txt")
    told = _epochmark(tmp_path, "data", "fetch")
    assert told.returncode == 0, told.stderr
    first_s, first = _timed(lambda: _planned(tmp_path / "first", tmp_path))
    again_s, again = benchmark.pedantic(  # type: ignore[no-untyped-call]
        _timed, args=(lambda: _planned(tmp_path / "again", tmp_path),), rounds=1
    )
    assert [one["program"] for one in again] == [one["program"] for one in first]
    compiled = sum(bool(one["program"]) for one in first)
    figures = {"cells": len(first), "compiled": compiled, "first_s": first_s, "again_s": again_s}
    record("plans", {"device": DEVICE, "scale": "smoke", **figures}, key="device")


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = now()
    found = call()
    return now() - began, found


def _planned(results: Path, cache: Path) -> list[dict[str, Any]]:
    given = ("preflight", "--device", DEVICE, "--format", "json", "--results", str(results))
    done = _epochmark(cache, *given)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["forecasts"]
    return found


def _epochmark(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "EPOCHMARK_CACHE": str(cache / "cache")}
    return subprocess.run(
        [EPOCHMARK, *arguments], env=settings, capture_output=True, text=True, check=False
    )
