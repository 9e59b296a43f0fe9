"""NeuMF at standard scale against a plain network in torch, given the same weights.

What is compared, in float32: the outputs in inference, and of one training step the loss and the
gradient of every weight. The declared sizes are checked by arithmetic that knows no framework.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness.cells import BACKENDS
from harness.workload import Scale
from tests.workers import answer, finished
from workloads.recommender import WORKLOAD

SCALE = WORKLOAD.scales["standard"]

# Largest difference accepted, as a share of the largest value of that tensor.
OUTPUT = 1e-5
LOSS = 1e-5
GRADIENT = 1e-5  # of the whole gradient, by its norm
TENSOR = 1e-4  # of any one weight's gradient


# Arithmetic


def kernels(scale: Scale) -> list[tuple[int, int]]:
    """Inputs and outputs of every dense layer: the MLP tower's, then the two heads'."""
    a = scale.architecture
    return [*pairwise(a.mlp), (a.factors + a.mlp[-1], 1), (a.mlp[-1], 1)]


@pytest.mark.parametrize("scale", WORKLOAD.scales.values(), ids=WORKLOAD.scales)
def test_declared_flops_are_two_per_multiply_add(scale: Scale) -> None:
    """Looking up a row multiplies nothing; every dense layer's inputs need a gradient."""
    assert scale.forward_flops == 2 * sum(rows * columns for rows, columns in kernels(scale))
    assert scale.training_flops == 3 * scale.forward_flops


@pytest.mark.parametrize("scale", WORKLOAD.scales.values(), ids=WORKLOAD.scales)
def test_declared_parameters_are_four_tables_and_the_dense_layers(scale: Scale) -> None:
    a = scale.architecture
    tables = (a.users + a.items) * (a.factors + a.mlp[0] // 2)
    assert scale.parameters == tables + sum(
        (rows + 1) * columns for rows, columns in kernels(scale)
    )


def test_the_standard_network_has_the_published_size() -> None:
    """MLPerf's network has 31,832,577 parameters; the rating's head comes on top."""
    assert SCALE.parameters == 31_832_577 + 64 + 1
    assert SCALE.sizes["users"] == SCALE.architecture.users
    assert SCALE.sizes["items"] == SCALE.architecture.items


# Parity


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    """The folder with what the plain network computed, and what was seen of it."""
    folder = tmp_path_factory.mktemp("neumf")
    yield folder, child("reference", "torch", folder)
    (folder / "reference.npz").unlink()


def child(what: str, backend_name: str, folder: Path) -> Any:
    done = finished("neumf_child", what, str(folder), backend=backend_name)
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
def test_the_plain_network_is_mlperfs_with_a_head_for_the_rating(
    reference: tuple[Path, Any],
) -> None:
    assert reference[1]["parameters"] == SCALE.parameters
    assert reference[1]["parameters"] - reference[1]["rating"] == 31_832_577


@pytest.mark.frameworks
def test_the_comparison_sees_towers_joined_in_another_order(reference: tuple[Path, Any]) -> None:
    assert len(reference[1]["wrong"]) == 2
    assert min(reference[1]["wrong"].values()) > 100 * OUTPUT


@pytest.mark.frameworks
def test_inference_and_loss_agree(seen: Mapping[str, Any]) -> None:
    assert seen["output"] <= OUTPUT
    assert seen["loss"] <= LOSS


@pytest.mark.frameworks
def test_every_gradient_agrees(seen: Mapping[str, Any]) -> None:
    """Of the tables too, where each user and item of the batch is looked up several times."""
    assert seen["same_tensors"]
    assert len(seen["tensors"]) == 4 + 2 * len(kernels(SCALE))
    assert seen["gradient"] <= GRADIENT
    worst = max(seen["tensors"], key=seen["tensors"].get)
    assert seen["tensors"][worst] <= TENSOR, worst


@pytest.mark.frameworks
def test_only_the_rows_of_the_batch_get_a_gradient(seen: Mapping[str, Any]) -> None:
    for touched, rows in seen["touched"].values():
        assert 50 < touched <= 100 < rows


@pytest.mark.frameworks
def test_the_styles_are_one_network_at_standard_scale(reference: tuple[Path, Any]) -> None:
    """On torch; at smoke scale the contract's tests hold it on every backend."""
    seen = compared("torch", reference[0])["styles"]
    assert len(seen) == 3
    for style in seen.values():
        assert style["parameters"] == SCALE.parameters
        assert style["output"] <= OUTPUT
