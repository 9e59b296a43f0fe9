"""What pages say of a workload from its declaration."""

from __future__ import annotations

from harness.registry import workloads


def title(workload: str) -> str:
    """As it is declared; the bare name of a workload that is not installed."""
    declared = workloads().get(workload)
    return declared.title if declared else workload


def reduced(workload: str, scale: str) -> str:
    """What the declaration says is smaller than in the published form; empty: nothing is."""
    declared = workloads().get(workload)
    found = declared.scales.get(scale) if declared else None
    return found.reduced if found else ""
