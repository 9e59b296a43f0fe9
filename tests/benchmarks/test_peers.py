"""Our step at scale standard takes no longer than other people's, as far as noise lets it tell."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.environment import worker_environment
from tests.benchmarks.peers import PEERS
from tests.benchmarks.test_overhead import ROOT


def compare(backend: str, name: str) -> dict[str, Any]:
    """The ratios of one backend and workload, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.peers", backend, name],
        cwd=ROOT,
        env=worker_environment(backend=backend, device="cpu"),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("name", "backend"), [(name, b) for name, peer in PEERS.items() for b in peer.backends]
)
def test_step_beside_a_peer(
    benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], backend: str, name: str
) -> None:
    """At most the peer's time per FLOP, unless the interval says that noise could explain it."""
    found = benchmark.pedantic(  # type: ignore[no-untyped-call]
        compare, args=(backend, name), rounds=1
    )
    benchmark.extra_info.update(found)
    with capsys.disabled():
        print("\n" + line(backend, name, found))
    share = found["ratio_per_flop"] / found["ratio_median"]
    assert found["ratio_ci96_low"] * share <= 1.0


def line(backend: str, name: str, found: dict[str, Any]) -> str:
    """The figures in words."""
    return (
        f"{name}/{backend}: {found['ratio_median']:.3f} of the time of {found['peer']} "
        f"(96 % interval {found['ratio_ci96_low']:.3f} to {found['ratio_ci96_high']:.3f}; "
        f"{found['ratio_per_flop']:.3f} per FLOP; {found['pairs']} pairs of single steps of "
        f"{found['step_s']:.2f} s, batch {found['batch_size']})"
    )
