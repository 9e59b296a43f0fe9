"""The memory that XLA plans for a training step is what the step takes, on the processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from harness import data
from harness.environment import worker_environment
from harness.registry import workload, workloads
from tests.benchmarks.planned import RETURNED


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("name", "scale"),
    [*((name, "smoke") for name in workloads()),
     ("lstm_eta", "standard"), ("recommender", "standard")],
)  # fmt: skip
def test_planned_memory_beside_the_real(
    capsys: pytest.CaptureFixture[str], name: str, scale: str
) -> None:
    data.fetch(workload(name), scale)
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.planned",
         f"{name}/{scale}/train/jax/float32/functional/cpu"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **worker_environment(backend="jax", device="cpu"), **RETURNED},
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    planned, real = found["planned"], found["real"]
    with capsys.disabled():
        print(f"\n{name}/{scale}: planned {planned / 2**20:.1f} MiB, real {real / 2**20:.1f} MiB")
    assert 0.8 < planned / real < 1.25
