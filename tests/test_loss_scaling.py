"""Dynamic loss scaling: skipped steps are counted, change nothing, and halve the scale."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness import data
from harness.cells import BACKENDS, Cell
from harness.metrics import derive
from harness.registry import workload
from harness.schema import LossScaling, Protocol
from harness.schema_json import UPGRADES
from tests.records import make_run
from tests.workers import answer, finished, run

CELL = Cell("recommender", "smoke", "train", "jax", "mixed_float16", "custom_loop", "cpu")


def test_the_skipped_steps_of_the_epochs_are_a_metric() -> None:
    scaled = make_run(loss_scaling=LossScaling(2.0**14, 1, 0, 3))
    assert derive(scaled)["skipped_steps"] == 3.0
    assert "skipped_steps" not in derive(make_run())
    assert "skipped_steps" not in derive(make_run(loss_scaling=LossScaling(2.0**14, 1, 0)))


@pytest.mark.parametrize(
    ("numerics", "left", "scaling"),
    [
        (
            {"loss_scale_final": "16384", "loss_scale_skipped_steps": "2", "platform": "cpu"},
            {"platform": "cpu"},
            {"final_scale": 16384.0, "train_skipped_steps": 2},
        ),
        ({"platform": "cpu"}, {"platform": "cpu"}, None),
        ({"loss_scale_final": "much"}, {"loss_scale_final": "much"}, None),
    ],
)
def test_older_records_held_them_among_the_numerics(
    numerics: dict[str, str], left: dict[str, str], scaling: dict[str, float] | None
) -> None:
    found = UPGRADES[6]({"numerics": numerics})
    assert found["numerics"] == left
    assert found.get("loss_scaling") == scaling


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("backend", "style"), [*((name, "custom_loop") for name in BACKENDS), ("jax", "functional")]
)
def test_a_step_that_overflows_is_skipped_and_counted(backend: str, style: str) -> None:
    """From a scale of 2^30 on, the first steps overflow; a process of its own does them."""
    data.fetch(workload(CELL.workload), CELL.scale)
    cell = replace(CELL, backend=backend, api_style=style)
    done = finished("overflow_child", cell.id, backend=backend)
    found = answer(done)
    steps = found["steps"]
    skipped = [step for step in steps if not step["moved"]]
    assert 1 <= len(skipped) < len(steps)
    assert found["counted"] == len(skipped)
    # The overflows come first; each halves the scale and leaves the weights.
    assert [step["moved"] for step in steps] == [False] * len(skipped) + [True] * (
        len(steps) - len(skipped)
    )
    assert found["scale"] == found["first_scale"] / 2 ** len(skipped)


@pytest.mark.frameworks
def test_a_run_records_what_was_skipped_in_each_part() -> None:
    data.fetch(workload(CELL.workload), CELL.scale)
    protocol = Protocol(min_blocks=3, steady_budget_s=0.1, train_steps=6)
    report = run(CELL, protocol).report
    assert report is not None
    assert report.status == "ok", report.reason
    found = report.loss_scaling
    assert found is not None
    assert found.final_scale == 2.0**15 / 2 ** (found.train_skipped_steps or 0)
    for count in (
        found.warmup_skipped_steps, found.steady_skipped_steps, found.train_skipped_steps
    ):  # fmt: skip
        assert count is not None
        assert count >= 0
