"""JAX: Keras's jitted train step over explicit state, and a stateless value_and_grad step."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import jax
import keras
import numpy as np
from numpy.typing import NDArray

from harness.backends import Devices, Loss, absent, pipelines, says_out_of_memory, too_few
from harness.workload import Array, Batch

PROCESS_PER_DEVICE = False


def configure(precision: str, threads: int) -> dict[str, str]:
    matmul = "tensorfloat32" if precision == "tensorfloat32" else "highest"
    jax.config.update("jax_default_matmul_precision", matmul)
    return {
        "execution": "xla",
        "jit_compile": "True",
        "matmul_precision": "tf32" if matmul == "tensorfloat32" else "ieee",
        # XLA's CPU thread pool follows the process's affinity and has no switch of its own.
        "intra_op_threads": str(threads),
        "platform": jax.default_backend(),
    }


def accelerator(device: str) -> dict[str, str]:
    if jax.default_backend() != device:
        raise absent("jax", device)
    return {"platform": device, "device_kind": jax.devices()[0].device_kind}


def tpus() -> list[Any]:
    return [device for device in jax.local_devices() if device.platform == "tpu"]


def spread(devices: Devices) -> dict[str, str]:
    there = keras.distribution.list_devices(devices.kind)
    if len(there) < devices.count:
        raise too_few("jax", devices, len(there))
    chosen = keras.distribution.DataParallel(devices=there[: devices.count])
    keras.distribution.set_distribution(chosen)
    return {"distribution": "keras.distribution.DataParallel", "collectives": "by xla"}


def _on_devices(array: Array) -> jax.Array:
    """On the one device, or a share of the batch on each."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return jax.device_put(array)
    return jax.device_put(array, distribution.get_data_layout(array.shape).backend_layout)


def collectives() -> None:
    """The compiled step has them in it."""


def device_peak_bytes() -> int | None:
    statistics = jax.local_devices()[0].memory_stats()
    return statistics["peak_bytes_in_use"] if statistics else None


def reset_device_peak() -> bool:
    """JAX has no such switch: its peak is of the whole process, the gate's steps included."""
    return False


def seed(seed: int) -> None:
    """JAX has no generator of its own: every draw is from a key."""


def optimizer_class(kind: type[Any]) -> type[Any]:
    return kind


def is_out_of_memory(error: BaseException) -> bool:
    exhausted = isinstance(error, jax.errors.JaxRuntimeError) and says_out_of_memory(str(error))
    return exhausted or isinstance(error, MemoryError)


class _State:
    """The model's state outside its Keras variables, as the jitted functions take and return it."""

    def __init__(self, *groups: Any) -> None:
        self._groups = groups
        self.push()

    def push(self) -> None:
        self._state = tuple([variable.value for variable in group] for group in self._groups)

    def pull(self) -> None:
        for variables, values in zip(self._groups, self._state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    def synchronise(self, result: Any) -> None:
        jax.block_until_ready(result)

    def loss(self, result: Any) -> float:
        return float(result[0])

    def outputs(self, result: Any) -> NDArray[np.float32]:
        return np.asarray(result, dtype=np.float32)


class FitTrainer(_State):
    """Keras's train and predict functions, with the state that `fit` would hold."""

    def __init__(self, model: Any) -> None:
        self._model = model
        model.make_train_function()
        model.make_predict_function()
        super().__init__(
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )

    def place(self, batch: Batch) -> Any:
        return repeat(tuple(_on_devices(array) for array in batch))

    def step(self, placed: Any) -> Any:
        logs, self._state = self._model.train_function(self._state, placed)
        return logs["loss"], self._state

    def fit_epoch(self, dataset: Any) -> float:
        self.pull()
        history = self._model.fit(dataset, epochs=1, shuffle=False, verbose=0)
        self.push()
        return float(history.history["loss"][0])

    def place_inputs(self, inputs: Array) -> Any:
        return repeat((jax.device_put(inputs),))

    def operations(self, placed: Any, *, training: bool) -> frozenset[str]:
        data = next(placed)
        if training:
            return _primitives(self._model.train_step, self._state, data)
        return _primitives(self._model.predict_step, self._state[:2], data)

    def program(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """The jitted training step and its arguments, given a batch or its shapes."""
        step = jax.jit(self._model.train_step, donate_argnums=0)
        return step, (self._state, (inputs, targets))

    def infer(self, placed: Any) -> Any:
        # The predict function donates its state and hands it back.
        trainable, non_trainable, *rest = self._state
        result, state = self._model.predict_function((trainable, non_trainable), placed)
        self._state = (*state, *rest)
        return result


class LoopTrainer(_State):
    """A jitted stateless step and inference function; the state is donated and replaced."""

    def __init__(self, model: Any, loss: Loss, optimizer: Any) -> None:
        def scaled_loss(
            trainable: Any, non_trainable: Any, optimizer_state: Any, x: Any, y: Any
        ) -> Any:
            outputs, non_trainable = model.stateless_call(
                trainable, non_trainable, x, training=True
            )
            value = loss(y, outputs)
            mapping = list(zip(optimizer.variables, optimizer_state, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                scaled = optimizer.scale_loss(value)
            return scaled, (value, non_trainable)

        def step(state: Any, x: Any, y: Any) -> Any:
            trainable, non_trainable, optimizer_state = state
            gradient = jax.value_and_grad(scaled_loss, has_aux=True)
            (_, (value, non_trainable)), gradients = gradient(
                trainable, non_trainable, optimizer_state, x, y
            )
            trainable, optimizer_state = optimizer.stateless_apply(
                optimizer_state, gradients, trainable
            )
            return value, (trainable, non_trainable, optimizer_state)

        def infer(trainable: Any, non_trainable: Any, x: Any) -> Any:
            return model.stateless_call(trainable, non_trainable, x, training=False)[0]

        self._step = jax.jit(step, donate_argnums=0)
        self._infer = jax.jit(infer)
        super().__init__(
            model.trainable_variables, model.non_trainable_variables, optimizer.variables
        )

    def place(self, batch: Batch) -> Any:
        return tuple(_on_devices(array) for array in batch)

    def step(self, placed: Any) -> Any:
        value, self._state = self._step(self._state, *placed)
        return value, self._state

    def fit_epoch(self, dataset: Any) -> float:
        batches = pipelines.arrays(dataset)
        if keras.distribution.distribution() is not None:
            batches = map(self.place, batches)
        losses = [self.step(batch)[0] for batch in batches]
        return float(np.mean(jax.device_get(losses)))

    def place_inputs(self, inputs: Array) -> Any:
        return jax.device_put(inputs)

    def program(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """The jitted training step and its arguments, given a batch or its shapes."""
        return self._step, (self._state, inputs, targets)

    def infer(self, placed: Any) -> Any:
        return self._infer(self._state[0], self._state[1], placed)

    def operations(self, placed: Any, *, training: bool) -> frozenset[str]:
        if training:
            return _primitives(self._step, self._state, *placed)
        return _primitives(self._infer, self._state[0], self._state[1], placed)


def _primitives(function: Any, *arguments: Any) -> frozenset[str]:
    """Names of the primitives in the function's traced program, those of its calls too."""
    found: set[str] = set()

    def look_into(value: Any) -> None:
        for part in value if isinstance(value, list | tuple) else (value,):
            program = getattr(part, "jaxpr", part)  # a closed program holds the plain one
            for equation in getattr(program, "eqns", ()):
                found.add(_named(equation))
                for parameter in equation.params.values():
                    look_into(parameter)

    look_into(jax.make_jaxpr(function)(*arguments))
    return frozenset(found)


def _named(equation: Any) -> str:
    """A primitive's name, of a forward convolution with its layout.

    In the gradient of a kernel examples and channels change places, and examples come last.
    """
    name = str(equation.primitive.name)
    if name != "conv_general_dilated":
        return name
    examples, channels, *pixels = equation.params["dimension_numbers"].lhs_spec
    letters = dict(zip((examples, channels, *pixels), "NCHW", strict=True))
    layout = "".join(letters[place] for place in range(len(letters)))
    return f"{name} {layout}" if examples == 0 else name


def fit_trainer(model: Any) -> FitTrainer:
    return FitTrainer(model)


def loop_trainer(model: Any, loss: Loss, optimizer: Any) -> LoopTrainer:
    return LoopTrainer(model, loss, optimizer)
