"""Kernels by the operations that were run: a fast path that is lost without a word is seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from harness import data
from harness.cache import cache_folder
from harness.cells import BACKENDS, DEVICE_KINDS, Cell
from harness.paths import (
    COMPILED,
    CONVOLUTIONS,
    EAGER,
    EXPECTED,
    FUSED,
    LAYOUT,
    LOST,
    PLAIN,
    execution,
    lost,
    taken,
)
from harness.registry import workload
from tests.workers import (
    GATE_CELLS,
    GATE_ONLY,
    gate_of,
    planted_workload,
    run,
    show_workers_the_planted_workloads,
)

# What a CPU takes with the pinned versions. A change here is a change of what is measured: it
# belongs in the changelog, with the figures before and after.
ON_A_CPU: Mapping[tuple[str, str], str] = {
    ("attention", "tensorflow"): PLAIN["attention"],
    ("attention", "jax"): PLAIN["attention"],
    ("attention", "torch"): "fused: aten::_scaled_dot_product_flash_attention_for_cpu",
    ("lstm", "tensorflow"): PLAIN["lstm"],
    ("lstm", "jax"): PLAIN["lstm"],
    ("lstm", "torch"): PLAIN["lstm"],
    # Keras gives torch permuted views, which lie in memory as declared: nothing is copied.
    ("convolution", "tensorflow"): "NHWC",
    ("convolution", "jax"): "NHWC",
    ("convolution", "torch"): "NHWC",
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", list(FUSED))
def test_a_fused_operation_is_named_and_without_one_the_slow_form_is(
    kind: str, backend: str
) -> None:
    fused = FUSED[kind][backend][0]
    others = {"aten::mm", "MatMul", "dot_general"}
    assert taken([kind], backend, others) == {kind: PLAIN[kind]}
    assert taken([kind], backend, {*others, f"{fused}_v3"}) == {kind: f"fused: {fused}_v3"}
    assert taken([], backend, others) == {}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", list(FUSED))
@pytest.mark.parametrize("device", DEVICE_KINDS)
def test_an_expected_kernel_that_was_not_taken_is_lost(
    kind: str, backend: str, device: str
) -> None:
    fused = FUSED[kind][backend][0]
    expected = (kind, backend, device) in EXPECTED
    assert lost(taken([kind], backend, {"aten::mm"}), [kind], backend, device) == [kind] * expected
    assert lost(taken([kind], backend, {fused}), [kind], backend, device) == []
    assert lost(taken([kind], backend, {"aten::mm"}), [], backend, device) == [], "on purpose"


def test_expected_are_the_fused_lstm_of_every_gpu_and_torchs_attention() -> None:
    assert {(kind, device) for kind, _, device in EXPECTED} == {
        ("lstm", "gpu"), ("attention", "gpu"), ("attention", "cpu")
    }  # fmt: skip
    assert {backend for kind, backend, _ in EXPECTED if kind == "lstm"} == set(BACKENDS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_images_that_are_turned_before_a_convolution_are_seen(backend: str) -> None:
    name = CONVOLUTIONS[backend]
    last = {"image_data_format": "channels_last"}
    for ways, said, missing in (
        (["NHWC"], "NHWC", []),
        (["NCHW"], "NCHW", [LAYOUT]),
        (["NHWC", "NCHW"], "NCHW, NHWC", [LAYOUT]),
        ([], "unknown", [LAYOUT]),
    ):
        found = taken([LAYOUT], backend, {name, "add", *(f"{name} {way}" for way in ways)})
        assert found == {LAYOUT: said}
        assert lost(last | found, [LAYOUT], backend, "cpu") == missing
    first = {"image_data_format": "channels_first", LAYOUT: "NCHW"}
    assert lost(first, [LAYOUT], backend, "cpu") == []
    assert lost(last, ["attention"], backend, "cpu") == [], "without convolutions"


def test_what_expected_says_of_a_cpu_is_what_is_seen_there() -> None:
    fused = {pair for pair, found in ON_A_CPU.items() if found != PLAIN.get(pair[0], found)}
    assert {(kind, backend) for kind, backend, device in EXPECTED if device == "cpu"} == fused


def test_a_step_that_runs_python_is_eager_whatever_was_declared() -> None:
    eager = {"execution": EAGER, "jit_compile": "False"}
    xla = {"execution": "xla", "jit_compile": "True"}
    assert execution(xla, python_ran=True) == execution(eager, python_ran=True) == eager
    assert execution(xla, python_ran=False) == xla
    assert execution(eager, python_ran=False) == {**eager, "execution": "compiled"}
    assert [lost(eager, [], backend, "gpu") for backend in BACKENDS] == [
        ["execution"] if backend in COMPILED else [] for backend in BACKENDS
    ]


EXECUTION = {
    "tensorflow": ("tf.function graph", "False"),
    "jax": ("xla", "True"),
    "torch": ("eager", "False"),
}


@pytest.mark.frameworks
@pytest.mark.parametrize("cell", GATE_CELLS, ids=lambda cell: cell.id)
def test_the_real_cells_are_executed_as_is_expected(cell: Cell) -> None:
    found = gate_of(cell)
    assert found.report is not None, found.reason
    numerics = found.report.numerics
    assert (numerics["execution"], numerics["jit_compile"]) == EXECUTION[cell.backend]
    assert LOST not in numerics


@pytest.mark.frameworks
def test_a_step_that_is_not_compiled_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same mathematics, so the gate passes."""
    found = planted("EAGER", "lstm_eta", "tensorflow", tmp_path, monkeypatch)
    assert (found["execution"], found["jit_compile"]) == ("eager", "False")
    assert found[LOST] == "execution"


@pytest.mark.frameworks
@pytest.mark.parametrize(
    "cell",
    [cell for cell in GATE_CELLS if workload(cell.workload).fast_paths],
    ids=lambda cell: cell.id,
)
def test_the_real_cells_take_the_kernels_that_are_expected(cell: Cell) -> None:
    found = gate_of(cell)
    assert found.report is not None, found.reason
    for kind in workload(cell.workload).fast_paths:
        assert found.report.numerics[kind] == ON_A_CPU[kind, cell.backend]


@pytest.mark.frameworks
def test_attention_that_is_written_out_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same mathematics, so the gate passes: the kernel alone tells."""
    found = planted("ATTENTION", "bert", "torch", tmp_path, monkeypatch)
    assert found["attention"] == PLAIN["attention"]
    assert found[LOST] == "attention"
    assert ON_A_CPU["attention", "torch"] != PLAIN["attention"]


@pytest.mark.frameworks
def test_images_that_are_copied_before_each_convolution_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = planted("COPIED", "resnet50", "torch", tmp_path, monkeypatch)
    assert found[LAYOUT] == "NCHW"
    assert found[LOST] == LAYOUT


def planted(
    name: str, real: str, backend: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Mapping[str, str]:
    """The settings in the record of a workload with a plant, whose gate passes."""
    loaded = data.fetch(workload(real), "smoke")
    show_workers_the_planted_workloads(monkeypatch, cache)
    plant = planted_workload(f"wrong:{name}")
    data._save(loaded, cache_folder() / data._cache_name(plant, "smoke"))
    cell = Cell(plant.name, "smoke", "train", backend, "float32", "functional", "cpu")
    found = run(cell, GATE_ONLY)
    assert (found.status, found.reason) == ("ok", "")
    assert found.report is not None
    return found.report.numerics
