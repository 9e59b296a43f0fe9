"""Planted faults in real workers: each becomes its row, and the gate sees wrong mathematics."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness import child, data
from harness.cache import cache_folder
from harness.cells import Cell
from harness.child import Ended
from harness.clock import now
from harness.metrics import derive
from harness.registry import workload
from harness.schema import Protocol
from harness.stopping import TARGET
from tests.records import make_run
from tests.workers import (
    GATE_CELLS,
    GATE_ONLY,
    gate_of,
    planted_workload,
    run,
    show_workers_the_planted_workloads,
)

pytestmark = pytest.mark.frameworks

SHORT = Protocol(block_min_s=0.001, steady_budget_s=0.01, latency_calls=1)


@pytest.fixture
def planted_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show_workers_the_planted_workloads(monkeypatch, tmp_path)


def tiny(fault: str, *, backend: str = "jax", phase: str = "train") -> Cell:
    """The cell of a tiny planted workload, whose data is put into the cache."""
    declared = planted_workload(f"tiny:{fault.upper()}")
    data.fetch(declared, "smoke")
    return Cell(declared.name, "smoke", phase, backend, "float32", "functional", "cpu")


def ended(fault: str, *, backend: str = "jax", phase: str = "train") -> Ended:
    return run(tiny(fault, backend=backend, phase=phase), SHORT)


# Workers that end badly


@pytest.mark.usefixtures("planted_data")
def test_a_workload_found_by_entry_point_is_measured_to_the_end() -> None:
    """The control of the faults below: the same workload without one."""
    found = ended("none")
    assert (found.status, found.reason) == ("ok", "")
    assert found.report is not None
    assert found.report.samples.steady
    assert len(found.report.samples.epochs) == 1
    assert found.report.gate.outcome == "passed"
    assert found.report.numerics["other_frameworks_loaded"] == "none"
    assert found.cpu_s > 0, "the child's own CPU time is known"


@pytest.mark.usefixtures("planted_data")
def test_a_step_budget_trains_a_part_of_an_epoch_and_says_so() -> None:
    found = run(tiny("none"), replace(SHORT, train_steps=1))
    assert (found.status, found.reason) == ("ok", "")
    assert found.report is not None
    (epoch,) = found.report.samples.epochs
    assert (epoch.steps, epoch.epoch_steps) == (1, 2)
    assert (epoch.quality, epoch.evaluation_s) == ({}, None), "so little training has no quality"


@pytest.mark.usefixtures("planted_data")
@pytest.mark.parametrize(("plant", "epochs"), [("target", 2), ("baseline", 3)])
def test_a_training_stops_after_the_epoch_that_reaches_its_target(plant: str, epochs: int) -> None:
    """Quality is 1, 2, 3 and so on; of five epochs, 2 are enough, or a baseline's 3."""
    found = ended(plant)
    assert (found.status, found.reason) == ("ok", "")
    assert found.report is not None
    samples = found.report.samples
    assert samples.train_outcome == TARGET
    assert [epoch.quality["mean"] for epoch in samples.epochs] == list(range(1, epochs + 1))


@pytest.mark.usefixtures("planted_data")
@pytest.mark.parametrize("phase", ["train", "infer"])
def test_the_gate_of_a_model_with_dropout_sees_its_twin_without(phase: str) -> None:
    """The twin's figures are those of the same workload without dropout, to the last bit."""
    plain, dropped = ended("none", phase=phase), ended("dropout", phase=phase)
    assert (dropped.status, dropped.reason) == ("ok", "")
    assert plain.report is not None
    assert dropped.report is not None
    assert dropped.report.gate == plain.report.gate
    if phase == "train":
        first, other = plain.report.samples.epochs[0], dropped.report.samples.epochs[0]
        assert first.loss != other.loss, "what is trained has dropout"
        assert dropped.report.samples.first_step_s is not None


@pytest.mark.usefixtures("planted_data")
def test_data_that_only_its_owner_has_is_gated_on_another_scales() -> None:
    """The figures are those of the scale whose reference it is; trained is on its own data."""
    data.fetch(planted_workload("tiny:BORROWED"), "standard")
    plain, borrowed = ended("none"), ended("borrowed")
    assert (borrowed.status, borrowed.reason) == ("ok", "")
    assert plain.report is not None
    assert borrowed.report is not None
    assert borrowed.report.gate == plain.report.gate
    assert borrowed.report.data != plain.report.data
    (own,), (other,) = plain.report.samples.epochs, borrowed.report.samples.epochs
    assert own.loss != other.loss


@pytest.mark.usefixtures("planted_data")
@pytest.mark.parametrize("backend", ["jax", "tensorflow", "torch"])
def test_a_pipeline_that_is_the_limit_shows_in_the_input_wait(backend: str) -> None:
    found = run(tiny("slow_data", backend=backend), SHORT)
    assert found.report is not None, found.reason
    measured = make_run(samples=found.report.samples, quality_metric="mean")
    assert derive(measured)["input_wait_fraction"] > 0.5


@pytest.mark.usefixtures("planted_data")
@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("sigsegv", "error", "killed by SIGSEGV in stage 'build'"),
        (
            "sigkill",
            "oom",
            "killed by the system (SIGKILL) in stage 'build', as it does when memory runs out",
        ),
        ("exit", "error", "the worker ended with exit code 3 and no report, in stage 'build'"),
    ],
)
def test_a_worker_that_dies_without_a_word(fault: str, status: str, reason: str) -> None:
    found = ended(fault)
    assert (found.report, found.status, found.reason) == (None, status, reason)
    if fault != "exit":
        assert found.log_tail.endswith("last words\n"), "what it printed is kept"


@pytest.mark.usefixtures("planted_data")
def test_a_plain_exception_is_an_error_with_its_first_line_and_its_traceback() -> None:
    found = ended("exception")
    assert (found.status, found.reason) == ("error", "ValueError: the planted layer is wrong")
    assert "Traceback (most recent call last):" in found.log_tail
    assert 'File "model.py", line' in found.log_tail
    assert found.log_tail.endswith("and here is more about it\n")
    assert re.findall(r"(?<![\w.])/\w+", found.log_tail) == [], "a record names no folder"
    assert found.report is not None
    assert set(found.report.stages) == {"start", "data", "build"}, "what was measured is kept"
    assert found.report.data is not None


@pytest.mark.usefixtures("planted_data")
def test_a_python_memory_error_is_out_of_memory() -> None:
    found = ended("memory_error")
    assert found.status == "oom"
    assert re.fullmatch(r"memory ran out: \w*MemoryError: Unable to allocate .*", found.reason)


@pytest.mark.usefixtures("planted_data")
@pytest.mark.parametrize("backend", ["jax", "tensorflow", "torch"])
def test_an_allocation_that_the_framework_refuses_is_out_of_memory(backend: str) -> None:
    """A real one, of 2^48 bytes, so that each framework's own error is what is recognised."""
    found = ended("allocation", backend=backend)
    assert (found.status, found.reason[:16]) == ("oom", "memory ran out: "), found.reason


@pytest.mark.usefixtures("planted_data")
@pytest.mark.parametrize("backend", ["jax", "tensorflow", "torch"])
def test_data_that_is_damaged_is_told_in_its_own_words(backend: str) -> None:
    """In the middle of `fit`: TensorFlow alone would say "Graph execution error"."""
    found = run(tiny("bad_data", backend=backend), replace(SHORT, min_blocks=1, max_blocks=1))
    assert (found.status, found.reason) == ("unavailable", "Picture 'x.png' is damaged.")


@pytest.mark.usefixtures("planted_data")
def test_a_loss_that_is_no_number() -> None:
    found = ended("nan")
    assert (found.status, found.reason) == ("nan", "the loss of gate step 1 is nan")
    assert found.report is not None
    assert found.report.samples.epochs == ()


@pytest.mark.usefixtures("planted_data")
@pytest.mark.parametrize(
    ("fault", "phase", "named"),
    [
        ("nan", "infer", "output"),
        ("more_outputs", "infer", "output"),
        ("nan_quality", "train", "mean"),
    ],
)
def test_a_figure_that_json_cannot_hold_does_not_lose_the_report(
    fault: str, phase: str, named: str
) -> None:
    """NaN outputs, outputs of another number (an infinite deviation), a NaN quality."""
    found = ended(fault, phase=phase)
    assert found.report is not None, found.reason
    assert found.status in ("numerics", "nan")
    assert named in found.reason


@pytest.mark.usefixtures("planted_data")
def test_a_worker_that_hangs_is_ended_with_all_its_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The parent's clock leaps over the time limit as soon as the worker reaches `build`."""
    leap = [0.0]
    monkeypatch.setattr(child, "now", lambda: now() + leap[0])
    sleepers: list[psutil.Process] = []

    def on_stage(stage: str) -> None:
        if stage == "build":
            sleepers.extend(sleeping_grandchildren())
            leap[0] = 1e6

    found = run(tiny("hang"), Protocol(timeout_s=300), on_stage=on_stage)
    assert (found.status, found.report) == ("timeout", None)
    assert found.reason == "not done after 300 s, in stage 'build'"
    assert len(sleepers) == 1, "the plant's own process was seen"
    psutil.wait_procs(sleepers, timeout=10)
    assert not running(sleepers[0])


def sleeping_grandchildren() -> list[psutil.Process]:
    """What the worker started, as soon as it has; nothing when that does not happen."""
    for _ in range(600):
        workers = psutil.Process().children()
        found = [p for p in started_by(workers) if "sleep" in " ".join(p.cmdline())]
        if found:
            return found
        psutil.wait_procs(workers, timeout=0.1)
    return []


def started_by(workers: list[psutil.Process]) -> list[psutil.Process]:
    return [process for worker in workers for process in worker.children()]


def running(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.usefixtures("planted_data")
def test_the_time_limit_holds_by_the_real_clock() -> None:
    """Half a second is over before any framework is imported."""
    found = run(tiny("none"), Protocol(timeout_s=0.5))
    assert (found.status, found.reason) == ("timeout", "not done after 0.5 s, in stage 'start'")


@pytest.mark.usefixtures("planted_data")
def test_a_worker_that_hangs_after_its_report_keeps_what_it_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(child, "EXIT_GRACE_S", 0.2)
    found = run(tiny("hang_at_exit"), replace(SHORT, stop_after="build"))
    assert (found.status, found.reason) == ("ok", "")
    assert found.report is not None


def test_data_that_is_missing_makes_the_run_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_workers_the_planted_workloads(monkeypatch, tmp_path)
    cell = Cell("planted_none", "smoke", "train", "jax", "float32", "functional", "cpu")
    found = run(cell, SHORT)
    assert (found.status, found.reason) == (
        "unavailable",
        "The data of 'planted_none' at scale 'smoke' is not on this machine. "
        "Fetch it with `epochmark data fetch planted_none`.",
    )


# Wrong mathematics


@pytest.fixture(scope="module")
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the real workloads' data under the plants' names."""
    cache = tmp_path_factory.mktemp("cache")
    loaded = {name: data.fetch(workload(real), "smoke") for name, real, _ in PLANTS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHMARK_CACHE", str(cache))
        for name, arrays in loaded.items():
            plant = planted_workload(f"wrong:{name.upper()}")
            data._save(arrays, cache_folder() / data._cache_name(plant, "smoke"))
    return cache


PLANTS = (
    ("epsilon", "resnet50", {"output"}),
    ("bias_ignored", "lstm_eta", {"output"}),
    ("loss_summed", "recommender", {"loss"}),
)


@pytest.mark.parametrize(
    ("name", "cell", "figures"),
    [
        pytest.param(name, cell, figures, id=f"{name}-{cell.backend}-{cell.precision}")
        for name, real, figures in PLANTS
        for cell in GATE_CELLS
        if cell.workload == real
    ],
)
def test_wrong_mathematics_fails_the_gate_that_the_right_passes(
    name: str, cell: Cell, figures: set[str], real_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each precision, on one backend each; and the reason names the figure."""
    right = gate_of(cell)
    assert (right.status, right.reason) == ("ok", "")
    assert right.report is not None
    assert right.report.gate.outcome == "passed"

    show_workers_the_planted_workloads(monkeypatch, real_cache)
    wrong = run(replace(cell, workload=f"planted_{name}"), GATE_ONLY)
    assert wrong.status == "numerics", wrong.reason
    assert wrong.report is not None
    gate = wrong.report.gate
    assert gate.outcome.removeprefix("failed: ") in figures
    figure = gate.outcome.removeprefix("failed: ").replace("_", " ")
    assert wrong.reason.startswith(f"{figure} is ")
    assert wrong.reason.endswith(" allowed")
    assert gate.deviation.keys() == right.report.gate.deviation.keys()
    assert wrong.report.samples.steady == (), "nothing was timed"


def test_a_missing_bias_fails_by_the_number_of_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = data.fetch(workload("lstm_eta"), "smoke")
    show_workers_the_planted_workloads(monkeypatch, tmp_path)
    plant = planted_workload("wrong:BIAS_MISSING")
    data._save(loaded, cache_folder() / data._cache_name(plant, "smoke"))
    cell = Cell("planted_bias_missing", "smoke", "train", "jax", "float32", "functional", "cpu")
    wrong = run(cell, GATE_ONLY)
    declared = plant.scales["smoke"].parameters
    assert (wrong.status, wrong.reason) == (
        "numerics",
        f"the model trains {declared - 64:,} parameters, {declared:,} are declared",
    )
