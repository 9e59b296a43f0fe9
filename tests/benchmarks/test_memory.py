"""A worker needs no more memory than a plain training of the same model: within 100 MiB."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness import data
from harness.cells import BACKENDS, Cell
from harness.environment import worker_environment
from harness.registry import workload
from harness.schema import Protocol
from tests.benchmarks.record import record
from tests.workers import run

LIMIT = 100 * 2**20


@pytest.mark.frameworks
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["lstm_eta", "resnet50"])
def test_memory_that_the_harness_adds(
    capsys: pytest.CaptureFixture[str], backend: str, name: str
) -> None:
    data.fetch(workload(name), "smoke")
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.memory", name],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **worker_environment(backend=backend, device="cpu")},
    )
    plain = int(done.stdout.splitlines()[-1])
    ended = run(Cell(name, "smoke", "train", backend, "float32", "functional", "cpu"), Protocol())
    assert ended.report is not None, ended.log_tail
    peak = ended.report.memory.host_peak_bytes
    assert peak is not None
    figures = {"cell": f"{name}/smoke/{backend}", "plain_bytes": plain, "added_bytes": peak - plain}
    record("memory", figures, key="cell")
    with capsys.disabled():
        print(
            f"\n{name} on {backend}: {(peak - plain) / 2**20:+.0f} MiB to {plain / 2**20:.0f} MiB"
        )
    assert peak - plain < LIMIT
