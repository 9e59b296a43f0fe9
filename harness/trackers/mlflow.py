"""Writes runs into an MLflow store: a SQLite file, or a server by its URI."""

from __future__ import annotations

from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.tracking import MlflowClient

from harness.trackers import PROJECT, Record

ID, COMPLETE = "epochmark.run", "epochmark.complete"
BATCH = {"metrics": 1000, "params": 100, "tags": 100}
"""What one call may hold at most, by MLflow's REST interface."""
LONGEST = {"params": 6000, "tags": 5000}
"""Characters of a value, by MLflow's limits."""


RETRIES = 2
"""Of a request that failed. The client's own seven take four minutes to tell of a server that is
down."""


class Writer:
    """One experiment; artifacts of a SQLite store lie in a folder beside its file."""

    def __init__(self, path: str) -> None:
        """Open the store and its experiment, making what is missing."""
        if not MLFLOW_HTTP_REQUEST_MAX_RETRIES.is_set():
            MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(RETRIES)
        remote = "://" in path
        file = Path(path).resolve()
        self._client = MlflowClient(path if remote else f"sqlite:///{file}")
        found = self._client.get_experiment_by_name(PROJECT)
        artifacts = None if remote else file.with_name(f"{file.stem}-artifacts").as_uri()
        self._experiment = (
            found.experiment_id
            if found
            else self._client.create_experiment(PROJECT, artifact_location=artifacts)
        )

    def add(self, record: Record) -> bool:
        """Write a run wholly, in place of a half of it; False when all of it is there already."""
        there = self._client.search_runs(
            [self._experiment], filter_string=f"tags.`{ID}` = '{record.id}'"
        )
        if any(COMPLETE in run.data.tags for run in there):
            return False
        for half in there:
            self._client.delete_run(half.info.run_id)
        self._create(record)
        return True

    def _create(self, record: Record) -> None:
        start, end = _ms(record.started_s), _ms(record.ended_s)
        run = self._client.create_run(
            self._experiment, start_time=start, tags={ID: record.id}, run_name=record.name
        ).info.run_id
        metrics = [Metric(name, value, end, 0) for name, value in record.metrics.items()]
        metrics += [
            Metric(name, value, _ms(point.ended_s), point.step)
            for point in record.epochs
            for name, value in point.values.items()
        ]
        self._log(run, "metrics", metrics)
        longest = LONGEST["params"]
        self._log(run, "params", [Param(k, v[:longest]) for k, v in record.params.items()])
        longest = LONGEST["tags"]
        self._log(
            run, "tags", [RunTag(f"epochmark.{k}", v[:longest]) for k, v in record.tags.items()]
        )
        for name, text in record.artifacts.items():
            self._client.log_text(run, text, name)
        self._client.set_terminated(run, "FINISHED" if record.ok else "FAILED", end)
        self._client.set_tag(run, COMPLETE, "true")

    def _log(
        self, run: str, kind: str, entities: list[Metric] | list[Param] | list[RunTag]
    ) -> None:
        size = BATCH[kind]
        for first in range(0, len(entities), size):
            self._client.log_batch(run, **{kind: entities[first : first + size]})


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
