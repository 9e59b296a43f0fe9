"""Looks at every workload in every API style on one backend, and prints what it saw as JSON.

Started by test_contract.py as `python -m tests.contract_child BACKEND`, in a worker's environment.
One process holds the whole contract of a backend, since importing a framework is what costs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import gate, weights
from harness.backends import backend
from harness.batches import Batches, Rows
from harness.cells import BACKENDS, Cell
from harness.environment import cpu_count
from harness.registry import workloads
from harness.schema import Protocol
from harness.stages import Job, Measurement
from harness.workload import PIPELINES, Array, Batch, Pipeline, Workload

STYLES = ("sequential", "functional", "subclassing")
EXAMPLES = 8


def main() -> None:
    name = sys.argv[1]
    framework = backend(name)
    numerics = framework.configure("float32", cpu_count())
    seen = {w.name: contract(w, name, numerics) for w in workloads().values()}
    frameworks = [other for other in BACKENDS if other in sys.modules]
    # Last: under every backend tf_data imports TensorFlow.
    fed = {kind: epochs_through(kind, framework) for kind in PIPELINES}
    print(json.dumps({"workloads": seen, "frameworks": frameworks, "pipelines": fed}))


def contract(workload: Workload, backend_name: str, numerics: dict[str, str]) -> dict[str, Any]:
    import keras

    scale = next(iter(workload.scales.values()))
    arrays = Measurement(_job(workload, backend_name, "functional"), workload, _quiet)
    arrays._load()
    inputs = arrays.data.test_inputs(arrays.arrays, 0, EXAMPLES)
    seen: dict[str, Any] = {"styles": {}, "mixed": {}}
    for style in STYLES:
        keras.config.set_dtype_policy("float32")
        model = getattr(workload.model(), style)(scale)
        seen["styles"][style] = look_at(model, workload, inputs)
        for precision in ("mixed_bfloat16", "mixed_float16"):
            keras.config.set_dtype_policy(precision)
            seen["mixed"][f"{style} {precision}"] = dtypes_of(workload, style, scale, inputs[:1])
    keras.config.set_dtype_policy("float32")
    seen["one_step"] = compared_steps(workload, backend_name, numerics)
    return seen


def look_at(model: Any, workload: Workload, inputs: Array) -> dict[str, Any]:
    """The model's variables, and its outputs for the gate's weights in both modes."""
    gate.set_weights(model, workload)
    variables = weights.of(model)
    return {
        "variables": [
            [key, list(v.shape), str(v.dtype), bool(v.trainable)]
            for key, v in zip(weights.keys(variables), variables, strict=True)
        ],
        "training": array(model(inputs, training=True)).ravel().tolist(),
        "statistics": statistics(variables),
        "infer": infer(model, workload, inputs),
    }


def infer(model: Any, workload: Workload, inputs: Array) -> list[float]:
    gate.set_weights(model, workload)
    found: list[float] = array(model(inputs, training=False)).ravel().tolist()
    return found


def statistics(variables: Sequence[Any]) -> list[float]:
    """The mean of each variable that the training call itself has changed, or might have."""
    kept = [v for v in variables if not v.trainable]
    return [float(value.mean()) for value in weights.snapshot(kept)]


def array(tensor: Any) -> NDArray[np.float64]:
    from keras import ops

    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")), dtype=np.float64)


# Mixed precision


def dtypes_of(workload: Workload, style: str, scale: Any, inputs: Array) -> dict[str, Any]:
    """What the layers with weights really put out, and what they hold."""
    model = getattr(workload.model(), style)(scale)
    with outputs_noted() as noted:
        result = traced(model, inputs)
    called = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if layer.variables and layer.name in noted
    ]
    heads = {layer.name for layer in called if layer.dtype_policy.name == "float32"}
    return {
        "hidden": {layer.name: noted[layer.name] for layer in called if layer.name not in heads},
        "heads": {name: noted[name] for name in sorted(heads)},
        "variables": sorted({str(v.dtype) for v in model.trainable_variables}),
        "output": dtype(result),
    }


def traced(model: Any, inputs: Array) -> Any:
    """The outputs of a real call; on jax without computing them, which would compile each step."""
    import keras

    if keras.backend.backend() != "jax":
        return model(inputs, training=False)
    import jax

    return jax.eval_shape(lambda x: model(x, training=False), inputs)


@contextmanager
def outputs_noted() -> Iterator[dict[str, str]]:
    """The dtype of each layer's output, by the layer's name, of the calls in this block."""
    import keras

    noted: dict[str, str] = {}
    call = keras.layers.Layer.__call__

    def noting(self: Any, *arguments: Any, **named: Any) -> Any:
        result = call(self, *arguments, **named)
        if hasattr(result, "dtype"):
            noted[self.name] = dtype(result)
        return result

    keras.layers.Layer.__call__ = noting
    try:
        yield noted
    finally:
        keras.layers.Layer.__call__ = call


def dtype(tensor: Any) -> str:
    import keras

    return str(keras.backend.standardize_dtype(tensor.dtype))


# Input pipelines


def epochs_through(kind: str, framework: Any) -> dict[str, Any]:
    """Mean losses of an epoch by style and number of workers, and the batches that were made."""
    from harness.backends import pipelines

    made: list[int] = []

    def make(number: int, rows: Rows) -> Batch:
        made.append(number)
        inputs = np.float32(number + 1) * np.ones((len(rows), 3), np.float32)
        return inputs, inputs[:, :1] ** 2

    batches = Batches(np.arange(10).reshape(5, 2), make)
    losses = {
        f"{style}, {workers} workers": fitted(
            framework, style, pipelines.opened(Pipeline(kind, workers), batches)
        )
        for style in ("fit", "loop")
        for workers in (1, 2)
    }
    return {"losses": losses, "made": sorted(set(made))}


def fitted(framework: Any, style: str, dataset: Any) -> float:
    """The mean loss of an epoch of plain gradient descent from weights of one."""
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])
    optimizer = keras.optimizers.SGD(1e-3)
    loss = keras.losses.MeanSquaredError()
    if style == "loop":
        optimizer.build(model.trainable_variables)
        return float(framework.loop_trainer(model, loss, optimizer).fit_epoch(dataset))
    model.compile(optimizer, loss, jit_compile=False)
    return float(framework.fit_trainer(model).fit_epoch(dataset))


# One step of `fit` and one of the custom loop


def compared_steps(
    workload: Workload, backend_name: str, numerics: dict[str, str]
) -> dict[str, Any]:
    """How far the two updates are from each other, as a share of the update itself."""
    fitted = one_step(workload, backend_name, "functional", numerics)
    looped = one_step(workload, backend_name, "custom_loop", numerics)
    trainable = [key for key in fitted["after"] if fitted["trainable"][key]]
    others = [key for key in fitted["after"] if not fitted["trainable"][key]]
    return {
        "same_keys": list(fitted["after"]) == list(looped["after"]),
        "losses": [fitted["loss"], looped["loss"]],
        "moved": {name: moved(fitted, keys) for name, keys in groups(trainable, others)},
        "apart": {name: apart(fitted, looped, keys) for name, keys in groups(trainable, others)},
        "update": [norm([fitted["after"][k] - fitted["before"][k]]) for k in trainable],
    }


def groups(trainable: list[str], others: list[str]) -> list[tuple[str, list[str]]]:
    return [("weights", trainable), *([("statistics", others)] if others else [])]


def one_step(
    workload: Workload, backend_name: str, style: str, numerics: dict[str, str]
) -> dict[str, Any]:
    """The state around one optimiser step of the run that would be measured."""
    run = Measurement(_job(workload, backend_name, style), workload, _quiet)
    run.numerics |= numerics
    run._load()
    run._build(run.scale)
    gate.set_weights(run.model, workload)
    run.trainer.push()
    variables = weights.of(run.model)
    keys = weights.keys(variables)
    before = dict(zip(keys, weights.snapshot(variables), strict=True))
    result = run.trainer.step(run.trainer.place(run._batches(0, seed=gate.SEED)[0]))
    run.trainer.synchronise(result)
    loss = run.trainer.loss(result)
    run.trainer.pull()
    return {
        "loss": loss,
        "before": before,
        "after": dict(zip(keys, weights.snapshot(variables), strict=True)),
        "trainable": {key: v.trainable for key, v in zip(keys, variables, strict=True)},
    }


def moved(step: dict[str, Any], keys: list[str]) -> float:
    return norm([step["after"][key] - step["before"][key] for key in keys])


def apart(one: dict[str, Any], other: dict[str, Any], keys: list[str]) -> float:
    return norm([one["after"][key] - other["after"][key] for key in keys])


def norm(values: list[Array]) -> float:
    return float(np.sqrt(sum(np.sum(np.square(value, dtype=np.float64)) for value in values)))


def _job(workload: Workload, backend_name: str, style: str) -> Job:
    scale = next(iter(workload.scales))
    cell = Cell(workload.name, scale, "train", backend_name, "float32", style, "cpu")
    return Job(cell=cell, seed=2013, protocol=Protocol())


def _quiet(stage: str) -> None:
    """Nobody listens to the stages here."""


if __name__ == "__main__":
    main()
