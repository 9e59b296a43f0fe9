"""Precisions beyond the plans: bfloat16 weights in inference, and why float8 is not offered."""

from __future__ import annotations

import pytest

from harness import data
from harness.cells import API_STYLES, BACKENDS, Cell
from harness.plans import PLANS, planned
from harness.registry import workload, workloads
from harness.support import support
from tests.workers import GATE_ONLY, run


def cell(
    name: str, backend: str, precision: str, *, phase: str = "infer", device: str = "cpu"
) -> Cell:
    return Cell(name, "smoke", phase, backend, precision, "functional", device)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", workloads())
def test_bfloat16_weights_are_offered_for_inference_alone(name: str, backend: str) -> None:
    assert support(cell(name, backend, "bfloat16")).runs
    training = support(cell(name, backend, "bfloat16", phase="train"))
    assert (training.status, training.reason) == (
        "unsupported",
        "weights in bfloat16, which lose updates below their last place; see mixed_bfloat16",
    )


@pytest.mark.parametrize(
    ("backend", "device", "said"),
    [
        ("tensorflow", "gpu", "Keras on tensorflow rounds to and then multiplies in a wider type"),
        ("torch", "cpu", "Keras on torch rounds to and then multiplies in a wider type"),
        ("jax", "cpu", "float8, without units on a CPU"),
        ("jax", "tpu", "float8, without units on a TPU"),
        ("jax", "gpu", "whose gate no GPU has been through"),
    ],
)
def test_float8_says_why_it_is_not_offered(backend: str, device: str, said: str) -> None:
    found = support(cell("bert", backend, "float8", device=device))
    assert found.status == "unsupported"
    assert said in found.reason


@pytest.mark.parametrize("plan", PLANS)
def test_no_plan_holds_them_and_a_glob_does(plan: str) -> None:
    assert not {one.precision for one in planned(plan, [])} & {"bfloat16", "float8"}
    named = planned(None, ["*/smoke/infer/jax/bfloat16/*/cpu"])
    assert len(named) == len(workloads()) * len(API_STYLES)


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("bert", "torch"),
        ("lstm_eta", "tensorflow"),
        ("lstm_eta", "jax"),
        ("lstm_eta", "torch"),
        ("recommender", "jax"),
        ("resnet50", "tensorflow"),
    ],
)
def test_weights_are_bfloat16_and_outputs_pass_the_gate(name: str, backend: str) -> None:
    data.fetch(workload(name), "smoke")
    report = run(cell(name, backend, "bfloat16"), GATE_ONLY).report
    assert report is not None
    assert (report.status, report.gate.outcome) == ("ok", "passed"), report.reason
    assert report.numerics["variable_dtype"] == "bfloat16"
    # As far off as eight bits make it: neither float32 in disguise, nor wrong.
    assert 1e-4 < report.gate.deviation["output"] < 5e-2
