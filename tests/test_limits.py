"""A run's time limit: the one that was given, else its scale's."""

from __future__ import annotations

import pytest

from harness.cells import SCALES
from harness.limits import BY_SCALE_S, limited
from harness.schema import Protocol


@pytest.mark.parametrize("scale", SCALES)
def test_without_a_limit_the_scale_sets_it_and_a_given_one_wins(scale: str) -> None:
    assert limited(Protocol(), scale) == Protocol(timeout_s=BY_SCALE_S[scale])
    assert limited(Protocol(timeout_s=77.0), scale) == Protocol(timeout_s=77.0)


def test_the_slowest_standard_cell_on_two_cores_is_within_its_scales_limit() -> None:
    """resnet50 under jax took 970 s for 8 steps, and bert's declared epochs 3.7 hours."""
    assert BY_SCALE_S["smoke"] == 300.0
    assert BY_SCALE_S["smoke"] < 970 < 3.7 * 3600 < BY_SCALE_S["standard"] < BY_SCALE_S["full"]
