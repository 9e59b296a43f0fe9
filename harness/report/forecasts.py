"""What would fit on accelerators: the table of `epochmark preflight`'s estimates and bounds."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from harness.preflight import FITS, UNSUPPORTED, Forecast
from harness.report.parts import Entry, Table
from harness.targets import TARGETS, Target
from harness.units import ABSENT, percent, seconds, size

HEAD = ("accelerator", "workload", "scale", "precision", "API style", "backend", "batch", "outcome",
        "peak", "of memory", "step at least")  # fmt: skip

Forecasts = Mapping[str, Mapping[str, Forecast]]
"""By target and cell name."""


def forecasts_table(forecasts: Forecasts) -> Table:
    """A row for everything that was tried, the published networks first."""
    tried = [
        (TARGETS[target], name.split("/"), one)
        for target, found in forecasts.items()
        for name, one in found.items()
        if one.outcome != UNSUPPORTED
    ]
    tried.sort(key=lambda row: (row[1][1] != "standard", row[1]))
    numeric = frozenset(map(HEAD.index, ("batch", "peak", "of memory", "step at least")))
    rows = tuple(_row(*row) for row in tried)
    return Table("forecasts", "Estimates and bounds", HEAD, rows, numeric)


def _row(target: Target, parts: list[str], one: Forecast) -> tuple[Entry, ...]:
    workload, scale, _, backend, precision, api_style, _ = parts
    peak = one.peak_bytes
    notes = (one.reason,) if one.reason else ()
    return (
        Entry(target.accelerator),
        *map(Entry, (workload, scale, precision, api_style, backend)),
        Entry(str(one.batch_size), raw=float(one.batch_size)),
        Entry(one.outcome, css="" if one.outcome == FITS else "status", notes=notes),
        Entry(ABSENT if peak is None else size(peak), raw=inf if peak is None else float(peak)),
        _share(peak, target),
        Entry(
            ABSENT if one.bound_s is None else seconds(one.bound_s),
            raw=inf if one.bound_s is None else one.bound_s,
        ),
    )


def _share(peak: int | None, target: Target) -> Entry:
    share = inf if peak is None else peak / target.memory_bytes
    return Entry(percent(share), raw=share)


def targets_table() -> Table:
    """What the makers document of the accelerators, and where."""
    body = tuple(
        (
            Entry(target.accelerator),
            Entry(target.name),
            Entry(size(target.memory_bytes), raw=float(target.memory_bytes)),
            Entry(f"{target.bandwidth_bytes_per_s / 1e9:.0f} GB/s"),
            Entry(target.documented.source),
        )
        for target in TARGETS.values()
    )
    head = ("accelerator", "name", "memory", "bandwidth", "source")
    return Table("targets", "What the makers document", head, body, frozenset({2, 3}))
