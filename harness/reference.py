"""Makes the float32 reference that the equality gate judges by: one file per workload."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from harness import data
from harness.cells import Cell
from harness.child import run_worker
from harness.errors import EpochmarkError
from harness.gate import Figures
from harness.schema import Protocol
from harness.stages import Job
from harness.workload import Workload

# Any backend would do: the gate of the other two then shows that they agree with it.
BACKEND = "jax"


def make_reference(workload: Workload, *, backend: str = BACKEND) -> Path:
    """Write `reference.json` into the workload's folder; returns its path."""
    stored = {
        scale: _figures(workload, scale, backend)
        for scale, declared in workload.scales.items()
        if not declared.gate_scale
    }
    path = Path(str(files(workload.module).joinpath("reference.json")))
    path.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    return path


def dependencies(workload: Workload, scale: str) -> dict[str, object]:
    """What the figures depend on beside weights and data; when it changes they are of no use."""
    found = workload.scales[scale]
    values = {
        "architecture": asdict(found.gate_architecture or found.architecture),
        "optimizer": asdict(found.optimizer),
        "batch_size": found.batch_size,
        "gate_rate": found.gate_rate,
        "gate_factors": dict(workload.gate_factors),
    }
    as_stored: dict[str, object] = json.loads(json.dumps(values))
    return as_stored


def _figures(workload: Workload, scale: str, backend: str) -> dict[str, object]:
    data.fetch(workload, scale)
    cell = Cell(workload.name, scale, "train", backend, "float32", "functional", "cpu")
    job = Job(cell=cell, seed=0, protocol=Protocol(stop_after="reference"))
    ended = run_worker(job)
    if ended.report is None or ended.report.gate.outcome != "reference":
        raise EpochmarkError(
            f"The reference of {cell.id!r} was not made: {ended.reason.rstrip('.')}."
        )
    gate = ended.report.gate
    figures: dict[str, object] = {name: getattr(gate, name) for name in Figures.__annotations__}
    packages = ended.report.environment.packages
    return {
        "made_with": {name: packages[name] for name in ("keras", backend) if name in packages},
        "workload_version": workload.version,
        "data_digest": workload.scales[scale].data_digest,
        "declared": dependencies(workload, scale),
        **figures,
    }
