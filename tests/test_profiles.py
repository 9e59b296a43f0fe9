"""Profiles of a step: time within nested operations, their kinds, and the table of a README."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.profiles import REST, kind, table
from tests.benchmarks.profiles import own_seconds


def event(name: str, start_s: float, seconds: float) -> SimpleNamespace:
    return SimpleNamespace(name=name, start_ns=start_s * 1e9, duration_ns=seconds * 1e9)


def test_an_operation_takes_what_those_within_it_do_not() -> None:
    events = [
        event("inner", 1.0, 2.0),
        event("step", 0.0, 10.0),
        event("innermost", 1.5, 0.5),
        event("inner", 4.0, 1.0),
        event("next", 10.0, 1.0),
    ]
    found = own_seconds(events)
    assert found == Counter({"step": 7.0, "inner": 2.5, "innermost": 0.5, "next": 1.0})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("aten::convolution_backward", "convolutions"),
        ("aten::mm", "matrix products"),
        ("aten::addmm", "matrix products"),
        ("_MklMatMul", "matrix products"),
        ("dot", "matrix products"),
        ("ynn_fusion", "YNNPACK"),
        ("aten::native_batch_norm_backward", "normalisation"),
        ("aten::bernoulli_", "random numbers"),
        ("aten::embedding_dense_backward", "embeddings, gathers and scatters"),
        ("aten::copy_", "copies, fills and layouts"),
        ("bitcast_dynamic-update-slice_fusion", "copies, fills and layouts"),
        ("bitcast_multiply_fusion", REST),
        ("aten::add", REST),
        ("aten::comm_free", REST),
    ],
)
def test_the_kind_of_an_operation(name: str, expected: str) -> None:
    assert kind(name) == expected


def test_the_step_is_split_as_its_profile_is(tmp_path: Path) -> None:
    """A profiled step takes longer, so that its parts are no seconds of the timed one."""
    operations = {
        "tensorflow": {"Conv2D": 5.0, "Conv2DBackpropFilter": 1.0, "While": 1.96, "GatherV2": 0.04},
        "torch": {"aten::mkldnn_convolution": 4.0, "aten::add": 1.0},
    }
    found = [
        {"backend": name, "step_s": 4.0, "operations_s": operations[name]} for name in operations
    ]
    (tmp_path / "profiles").mkdir()
    path = tmp_path / "profiles" / "laptop.json"
    path.write_text(json.dumps({"machine": "laptop", "resnet50": found}))
    assert table("resnet50:laptop", tmp_path).splitlines() == [
        "| laptop | tensorflow | torch |",
        "| --- | ---: | ---: |",
        "| convolutions | 3.00 s | 3.20 s |",
        "| loop | 980 ms | - |",
        f"| {REST} | 20.0 ms | 800 ms |",
        "| step, not profiled | 4.00 s | 4.00 s |",
    ]
