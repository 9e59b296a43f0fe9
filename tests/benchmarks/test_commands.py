"""How long the commands take that a person waits for, as whole processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

EPOCHMARK = Path(sys.executable).with_name("epochmark")


@pytest.mark.parametrize("arguments", [["--help"], ["list"]], ids=" ".join)
def test_command(benchmark: BenchmarkFixture, arguments: list[str]) -> None:
    done = benchmark.pedantic(  # type: ignore[no-untyped-call]
        subprocess.run,
        args=([EPOCHMARK, *arguments],),
        kwargs={"check": True, "stdout": subprocess.DEVNULL},
        rounds=10,
        warmup_rounds=1,
    )
    assert done.returncode == 0
