"""Accelerators as a worker sees them, on a machine that has none."""

from __future__ import annotations

import io
from hashlib import sha256
from types import SimpleNamespace

import pytest

from harness import data, nvml, stages, tpu, worker
from harness.accelerators import Watch
from harness.cells import BACKENDS, Cell
from harness.environment import recorded_variables, worker_environment
from harness.registry import workload
from harness.schema import Protocol
from harness.stages import Job, Measurement
from tests.workers import GATE_ONLY, answer, finished, run

UUID = "8f2c1d2e-0000-1111-2222-333344445555"


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


class Tpu:
    """What JAX tells of a TPU, to the process that holds it."""

    device_kind = "TPU v5 lite"

    def __init__(self, *in_use: int | None) -> None:
        self._in_use = iter(in_use)

    def memory_stats(self) -> dict[str, int] | None:
        used = next(self._in_use)
        if used is None:
            raise RuntimeError("UNAVAILABLE: the device is halted\nand more")
        return {"bytes_in_use": used, "bytes_limit": 16 * 2**30}


def test_a_tpu_is_read_by_its_process_at_both_ends_of_a_run() -> None:
    with Watch(tpu.probe(Tpu(0, 100, 300)), hz=0.0) as watch:
        pass
    found = watch.accelerator()
    assert (found.device.probe, found.device.name) == ("jax", "TPU v5 lite")
    assert found.device.memory_bytes == 16 * 2**30
    assert found.device.driver.startswith("libtpu ")
    assert (found.sampling_hz, found.samples) == (0.0, 0)
    assert [end and end.memory_used_bytes for end in (found.before, found.after)] == [100, 300]
    assert found.peak_own_memory_bytes == 300
    assert (found.throttled, found.other_processes, found.failure) == (False, None, "")


def test_a_workers_report_has_what_the_tpus_of_its_cell_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    framework = SimpleNamespace(
        configure=lambda precision, threads: {},
        accelerator=lambda device: {"platform": device},
        tpus=lambda: [Tpu(0, 100, 300), Tpu(0, 1, 2)],
        device_peak_bytes=lambda: 400,
    )
    for module in (worker, stages):
        monkeypatch.setattr(module, "backend", lambda name: framework)
    monkeypatch.setattr(Measurement, "run", lambda self: None)
    report = worker.measure(Job(cell("jax", "tpu"), 1, Protocol()), io.StringIO())
    assert report.status == "ok", report.reason
    (found,) = report.accelerators
    assert (found.before and found.before.memory_used_bytes, found.peak_own_memory_bytes) == (
        (100, 300)
    )
    assert report.memory.device_peak_bytes == 400


def test_a_tpu_that_is_lost_says_so_and_ends_nothing() -> None:
    with Watch(tpu.probe(Tpu(0, 100, None)), hz=0.0) as watch:
        pass
    assert watch.accelerator().failure == "UNAVAILABLE: the device is halted"


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


def test_a_peak_that_cannot_be_reset_is_recorded_as_that_of_the_whole_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And without a host's peak that can be reset, the accelerator's is still told."""
    for again, since in ((True, "the equality gate"), (False, "the start of the process")):
        framework = SimpleNamespace(
            device_peak_bytes=lambda: 123, reset_device_peak=lambda of=again: of
        )
        monkeypatch.setattr(stages, "backend", lambda name, of=framework: of)
        chosen = Job(cell("torch", "gpu"), 1, Protocol())
        measurement = Measurement(chosen, workload("lstm_eta"), lambda stage: None)
        measurement._reset_peaks()
        assert measurement.numerics["device_peak_since"] == since
        measurement.note_memory(None)
        assert measurement.memory.device_peak_bytes == 123
        assert measurement.memory.host_peak_bytes is None


@pytest.mark.frameworks
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_gpus_frameworks_raise_without_memory_is_out_of_memory(backend: str) -> None:
    """Of the real classes, in a process that has them; other errors of the same classes are not."""
    done = finished("memory_child", backend, backend=backend)
    found = answer(done)
    assert {what: not what.startswith("other") for what in found} == found


# What a worker is shown


def test_a_cell_sees_its_own_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A framework opens a context on all that it sees, and takes memory there."""

    def seen(device: str) -> str:
        return worker_environment(backend="jax", device=device)["CUDA_VISIBLE_DEVICES"]

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [seen("gpu"), seen("gpu-x2"), seen("tpu")] == ["0", "0,1", "-1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1,2")
    assert [seen("gpu"), seen("gpu-x2")] == ["3", "3,1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert seen("gpu") == "-1"


@pytest.mark.parametrize(
    ("chosen", "count"),
    [("0,1", 2), ("1, 0", 2), ("0,9,1", 1), ("9,0", 0), ("", 0), ("GPU-1a2b, 1", 2), ("-1", 0)],
)
def test_devices_behind_an_unknown_one_are_hidden(
    monkeypatch: pytest.MonkeyPatch, chosen: str, count: int
) -> None:
    """CUDA goes through the list up to the first that is none."""
    monkeypatch.setattr(nvml, "cuda_devices", lambda: ("a", "b"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert nvml.visible() == count


def test_jax_is_kept_off_the_gpu_of_another_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras imports it on the side."""
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    platforms = {
        backend: worker_environment(backend=backend, device="gpu").get("JAX_PLATFORMS")
        for backend in BACKENDS
    }
    assert platforms == {"tensorflow": "cpu", "jax": None, "torch": "cpu"}


@pytest.mark.parametrize(
    ("value", "recorded"),
    [
        ("0,1", "0,1"),
        ("-1", "-1"),
        (f"1, GPU-{UUID}", f"1,GPU-{sha256(f'GPU-{UUID}'.encode()).hexdigest()[:16]}"),
        (f"MIG-{UUID}", f"MIG-{sha256(f'MIG-{UUID}'.encode()).hexdigest()[:16]}"),
        ("GPU-8f2c", "GPU-shortened"),
    ],
)
def test_no_devices_identifier_is_recorded(
    value: str, recorded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert recorded_variables()["CUDA_VISIBLE_DEVICES"] == recorded


@pytest.mark.parametrize(
    "name",
    [
        "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "TF_GPU_ALLOCATOR",
        "XLA_PYTHON_CLIENT_ALLOCATOR", "XLA_PYTHON_CLIENT_MEM_FRACTION",
    ],
)  # fmt: skip
def test_the_mode_of_the_allocator_is_recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "a_mode")
    assert recorded_variables()[name] == "a_mode"
