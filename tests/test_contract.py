"""The contract that every workload keeps in every API style on every backend.

It runs over what the registry holds: a new workload is under it without a change here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from harness import data
from harness.cells import BACKENDS, Cell
from harness.gate import NORMS
from harness.registry import workloads
from harness.workload import PIPELINES
from tests.workers import GATE_CELLS, answer, finished, gate_of

pytestmark = pytest.mark.frameworks

STYLES = ("sequential", "functional", "subclassing")
MIXED = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}

# Largest difference of float32 outputs, as a share of the largest: rounding, not mathematics. The
# gate's own weights make activations of resnet50 small before its normalisations, which then
# magnify rounding; its bound is wider for that.
ROUNDING = 2e-5
WIDER = {"resnet50": 2e-4}


@cache
def seen(backend: str) -> Mapping[str, Any]:
    """What the backend's one process saw of every workload."""
    for workload in workloads().values():
        data.fetch(workload, next(iter(workload.scales)))
    # What is computed counts here, not how fast; on jax compiling takes most of the time.
    done = finished("contract_child", backend, backend=backend, JAX_DISABLE_MOST_OPTIMIZATIONS="1")
    found: Mapping[str, Any] = answer(done)
    return found


def contract(workload: str, backend: str) -> Any:
    return seen(backend)["workloads"][workload]


def assert_close(one: Sequence[float], other: Sequence[float], bound: float) -> None:
    """Equal up to a share of the largest value."""
    first, second = np.array(one), np.array(other)
    assert first.shape == second.shape
    assert np.isfinite(first).all()
    assert np.std(first) > 0, "constant outputs would be equal whatever the mathematics"
    assert np.abs(first - second).max() <= bound * np.abs(first).max()


each_workload = pytest.mark.parametrize("workload", list(workloads()))
each_backend = pytest.mark.parametrize("backend", BACKENDS)


@each_backend
def test_no_other_framework_is_imported(backend: str) -> None:
    """But for jax: Keras 3.15 imports it under every backend (callbacks/orbax_checkpoint.py)."""
    assert set(seen(backend)["frameworks"]) - {"jax"} == {backend} - {"jax"}


@each_workload
@each_backend
def test_the_styles_have_the_same_variables_in_the_same_order(workload: str, backend: str) -> None:
    """Keys, shapes, dtypes, and which ones are trained; also the same as on every backend."""
    styles = contract(workload, backend)["styles"]
    for style in STYLES:
        assert styles[style]["variables"] == styles["functional"]["variables"]
    variables = styles["functional"]["variables"]
    assert variables == contract(workload, "jax")["styles"]["functional"]["variables"]
    keys = [key for key, *_ in variables]
    assert len(set(keys)) == len(keys)
    assert {dtype for _, _, dtype, _ in variables} == {"float32"}


@each_workload
@each_backend
@pytest.mark.parametrize("mode", ["infer", "training"])
def test_the_styles_have_the_same_outputs(workload: str, backend: str, mode: str) -> None:
    styles = contract(workload, backend)["styles"]
    bound = WIDER.get(workload, ROUNDING)
    for one, other in combinations(STYLES, 2):
        assert_close(styles[one][mode], styles[other][mode], bound)


@each_workload
@each_backend
def test_the_styles_update_the_same_statistics(workload: str, backend: str) -> None:
    """Moving means and variances after one call in training mode; most workloads have none."""
    styles = contract(workload, backend)["styles"]
    for style in STYLES:
        assert styles[style]["statistics"] == pytest.approx(
            styles["functional"]["statistics"], rel=1e-4, abs=1e-12
        )


@each_workload
@pytest.mark.parametrize("mode", ["infer", "training"])
def test_the_backends_have_the_same_outputs(workload: str, mode: str) -> None:
    bound = WIDER.get(workload, ROUNDING)
    for one, other in combinations(BACKENDS, 2):
        first, second = (contract(workload, b)["styles"]["functional"][mode] for b in (one, other))
        assert_close(first, second, bound)


@each_workload
def test_training_and_inference_differ_where_there_are_batch_statistics(workload: str) -> None:
    """Equal outputs in both modes would mean that `training` is not passed on."""
    functional = contract(workload, "jax")["styles"]["functional"]
    same = np.allclose(functional["infer"], functional["training"], rtol=1e-3)
    assert same == (not functional["statistics"])


@each_workload
@each_backend
def test_one_step_of_the_custom_loop_is_one_step_of_fit(workload: str, backend: str) -> None:
    """Same weights, same batch: the same loss, weights and statistics after it."""
    step = contract(workload, backend)["one_step"]
    assert step["same_keys"]
    fitted, looped = step["losses"]
    assert fitted == pytest.approx(looped, rel=1e-5)
    for name, distance in step["apart"].items():
        assert step["moved"][name] > 0
        assert distance <= 1e-3 * step["moved"][name], name


@each_workload
def test_one_step_changes_the_weights_alike_on_every_backend(workload: str) -> None:
    """The size of the update as a whole: a missing decay or another rate would show."""
    sizes = {
        backend: np.linalg.norm(contract(workload, backend)["one_step"]["update"])
        for backend in BACKENDS
    }
    assert sizes["tensorflow"] == pytest.approx(sizes["jax"], rel=5e-3)
    assert sizes["torch"] == pytest.approx(sizes["jax"], rel=5e-3)


@each_workload
@each_backend
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("precision", MIXED)
def test_a_mixed_policy_is_really_in_force(
    workload: str, backend: str, style: str, precision: str
) -> None:
    """Hidden layers put out the short type; weights and the model's output are float32."""
    found = contract(workload, backend)["mixed"][f"{style} {precision}"]
    assert set(found["hidden"].values()) == {MIXED[precision]}
    assert len(found["hidden"]) >= len(found["heads"]) > 0
    assert set(found["heads"].values()) == {"float32"}
    assert found["variables"] == ["float32"]
    assert found["output"] == "float32"


# Input pipelines


@each_backend
@pytest.mark.parametrize("kind", PIPELINES)
def test_a_pipeline_gives_every_batch_once_and_in_order(backend: str, kind: str) -> None:
    """Gradient descent on batches of different values: any other order gives another loss.

    Keras 3.15 looks at a PyDataset's first batch before it trains, and with several workers hands
    it over last (jax and torch).
    """
    found = seen(backend)["pipelines"][kind]
    assert found["made"] == list(range(5))
    in_order, first_last = descended([0, 1, 2, 3, 4]), descended([1, 2, 3, 4, 0])
    assert first_last != pytest.approx(in_order, rel=1e-3)
    keras_reorders = kind == "pydataset" and backend != "tensorflow"
    expected = dict.fromkeys(found["losses"], in_order) | (
        {"fit, 2 workers": first_last} if keras_reorders else {}
    )
    assert len(expected) == 4
    assert found["losses"] == pytest.approx(expected, rel=1e-5)


def descended(order: Iterable[int]) -> float:
    """What `contract_child.fitted` computes, in numpy."""
    kernel, bias, losses = np.ones(3), 0.0, []
    for number in order:
        value = number + 1.0
        error = value * kernel.sum() + bias - value**2
        losses.append(error**2)
        kernel, bias = kernel - 2e-3 * error * value, bias - 2e-3 * error
    return float(np.mean(losses))


# Through real workers


def test_the_gate_cells_cover_every_style_and_precision_on_every_backend() -> None:
    """So that what the next test proves is known; new workloads are to be added there."""
    assert {(c.workload, c.backend) for c in GATE_CELLS} == {
        (workload, backend) for workload in workloads() for backend in BACKENDS
    }
    for backend in BACKENDS:
        cells = [c for c in GATE_CELLS if c.backend == backend]
        assert {c.precision for c in cells} == {
            "float32",
            *MIXED,
        }
        assert "custom_loop" in {c.api_style for c in cells}
    assert {c.api_style for c in GATE_CELLS} == {*STYLES, "custom_loop"}


@pytest.mark.parametrize("cell", GATE_CELLS, ids=lambda cell: cell.id)
def test_a_real_worker_passes_the_gate(cell: Cell) -> None:
    found = gate_of(cell)
    assert (found.status, found.reason) == ("ok", "")
    report = found.report
    assert report is not None
    assert report.gate.outcome == "passed"
    figures = {"output", "loss", *NORMS}
    assert set(report.gate.deviation) == figures
    assert len(report.gate.loss) == len(report.gate.gradient_norm) == 3
    assert report.numerics["dtype_policy"] == cell.precision
    assert report.numerics["variable_dtype"] == "float32"
    # Keras itself imports jax, and nothing imports tensorflow or torch on the side.
    assert report.numerics["other_frameworks_loaded"] in ("none", "jax")
    assert set(report.stages) == {"start", "data", "build", "compile", "gate"}
