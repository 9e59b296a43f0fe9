"""What a workload declares: facts only, no framework, no code that runs.

A workload is a folder (a package) with three modules: its `__init__` holds `WORKLOAD`, `data`
loads real data as numpy arrays, `model` builds the network in Keras. The harness finds the last
two by name, and imports `model` only inside a worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Batch = tuple[Array, Array]
else:
    # Listing cells reads declarations only, and importing numpy takes half of its time.
    Array = Batch = Any


@dataclass(frozen=True)
class Optimizer:
    """An optimiser by its Keras class name, with the arguments that are not Keras's defaults."""

    name: str
    arguments: Mapping[str, float]


@dataclass(frozen=True)
class Tolerance:
    """Largest relative deviation from the float32 reference that the equality gate accepts."""

    loss: float
    gradient_norm: float
    output: float


@dataclass(frozen=True)
class Scale:
    """One size of a workload.

    `reduced` says in words what is smaller than in the published form (empty when nothing is).
    `sizes` are the data's numbers, `architecture` is the model's: the workload's own dataclass.
    `input_shape` and `input_dtype` describe one example of the single packed input.
    `data_digest` pins the prepared arrays, so that any source gives the same data.
    `quality_bounds` are the accepted ends of the quality metric after `epochs`; outside either
    end something is wrong, also when the result is too good.
    """

    batch_size: int
    eval_batch_size: int
    epochs: int
    sizes: Mapping[str, int]
    architecture: Any
    input_shape: tuple[int, ...]
    input_dtype: str
    data_digest: str
    quality_bounds: tuple[float, float]
    reduced: str = ""


@dataclass(frozen=True)
class Workload:
    """The declaration of a workload.

    `version` reads Major.Minor.Patch: results under the same Major.Minor are comparable.
    `tolerances` are per precision. `gate_gain` scales the convolution kernels of the equality
    gate's weights: small activations make the epsilon of a normalisation visible.
    """

    name: str
    version: str
    title: str
    example: str
    quality_metric: str
    quality_unit: str
    higher_is_better: bool
    baseline: tuple[str, float]
    optimizer: Optimizer
    scales: Mapping[str, Scale]
    tolerances: Mapping[str, Tolerance]
    module: str
    quality_title: str = ""
    gate_gain: float = 1.0
    initializers: Mapping[str, str] = field(default_factory=dict)

    def data(self) -> DataModule:
        """The workload's `data` module; imports no framework."""
        module: Any = import_module(f"{self.module}.data")
        return module  # type: ignore[no-any-return]

    def model(self) -> ModuleType:
        """The workload's `model` module; imports Keras, so only a worker calls this."""
        return import_module(f"{self.module}.model")


class DataModule(Protocol):
    """What a workload's `data` module offers.

    `SOURCES` is a sequence of `harness.data.Source`, best first. `prepare` turns what a source
    decoded into the named arrays that are cached and digested; `test_inputs` must be among them.
    """

    SOURCES: tuple[Any, ...]

    def prepare(self, raw: Any, sizes: Mapping[str, int]) -> dict[str, Array]:
        """Select, split and encode: deterministic, held-out examples never seen in training."""

    def batches(
        self, arrays: Mapping[str, Array], *, batch_size: int, seed: int, epoch: int
    ) -> Iterator[Batch]:
        """The epoch's training batches, shuffled by seed and epoch, all of full size."""

    def steps_per_epoch(self, arrays: Mapping[str, Array], *, batch_size: int) -> int:
        """How many batches `batches` yields."""

    def quality(
        self, arrays: Mapping[str, Array], outputs: NDArray[np.float32]
    ) -> dict[str, float]:
        """Quality figures from the model's outputs for `test_inputs`, in their order."""
