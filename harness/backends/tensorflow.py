"""TensorFlow: Keras's graph functions, and a GradientTape step in a tf.function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from harness.backends import Devices, Loss, absent, pipelines, says_out_of_memory, too_few
from harness.workload import Array, Batch

# tf.function graphs, no XLA: the Keras default without a GPU. Here on one too, where Keras's own
# would be XLA, so that both devices compute alike.
JIT_COMPILE = False

PROCESS_PER_DEVICE = False


def configure(precision: str, threads: int) -> dict[str, str]:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tensorfloat32")
    return {
        "execution": "tf.function graph",
        "jit_compile": str(JIT_COMPILE),
        "matmul_precision": "tf32"
        if tf.config.experimental.tensor_float_32_execution_enabled()
        else "ieee",
        "intra_op_threads": str(tf.config.threading.get_intra_op_parallelism_threads()),
        "inter_op_threads": str(tf.config.threading.get_inter_op_parallelism_threads()),
        "embedding_gradients": "made dense",
    }


def accelerator(device: str) -> dict[str, str]:
    found = _gpus()
    if device != "gpu" or not found:
        raise absent("tensorflow", device)
    details = tf.config.experimental.get_device_details(found[0])
    return {"platform": device, "device_kind": str(details.get("device_name", ""))}


def tpus() -> tuple[()]:
    return ()


def spread(devices: Devices) -> dict[str, str]:
    kind = devices.kind.upper()
    if devices.kind == "cpu":
        parts = [tf.config.LogicalDeviceConfiguration()] * devices.count
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices(kind)[0], parts)
    there = tf.config.list_logical_devices(kind)
    if len(there) < devices.count:
        raise too_few("tensorflow", devices, len(there))
    names = [device.name for device in there[: devices.count]]
    tf.distribute.experimental_set_strategy(tf.distribute.MirroredStrategy(names))
    return {"distribution": "tf.distribute.MirroredStrategy", "collectives": "by the strategy"}


def _gpus() -> list[Any]:
    return list(tf.config.list_physical_devices("GPU"))


def collectives() -> None:
    """The compiled step has them in it."""


def device_peak_bytes() -> int | None:
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] if _gpus() else None


def reset_device_peak() -> bool:
    if _gpus():
        tf.config.experimental.reset_memory_stats("GPU:0")
    return True


def seed(seed: int) -> None:
    tf.random.set_seed(seed)


def optimizer_class(kind: type[Any]) -> type[Any]:
    """The class with dense gradients of embedding tables.

    TensorFlow's are sparse, and Keras then leaves the moments of rows outside the batch alone
    ("lazy" Adam): other mathematics than on JAX and torch, whose gradients are dense.
    """

    class Dense(kind):
        def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
            dense = [None if grad is None else tf.convert_to_tensor(grad) for grad in grads]
            return super().apply(dense, trainable_variables)

    class Summed(Dense):
        """Over the devices, before anything is made of the sum: Keras would clip each share."""

        def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
            pairs = super()._all_reduce_sum_gradients(zip(grads, trainable_variables, strict=True))
            return super().apply([grad for grad, _ in pairs], trainable_variables)

        def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
            return grads_and_vars

    return Summed if _replicas() > 1 else Dense


def _replicas() -> int:
    """The devices that share a batch."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def is_out_of_memory(error: BaseException) -> bool:
    # Beside its own class: what a GPU's libraries say when they find no memory for themselves.
    inside = isinstance(error, tf.errors.InternalError | tf.errors.UnknownError)
    said = inside and says_out_of_memory(str(error))
    return said or isinstance(error, MemoryError | tf.errors.ResourceExhaustedError)


class _Inference:
    """Placing, synchronising and reading, the same for both ways of stepping."""

    infer: Callable[[Any], Any]

    def place_inputs(self, inputs: Array) -> Any:
        return tf.constant(inputs)

    def outputs(self, result: Any) -> NDArray[np.float32]:
        return np.asarray(result.numpy(), dtype=np.float32)

    def push(self) -> None:
        """Variables are shared with the graph functions: nothing to move."""

    def pull(self) -> None:
        """Variables are shared with the graph functions: nothing to move."""


class FitTrainer(_Inference):
    """Keras's train and predict functions on tf.data iterators of one element spec."""

    def __init__(self, model: Any) -> None:
        self._model = model
        model.make_train_function()
        model.make_predict_function()
        # On several devices Keras's own would have each of them infer the whole batch.
        self._infer = tf.function(model.predict_step) if _replicas() > 1 else None

    def place(self, batch: Batch) -> Any:
        dataset = tf.data.Dataset.from_tensors(batch).repeat()
        return iter(tf.distribute.get_strategy().experimental_distribute_dataset(dataset))

    def step(self, placed: Any) -> Any:
        return self._model.train_function(placed)

    def synchronise(self, result: Any) -> None:
        _synchronise(result)

    def loss(self, result: Any) -> float:
        return float(result["loss"])

    def fit_epoch(self, dataset: Any) -> float:
        if getattr(dataset, "workers", 1) == 1:
            dataset = _threaded(dataset)
        history = self._model.fit(dataset, epochs=1, shuffle=False, verbose=0)
        return float(history.history["loss"][0])

    def infer(self, placed: Any) -> Any:
        if self._infer is not None:
            return self._infer((placed,))
        return self._model.predict_function([(placed,)])

    def operations(self, placed: Any, *, training: bool) -> frozenset[str]:
        if training:
            # The train function hides its graph in a closure: its step is traced once more.
            run = tf.distribute.get_strategy().run
            step = tf.function(lambda data: run(self._model.train_step, (data,)))
            return _operations(step, next(placed))
        return _operations(self._model.predict_function, [(placed,)])


class LoopTrainer(_Inference):
    """A GradientTape step and an inference function, both in a tf.function."""

    def __init__(self, model: Any, loss: Loss, optimizer: Any) -> None:
        weights = model.trainable_variables

        @tf.function(jit_compile=JIT_COMPILE)
        def step(x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                value = loss(y, model(x, training=True))
                scaled = optimizer.scale_loss(value)
            gradients = tape.gradient(scaled, weights)
            optimizer.apply(gradients, weights)
            return value

        self._step = step
        self.infer = tf.function(lambda x: model(x, training=False), jit_compile=JIT_COMPILE)

    def place(self, batch: Batch) -> Any:
        return tuple(tf.constant(array) for array in batch)

    def step(self, placed: Any) -> Any:
        return self._step(*placed)

    def synchronise(self, result: Any) -> None:
        _synchronise(result)

    def loss(self, result: Any) -> float:
        return float(result)

    def operations(self, placed: Any, *, training: bool) -> frozenset[str]:
        return _operations(self._step, *placed) if training else _operations(self.infer, placed)

    def fit_epoch(self, dataset: Any) -> float:
        losses = [self._step(x, y) for x, y in _threaded(dataset)]
        return float(tf.reduce_mean(tf.stack(losses)))


def _operations(function: Any, *arguments: Any) -> frozenset[str]:
    """Kinds of the nodes in the function's graph and in the graphs that it calls."""
    graph = function.get_concrete_function(*arguments).graph.as_graph_def()
    called = (node for inner in graph.library.function for node in inner.node_def)
    return frozenset(map(_named, (*graph.node, *called)))


def _named(node: Any) -> str:
    """A node's kind, of a convolution with its layout."""
    if node.op != "Conv2D":
        return str(node.op)
    return f"{node.op} {node.attr['data_format'].s.decode()}"


def fit_trainer(model: Any) -> FitTrainer:
    for layer in model._flatten_layers() if _replicas() > 1 else ():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True  # statistics of the whole batch, as on one device
    return FitTrainer(model)


def loop_trainer(model: Any, loss: Loss, optimizer: Any) -> LoopTrainer:
    return LoopTrainer(model, loss, optimizer)


def _synchronise(result: Any) -> None:
    # A loss is ready before its step's update is: wait for the devices' queues as well.
    keras.tree.map_structure(lambda tensor: tensor.numpy(), result)
    tf.test.experimental.sync_devices()


def _threaded(dataset: Any) -> Any:
    """A PyDataset of one worker as Keras would read it, in a thread of tf.data's, but untuned."""
    if not isinstance(dataset, keras.utils.PyDataset):
        return dataset
    first = dataset[0]

    def generate() -> Iterator[Batch]:
        yield first
        for number in range(1, len(dataset)):
            yield dataset[number]

    # Fixed shapes, so that nothing is traced a second time.
    signature = tuple(tf.TensorSpec(array.shape, array.dtype) for array in first)
    generated = tf.data.Dataset.from_generator(generate, output_signature=signature)
    counted = generated.apply(tf.data.experimental.assert_cardinality(len(dataset)))
    return pipelines.untuned(counted)
