"""PyTorch: Keras's eager train step, and a hand-written autograd step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.utils._python_dispatch import TorchDispatchMode

from harness import weights
from harness.backends import (
    LOOPBACK,
    Devices,
    Loss,
    absent,
    pipelines,
    says_out_of_memory,
    too_few,
)
from harness.clock import now
from harness.workload import Array, Batch

PROCESS_PER_DEVICE = True


def configure(precision: str, threads: int) -> dict[str, str]:
    torch.set_num_threads(threads)
    allow_tf32 = precision == "tensorfloat32"
    torch.set_float32_matmul_precision("high" if allow_tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = allow_tf32
    return {
        "execution": "eager",
        "jit_compile": "False",
        "matmul_precision": "tf32" if allow_tf32 else "ieee",
        "intra_op_threads": str(torch.get_num_threads()),
        "inter_op_threads": str(torch.get_num_interop_threads()),
        "mkldnn": str(torch.backends.mkldnn.enabled),
    }


def accelerator(device: str) -> dict[str, str]:
    if device != "gpu" or not torch.cuda.is_available():
        raise absent("torch", device)
    return {"platform": device, "device_kind": torch.cuda.get_device_name()}


def tpus() -> tuple[()]:
    return ()


def spread(devices: Devices) -> dict[str, str]:
    if devices.kind == "gpu":
        there = torch.cuda.device_count()
        if there < devices.count:
            raise too_few("torch", devices, there)
        torch.cuda.set_device(devices.rank)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // devices.count))
    first = devices.rank == 0
    store = dist.TCPStore(  # type: ignore[attr-defined]
        LOOPBACK,
        devices.port,
        devices.count,
        is_master=first,
        # Left to itself it listens on every interface.
        master_listen_fd=devices.listener if first else None,
    )
    library = "nccl" if devices.kind == "gpu" else "gloo"
    dist.init_process_group(library, store=store, rank=devices.rank, world_size=devices.count)
    return {
        "distribution": "torch.distributed, a process for each device",
        "collectives": f"{library}, one all-reduce after the backward pass",
        "intra_op_threads": str(torch.get_num_threads()),
    }


def _averaging(optimizer: Any) -> None:
    """Let it average gradients over the devices first: before a loss scale, before any clipping."""
    apply = optimizer.apply

    def averaged(grads: Any, trainable_variables: Any = None) -> Any:
        together = _flatten_dense_tensors(grads)
        _all_reduce(together)
        together /= dist.get_world_size()
        return apply(list(_unflatten_dense_tensors(together, grads)), trainable_variables)

    optimizer.apply = averaged


_listening: list[list[float]] = []


@contextmanager
def collectives() -> Iterator[list[float]]:
    seconds: list[float] = []
    _listening.append(seconds)
    try:
        yield seconds
    finally:
        _listening.pop()


def _all_reduce(tensor: Any) -> None:
    if not _listening:
        dist.all_reduce(tensor)
        return
    _finish()
    began = now()
    dist.all_reduce(tensor)
    _finish()
    seconds = now() - began
    for listener in _listening:
        listener.append(seconds)


def _finish() -> None:
    """Wait for everything that the device was given to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_peak_bytes() -> int | None:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def reset_device_peak() -> bool:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    return True


def seed(seed: int) -> None:
    torch.manual_seed(seed)


def optimizer_class(kind: type[Any]) -> type[Any]:
    return kind


def is_out_of_memory(error: BaseException) -> bool:
    # The allocators have a class of their own. The driver's error, CUDA's libraries' and the
    # processor's allocator's are RuntimeErrors with a text.
    said = isinstance(error, RuntimeError) and says_out_of_memory(str(error))
    return said or isinstance(error, MemoryError | torch.OutOfMemoryError)


class _Noted(TorchDispatchMode):
    """Notes the name of every operation that reaches a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(_named(func.name(), args))
        return func(*args, **(kwargs or {}))


def _named(name: str, arguments: Any) -> str:
    """An operation's name, of a convolution with its layout: Keras gives it permuted views."""
    if name != "aten::convolution":
        return name
    images = arguments[0]
    first = images.is_contiguous()
    last = images.is_contiguous(memory_format=torch.channels_last)
    if first and last:
        return name  # of one channel or of one pixel: both are the same
    return f"{name} {'NCHW' if first else 'NHWC' if last else 'strided'}"


class _Shared:
    """Placing, synchronising and reading, the same for both ways of stepping."""

    step: Callable[[Any], Any]
    infer: Callable[[Any], Any]
    _model: Any
    _optimizer: Any

    def _state(self) -> list[Any]:
        """What is the same on every device; seeds of random layers are not."""
        metrics = self._model.metrics_variables
        return [*weights.of(self._model), *metrics, *self._optimizer.variables]

    def place(self, batch: Batch) -> Any:
        return tuple(_tensor(array) for array in batch)

    def place_inputs(self, inputs: Array) -> Any:
        return _tensor(inputs)

    def synchronise(self, result: Any) -> None:
        _finish()

    def outputs(self, result: Any) -> NDArray[np.float32]:
        return np.asarray(result.detach().cpu().numpy(), dtype=np.float32)

    def operations(self, placed: Any, *, training: bool) -> frozenset[str]:
        with _Noted() as noted:
            self.step(placed) if training else self.infer(placed)
        return frozenset(noted.names)

    def push(self) -> None:
        """Parameters are the Keras variables themselves: only other processes have copies."""
        if dist.is_initialized():
            for variable in self._state():
                dist.broadcast(variable.value.data, src=0)

    def pull(self) -> None:
        """Parameters are the Keras variables themselves: nothing to move."""


class FitTrainer(_Shared):
    """Keras's train and predict functions."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._optimizer = model.optimizer
        model.make_train_function()
        model.make_predict_function()

    def step(self, placed: Any) -> Any:
        # `fit` switches the torch module to training mode once per epoch; here once per step,
        # which costs a walk over the modules, so it is done only when the mode differs.
        if not self._model.training:
            self._model.train()
        return self._model.train_function([placed])

    def loss(self, result: Any) -> float:
        return float(result["loss"])

    def fit_epoch(self, dataset: Any) -> float:
        history = self._model.fit(dataset, epochs=1, shuffle=False, verbose=0)
        return float(history.history["loss"][0])

    def infer(self, placed: Any) -> Any:
        if self._model.training:
            self._model.eval()
        return self._model.predict_function([(placed,)])


class LoopTrainer(_Shared):
    """Forward, backward and the Keras optimiser, by hand."""

    def __init__(self, model: Any, loss: Loss, optimizer: Any) -> None:
        self._model = model
        self._loss = loss
        self._optimizer = optimizer
        self._weights = list(model.trainable_variables)

    def step(self, placed: Any) -> Any:
        x, y = placed
        self._model.zero_grad()
        value = self._loss(y, self._model(x, training=True))
        self._optimizer.scale_loss(value).backward()
        gradients = [weight.value.grad for weight in self._weights]
        with torch.no_grad():
            self._optimizer.apply(gradients, self._weights)
        return value.detach()

    def loss(self, result: Any) -> float:
        return float(result)

    def fit_epoch(self, dataset: Any) -> float:
        losses = [self.step(self.place(batch)) for batch in pipelines.arrays(dataset)]
        return float(torch.stack(losses).mean())

    def infer(self, placed: Any) -> Any:
        with torch.no_grad():
            return self._model(placed, training=False)


def fit_trainer(model: Any) -> FitTrainer:
    if dist.is_initialized():
        _averaging(model.optimizer)
    return FitTrainer(model)


def loop_trainer(model: Any, loss: Loss, optimizer: Any) -> LoopTrainer:
    if dist.is_initialized():
        _averaging(optimizer)
    return LoopTrainer(model, loss, optimizer)


def _tensor(array: Array) -> Any:
    return keras.ops.convert_to_tensor(array)
