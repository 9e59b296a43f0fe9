"""Valid records for tests, with any field changed by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.metrics import derive
from harness.schema import (
    Accelerator,
    Block,
    Contention,
    DataOrigin,
    Device,
    Environment,
    Epoch,
    Gate,
    Memory,
    Price,
    Protocol,
    Run,
    Samples,
    Session,
)
from harness.store import SessionWriter

CELL = "recommender/smoke/train/jax/float32/functional/cpu"
SESSION = "20261122T101530Z-abc1234"

ENVIRONMENT = Environment(
    machine="laptop",
    os="Linux 6.8",
    python="3.11.9",
    cpu="Some CPU @ 2.0 GHz",
    cpu_count=2,
    memory_bytes=8 * 1024**3,
    accelerators=(),
    packages={"keras": "3.15.0", "jax": "0.10.0", "numpy": "2.4.6"},
    variables={"KERAS_BACKEND": "jax"},
)

PRICE = Price(
    id="gcp:c3-standard-8:us-central1:on-demand",
    usd_per_hour=0.403216,
    accelerator="CPU 8 vCPU",
    provider="gcp",
    instance="c3-standard-8",
    region="us-central1",
    kind="on-demand",
    as_of="2026-08-03",
    source="a price list",
    snapshot="2026-08.csv",
)

ACCELERATOR = Accelerator(
    device=Device("nvml", "some GPU", "0" * 16, "580.65", 80 * 10**9, mig=False),
    sampling_hz=1.0, samples=3, before=None, after=None, peak_memory_used_bytes=None,
    peak_own_memory_bytes=None, mean_utilisation=None, mean_power_w=None, max_temperature_c=None,
    min_sm_clock_hz=None, throttle_reasons=None, throttled=False, other_processes=None,
)  # fmt: skip
"""Watched, and nothing seen that hampered it."""

SAMPLES = Samples(
    first_step_s=1.25,
    warmup=(Block(2, 0.05), Block(10, 0.11)),
    warmup_outcome="steady",
    steady=(Block(10, 0.1), Block(10, 0.12), Block(10, 0.11)),
    epochs=(
        Epoch(30, 1.5, 0.2, 0.61, {"HR@10": 0.41}),
        Epoch(30, 0.44, 0.1, 0.52, {"HR@10": 0.52}),
    ),
)


def make_session(**changes: Any) -> Session:
    """A session's header, with `changes` to its fields."""
    session = Session(
        session=SESSION,
        started_at="2026-11-22T10:15:30Z",
        suite_version="0.1.0",
        suite_commit="abc1234def5678",
        plan="quick",
        only=(),
        replicates=1,
        order_seed=7,
        cells=(CELL,),
        protocol=Protocol(),
        environment=ENVIRONMENT,
    )
    return replace(session, **changes)


def make_run(**changes: Any) -> Run:
    """A run that went well, with `changes` to its fields; its metrics fit its samples."""
    run = Run(
        session=SESSION,
        run="r0001",
        replicate=0,
        suite_version="0.1.0",
        suite_commit="abc1234def5678",
        workload_version="1.0.0",
        cell=CELL,
        seed=42,
        batch_size=256,
        started_at="2026-11-22T10:15:31Z",
        status="ok",
        reason="",
        environment=ENVIRONMENT,
        protocol=Protocol(),
        replay="epochmark replay r0001",
        numerics={"jit": "on"},
        stages={"start": 3.5, "build": 0.2},
        samples=SAMPLES,
        memory=Memory(host_baseline_bytes=400 * 1024**2, host_peak_bytes=1536 * 1024**2),
        gate=Gate(
            outcome="passed", loss=(0.7, 0.6), deviation={"loss": 1e-6}, tolerance={"loss": 1e-4}
        ),
        contention=Contention(0.1, 1.2, 0.01, 0.02, contended=False),
        data=DataOrigin("bundled", "f" * 16),
        quality_metric="HR@10",
        price=PRICE,
    )
    run = replace(run, **changes)
    return run if "metrics" in changes else replace(run, metrics=derive(run))


def failed_run(status: str, reason: str, **changes: Any) -> Run:
    """A run that measured nothing."""
    nothing = {"samples": Samples(), "stages": {}, "memory": Memory(), "gate": Gate()}
    return make_run(status=status, reason=reason, **(nothing | changes))


def write_session(results: Path, *runs: Run, **changes: Any) -> Path:
    """A results file with these runs, which are made to belong to its session."""
    session = make_session(**changes)
    with SessionWriter(results, session) as writer:
        for run in runs:
            writer.append(replace(run, session=session.session))
    return writer.path
