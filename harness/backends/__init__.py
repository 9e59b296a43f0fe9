"""What a backend gives the harness. The modules here are the only ones that import a framework.

A trainer runs one model in one API style. The Keras-made styles (sequential, functional,
subclassing) step with Keras's own train function, the one `fit` calls; `custom_loop` steps with a
hand-written function of the backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import WorkerError
from harness.workload import Array, Batch

LOOPBACK = "127.0.0.1"

Loss = Callable[[Any, Any], Any]


class Trainer(Protocol):
    """One model under one way of stepping."""

    def place(self, batch: Batch) -> Any:
        """A training batch on the device, in the form that `step` takes again and again."""

    def step(self, placed: Any) -> Any:
        """One optimiser step; returns without waiting for the device."""

    def synchronise(self, result: Any) -> None:
        """Wait until the step or the inference call that gave `result` is finished."""

    def loss(self, result: Any) -> float:
        """The step's loss on its batch, unscaled."""

    def fit_epoch(self, dataset: Any) -> float:
        """Train on a data set of `pipelines` through the style's own loop; the mean loss."""

    def place_inputs(self, inputs: Array) -> Any:
        """Inputs on the device, in the form that `infer` takes."""

    def infer(self, placed: Any) -> Any:
        """The model's outputs, without waiting for the device."""

    def outputs(self, result: Any) -> NDArray[np.float32]:
        """The outputs of an inference call as an array."""

    def operations(self, placed: Any, *, training: bool) -> frozenset[str]:
        """Names of the operations that a step on a batch, or inference on inputs, runs.

        A convolution's name is followed by the layout of its images, such as `Conv2D NHWC`.
        It may run the step once more: the caller restores the state.
        """

    def push(self) -> None:
        """Take the state from the Keras variables, after they were assigned."""

    def pull(self) -> None:
        """Write the state back into the Keras variables, before they are read."""


@dataclass(frozen=True)
class Devices:
    """`count` devices of a kind that hold a copy of the model each and share every batch.

    Where each has a process of its own, this is process `rank` of them. They meet at `port` of the
    loopback interface, where the first one listens: `listener` is its socket's descriptor.
    """

    kind: str
    count: int
    rank: int = 0
    port: int = 0
    listener: int = -1


class Backend(Protocol):
    """A backend module's functions, and whether further devices need processes of their own."""

    PROCESS_PER_DEVICE: bool

    def configure(self, precision: str, threads: int) -> dict[str, str]:
        """Pin the numerics; returns the effective ones. Called once, before any operation."""

    def accelerator(self, device: str) -> dict[str, str]:
        """What operations will run on, for the record; `device` is `gpu` or `tpu`.

        Raises WorkerError `unavailable` when the framework sees no such device.
        """

    def tpus(self) -> Sequence[Any]:
        """The TPUs that this process holds, as JAX has them; none under another framework."""

    def spread(self, devices: Devices) -> dict[str, str]:
        """Train what is built from now on on all devices, each with its share of the batch.

        Returns how, for the record. Called once, after `configure`.
        Raises WorkerError `unavailable` when the framework sees fewer.
        """

    def collectives(self) -> AbstractContextManager[list[float]] | None:
        """While it is open, the seconds of each exchange between devices are put into the list.

        None where the exchange is no operation of its own.
        """

    def device_peak_bytes(self) -> int | None:
        """The most that the framework's allocator had given out on its first accelerator.

        Since the process began or `reset_device_peak`; None without an accelerator.
        """

    def reset_device_peak(self) -> bool:
        """Begin a new peak; False where the framework has no way to."""

    def seed(self, seed: int) -> None:
        """Seed the backend's own generators, which Keras's seeds do not reach."""

    def optimizer_class(self, kind: type[Any]) -> type[Any]:
        """The Keras optimiser class, made to compute what the other backends compute."""

    def fit_trainer(self, model: Any) -> Trainer:
        """Steps with the compiled Keras model's own functions."""

    def loop_trainer(self, model: Any, loss: Loss, optimizer: Any) -> Trainer:
        """Steps with a hand-written function of the backend."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether the exception is this backend's way of saying that memory ran out."""


_OUT_OF_MEMORY = (
    "RESOURCE_EXHAUSTED",
    "Out of memory",
    "CUDA error: out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator",
    # What TensorFlow says of a copy to a GPU that has no room for it.
    "Dst tensor is not initialized",
)


def says_out_of_memory(text: str) -> bool:
    """Whether the text of a framework's own exception says that memory ran out."""
    return any(phrase in text for phrase in _OUT_OF_MEMORY)


def absent(framework: str, device: str) -> WorkerError:
    """What a framework that sees no such device is told as."""
    return WorkerError(
        "unavailable",
        f"{framework} sees no {device.upper()}: it has to be a build for one, and the device free; "
        f"`epochmark doctor --device {device}` says more",
    )


def too_few(framework: str, devices: Devices, there: int) -> WorkerError:
    """What a framework that sees fewer devices than asked for is told as."""
    kind = devices.kind.upper()
    return WorkerError(
        "unavailable",
        f"{framework} sees {there} {kind}{'' if there == 1 else 's'}, {devices.count} asked for",
    )


def backend(name: str) -> Backend:
    """The module of that backend; importing it imports the framework and Keras."""
    module: Any = import_module(f"harness.backends.{name}")
    return module  # type: ignore[no-any-return]
