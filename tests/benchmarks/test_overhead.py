"""The harness's step path costs no more than a loop written by hand: within 1 %."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness import data
from harness.cells import BACKENDS
from harness.registry import workload
from tests.benchmarks.paired import figures_of
from tests.benchmarks.record import record

LIMIT = 1.01


@pytest.mark.frameworks
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["lstm_eta", "resnet50"])
def test_step_overhead(
    benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], backend: str, name: str
) -> None:
    """What the step path adds, timed by itself; and the paired ratio, as far as noise lets it tell.

    The figures are in the benchmark's extra_info; its own time is that of the whole process.
    """
    data.fetch(workload(name), "smoke")
    found = benchmark.pedantic(  # type: ignore[no-untyped-call]
        figures_of, args=("overhead", backend, name), rounds=1
    )
    benchmark.extra_info.update(found)
    record("overhead", {"cell": f"{name}/smoke/{backend}", **found}, key="cell")
    with capsys.disabled():
        print("\n" + line(backend, name, found))
    assert found["added_share"] <= LIMIT - 1
    assert found["ratio_ci95_low"] <= LIMIT


def line(backend: str, name: str, found: dict[str, Any]) -> str:
    """The figures in words."""
    decided = "" if found["ratio_ci95_high"] <= LIMIT else ", too noisy to tell"
    return (
        f"{name}/{backend}: adds {1e6 * found['added_s']:.2f} µs to a step of "
        f"{1e3 * found['step_s']:.2f} ms ({100 * found['added_share']:.3f} %); "
        f"harness / bare loop {found['ratio_median']:.4f} "
        f"(95 % interval {found['ratio_ci95_low']:.4f} to {found['ratio_ci95_high']:.4f}{decided}; "
        f"p10 {found['ratio_p10']:.4f}, p90 {found['ratio_p90']:.4f}; "
        f"{found['pairs']} pairs of {found['steps_per_block']} steps)"
    )
