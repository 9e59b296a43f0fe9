"""ResNet-50 v1.5 at standard scale against an independent implementation, given the same weights.

The other side is the network of transformers, on torch, with torch's own loss. What is compared:
the outputs in inference, and of one training step the loss, the gradient of every weight, and the
statistics that it leaves. The declared sizes are checked by arithmetic that knows no framework.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from harness.cells import BACKENDS
from harness.workload import Scale
from tests.resnet50_child import FAULTS, STEPS
from tests.workers import answer, finished
from workloads.resnet50 import WORKLOAD

SCALE = WORKLOAD.scales["standard"]

# Largest differences accepted, as shares of the largest value of that tensor: about ten times what
# was measured (README.md of the workload, which also says why gradients are compared in float64).
OUTPUT = 1e-5
EXACT = 1e-11
TRAINING = 1e-7  # of the losses of five steps, in which rounding grows
FLOAT32_LOSS = 1e-5
FLOAT32_GRADIENT = 0.1  # of the whole gradient, by its norm


# Arithmetic


def convolutions(scale: Scale) -> Iterator[tuple[int, int, int, int]]:
    """Kernel side, channels in and out, and output side, of every convolution, first to last."""
    a = scale.architecture
    channels, side = scale.input_shape[-1], scale.input_shape[0]
    side = strided(side, a.stem_kernel, a.stem_stride)
    yield a.stem_kernel, channels, a.stem_filters, side
    channels, side = a.stem_filters, strided(side, 3, 2) if a.stem_pool else side
    for stage, blocks in enumerate(a.blocks):
        width = a.width * 2**stage
        for block in range(blocks):
            yield 1, channels, width, side
            side = strided(side, 3, 2 if stage and not block else 1)
            yield 3, width, width, side
            yield 1, width, 4 * width, side
            if not block:
                yield 1, channels, 4 * width, side
            channels = 4 * width


def strided(side: int, kernel: int, stride: int) -> int:
    """Output side of a convolution padded by half of its kernel."""
    return (side + 2 * (kernel // 2) - kernel) // stride + 1


def multiply_adds(scale: Scale) -> list[int]:
    """Per layer, the dense one last."""
    layers = list(convolutions(scale))
    found = [k * k * inputs * outputs * side * side for k, inputs, outputs, side in layers]
    return [*found, layers[-1][2] * scale.architecture.classes]


@pytest.mark.parametrize("scale", WORKLOAD.scales.values(), ids=WORKLOAD.scales)
def test_declared_flops_are_two_per_multiply_add(scale: Scale) -> None:
    """Backward, a layer's weights and its inputs each cost the forward again; the images none."""
    counts = multiply_adds(scale)
    assert scale.forward_flops == 2 * sum(counts)
    assert scale.training_flops == 3 * scale.forward_flops - 2 * counts[0]


@pytest.mark.parametrize("scale", WORKLOAD.scales.values(), ids=WORKLOAD.scales)
def test_declared_parameters_are_kernels_scales_shifts_and_the_dense_layer(scale: Scale) -> None:
    layers = list(convolutions(scale))
    kernels = sum(k * k * inputs * outputs for k, inputs, outputs, _ in layers)
    normalisations = sum(2 * outputs for _, _, outputs, _ in layers)
    dense = (layers[-1][2] + 1) * scale.architecture.classes
    assert scale.parameters == kernels + normalisations + dense


def test_the_standard_network_has_the_published_size() -> None:
    """25.557 M parameters and 4.089 GMAC: the figures known of the v1.5 network."""
    assert SCALE.parameters == 25_557_032
    assert SCALE.forward_flops == 2 * 4_089_184_256


# Parity


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    """The folder with what transformers' network computed, and what was seen of it."""
    folder = tmp_path_factory.mktemp("resnet50")
    yield folder, child("reference", "torch", folder)
    (folder / "reference.npz").unlink()


def child(what: str, backend_name: str, folder: Path) -> Any:
    done = finished("resnet50_child", what, str(folder), backend=backend_name)
    return answer(done)


@cache
def compared(backend: str, folder: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = child(backend, backend, folder)
    return found


@pytest.fixture(params=BACKENDS)
def seen(request: pytest.FixtureRequest, reference: tuple[Path, Any]) -> Mapping[str, Any]:
    """What each backend's one process found."""
    return compared(request.param, reference[0])


@pytest.mark.frameworks
def test_the_other_network_is_the_v1_5_one(reference: tuple[Path, Any]) -> None:
    """The same weights in v1, with the stride in the first 1x1, give other outputs."""
    assert reference[1]["parameters"] == SCALE.parameters
    assert reference[1]["older"] > 100 * OUTPUT


@pytest.mark.frameworks
def test_inference_agrees_in_float32(seen: Mapping[str, Any]) -> None:
    for style in seen["styles"].values():
        assert style["output"] <= OUTPUT


@pytest.mark.frameworks
def test_the_smoothed_loss_agrees(seen: Mapping[str, Any]) -> None:
    """Through the training step, and called by hand on the other network's logits."""
    assert seen["float64"]["loss"] <= EXACT
    assert seen["direct_loss"] <= 1e-6
    assert seen["smoke_loss"] == "SparseCategoricalCrossentropy"


@pytest.mark.frameworks
def test_every_gradient_and_statistic_agrees(seen: Mapping[str, Any]) -> None:
    found = seen["float64"]
    assert found["same_tensors"]
    assert len(found["tensors"]) == 161 + 2 * 53  # weights; a mean and variance per normalisation
    worst = max(found["tensors"], key=found["tensors"].get)
    assert found["tensors"][worst] <= EXACT, worst


@pytest.mark.frameworks
def test_every_step_of_a_training_has_the_references_loss(seen: Mapping[str, Any]) -> None:
    """By the recipe of scale full: momentum, decay of kernels alone, a rate that rises and falls.

    In float64: float32 does not determine a training of this network.
    """
    losses = seen["float64"]["losses"]
    assert len(losses) == STEPS
    assert max(losses) <= TRAINING


@pytest.mark.frameworks
@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_recipe_that_is_another_is_seen(fault: str, reference: tuple[Path, Any]) -> None:
    assert max(compared("torch", reference[0])["faults"][fault]) > 100 * TRAINING


@pytest.mark.frameworks
def test_a_float32_step_agrees_as_far_as_float32_goes(reference: tuple[Path, Any]) -> None:
    found = compared("torch", reference[0])["float32"]
    assert found["loss"] <= FLOAT32_LOSS
    assert found["gradient"] <= FLOAT32_GRADIENT


@pytest.mark.frameworks
def test_the_styles_train_the_declared_parameters(reference: tuple[Path, Any]) -> None:
    """Scales and shifts of the normalisations are trained, their statistics are not.

    On torch; that the other backends have the same is held above by the names of the tensors, and
    at smoke scale by the contract's tests.
    """
    styles = compared("torch", reference[0])["styles"]
    assert list(styles) == ["sequential", "functional", "subclassing"]
    variables = styles["functional"]["variables"]
    assert trained(variables) == SCALE.parameters
    frozen = {key.rpartition("/")[2] for key, _, trainable in variables if not trainable}
    assert frozen == {"moving_mean", "moving_variance"}
    for style in styles.values():
        assert style["variables"] == variables


def trained(variables: list[tuple[str, list[int], bool]]) -> int:
    """How many numbers the trainable variables hold."""
    return sum(math.prod(shape) for _, shape, trainable in variables if trainable)
