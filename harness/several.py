"""A run on several devices that share every batch. Runs inside the worker, and its followers."""

from __future__ import annotations

from dataclasses import replace
from multiprocessing.connection import Connection

from harness.backends import Backend, Devices, backend
from harness.cells import simulated
from harness.environment import cpu_count
from harness.errors import WorkerError
from harness.ranks import Failure, Follower, Ranks
from harness.registry import workload
from harness.stages import Job, Measurement


def spread(measurement: Measurement, framework: Backend) -> None:
    """Before anything is built: have its model on every device of the cell, and record how."""
    cell = measurement.job.cell
    devices = Devices(cell.device_kind, cell.device_count)
    if framework.PROCESS_PER_DEVICE:
        measurement.ranks = Ranks(follow, measurement.job, devices)
        devices = measurement.ranks.devices
    measurement.numerics |= framework.spread(devices) | {
        "devices": str(cell.device_count),
        "devices_simulated": str(simulated(cell.device)),
        "evaluation": "on one device",
    }


def follow(connection: Connection, job: Job, devices: Devices) -> None:
    """A further process of a run, from its first import to its end."""
    try:
        framework = backend(job.cell.backend)
        # Random layers draw other numbers on every device.
        own = replace(job, seed=job.seed + devices.rank)
        measurement = Measurement(own, workload(job.cell.workload), lambda stage: None)
        measurement.numerics |= framework.configure(job.cell.precision, cpu_count())
        framework.spread(devices)
        Follower(connection, measurement.built).obey()
    except WorkerError as error:
        connection.send(Failure(error.status, str(error)))
    except Exception as error:
        connection.send(Failure("error", f"{type(error).__name__}: {error}"))
        raise
