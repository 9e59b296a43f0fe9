"""How long a run may take where nobody said: by its scale. Knows no workload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.schema import Protocol

BY_SCALE_S: Mapping[str, float] = {
    "smoke": 300.0,
    # The declared three epochs of BERT-Base took 3.7 hours on two cores.
    "standard": 6 * 3600.0,
    # Ninety epochs of ImageNet take days on one GPU.
    "full": 14 * 86_400.0,
}
"""A worker that hangs is ended by it, so it is no estimate: slow machines have to fit in."""


def limited(protocol: Protocol, scale: str) -> Protocol:
    """The protocol of one run: with the limit that was given, else its scale's."""
    return replace(protocol, timeout_s=protocol.timeout_s or BY_SCALE_S[scale])
