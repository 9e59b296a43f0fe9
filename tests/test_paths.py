"""Kernels by the operations that were run: a fast path that is lost without a word is seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from harness import data
from harness.cache import cache_folder
from harness.cells import BACKENDS, Cell
from harness.paths import FUSED, PLAIN, taken
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
EXPECTED: Mapping[tuple[str, str], str] = {
    ("attention", "tensorflow"): PLAIN["attention"],
    ("attention", "jax"): PLAIN["attention"],
    ("attention", "torch"): "fused: aten::_scaled_dot_product_flash_attention_for_cpu",
    ("lstm", "tensorflow"): PLAIN["lstm"],
    ("lstm", "jax"): PLAIN["lstm"],
    ("lstm", "torch"): PLAIN["lstm"],
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
        assert found.report.numerics[kind] == EXPECTED[kind, cell.backend]


@pytest.mark.frameworks
def test_attention_that_is_written_out_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same mathematics, so the gate passes: the kernel alone tells."""
    loaded = data.fetch(workload("bert"), "smoke")
    show_workers_the_planted_workloads(monkeypatch, tmp_path)
    plant = planted_workload("wrong:ATTENTION")
    data._save(loaded, cache_folder() / data._cache_name(plant, "smoke"))
    cell = Cell(plant.name, "smoke", "train", "torch", "float32", "functional", "cpu")
    found = run(cell, GATE_ONLY)
    assert (found.status, found.reason) == ("ok", "")
    assert found.report is not None
    assert found.report.numerics["attention"] == PLAIN["attention"]
    assert EXPECTED["attention", "torch"] != PLAIN["attention"]
