"""What a workload declares: facts only, no framework, no code that runs.

A workload is a folder (a package): its `__init__` holds `WORKLOAD`, `data` (or the module that a
scale names) loads real data as numpy arrays, `model` builds the network in Keras. The harness finds
the last two by name, and imports `model` only inside a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.batches import Batches

    Array = NDArray[Any]
    Batch = tuple[Array, Array]
else:
    # Listing cells reads declarations only, and importing numpy takes half of its time.
    Array = Batch = Any


@dataclass(frozen=True)
class Schedule:
    """A learning rate that rises linearly over the first steps, then falls linearly to zero."""

    warmup_steps: int
    total_steps: int


@dataclass(frozen=True)
class Optimizer:
    """An optimiser by its Keras class name, with the arguments that are not Keras's defaults.

    With a `schedule` the argument `learning_rate` is its peak; without one the rate is constant.
    `undecayed` are parts of the names of weights that no weight decay touches.
    """

    name: str
    arguments: Mapping[str, float]
    schedule: Schedule | None = None
    undecayed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pipeline:
    """How training batches get to the step: `kind` is one of `PIPELINES`.

    `pydataset` with one worker makes a batch when the loop asks for it, in the loop's own thread;
    but TensorFlow reads ahead in one of its own. Several workers, and `tf_data`, read ahead.
    """

    kind: str = "pydataset"
    workers: int = 1


PIPELINES = ("pydataset", "tf_data")


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
    `data` names the workload's module that loads this scale's data; `sizes` are the data's
    numbers, `architecture` is the model's: the workload's own dataclass.
    `input_shape` and `input_dtype` describe one example of the single packed input.
    `data_digest` pins the prepared arrays, so that any source gives the same data; it is empty
    where only its owner has the data: then the digest is recorded, not checked.
    `baseline` is a trivial predictor on the held-out data, with its quality where that is known.
    `quality_bounds` are the accepted ends of the quality metric after `epochs`; outside either
    end something is wrong, also when the result is too good.
    `tolerances` of the equality gate are per precision. `gate_architecture` replaces the
    architecture in the gate where that one draws at random: dropout differs between backends.
    `gate_scale` names the scale whose data, batch and reference the gate takes, where this one's
    data is its owner's alone; both have one architecture.
    `gate_rate` is the gate's learning rate as a share of the declared one: steps so long that the
    loss is no longer nearly linear along them would magnify rounding to a difference.
    `written_out` are those of the workload's `fast_paths` that training does without on purpose.
    `parameters` counts what is trained. FLOPs are of one example, 2 per multiply-add, of matrix
    products and convolutions only; the workload's README derives them. Training stops after the
    epoch that reaches `quality_target`, or the figure of quality that `target_figure` names: that
    of a baseline on the data at hand, where no target is published.
    """

    batch_size: int
    eval_batch_size: int
    epochs: int
    sizes: Mapping[str, int]
    architecture: Any
    input_shape: tuple[int, ...]
    input_dtype: str
    data_digest: str
    baseline: tuple[str, float | None]
    quality_bounds: tuple[float, float]
    optimizer: Optimizer
    tolerances: Mapping[str, Tolerance]
    parameters: int
    forward_flops: int
    training_flops: int
    reduced: str = ""
    data: str = "data"
    pipeline: Pipeline = Pipeline()
    gate_architecture: Any = None
    gate_scale: str = ""
    gate_rate: float = 1.0
    quality_target: float | None = None
    target_figure: str = ""
    written_out: tuple[str, ...] = ()

    def tolerance(self, precision: str) -> Tolerance:
        """The gate's; TensorFloat-32 rounds factors to the ten bits of float16."""
        return self.tolerances["mixed_float16" if precision == "tensorfloat32" else precision]

    @property
    def owned(self) -> bool:
        """Whether only its owner has the data, in the folder that EPOCHMARK_DATA names."""
        return bool(self.gate_scale)


@dataclass(frozen=True)
class Workload:
    """The declaration of a workload.

    `version` reads Major.Minor.Patch: results under the same Major.Minor are comparable.
    `gate_factors` multiply the equality gate's weights, by regular expressions on their keys: small
    activations make the epsilon of a normalisation visible. `checkpoint` names the module that
    reads published weights; empty where there is none. `fast_paths` are the kinds of layers whose
    kernels the record tells (`harness.paths`). `batch_statistics` says that layers normalise by the
    mean and variance of the batch, which devices that share one have to take together.
    """

    name: str
    version: str
    title: str
    example: str
    quality_metric: str
    quality_unit: str
    higher_is_better: bool
    scales: Mapping[str, Scale]
    module: str
    quality_title: str = ""
    checkpoint: str = ""
    fast_paths: tuple[str, ...] = ()
    batch_statistics: bool = False
    initializers: Mapping[str, str] = field(default_factory=dict)
    gate_factors: Mapping[str, float] = field(default_factory=dict)

    def data(self, scale: str) -> DataModule:
        """The module that loads the scale's data; imports no framework."""
        module: Any = import_module(f"{self.module}.{self.scales[scale].data}")
        return module  # type: ignore[no-any-return]

    def published(self, path: Path, scale: Scale) -> Mapping[str, Array]:
        """Published weights by their keys (`harness.weights`); raises DataError if they don't fit.

        A weight that the file does not hold, as the head of a new task, is not among them.
        """
        module: Any = import_module(f"{self.module}.{self.checkpoint}")
        return module.read(path, scale)  # type: ignore[no-any-return]

    def model(self) -> ModuleType:
        """The workload's `model` module; imports Keras, so only a worker calls this."""
        return import_module(f"{self.module}.model")


class DataModule(Protocol):
    """What a workload's module of data offers.

    `SOURCES` is a sequence of `harness.data.Source`, best first. `prepare` turns what a source
    decoded into the named arrays that are cached and digested; `test_targets` must be among them,
    a row for each held-out example.
    """

    SOURCES: tuple[Any, ...]

    def prepare(self, raw: Any, sizes: Mapping[str, int]) -> dict[str, Array]:
        """Select, split and encode: deterministic, held-out examples never seen in training."""

    def batches(
        self, arrays: Mapping[str, Array], *, batch_size: int, seed: int, epoch: int
    ) -> Batches:
        """The epoch's training batches, shuffled by seed and epoch, all of full size."""

    def test_inputs(self, arrays: Mapping[str, Array], start: int, stop: int) -> Array:
        """The model's inputs of the held-out examples from `start` to before `stop`, or the end."""

    def quality(
        self, arrays: Mapping[str, Array], outputs: NDArray[np.float32]
    ) -> dict[str, float]:
        """Quality figures from the model's outputs for all held-out examples, in their order."""
