"""When a training ends before its last epoch. Knows no framework and no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.schema import Epoch
from harness.workload import Scale

DECLARED = "declared"
TARGET = "target"
COST = "cost"
STEPS = "steps"
"""What ended a training, as its record says it: every epoch that was asked for, the declared
quality, the next tenth of a point that would have cost more than allowed, or a budget of steps."""


def target(scale: Scale, quality: Mapping[str, float]) -> float | None:
    """The quality that is enough: as declared, or that of a baseline beside it in the epoch's."""
    return quality.get(scale.target_figure, scale.quality_target)


_TENTHS = {"%": 0.001}


def tenth_of_a_point(unit: str) -> float:
    """In the terms of a quality with that unit: of a share in percent, else of the unit itself."""
    return _TENTHS.get(unit, 0.1)


def too_dear(
    epochs: Sequence[Epoch], metric: str, *, higher_is_better: bool, tenth: float, limit_s: float
) -> bool:
    """Whether a tenth of a point more took longer than `limit_s` in the last epoch (0: no limit).

    It is held against the best epoch before. What the next tenth will take is not known; that it
    takes no less than the last one did is what curves of training show. One that brought nothing is
    too dear at any limit.
    """
    if limit_s == 0 or len(epochs) < 2:
        return False
    gained = gain(epochs, metric, higher_is_better=higher_is_better)
    return gained <= 0 or epochs[-1].train_s * tenth / gained > limit_s


def gain(epochs: Sequence[Epoch], metric: str, *, higher_is_better: bool) -> float:
    """How much better the last epoch's quality is than the best before; positive for better."""
    sign = 1 if higher_is_better else -1
    *before, last = [sign * epoch.quality[metric] for epoch in epochs]
    return last - max(before)
