"""Several devices that share every batch, simulated on the processor: they train as one does."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness import data, venvs
from harness import support as support_module
from harness.cells import BACKENDS, Cell
from harness.metrics import derive
from harness.plans import PLANS, planned
from harness.registry import workload
from harness.schema import Contention, Exchange, Protocol
from harness.show import show
from harness.stages import EXCHANGES
from harness.summary import summary
from harness.support import support
from harness.table import load_table
from tests.records import make_run, write_session
from tests.workers import GATE_ONLY, PLANTED, answer, finished, run

CELL = Cell("lstm_eta", "smoke", "train", "jax", "float32", "functional", "cpu")
SHORT = Protocol(min_blocks=3, steady_budget_s=0.1, train_steps=8)


@pytest.mark.frameworks
@pytest.mark.parametrize("backend", BACKENDS)
def test_two_devices_train_as_one(backend: str) -> None:
    """The gate, which holds two against the reference of one; then the mean loss of eight steps."""
    data.fetch(workload(CELL.workload), CELL.scale)
    losses = []
    for device in ("cpu", "cpu-x2"):
        ended = run(replace(CELL, backend=backend, device=device), SHORT)
        assert ended.report is not None, ended.log_tail
        assert ended.status == "ok", ended.reason
        assert ended.report.gate.outcome == "passed"
        (epoch,) = ended.report.samples.epochs
        assert (ended.report.batch_size, epoch.steps) == (256, 8)
        losses.append(epoch.loss)
        numerics = ended.report.numerics
        exchange = ended.report.samples.exchange
        if (backend, device) == ("torch", "cpu-x2"):
            assert exchange is not None
            assert exchange.steps == EXCHANGES
            assert 0 < exchange.exchange_s < exchange.seconds
        else:
            assert exchange is None
    assert (numerics["devices"], numerics["devices_simulated"]) == ("2", "True")
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def curve(backend: str, device: str) -> list[float]:
    """Losses of the first steps of an epoch, each on another batch."""
    data.fetch(workload(CELL.workload), CELL.scale)
    cell = replace(CELL, backend=backend, device=device)
    done = finished("curve_child", cell.id, backend=backend, device=device)
    losses: list[float] = answer(done)
    return losses


@pytest.fixture(scope="module")
def of_one() -> list[float]:
    """The curve of one device, which is that of every backend."""
    return curve("jax", "cpu")


@pytest.mark.frameworks
@pytest.mark.parametrize("backend", BACKENDS)
def test_two_devices_have_the_losses_of_one_step_by_step(backend: str, of_one: list[float]) -> None:
    assert len(of_one) == 12
    assert of_one[-1] < 0.6 * of_one[0], "the curve falls to half"
    assert curve(backend, "cpu-x2") == pytest.approx(of_one, rel=1e-4)


@pytest.mark.frameworks
def test_gradients_that_are_not_summed_over_the_devices_fail_the_gate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted in both processes of a run: each trains on its own share of the batch."""
    data.fetch(workload(CELL.workload), CELL.scale)
    paths = [str(PLANTED / "unreduced"), str(PLANTED.parents[1])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    ended = run(replace(CELL, backend="torch", device="cpu-x2"), GATE_ONLY)
    assert ended.status == "numerics", (ended.reason, ended.log_tail)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"phase": "infer"}, "inference, which is measured on one device"),
        ({"backend": "tensorflow", "api_style": "custom_loop"}, "a hand-written TensorFlow step"),
        ({"backend": "tensorflow", "precision": "mixed_float16"}, "a loss scale, which Keras"),
        ({"backend": "torch", "workload": "resnet50"}, "batch statistics, which Keras takes"),
        ({"device": "tpu-x2", "backend": "torch"}, "TPU, reached through the jax backend only"),
    ],
)
def test_what_ties_a_cell_to_one_device(changes: dict[str, str], said: str) -> None:
    found = support(replace(CELL, **{"device": "cpu-x2", **changes}))
    assert found.status == "unsupported"
    assert found.reason.startswith(said)


def test_more_gpus_than_there_are_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with one, whatever this one has."""
    monkeypatch.setattr(venvs, "chosen", lambda cell: None)
    monkeypatch.setattr(support_module, "_installed", lambda module: True)
    monkeypatch.setattr(support_module, "absence", lambda: None)
    monkeypatch.setattr(support_module, "visible", lambda: 1)
    found = support(replace(CELL, device="gpu-x2"))
    assert found.status == "unavailable"
    assert found.reason.startswith("1 CUDA device of 2 that the cell asks for")


@pytest.mark.parametrize("plan", PLANS)
def test_no_plan_holds_several_devices(plan: str) -> None:
    assert {cell.device_count for cell in planned(plan, [])} == {1}


def test_scaling_is_the_throughput_beside_that_of_one(tmp_path: Path) -> None:
    """Ten steps in 0.11 s on one; in 0.055 s on two they would be twice as fast."""
    one = make_run()
    cell = replace(CELL, workload="recommender", device="cpu-x2")
    half = [replace(block, seconds=block.seconds / 1.5) for block in one.samples.steady]
    two = make_run(run="r0002", cell=cell.id, samples=replace(one.samples, steady=tuple(half)))
    write_session(tmp_path, one, two)
    frame = load_table(tmp_path).frame
    rows = summary(frame).set_index("device")
    assert rows["scaling_efficiency"]["cpu-x2"] == pytest.approx(0.75)
    assert rows["scaling_efficiency"].isna()["cpu"]
    assert list(rows["simulated"]) == [False, True]
    text = show(frame, output="table")
    assert "Several devices simulated on a processor that they share" in text


def test_the_exchange_between_devices_is_a_share_of_the_step() -> None:
    run = make_run()
    assert "collectives_fraction" not in derive(run)
    samples = replace(run.samples, exchange=Exchange(steps=20, seconds=0.4, exchange_s=0.1))
    assert derive(replace(run, samples=samples))["collectives_fraction"] == pytest.approx(0.25)


def test_without_a_row_of_one_device_there_is_no_scaling(tmp_path: Path) -> None:
    cell = replace(CELL, workload="recommender", device="cpu-x2")
    write_session(tmp_path, make_run(cell=cell.id))
    rows = summary(load_table(tmp_path).frame)
    assert rows["scaling_efficiency"].isna().all()


def test_a_disturbed_row_of_one_device_scales_nothing(tmp_path: Path) -> None:
    """It would make the several look faster than they are."""
    one = make_run(contention=Contention(contended=True))
    cell = replace(CELL, workload="recommender", device="cpu-x2")
    write_session(tmp_path, one, make_run(run="r0002", cell=cell.id))
    rows = summary(load_table(tmp_path).frame)
    assert rows["scaling_efficiency"].isna().all()
