"""Accelerators as a worker sees them, on a machine that has none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness import data, stages
from harness.cells import BACKENDS, Cell
from harness.environment import worker_environment
from harness.registry import workload
from harness.schema import Protocol
from harness.stages import Job, Measurement
from tests.workers import GATE_ONLY, run


def cell(backend: str, device: str) -> Cell:
    return Cell("lstm_eta", "smoke", "train", backend, "float32", "functional", device)


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("backend", "device"), [*((backend, "gpu") for backend in BACKENDS), ("jax", "tpu")]
)
def test_a_worker_never_falls_back_to_the_processor(
    backend: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A framework that sees no accelerator would train on the processor without a word.

    Any that is here is hidden from it.
    """
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    data.fetch(workload("lstm_eta"), "smoke")
    ended = run(cell(backend, device), GATE_ONLY)
    assert ended.status == "unavailable", (ended.reason, ended.log_tail)
    assert ended.reason.startswith(f"{backend} sees no {device.upper()}")
    assert ended.report is not None
    assert ended.report.samples.steady == ()


def test_memory_on_a_gpu_is_taken_as_it_is_needed() -> None:
    gpu, cpu = (worker_environment(backend="jax", device=device) for device in ("gpu", "cpu"))
    assert gpu["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert gpu["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert "XLA_PYTHON_CLIENT_PREALLOCATE" not in cpu
    assert cpu["CUDA_VISIBLE_DEVICES"] == "-1"


@pytest.mark.parametrize(("device", "peak"), [("gpu", 123), ("cpu", None)])
def test_the_allocators_peak_is_of_accelerators_alone(
    device: str, peak: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    framework = SimpleNamespace(device_peak_bytes=lambda: 123)
    monkeypatch.setattr(stages, "backend", lambda name: framework)
    chosen = Job(cell("torch", device), 1, Protocol())
    measurement = Measurement(chosen, workload("lstm_eta"), lambda stage: None)
    measurement.note_memory(1000)
    assert measurement.memory.device_peak_bytes == peak
    assert measurement.memory.host_baseline_bytes == 1000
