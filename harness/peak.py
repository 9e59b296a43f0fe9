"""Peaks that MFU is held against: documented ones of named accelerators, measured ones of machines.

Knows no run and no framework. A device or precision that is not here has no peak: nothing is
guessed from a similar name, so its runs have no MFU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from harness.cells import BACKENDS, PRECISIONS
from harness.errors import ResultsError
from harness.schema import Peak
from harness.schema_json import decode
from harness.store import spelled, write_json


@dataclass(frozen=True)
class Accelerator:
    """What its maker documents: dense FLOP per second, the names that NVML or JAX give the device.

    `as_of` is the day on which the document was looked at.
    """

    names: tuple[str, ...]
    flops_per_s: Mapping[str, float]
    source: str
    as_of: str


_H100 = "https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet"
_A100 = (
    "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/"
    "nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"
)
_L4 = "https://www.nvidia.com/en-us/data-center/l4/"
_T4 = "https://www.nvidia.com/en-us/data-center/tesla-t4/"
_TPU = "https://docs.cloud.google.com/tpu/docs/"


def _gpu(float32: float, tensorfloat32: float, half: float) -> dict[str, float]:
    """Outside the tensor cores, and in them; bfloat16 and float16 run at one rate."""
    return {
        "float32": float32,
        "tensorfloat32": tensorfloat32,
        "mixed_bfloat16": half,
        "mixed_float16": half,
    }


# NVIDIA gives the tensor cores of H100 and L4 with 2:4 sparsity: halved here. The T4 knows neither
# bfloat16 nor TensorFloat-32. Google documents no float32 peak of a TPU.
ACCELERATORS = (
    Accelerator(("NVIDIA H100 80GB HBM3",), _gpu(67e12, 989e12 / 2, 1979e12 / 2), _H100,
                "2026-11-23"),
    Accelerator(("NVIDIA H100 PCIe",), _gpu(51e12, 756e12 / 2, 1513e12 / 2), _H100, "2026-11-23"),
    Accelerator(("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe", "NVIDIA A100-SXM4-40GB",
                 "NVIDIA A100-PCIE-40GB"), _gpu(19.5e12, 156e12, 312e12), _A100, "2026-11-23"),
    Accelerator(("NVIDIA L4",), _gpu(30.3e12, 120e12 / 2, 242e12 / 2), _L4, "2026-11-23"),
    Accelerator(("Tesla T4",), {"float32": 8.1e12, "mixed_float16": 65e12}, _T4, "2026-11-23"),
    Accelerator(("TPU v4",), {"mixed_bfloat16": 275e12}, f"{_TPU}v4", "2026-11-23"),
    Accelerator(("TPU v5 lite", "TPU v5e"), {"mixed_bfloat16": 197e12}, f"{_TPU}v5e",
                "2026-11-23"),
    Accelerator(("TPU v5", "TPU v5p"), {"mixed_bfloat16": 459e12}, f"{_TPU}v5p", "2026-11-23"),
    Accelerator(("TPU v6 lite", "TPU v6e"), {"mixed_bfloat16": 918e12}, f"{_TPU}v6e",
                "2026-11-23"),
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """The fastest square matrix product of a backend in a precision; `size` is its side."""

    backend: str
    precision: str
    size: int
    flops_per_s: float


@dataclass(frozen=True)
class Measured:
    """What `epochmark doctor` found on a machine's processors.

    `contended` says that other processes used them meanwhile, which makes the figures too low.
    """

    machine: str
    as_of: str
    packages: dict[str, str]
    contended: bool
    figures: tuple[Figure, ...]
    schema_version: int = 1

    @property
    def peaks(self) -> dict[str, Peak]:
        """The best backend's figure in each precision."""
        best: dict[str, Figure] = {}
        for figure in sorted(self.figures, key=lambda figure: figure.flops_per_s):
            best[figure.precision] = figure
        return {
            precision: Peak(
                flops_per_s=best[precision].flops_per_s,
                precision=precision,
                method="measured",
                source=best[precision].backend,
                as_of=self.as_of,
            )
            for precision in PRECISIONS
            if precision in best
        }


def documented(device: str, precision: str) -> Peak | None:
    """The documented peak of the device of exactly that name; None when it is not in the table."""
    for accelerator in ACCELERATORS:
        if device in accelerator.names and precision in accelerator.flops_per_s:
            return Peak(
                flops_per_s=accelerator.flops_per_s[precision],
                precision=precision,
                method="documented",
                source=accelerator.source,
                as_of=accelerator.as_of,
            )
    return None


def peak_for(
    measured: Mapping[str, Peak], *, device: str, precision: str, accelerators: Sequence[str]
) -> Peak | None:
    """The peak of a cell's device (`cpu`, `gpu` or `tpu`), if it is known.

    A processor's is `measured` on its machine; an accelerator's is the documented one of the
    first of the `accelerators` that the run uses, by the names that NVML or JAX give them.
    """
    if device == "cpu":
        return measured.get(precision)
    return documented(accelerators[0], precision) if accelerators else None


def peaks_of(results: Path, machine: str) -> dict[str, Peak]:
    """The machine's measured peaks by precision; none when it was never measured.

    Raises ResultsError that names the file and the field when it is damaged.
    """
    path = peaks_file(results, machine)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unreadable(path, str(error.strerror)) from error
    return _parsed(path, content, machine).peaks


def write_peaks(results: Path, measured: Measured) -> Path:
    """Store what was measured in place of an earlier measurement; returns the file."""
    path = peaks_file(results, measured.machine)
    try:
        write_json(path, asdict(measured))
    except OSError as error:
        raise ResultsError(
            f"The measured peaks cannot be written to {spelled(path)}: {error.strerror}. "
            "Name another results folder with --results."
        ) from error
    return path


def peaks_file(results: Path, machine: str) -> Path:
    """Where the machine's measured peaks lie."""
    return results / "peaks" / f"{machine or 'unnamed'}.json"


def _parsed(path: Path, content: bytes, machine: str) -> Measured:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    # The tuple is there to hand the configuration down: a dataclass inside inherits it.
    adapter: TypeAdapter[tuple[Measured]] = TypeAdapter(tuple[Measured], config=config)
    try:
        measured = adapter.validate_json(b"[%b]" % decode(content).text)[0]
    except ValidationError as error:
        raise _unreadable(path, _first_problem(error.errors(include_url=False)[0])) from error
    except ValueError as error:
        raise _unreadable(path, "it is not strict JSON") from error
    for name, value, expected, right in _checks(measured, machine):
        if not right:
            raise _unreadable(path, f"{name} is {value!r}; expected {expected}")
    return measured


def _checks(measured: Measured, machine: str) -> list[tuple[str, object, str, bool]]:
    """Name, value, what it should be and whether it is, of whatever the types don't say."""
    checks: list[tuple[str, object, str, bool]] = [
        ("schema_version", measured.schema_version, "1", measured.schema_version == 1),
        ("machine", measured.machine, machine, measured.machine == machine),
        ("as_of", measured.as_of, "a date such as 2026-11-23", _is_date(measured.as_of)),
    ]
    for place, figure in enumerate(measured.figures):
        at, rate = f"figures.{place}", figure.flops_per_s
        backends, precisions = ", ".join(BACKENDS), ", ".join(PRECISIONS)
        checks += [
            (f"{at}.backend", figure.backend, f"one of {backends}", figure.backend in BACKENDS),
            (f"{at}.precision", figure.precision, f"one of {precisions}",
             figure.precision in PRECISIONS),
            (f"{at}.flops_per_s", rate, "a positive number", rate > 0),
        ]  # fmt: skip
    return checks


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _first_problem(problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"][1:])
    if problem["type"] == "missing":
        return f"{name} is missing"
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{name} is unknown"
    return f"{name} {problem['msg'].removeprefix('Input ')}"


def _unreadable(path: Path, problem: str) -> ResultsError:
    return ResultsError(
        f"The measured peaks in {spelled(path)} cannot be read: {problem}. "
        "Delete the file and run `epochmark doctor`."
    )
