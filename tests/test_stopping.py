"""A training ends by the rule that its record names."""

from __future__ import annotations

import pytest

from harness.cells import Cell
from harness.errors import UsageError
from harness.run_command import _seconds_for
from harness.runner import replay_command
from harness.schema import Epoch, Protocol
from harness.stopping import COST, DECLARED, STEPS, tenth_of_a_point, too_dear
from tests.records import PRICE
from tests.workers import run


def epochs(*pairs: tuple[float, float]) -> list[Epoch]:
    """Seconds and quality of each."""
    return [Epoch(10, seconds, 0.1, 0.5, {"q": quality}) for seconds, quality in pairs]


@pytest.mark.parametrize(
    ("pairs", "limit_s", "ends"),
    [
        # Two points in 10 s: half a second a tenth.
        (((10.0, 0.50), (10.0, 0.52)), 0.6, False),
        (((10.0, 0.50), (10.0, 0.52)), 0.4, True),
        # Half a point: two seconds a tenth.
        (((10.0, 0.50), (10.0, 0.52), (10.0, 0.525)), 1.9, True),
        (((10.0, 0.50), (10.0, 0.52), (10.0, 0.525)), 2.1, False),
        # Nothing gained on the best before.
        (((10.0, 0.50), (10.0, 0.60), (10.0, 0.60)), 1e9, True),
        (((10.0, 0.60), (10.0, 0.50), (10.0, 0.55)), 1e9, True),
        # One epoch tells nothing of the next; no limit, no end.
        (((10.0, 0.50),), 1e-9, False),
        (((10.0, 0.50), (10.0, 0.40)), 0.0, False),
    ],
)
def test_the_price_of_a_tenth_of_a_point(
    pairs: tuple[tuple[float, float], ...], limit_s: float, ends: bool
) -> None:
    found = epochs(*pairs)
    assert too_dear(found, "q", higher_is_better=True, tenth=0.001, limit_s=limit_s) is ends


def test_an_error_gains_by_falling() -> None:
    """From 7.0 to 6.8 minutes in 10 s: five seconds a tenth of a minute."""
    found = epochs((10.0, 7.0), (10.0, 6.8))
    assert not too_dear(found, "q", higher_is_better=False, tenth=0.1, limit_s=5.1)
    assert too_dear(found, "q", higher_is_better=False, tenth=0.1, limit_s=4.9)


def test_a_point_is_of_the_quality_as_it_is_printed() -> None:
    assert (tenth_of_a_point("%"), tenth_of_a_point("min")) == (0.001, 0.1)


def test_a_bound_in_dollars_is_one_in_seconds() -> None:
    seconds = _seconds_for(0.001, PRICE)
    assert seconds == pytest.approx(0.001 / PRICE.usd_per_hour * 3600)
    assert _seconds_for(0.0, None) == 0.0
    with pytest.raises(UsageError, match="--stop-at is in US dollars: choose a price"):
        _seconds_for(0.001, None)
    command = replay_command(CELL, Protocol(epochs=6, stop_s_per_tenth=seconds), PRICE)
    assert command == (
        f"epochmark run --only {CELL.id} --epochs 6 --stop-at 0.001 --price {PRICE.id}"
    )


CELL = Cell("recommender", "smoke", "train", "torch", "float32", "custom_loop", "cpu")


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("protocol", "outcome", "count"),
    [
        (Protocol(train_steps=3, pipeline="tf_data"), STEPS, 1),
        (Protocol(epochs=3), DECLARED, 3),
        (Protocol(epochs=5, stop_s_per_tenth=1e-6), COST, 2),
        (Protocol(train_steps=3), STEPS, 1),
    ],
)
def test_a_real_training_ends_as_its_record_says(
    protocol: Protocol, outcome: str, count: int
) -> None:
    ended = run(CELL, protocol)
    assert ended.report is not None, ended.log_tail
    assert ended.status == "ok", ended.reason
    assert (ended.report.samples.train_outcome, len(ended.report.samples.epochs)) == (
        outcome,
        count,
    )
    numerics = ended.report.numerics
    assert numerics["input_pipeline"] == (protocol.pipeline or "pydataset")
    if protocol.train_steps:
        losses.append(ended.report.samples.epochs[0].loss)
        assert losses == losses[:1] * len(losses), "the same batches in the same order"


losses: list[float] = []
"""Of three steps, through each pipeline."""
