"""Our step at scale standard takes no longer than other people's, as far as noise lets it tell."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.benchmarks.paired import figures_of
from tests.benchmarks.peers import PEERS
from tests.benchmarks.record import record


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("name", "backend"), [(name, b) for name, peer in PEERS.items() for b in peer.backends]
)
def test_step_beside_a_peer(
    benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], backend: str, name: str
) -> None:
    """At most the peer's time per FLOP, unless the interval says that noise could explain it."""
    found = benchmark.pedantic(  # type: ignore[no-untyped-call]
        figures_of, args=("peers", backend, name), rounds=1
    )
    benchmark.extra_info.update(found)
    record("peers", {"cell": f"{name}/standard/{backend}", **found}, key="cell")
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
