"""The one place that sets a process's environment: numeric switches, before the first import."""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from harness.cells import device_count, device_kind

# Variables that change how a backend computes; recorded when set by the user, beside our own.
RECORDED = (
    "KERAS_BACKEND", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "OPENBLAS_CORETYPE", "TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS", "XLA_FLAGS", "JAX_PLATFORMS", "JAX_ENABLE_X64",
    "JAX_DEFAULT_MATMUL_PRECISION", "NVIDIA_TF32_OVERRIDE", "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER", "TF_FORCE_GPU_ALLOW_GROWTH", "XLA_PYTHON_CLIENT_PREALLOCATE",
    "XLA_PYTHON_CLIENT_ALLOCATOR", "XLA_PYTHON_CLIENT_MEM_FRACTION", "TF_GPU_ALLOCATOR",
    "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "MALLOC_CONF", "LD_PRELOAD", "NPROC",
)  # fmt: skip

VISIBLE = "CUDA_VISIBLE_DEVICES"
_UUID_CHARACTERS = len("8f2c1d2e-0000-1111-2222-333344445555")


def visible_devices(count: int) -> list[str]:
    """How CUDA_VISIBLE_DEVICES names the first `count` that it leaves; by number where unset."""
    chosen = os.environ.get(VISIBLE)
    names = map(str, range(count)) if chosen is None else chosen.split(",")[:count]
    return [name.strip() for name in names]


def digest(identifier: str) -> str:
    """A device's, by which it can be told from others, and this machine not be found."""
    return sha256(identifier.encode()).hexdigest()[:16]


def _without_identifiers(names: str) -> str:
    """The value of CUDA_VISIBLE_DEVICES with a digest in place of each device's identifier."""
    return ",".join(_anonymous(name.strip()) for name in names.split(","))


def _anonymous(name: str) -> str:
    kind, _, identifier = name.partition("-")
    if kind not in ("GPU", "MIG") or not identifier:
        return name
    # A shortened one could be guessed from its digest.
    return f"{kind}-{digest(name) if len(identifier) >= _UUID_CHARACTERS else 'shortened'}"


def worker_environment(
    *,
    backend: str,
    device: str,
    root: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of a worker: the user's own, with the switches a cell decides.

    `root` is the source tree it imports from, if not the installed one; `variables` come last.
    """
    threads = str(cpu_count())
    environment = dict(os.environ)
    environment |= {
        "KERAS_BACKEND": backend,
        "OMP_NUM_THREADS": threads,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_NUM_INTRAOP_THREADS": threads,
        "PYTHONHASHSEED": "0",
        # Nothing is fetched while a cell is timed.
        "HF_HUB_OFFLINE": "1",
    }
    if device_count(device) > 1:
        environment |= _several(device)
    if device_kind(device) == "cpu":
        # Hides every accelerator, also from a framework that is only imported on the side.
        environment |= {"JAX_PLATFORMS": "cpu", VISIBLE: "-1"}
    elif device_kind(device) == "tpu":
        environment[VISIBLE] = "-1"
    else:
        # The cell's own alone: a framework opens whatever it sees.
        environment[VISIBLE] = ",".join(visible_devices(device_count(device)))
        if backend != "jax":
            environment["JAX_PLATFORMS"] = "cpu"
        # CUDA's own order is by speed; the driver, which says what was used, counts by place.
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        # Memory is taken as it is needed: what a framework takes at once says nothing of the model.
        environment |= {
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
    if root is not None:
        environment["PYTHONPATH"] = str(root)
    return {**environment, **(variables or {})}


def _several(device: str) -> dict[str, str]:
    """Processes of one run talk over the loopback interface; JAX makes processors on request."""
    settings = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    if device_kind(device) == "cpu":
        made = f"--xla_force_host_platform_device_count={device_count(device)}"
        settings["XLA_FLAGS"] = " ".join(filter(None, [os.environ.get("XLA_FLAGS"), made]))
        # The size of XLA's pool of threads: a device that waits for the others holds some, and in a
        # pool of as many as there are processors the others may then find none, for ever.
        settings["NPROC"] = str(8 * device_count(device))
    return settings


def with_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """The user's own environment with these on top, for a helper program."""
    return {**os.environ, **settings}


def cpu_count() -> int:
    """Processors this process may run on, which is what the frameworks are given."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def recorded_variables() -> dict[str, str]:
    """The numeric switches set in this process's environment; values with a path are left out."""
    found = {name: os.environ[name] for name in RECORDED if name in os.environ}
    if VISIBLE in found:
        found[VISIBLE] = _without_identifiers(found[VISIBLE])
    return {name: value for name, value in found.items() if "/" not in value}
