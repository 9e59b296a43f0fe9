"""The equality gate: a cell counts only if it computes what the float32 reference computes.

The gate drives the very step that is timed, from weights drawn with numpy. The gradient that the
optimiser received is recovered from its first moment, so that nothing is added to the step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from harness import weights
from harness.backends import Trainer
from harness.errors import WorkerError
from harness.schema import Gate
from harness.workload import Array, Tolerance, Workload

SEED = 20151210
NORMS = ("gradient_norm", "vector_gradient_norm", "update_norm")
OUTPUT_EXAMPLES = 8
OUTPUT_VALUES = 16  # of each example: enough of a thousand logits


@dataclass(frozen=True)
class Figures:
    """What the gate compares: outputs of the first held-out examples, then K training steps.

    Vectors are parameters with one axis: biases, scales and offsets of normalisations. Their
    gradients are sums over a batch, which a kernel may add up in too narrow a type, and are too
    small a part of the whole gradient to show in its norm.
    """

    output: tuple[float, ...]
    loss: tuple[float, ...] = ()
    gradient_norm: tuple[float, ...] = ()
    vector_gradient_norm: tuple[float, ...] = ()
    update_norm: tuple[float, ...] = ()


def reference(workload: Workload, scale: str) -> Figures:
    """The stored float32 figures; raises WorkerError when there are none for the scale."""
    try:
        text = files(workload.module).joinpath("reference.json").read_text(encoding="utf-8")
        stored = json.loads(text)[scale]
    except (OSError, KeyError) as error:
        raise WorkerError(
            "numerics",
            f"No reference of {workload.name!r} at scale {scale!r} is stored; "
            f"make one with `epochmark reference {workload.name}`.",
        ) from error
    return Figures(**{name: tuple(stored[name]) for name in Figures.__dataclass_fields__})


def set_weights(model: Any, workload: Workload) -> None:
    """Give the model the gate's weights, all of them real numbers away from 0 and 1."""

    def value(key: str, shape: tuple[int, ...]) -> Array:
        return weights.for_gate(
            key,
            shape,
            seed=SEED,
            rules=workload.initializers,
            factors=workload.gate_factors,
        )

    weights.assign(weights.of(model), value)


def outputs(trainer: Trainer, placed_inputs: Any) -> tuple[float, ...]:
    """The first outputs of the first examples, flattened; the call's first use compiles it."""
    result = trainer.infer(placed_inputs)
    trainer.synchronise(result)
    found = trainer.outputs(result)[:OUTPUT_EXAMPLES]
    return tuple(float(v) for v in found.reshape(len(found), -1)[:, :OUTPUT_VALUES].ravel())


class GradientReader:
    """Recovers the norms of each step's gradient from the optimiser's first moment.

    Keras's SGD keeps m = momentum m - rate g; Adam and AdamW keep m = b1 m + (1 - b1) g. With a
    loss scale the moments hold the unscaled gradient.
    """

    def __init__(self, optimizer: Any) -> None:
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        self._inner = inner
        if hasattr(inner, "momentums"):
            self._slots = [slot for slot in inner.momentums if slot is not None]
            self._decay = float(inner.momentum)
            self._factor = -float(weights.snapshot([inner._learning_rate])[0])
        else:
            self._slots = list(inner._momentums)
            self._decay = float(inner.beta_1)
            self._factor = 1.0 - float(inner.beta_1)
        self._before = weights.snapshot(self._slots)

    def updates(self) -> int:
        """How many updates were applied; a step skipped for overflow is not one."""
        return weights.updates(self._inner)

    def norms(self) -> tuple[float, float]:
        """The norm of the gradient of the last update, and that of its vectors alone."""
        after = weights.snapshot(self._slots)
        # Slot by slot in float64: of a whole large model it would take gigabytes.
        squares = [
            float(np.sum(((now.astype(np.float64) - self._decay * before) / self._factor) ** 2))
            for now, before in zip(after, self._before, strict=True)
        ]
        self._before = after
        of_vectors = [s for s, now in zip(squares, after, strict=True) if now.ndim <= 1]
        return math.sqrt(math.fsum(squares)), math.sqrt(math.fsum(of_vectors))


class UpdateReader:
    """Measures how far each update moves the weights: the learning rate and its schedule, decay."""

    def __init__(self, variables: Sequence[Any]) -> None:
        self._variables = variables
        self._before = weights.snapshot(variables)

    def norm(self) -> float:
        """The norm of what the weights moved by since the last reading."""
        after = weights.snapshot(self._variables)
        squares = [
            np.sum(np.square(np.subtract(now, before, dtype=np.float64)))
            for now, before in zip(after, self._before, strict=True)
        ]
        self._before = after
        return float(np.sqrt(np.sum(squares)))


def deviations(measured: Figures, expected: Figures) -> dict[str, float]:
    """The largest relative deviation of each figure; outputs are relative to their largest."""
    largest = max(abs(value) for value in expected.output)
    found = {"output": _worst(measured.output, expected.output, [largest] * len(expected.output))}
    if measured.loss:
        found["loss"] = _worst(measured.loss, expected.loss, expected.loss)
        for name in NORMS:
            norms, seen = getattr(expected, name), getattr(measured, name)
            # A model without vectors has nothing to compare; one that has some after all, has.
            if any(norms) or any(seen):
                found[name] = _worst(seen, norms, norms)
    return found


def _worst(measured: Sequence[float], expected: Sequence[float], scale: Sequence[float]) -> float:
    if len(measured) != len(expected):
        return math.inf
    found = [abs(m - e) / abs(s) for m, e, s in zip(measured, expected, scale, strict=True)]
    # `max` would forget a NaN that does not come first.
    return max(found, default=0.0) if all(map(math.isfinite, found)) else math.inf


def judge(measured: Figures, expected: Figures, tolerance: Tolerance) -> Gate:
    """The gate's record; the outcome names the first figure beyond its tolerance."""
    found = deviations(measured, expected)
    # What an optimiser makes of a gradient is as far off as the gradient itself.
    allowed = {**asdict(tolerance), **dict.fromkeys(NORMS, tolerance.gradient_norm)}
    failed = [name for name, value in found.items() if not value <= allowed[name]]
    return Gate(
        outcome=f"failed: {failed[0]}" if failed else "passed",
        output=measured.output,
        loss=measured.loss,
        gradient_norm=measured.gradient_norm,
        vector_gradient_norm=measured.vector_gradient_norm,
        update_norm=measured.update_norm,
        # JSON holds no infinity, which is what values that cannot be compared deviate by.
        deviation={name: value for name, value in found.items() if math.isfinite(value)},
        tolerance={name: allowed[name] for name in found},
    )


def failure(gate: Gate) -> str:
    """The reason of a run that failed, with the figure and what was allowed."""
    name = gate.outcome.removeprefix("failed: ")
    if name not in gate.deviation:
        return f"{name.replace('_', ' ')} cannot be compared with the float32 reference's"
    return (
        f"{name.replace('_', ' ')} is {gate.deviation[name]:.2g} away from the float32 reference, "
        f"{gate.tolerance[name]:.2g} allowed"
    )
