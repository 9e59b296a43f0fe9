"""`bert` trains as transformers' BERT under torch's AdamW trains, not the first step alone.

Weight decay but for biases and normalisations, clipping by the global norm, warm-up and linear
decay of the rate to zero, dropout; and a run's training from published weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from harness import data, weights
from harness.cells import BACKENDS, Cell
from harness.child import run_worker
from harness.registry import workload
from harness.stages import Job
from tests.dynamics_child import FAULTS, LENGTH, NORM, SMALL, STEPS, TOTAL
from tests.workers import BRIEF, answer, finished
from workloads.bert import TINY, WORKLOAD, Architecture, checkpoint

BOUND = 3e-5
SEED = 2013
each_backend = pytest.mark.parametrize("backend", BACKENDS)
pytestmark = pytest.mark.frameworks


def published(path: Path, architecture: Architecture, spread: float) -> None:
    """Random weights in a file as BERT's are published."""
    random = np.random.RandomState(0)
    found = {}
    for tensor in checkpoint.tensors(architecture):
        middle = 1.0 if tensor.key.endswith("/gamma") else 0.0
        value: NDArray[Any] = random.normal(middle, spread, tensor.shape)
        found[tensor.name] = value.astype(np.float32)
    save_file(found, path)


def small_batches(random: np.random.RandomState) -> tuple[NDArray[Any], NDArray[Any]]:
    """Four batches of eight sentences of two to ten pieces; the label is the first one's parity."""
    ids = random.randint(1, SMALL.vocabulary, (4, 8, LENGTH)).astype(np.int32)
    lengths = random.randint(2, LENGTH + 1, (4, 8, 1))
    return np.where(np.arange(LENGTH) < lengths, ids, 0).astype(np.int32), ids[..., 0] % 2


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of two sizes, and the batches that both sides train on."""
    folder = tmp_path_factory.mktemp("dynamics")
    random = np.random.RandomState(1)
    published(folder / "small.safetensors", SMALL, 0.2)
    kernel = random.normal(0, 0.3, (SMALL.hidden, SMALL.classes)).astype(np.float32)
    np.savez(folder / "classifier.npz", kernel=kernel, bias=np.zeros(2, np.float32))
    ids, labels = small_batches(random)
    np.savez(folder / "batches.npz", ids=ids, labels=labels.astype(np.int64))
    published(folder / "tiny.safetensors", TINY, 0.05)
    loaded = data.fetch(workload("bert"), "smoke")
    batches = WORKLOAD.data("smoke").batches(
        loaded.arrays, batch_size=WORKLOAD.scales["smoke"].batch_size, seed=SEED, epoch=0
    )
    ids, labels = batches[0]
    rules = WORKLOAD.initializers
    np.savez(
        folder / "tiny_batch.npz",
        ids=ids,
        labels=labels,
        kernel=weights.initial("classifier/kernel", (TINY.hidden, 2), seed=SEED, rules=rules),
        bias=weights.initial("classifier/bias", (2,), seed=SEED, rules=rules),
    )
    return folder


@cache
def child(what: str, work: Path) -> Mapping[str, Any]:
    """What the reference, or a backend's one process, saw."""
    done = finished(
        "dynamics_child", what, str(work), backend=what if what in BACKENDS else "torch"
    )
    found: Mapping[str, Any] = answer(done)
    return found


def apart(work: Path, losses: list[float]) -> float:
    """The largest difference of a step's loss from the reference's."""
    expected = child("reference", work)["losses"]
    assert len(losses) == len(expected) == STEPS
    return float(np.abs(np.array(losses) - expected).max())


def test_the_reference_is_clipped_in_some_steps_and_learns_until_its_rate_is_zero(
    work: Path,
) -> None:
    seen = child("reference", work)
    norms, losses = np.array(seen["norms"]), np.array(seen["losses"])
    assert 3 < (norms > NORM).sum() < STEPS - 3
    assert losses[-4:].mean() < 0.5 * losses[:4].mean()
    assert TOTAL % 4 == 2, "the last step sees the batch of four steps before it at a rate of zero"


@each_backend
def test_every_step_of_a_training_has_the_references_loss(backend: str, work: Path) -> None:
    for losses in child(backend, work)["losses"].values():
        assert apart(work, losses) <= BOUND


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_recipe_that_is_another_is_seen(fault: str, work: Path) -> None:
    assert apart(work, child("torch", work)["faults"][fault]) > 10 * BOUND


@each_backend
def test_dropout_has_the_references_mean_loss(backend: str, work: Path) -> None:
    """Both means are of random draws: the difference has the error of two."""
    seen = child("reference", work)
    error = 2**0.5 * seen["dropout_error"]
    found = child(backend, work)
    assert abs(found["dropout"] - seen["dropout_mean"]) <= 4 * error
    for wrong in found["wrong_dropout"]:
        assert abs(wrong - seen["dropout_mean"]) > 6 * error


SHORT = replace(BRIEF, train_steps=1, weights_digest="of a file")


@each_backend
def test_a_run_trains_from_published_weights(backend: str, work: Path) -> None:
    """The loss of its first step is transformers' from the same file; the head is the seed's."""
    cell = Cell("bert", "smoke", "train", backend, "float32", "functional", "cpu")
    ended = run_worker(Job(cell, SEED, SHORT, weights=str(work / "tiny.safetensors")))
    assert (ended.status, ended.reason) == ("ok", "")
    assert ended.report is not None
    (epoch,) = ended.report.samples.epochs
    assert epoch.loss == pytest.approx(child("reference", work)["tiny_loss"], rel=1e-5)
