"""Which points of the product can run here, and why the others cannot. Imports no framework."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from harness import drivers, nvml, tpu, venvs
from harness.absence import Absence
from harness.cells import Cell
from harness.localdata import VARIABLE
from harness.nvml import absence, divided, visible
from harness.registry import workloads
from harness.workload import Workload


@dataclass(frozen=True)
class Support:
    """`status` is `supported`, `unsupported` (by nature) or `unavailable` (on this machine)."""

    status: str
    reason: str = ""

    @property
    def runs(self) -> bool:
        return self.status == "supported"


def support(cell: Cell) -> Support:
    """Whether the cell runs here; the reason is a noun phrase."""
    reason = unsupported(cell)
    if reason:
        return Support("unsupported", reason)
    reason = _unavailable(cell)
    return Support("unavailable", reason) if reason else Support("supported")


def unsupported(cell: Cell) -> str:
    workload = workloads()[cell.workload]
    if cell.scale not in workload.scales:
        return f"no scale {cell.scale} in the declaration of {cell.workload}"
    if reason := _narrow(cell):
        return reason
    tolerances = workload.scales[cell.scale].tolerances
    if cell.precision not in tolerances and cell.precision != "tensorfloat32":
        return f"no gate tolerance for {cell.precision} in the declaration of {cell.workload}"
    if cell.precision == "tensorfloat32" and cell.device_kind != "gpu":
        return "TensorFloat-32, a mode of NVIDIA GPUs"
    if cell.device_kind == "tpu" and cell.backend != "jax":
        return "TPU, reached through the jax backend only"
    if cell.device_kind == "tpu" and cell.precision == "mixed_float16":
        return "float16, without units on a TPU"
    return _alone(cell, workload) if cell.device_count > 1 else ""


def _alone(cell: Cell, workload: Workload) -> str:
    """What ties the cell to one device."""
    if cell.phase == "infer":
        return "inference, which is measured on one device"
    batch = workload.scales[cell.scale].batch_size
    if batch % cell.device_count:
        return f"a batch of {batch}, which {cell.device_count} devices cannot share evenly"
    if cell.backend == "tensorflow" and cell.api_style == "custom_loop":
        return "a hand-written TensorFlow step, made for one device"
    if cell.backend == "tensorflow" and cell.precision == "mixed_float16":
        return "a loss scale, which Keras cannot adapt under TensorFlow's MirroredStrategy"
    if cell.backend == "torch" and workload.batch_statistics:
        return "batch statistics, which Keras takes on each torch device alone"
    return ""


def _narrow(cell: Cell) -> str:
    """Why a precision without a wider one beside it is not offered."""
    if cell.precision == "bfloat16" and cell.phase == "train":
        return "weights in bfloat16, which lose updates below their last place; see mixed_bfloat16"
    if cell.precision != "float8":
        return ""
    if cell.backend != "jax":
        return (
            f"float8, which Keras on {cell.backend} rounds to and then multiplies in a wider type"
        )
    if cell.device_kind != "gpu":
        return f"float8, without units on a {cell.device_kind.upper()}"
    return "float8, which Keras has for dense layers alone, and whose gate no GPU has been through"


@cache
def _installed(module: str) -> bool:
    return find_spec(module) is not None


@cache
def _broken(environment: venvs.Venv) -> str:
    absent = venvs.absence(environment)
    return absent.told(f"environment {environment.name} not as locked") if absent else ""


def _without_packages(cell: Cell) -> str:
    """What the interpreter lacks that the cell's worker would run in."""
    made = venvs.chosen(cell)
    if made is not None:
        return _broken(made)
    for module in (cell.backend, "keras"):
        if not _installed(module):
            remedy = f"`epochmark env create {venvs.fitting(cell)[0].name}` makes one with it"
            return f"no package {module} in this environment; {remedy}"
    return ""


def _unavailable(cell: Cell) -> str:
    if lacking := _without_packages(cell):
        return lacking
    if workloads()[cell.workload].scales[cell.scale].owned and not os.environ.get(VARIABLE):
        return f"no {VARIABLE}, the folder of data that only its owner has"
    if cell.device_kind == "gpu":
        absent = absence()
        if absent is None and (too_few := _too_few(visible(), cell.device_count)):
            return too_few
        absent = absent or divided(cell.device_count) or _driver(venvs.chosen(cell))
        return absent.told("no CUDA device") if absent else ""
    if cell.device_kind == "tpu":
        absent = tpu.absence() or drivers.tpu_absence(venvs.chosen(cell))
        return absent.told("no TPU") if absent else ""
    return ""


@cache
def _driver(environment: venvs.Venv | None) -> Absence | None:
    """Whether NVIDIA's driver is too old for the backend of that environment."""
    try:
        found = nvml.device(nvml.used()[0]).driver
    except OSError:
        return None
    return drivers.outdated(found, environment)


def _too_few(there: int, wanted: int) -> str:
    if there >= wanted:
        return ""
    return f"{there} CUDA device{'s' if there > 1 else ''} of {wanted} that the cell asks for"
