"""Learning rates that change from step to step, the same on every backend."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from harness.workload import Schedule


class WarmupThenLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Linear from `peak / warmup_steps` at the first step to `peak`, then linear to zero.

    The published schedule of that form (Devlin et al. 2018; google-research's optimization.py)
    starts one step lower, at zero: its first step changes nothing. Keras counts every part of a
    batch whose gradients are gathered; `parts` of them make a step.
    """

    def __init__(self, peak: float, schedule: Schedule, parts: int = 1) -> None:
        self._peak = peak
        self._schedule = schedule
        self._parts = parts

    def __call__(self, step: Any) -> Any:
        done = ops.cast(step // self._parts, "float32")
        warmup, total = self._schedule.warmup_steps, self._schedule.total_steps
        rising = (done + 1.0) / max(1, warmup)
        falling = ops.maximum(0.0, (total - done) / max(1, total - warmup))
        return self._peak * ops.minimum(rising, falling)

    def get_config(self) -> dict[str, Any]:
        return {"peak": self._peak, "schedule": self._schedule, "parts": self._parts}
