"""Runs of the committed results in experiment trackers, read back through the trackers' clients."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import trackers
from harness.errors import UsageError
from harness.metrics import derive
from harness.schema import Run
from harness.schema_json import encode
from harness.trackers import TrackerError

RESULTS = Path(__file__).parents[1] / "results"
RUNS = trackers.selected_runs(
    RESULTS, ["20261123T070942Z-974fb0"], lambda cell: cell.startswith("bert/smoke/train/jax/")
)[:3]
FAILED = replace(RUNS[2], status="numerics", reason="loss deviates by 0.1")


def export(to: str, path: Path, runs: Sequence[Run]) -> tuple[int, int]:
    return trackers.export(to, str(path), runs, say=lambda _: None)


def test_an_unknown_tracker_is_told_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^Unknown tracker 'comet'\. Known trackers: mlflow"):
        export("comet", tmp_path, RUNS)


def test_a_client_that_is_not_installed_is_told_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name, name="mlflow")

    monkeypatch.setattr(trackers, "import_module", missing)
    with pytest.raises(UsageError, match=r"pip install 'epochmark\[mlflow\]'"):
        export("mlflow", tmp_path / "store.db", RUNS)


def stored(path: Path) -> tuple[Any, list[Any]]:
    """A client of the SQLite store, and its runs."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{path}")
    experiment = client.get_experiment_by_name(trackers.PROJECT)
    assert experiment is not None
    return client, client.search_runs([experiment.experiment_id])


@pytest.fixture
def mlflow() -> Any:
    return pytest.importorskip("mlflow", reason="the MLflow client is not installed")


@pytest.mark.usefixtures("mlflow")
@pytest.mark.filterwarnings("default")  # the client's own
def test_mlflow_holds_what_the_run_holds_and_nothing_twice(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    assert export("mlflow", store, [*RUNS[:2], FAILED]) == (3, 0)
    assert export("mlflow", store, [*RUNS[:2], FAILED]) == (0, 3)
    client, runs = stored(store)
    found = {run.data.tags["epochmark.run"]: run for run in runs}
    assert len(runs) == len(found) == 3
    run, first = found[RUNS[0].run], RUNS[0]
    assert run.info.status == "FINISHED"
    assert run.data.params["backend"] == "jax"
    assert run.data.params["package.jax"] == first.environment.packages["jax"]
    assert {name: run.data.metrics[name] for name in derive(first)} == derive(first)
    history = client.get_metric_history(run.info.run_id, "epoch.loss")
    assert [(m.step, m.value) for m in history] == [
        (step, epoch.loss) for step, epoch in enumerate(first.samples.epochs, 1)
    ]
    assert first.price is not None
    assert run.data.tags["epochmark.price.id"] == first.price.id
    artifact = Path(run.info.artifact_uri.removeprefix("file://")) / "run.json"
    assert json.loads(artifact.read_bytes()) == json.loads(encode(first))
    failed = found[FAILED.run]
    assert (failed.info.status, failed.data.tags["epochmark.reason"]) == ("FAILED", FAILED.reason)


@pytest.mark.usefixtures("mlflow")
@pytest.mark.filterwarnings("default")  # the client's own
def test_an_export_to_mlflow_that_broke_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    store, log = tmp_path / "store.db", MlflowClient.log_text

    def lost(client: Any, run: str, text: str, name: str) -> None:
        if RUNS[1].run in text:
            raise ConnectionError("the server went away.\nTraceback")
        log(client, run, text, name)

    monkeypatch.setattr(MlflowClient, "log_text", lost)
    with pytest.raises(TrackerError) as told:
        export("mlflow", store, RUNS)
    assert str(told.value) == (
        f"MLflow failed at run {RUNS[1].run}, after 1 written and 0 already there: "
        "the server went away. Give the same command again to go on."
    )
    assert told.value.exit_status == 1
    assert len(stored(store)[1]) == 2
    monkeypatch.undo()
    assert export("mlflow", store, RUNS) == (2, 1)
    runs = stored(store)[1]
    assert sorted(run.data.tags["epochmark.run"] for run in runs) == [run.run for run in RUNS]
    assert all(run.info.status == "FINISHED" for run in runs)


@pytest.mark.usefixtures("mlflow")
@pytest.mark.filterwarnings("default")  # the client's own
def test_a_server_that_is_down_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(TrackerError) as told:
        trackers.export("mlflow", address, RUNS, say=lambda _: None)
    assert str(told.value) == (
        f"MLflow cannot be opened at {address!r}: Connection refused. "
        "Nothing was written; name a place that can be reached."
    )
    # Who set the number of retries is heard.
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"


@pytest.fixture
def wandb() -> Any:
    return pytest.importorskip("wandb", reason="the W&B client is not installed")


@pytest.mark.usefixtures("wandb")
@pytest.mark.filterwarnings("default")  # the client's own
def test_wandb_holds_the_epochs_once_and_a_half_written_run_is_replaced(tmp_path: Path) -> None:
    from harness.trackers.wandb import complete, entries

    assert export("wandb", tmp_path, [RUNS[0], FAILED]) == (2, 0)
    assert export("wandb", tmp_path, [RUNS[0], FAILED]) == (0, 2)
    first, failed = (next(tmp_path.rglob(f"run-{run.run}.wandb")) for run in (RUNS[0], FAILED))
    losses = [
        float(item.value_json)
        for entry in entries(first)
        for item in entry.history.item
        if item.nested_key == ["epoch.loss"]
    ]
    assert losses == [epoch.loss for epoch in RUNS[0].samples.epochs]
    exits = [e.exit.exit_code for f in (first, failed) for e in entries(f) if e.HasField("exit")]
    assert exits == [0, 1]
    artifact = first.parent / "files" / "run.json"
    assert artifact.read_bytes() == encode(RUNS[0])
    failed.write_bytes(failed.read_bytes()[:-60])
    assert not complete(failed)
    assert export("wandb", tmp_path, [RUNS[0], FAILED]) == (1, 1)
    assert len(list(tmp_path.rglob("run-*.wandb"))) == 2
    assert all(map(complete, tmp_path.rglob("run-*.wandb")))
