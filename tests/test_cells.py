"""Cells and plans: every point exists once, has one name, and cannot run only for a said reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from harness import drivers, registry, tpu, venvs
from harness import support as support_module
from harness.absence import Absence
from harness.cells import API_STYLES, AXES, BACKENDS, Cell, all_cells, parse_cell, select
from harness.errors import UsageError
from harness.plans import PLANS, planned
from harness.support import Support, support, unsupported

ABSENCE, WHY = Absence("none was built in", "buy one"), "none was built in; buy one"
WORKLOADS = ("bert", "lstm_eta", "recommender", "resnet50")
CELL = "bert/smoke/train/jax/float32/functional/cpu"
SHAPE = "workload/scale/phase/backend/precision/api_style/device"


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with all packages and no accelerator, environment or own data, whatever is here."""
    monkeypatch.setattr(venvs, "chosen", lambda cell: None)
    monkeypatch.delenv("EPOCHMARK_DATA", raising=False)
    monkeypatch.setattr(support_module, "absence", lambda: ABSENCE)
    monkeypatch.setattr(tpu, "absence", lambda: ABSENCE)
    monkeypatch.setattr(support_module, "_installed", lambda module: True)


def cell(text: str) -> Cell:
    return parse_cell(text, WORKLOADS)


# The product


def test_the_product_holds_every_point_exactly_once() -> None:
    cells = list(all_cells(WORKLOADS))
    assert len(cells) == 4 * 3 * 2 * 3 * 6 * 4 * 12
    assert len(set(cells)) == len(cells)
    assert len({cell.id for cell in cells}) == len(cells)
    for axis, count in {"workload": 4, "scale": 3, "phase": 2, "backend": 3, "device": 12}.items():
        shares = Counter(getattr(cell, axis) for cell in cells)
        assert list(shares.values()) == [len(cells) // count] * count
    assert Counter(cell.precision for cell in cells).keys() == {
        "float32", "tensorfloat32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float8",
    }  # fmt: skip
    assert Counter(cell.api_style for cell in cells).keys() == set(API_STYLES)


def test_an_id_is_the_axes_in_order_and_reads_back_as_its_cell() -> None:
    assert "/".join(AXES) == SHAPE
    for point in all_cells(WORKLOADS):
        assert parse_cell(point.id, WORKLOADS) == point
    assert cell(CELL) == Cell("bert", "smoke", "train", "jax", "float32", "functional", "cpu")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            CELL.replace("jax", "jaxx"),
            "Unknown backend 'jaxx' in 'bert/smoke/train/jaxx/float32/functional/cpu'. "
            "Known backends: jax, tensorflow, torch.",
        ),
        (
            CELL.replace("functional", "eager"),
            "Unknown api style 'eager' in 'bert/smoke/train/jax/float32/eager/cpu'. "
            "Known api styles: custom_loop, functional, sequential, subclassing.",
        ),
        (
            "bart/tiny/train/jaxx/float32/functional/cpu",
            "Unknown workload 'bart' in 'bart/tiny/train/jaxx/float32/functional/cpu'. "
            "Known workloads: bert, lstm_eta, recommender, resnet50.",
        ),
        (
            "bert/smoke/train",
            f"Cell 'bert/smoke/train' has 3 parts. A cell id has 7: {SHAPE}.",
        ),
        (CELL + "/", f"Cell '{CELL}/' has 8 parts. A cell id has 7: {SHAPE}."),
        ("", f"Cell '' has 1 parts. A cell id has 7: {SHAPE}."),
    ],
)
def test_a_wrong_id_is_told_with_the_first_part_at_fault(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_cell(text, WORKLOADS)
    assert str(caught.value) == sentence
    assert caught.value.exit_status == 2


# Globs


def chosen(*patterns: str) -> list[Cell]:
    return select(all_cells(WORKLOADS), patterns, WORKLOADS)


def test_globs_choose_what_matches_any_of_them_in_the_order_of_the_product() -> None:
    assert chosen() == list(all_cells(WORKLOADS))
    every = [one for one in all_cells(WORKLOADS) if not one.on_request]
    assert chosen("*") == every
    assert chosen(CELL) == [cell(CELL)]
    assert chosen("*/jax/*") == [c for c in every if c.backend == "jax"]
    both = chosen("*/torch/*", "bert/*", "*/torch/*")
    assert both == [c for c in every if c.backend == "torch" or c.workload == "bert"]
    assert {c.workload for c in chosen("[lr]*/smoke/*")} == {"lstm_eta", "recommender", "resnet50"}
    assert len(chosen("bert/smoke/train/*/float32/functional/cpu")) == len(BACKENDS)
    assert {c.device for c in chosen("bert/*/cpu-x2")} == {"cpu-x2"}
    assert {c.precision for c in chosen("bert/*/bfloat16/*")} == {"bfloat16"}


def test_a_glob_that_matches_only_cells_left_out_selects_nothing_without_complaint() -> None:
    assert select([cell(CELL)], ["*/torch/*"], WORKLOADS) == []


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("*/jaxx/*", "Unknown name 'jaxx' in '*/jaxx/*'. `epochmark list` shows every cell id."),
        ("BERT/*", "Unknown name 'BERT' in 'BERT/*'. `epochmark list` shows every cell id."),
        (
            "bert/*/*/jaxx/float32/*/cpu",
            "Unknown backend 'jaxx' in 'bert/*/*/jaxx/float32/*/cpu'. "
            "Known backends: jax, tensorflow, torch.",
        ),
        (
            "jax/*",
            f"No cell matches 'jax/*'. A cell id reads {SHAPE}; `*` stands for anything.",
        ),
        (
            "*/half*",
            f"No cell matches '*/half*'. A cell id reads {SHAPE}; `*` stands for anything.",
        ),
        ("", f"No cell matches ''. A cell id reads {SHAPE}; `*` stands for anything."),
    ],
)
def test_a_glob_that_can_match_nothing_is_told(pattern: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        chosen("bert/*", pattern)
    assert str(caught.value) == sentence


# Support


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        (CELL, "supported", ""),
        (
            "bert/smoke/train/jax/tensorfloat32/functional/cpu",
            "unsupported",
            "TensorFloat-32, a mode of NVIDIA GPUs",
        ),
        (
            "bert/smoke/infer/jax/tensorfloat32/functional/tpu",
            "unsupported",
            "TensorFloat-32, a mode of NVIDIA GPUs",
        ),
        (
            "bert/smoke/train/jax/tensorfloat32/functional/gpu",
            "unavailable",
            f"no CUDA device: {WHY}",
        ),
        ("bert/smoke/train/torch/float32/custom_loop/gpu", "unavailable", f"no CUDA device: {WHY}"),
        (
            "bert/smoke/train/torch/float32/functional/tpu",
            "unsupported",
            "TPU, reached through the jax backend only",
        ),
        (
            "bert/smoke/train/jax/mixed_float16/functional/tpu",
            "unsupported",
            "float16, without units on a TPU",
        ),
        ("bert/smoke/train/jax/mixed_bfloat16/functional/tpu", "unavailable", f"no TPU: {WHY}"),
    ],
)
def test_a_cell_that_cannot_run_has_a_reason(text: str, status: str, reason: str) -> None:
    assert support(cell(text)) == Support(status, reason)
    assert support(cell(text)).runs == (status == "supported")


def test_every_cell_that_cannot_run_has_a_reason_and_no_other_has_one() -> None:
    for point in all_cells(WORKLOADS):
        possible = support(point)
        assert possible.status in ("supported", "unsupported", "unavailable")
        assert bool(possible.reason) == (not possible.runs)
        assert not possible.reason.endswith(".")


def test_a_scale_that_is_not_declared_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    bert = registry.workload("bert")
    small = replace(bert, scales={"smoke": bert.scales["smoke"]})
    monkeypatch.setattr(support_module, "workloads", lambda: {"bert": small})
    missing = Support("unsupported", "no scale full in the declaration of bert")
    assert support(cell(CELL.replace("smoke", "full"))) == missing


def test_full_scale_runs_where_a_folder_of_ones_own_data_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = [c for c in all_cells(WORKLOADS) if (c.scale, c.device) == ("full", "cpu")]
    full = [c for c in full if not unsupported(c)]
    assert {c.precision for c in full} == {
        "float32", "mixed_bfloat16", "mixed_float16", "bfloat16",
    }  # fmt: skip
    reason = "no EPOCHMARK_DATA, the folder of data that only its owner has"
    assert {support(c) for c in full} == {Support("unavailable", reason)}
    monkeypatch.setenv("EPOCHMARK_DATA", "data")
    assert {support(c) for c in full} == {Support("supported")}


@pytest.mark.parametrize("name", WORKLOADS)
def test_full_is_the_network_of_standard_on_other_data(name: str) -> None:
    """So that the gate may judge it by the reference and the data of standard."""
    scales = registry.workload(name).scales
    standard, full = scales["standard"], scales["full"]
    assert [scale for scale, declared in scales.items() if declared.owned] == ["full"]
    assert full.gate_scale == "standard"
    for same in (
        "architecture",
        "gate_architecture",
        "input_shape",
        "input_dtype",
        "parameters",
        "forward_flops",
        "training_flops",
        "tolerances",
    ):
        assert getattr(full, same) == getattr(standard, same)
    assert (full.data, full.data_digest) != (standard.data, standard.data_digest)
    # The steps of a schedule follow from the examples, the batch and the epochs.
    schedule = full.optimizer.schedule
    if schedule is not None:
        steps = full.epochs * (full.sizes["train_examples"] // full.batch_size)
        assert schedule.total_steps == steps
        assert 0 < schedule.warmup_steps <= steps // 10


def test_a_device_makes_its_cells_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support_module, "absence", lambda: None)
    monkeypatch.setattr(tpu, "absence", lambda: None)
    monkeypatch.setattr(support_module, "visible", lambda: 1)
    monkeypatch.setattr(drivers, "tpu_absence", lambda environment: None)
    for device in ("gpu", "tpu"):
        found = support(cell(f"bert/smoke/train/jax/float32/functional/{device}"))
        assert found == Support("supported")
    monkeypatch.setattr(drivers, "tpu_absence", lambda environment: ABSENCE)
    other = support(cell("bert/smoke/train/jax/float32/functional/tpu"))
    assert other == Support("unavailable", f"no TPU: {WHY}")
    two = support(cell("bert/smoke/train/jax/float32/functional/gpu-x2"))
    assert two == Support("unavailable", "1 CUDA device of 2 that the cell asks for")


def test_a_missing_package_makes_only_its_cells_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(support_module, "_installed", lambda module: module != "torch")
    why = "no package torch in this environment; `epochmark env create cpu` makes one with it"
    absent = Support("unavailable", why)
    assert support(cell(CELL.replace("jax", "torch"))) == absent
    assert support(cell(CELL)).runs
    monkeypatch.setattr(support_module, "_installed", lambda module: module != "keras")
    why = "no package keras in this environment; `epochmark env create cpu-jax` makes one with it"
    assert support(cell(CELL)) == Support("unavailable", why)


# Plans


def test_the_quick_plan_is_each_workload_on_each_backend() -> None:
    assert [point.id for point in planned("quick", [])] == [
        f"{workload}/smoke/train/{backend}/float32/functional/cpu"
        for workload in WORKLOADS
        for backend in ("tensorflow", "jax", "torch")
    ]


def test_the_smoke_plan_is_the_whole_cpu_matrix() -> None:
    cells = planned("smoke", [])
    assert len(cells) == len(set(cells)) == 4 * 3 * 3 * 4 * 2
    assert {c.precision for c in cells} == {"float32", "mixed_bfloat16", "mixed_float16"}
    assert {(c.scale, c.device) for c in cells} == {("smoke", "cpu")}
    assert all(support(c).runs for c in cells)


def test_a_plan_keeps_what_is_only_unavailable_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support_module, "_installed", lambda module: False)
    assert len(planned("quick", [])) == 12


def test_globs_narrow_a_plan_and_alone_reach_the_whole_product() -> None:
    assert {c.backend for c in planned("quick", ["*/jax/*", "*/torch/*"])} == {"jax", "torch"}
    named = "bert/full/train/jax/tensorfloat32/functional/tpu"
    assert [c.id for c in planned(None, [named])] == [named]


def test_every_plan_has_its_own_name_and_a_purpose() -> None:
    assert list(PLANS) == ["quick", "smoke", "standard", "nightly"]
    assert all(plan.name == name and plan.purpose for name, plan in PLANS.items())


@pytest.mark.parametrize(
    ("plan", "only", "sentence"),
    [
        ("fast", [], "Unknown plan 'fast'. Known plans: quick, smoke, standard, nightly."),
        (
            "quick",
            ["*/jaxx/*"],
            "Unknown name 'jaxx' in '*/jaxx/*'. `epochmark list` shows every cell id.",
        ),
        (
            "quick",
            ["*/subclassing/*", "*/infer/*"],
            "Plan 'quick' has no cell that matches '*/subclassing/*' or '*/infer/*'. "
            "`epochmark list --plan quick`.",
        ),
    ],
)
def test_a_plan_that_selects_nothing_is_told(plan: str, only: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        planned(plan, only)
    assert str(caught.value) == sentence


def test_a_plan_without_cells_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """`standard` is empty until a workload declares that scale; here no workload does."""
    unsupported = Support("unsupported", "a reason")
    monkeypatch.setattr("harness.plans.support", lambda cell: unsupported)
    with pytest.raises(UsageError) as caught:
        planned("standard", [])
    assert str(caught.value) == (
        "Plan 'standard' has no cell that any declared workload supports yet."
    )
