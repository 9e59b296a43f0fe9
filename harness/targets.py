"""Accelerators that a program can be planned for on a machine without one.

Memory and bandwidth are what the maker documents, in the document that `peak.ACCELERATORS` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.errors import unknown
from harness.peak import ACCELERATORS, Accelerator


@dataclass(frozen=True)
class Target:
    """One chip; makers count 1 GB as 10^9 bytes, but Google the TPU v4's 32 GiB as such.

    `accelerator` is one of its names in `peak.ACCELERATORS`. `topology` is how the TPU's compiler
    names a single chip, `options` are what else it wants to know of that one.
    """

    name: str
    accelerator: str
    memory_bytes: int
    bandwidth_bytes_per_s: float
    topology: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """The value of the axis."""
        return "tpu" if self.topology else "gpu"

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
_ALL = (
    Target("tpu-v4", "TPU v4", 32 * 2**30, 1228e9, "v4:1x1x1", {"chip_config_name": "megacore"}),
    Target("tpu-v5e", "TPU v5e", 16 * _GB, 819e9, "v5e:1x1"),
    Target("tpu-v5p", "TPU v5p", 95 * _GB, 2765e9, "v5p:1x1x1"),
    Target("tpu-v6e", "TPU v6e", 32 * _GB, 1638e9, "v6e:1x1"),
    Target("cuda-h100", "NVIDIA H100 80GB HBM3", 80 * _GB, 3350e9),
    Target("cuda-a100", "NVIDIA A100-SXM4-80GB", 80 * _GB, 2039e9),
    Target("cuda-l4", "NVIDIA L4", 24 * _GB, 300e9),
    Target("cuda-t4", "Tesla T4", 16 * _GB, 320e9),
)
TARGETS = {target.name: target for target in _ALL}


def target(name: str) -> Target:
    """The target of that name; raises UsageError that lists the known ones."""
    if name not in TARGETS:
        raise unknown("accelerator", name, list(TARGETS))
    return TARGETS[name]
