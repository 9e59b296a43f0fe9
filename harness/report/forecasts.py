"""What would fit on accelerators: the table of `epochmark preflight`'s estimates and bounds."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from harness.planned import PLANNERS, Books, Line, largest, matrix, where_peaks_come_from
from harness.preflight import FITS, UNAVAILABLE, UNSUPPORTED, Forecast
from harness.report.parts import Entry, Table
from harness.targets import TARGETS, Target
from harness.units import ABSENT, percent, seconds, size

HEAD = ("accelerator", "workload", "scale", "precision", "API style", "backend", "batch", "outcome",
        "peak", "of memory", "step at least", "largest batch", "how")  # fmt: skip

Forecasts = Books
"""By target and cell name."""

SCALES = ("standard", "full", "smoke")
"""The published networks first."""


def matrices(forecasts: Forecasts) -> list[Table]:
    """Accelerators against steps, a table for each scale and kind of device: README.md's matrix."""
    scales = {name.split("/")[1] for found in forecasts.values() for name in found}
    return [
        table
        for scale in SCALES
        if scale in scales
        for device in PLANNERS
        for table in _matrix(forecasts, scale, device)
    ]


def _matrix(forecasts: Forecasts, scale: str, device: str) -> Iterator[Table]:
    found = matrix(forecasts, scale, device)
    if not found.lines:
        return
    head = (
        "workload",
        "batch",
        "backend",
        "precision",
        *(one.accelerator for one in found.targets),
    )
    caption = (
        f"Peak of a training step at scale {scale}, and its share of a {device.upper()}'s memory"
    )
    body = tuple(_line(line, found.targets) for line in found.lines)
    numeric = frozenset({1, *range(4, len(head))})
    yield Table(f"peaks-{scale}-{device}", caption, head, body, numeric)


def _line(line: Line, targets: tuple[Target, ...]) -> tuple[Entry, ...]:
    return (
        Entry(line.workload),
        Entry(str(line.batch), raw=float(line.batch)),
        Entry(line.backend),
        Entry(line.precision),
        *(_peak(one, target) for one, target in zip(line.found, targets, strict=True)),
    )


def _peak(one: Forecast | None, target: Target) -> Entry:
    if one is None:
        return Entry("not tried", raw=inf, css="none")
    notes = (one.reason,) if one.reason else ()
    if one.peak_bytes is None:
        return Entry(one.outcome, raw=inf, css=_css(one.outcome), notes=notes)
    share = f"{percent(one.peak_bytes / target.memory_bytes)} of {size(target.memory_bytes)}"
    outcome = () if one.outcome == FITS else (one.outcome,)
    return Entry(
        size(one.peak_bytes),
        raw=float(one.peak_bytes),
        css=_css(one.outcome),
        notes=(*outcome, share, *notes),
    )


def _css(outcome: str) -> str:
    return {FITS: "", UNSUPPORTED: "none", UNAVAILABLE: "none"}.get(outcome, "status")


def unsupported_table(forecasts: Forecasts) -> Table:
    """What was not planned, by reason: hundreds of rows would say the same."""
    counts: dict[tuple[str, str, str], int] = {}
    for target, found in forecasts.items():
        for name, one in found.items():
            if one.outcome == UNSUPPORTED:
                key = (TARGETS[target].accelerator, name.split("/")[3], one.reason)
                counts[key] = counts.get(key, 0) + 1
    body = tuple(
        (*map(Entry, key), Entry(f"{count:,}", raw=float(count))) for key, count in counts.items()
    )
    head = ("accelerator", "backend", "reason", "cells")
    return Table("unsupported", "Unsupported, and why", head, body, frozenset({3}))


def where_from(forecasts: Forecasts) -> list[str]:
    """Of each kind of device, how its peaks were found."""
    told = []
    for device in PLANNERS:
        tried = [
            one
            for target, found in forecasts.items()
            if TARGETS[target].device == device
            for one in found.values()
            if one.outcome not in (UNSUPPORTED, UNAVAILABLE)
        ]
        if tried:
            told.append(f"{device.upper()}s: {where_peaks_come_from(device, tried)}.")
    return told


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
    return Table("forecasts", "Every step that was planned", HEAD, rows, numeric)


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
        Entry(largest(one)),
        Entry(one.method or ABSENT),
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
