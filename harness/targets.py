"""Accelerators that a program can be planned for on a machine without one.

Memory and bandwidth are what the maker documents, in the document that `peak.ACCELERATORS` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.errors import unknown
from harness.peak import ACCELERATORS, Accelerator


@dataclass(frozen=True)
class Multiprocessors:
    """Those of a GPU, as XLA's compiler wants to know them.

    By compute capability in NVIDIA's CUDA C++ Programming Guide (technical specifications), but
    their number, the cache that they share and their highest clock, which are in NVIDIA's papers on
    the architectures.
    """

    capability: tuple[int, int]
    number: int
    float32_units: int
    threads: int
    shared_bytes: int
    block_shared_bytes: int
    cache_bytes: int
    clock_ghz: float


@dataclass(frozen=True)
class Target:
    """One chip. A maker's GB is taken as 10^9 bytes, the least that it can mean: "80 GB" may have
    7 % more. Google gives the TPU v4's 32 GiB as such.

    `accelerator` is one of its names in `peak.ACCELERATORS`. `topology` is how the TPU's compiler
    names a single chip, `options` are what else it wants to know of that one; `multiprocessors` is
    what the GPU's does.
    """

    name: str
    accelerator: str
    memory_bytes: int
    bandwidth_bytes_per_s: float
    topology: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    multiprocessors: Multiprocessors | None = None

    @property
    def device(self) -> str:
        """The value of the axis."""
        return "gpu" if self.multiprocessors else "tpu"

    @property
    def documented(self) -> Accelerator:
        """What its maker says of its speed, and where."""
        return next(known for known in ACCELERATORS if self.accelerator in known.names)

    def flops_per_s(self, precision: str) -> float:
        """The documented peak; of a precision without one, that of the fastest precision.

        A precision that the device has no units for is slower than this, never faster.
        """
        rates = self.documented.flops_per_s
        return rates.get(precision, max(rates.values()))


_GB = 10**9
_KIB = 2**10
_ALL = (
    Target("tpu-v4", "TPU v4", 32 * 2**30, 1228e9, "v4:1x1x1", {"chip_config_name": "megacore"}),
    Target("tpu-v5e", "TPU v5e", 16 * _GB, 819e9, "v5e:1x1"),
    Target("tpu-v5p", "TPU v5p", 95 * _GB, 2765e9, "v5p:1x1x1"),
    Target("tpu-v6e", "TPU v6e", 32 * _GB, 1638e9, "v6e:1x1"),
    Target(
        "cuda-h100", "NVIDIA H100 80GB HBM3", 80 * _GB, 3350e9,
        multiprocessors=Multiprocessors(
            (9, 0), 132, 128, 2048, 228 * _KIB, 227 * _KIB, 50 * 1024 * _KIB, 1.98
        ),
    ),
    Target(
        "cuda-a100", "NVIDIA A100-SXM4-80GB", 80 * _GB, 2039e9,
        multiprocessors=Multiprocessors(
            (8, 0), 108, 64, 2048, 164 * _KIB, 163 * _KIB, 40 * 1024 * _KIB, 1.41
        ),
    ),
    Target(
        "cuda-l4", "NVIDIA L4", 24 * _GB, 300e9,
        multiprocessors=Multiprocessors(
            (8, 9), 58, 128, 1536, 100 * _KIB, 99 * _KIB, 48 * 1024 * _KIB, 2.04
        ),
    ),
    Target(
        "cuda-t4", "Tesla T4", 16 * _GB, 320e9,
        multiprocessors=Multiprocessors(
            (7, 5), 40, 64, 1024, 64 * _KIB, 64 * _KIB, 4 * 1024 * _KIB, 1.59
        ),
    ),
)  # fmt: skip
TARGETS = {target.name: target for target in _ALL}


def target(name: str) -> Target:
    """The target of that name; raises UsageError that lists the known ones."""
    if name not in TARGETS:
        raise unknown("accelerator", name, list(TARGETS))
    return TARGETS[name]
