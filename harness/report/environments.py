"""What the runs were made on: environments, sessions, and how noisy the machines are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from harness.report.parts import Entry, Table
from harness.report.source import Source
from harness.schema import SCHEMA_VERSION
from harness.store import results_files
from harness.units import ABSENT, percent

NAMES = ("machine", "cpu", "accelerators", "os", "python", "keras", "tensorflow", "jax", "torch")

SHOWN = 100
"""So many of the newest sessions: hundreds of nights would be no table to read."""


def environments(source: Source) -> dict[str, Any]:
    """What the template takes."""
    versions = {path.name: schema_of(path) for path in results_files(source.results)}
    return {
        "table": _environments(source.runs),
        "sessions": _sessions(source.runs, versions),
        "schemas": note_of_schemas(set(versions.values())),
        "floors": _floors(source),
        "drifts": _drifts(source),
    }


def schema_of(path: Path) -> int | None:
    """The version that a results file was written in; None for what is no such file."""
    try:
        with path.open(encoding="utf-8") as file:
            found = json.loads(file.readline())["schema_version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def note_of_schemas(versions: set[int | None]) -> str:
    """What rows of older schemas lack; empty where there are none."""
    known = sorted(version for version in versions if version is not None)
    if not known or known[0] == SCHEMA_VERSION:
        return ""
    *others, last = map(str, known)
    names = f"versions {', '.join(others)} and {last}" if others else f"version {last}"
    return (
        f"The files are of schema {names}; this Epochmark writes version {SCHEMA_VERSION}. Older "
        "rows were upgraded as they were read, and what their version did not record is absent."
    )


def _environments(runs: pd.DataFrame) -> Table:
    grouped = runs[[*NAMES, "started_at"]].groupby(list(NAMES), observed=True, sort=False)
    body = tuple(
        (
            *(Entry(str(value) or ABSENT) for value in key),
            Entry(f"{len(part):,}", raw=float(len(part))),
            Entry(f"{str(part['started_at'].min())[:10]} to {str(part['started_at'].max())[:10]}"),
        )
        for key, part in grouped
    )
    head = (*NAMES, "runs", "days")
    return Table("environments", "Environments", head, body, frozenset({len(NAMES)}))


def _sessions(runs: pd.DataFrame, versions: Mapping[str, int | None]) -> Table:
    newest = runs["session"].drop_duplicates().iloc[-SHOWN:]
    read = ["session", "machine", "suite_commit", "cell", "started_at", "file"]
    kept = runs.loc[runs["session"].isin(newest), read]
    grouped = list(kept.groupby("session", observed=True, sort=False))
    body = tuple(
        (
            Entry(str(name)),
            Entry(str(part["machine"].iloc[0])),
            Entry(str(part["suite_commit"].iloc[0])[:12]),
            Entry(str(len(part)), raw=float(len(part))),
            Entry(str(part["cell"].nunique()), raw=float(part["cell"].nunique())),
            Entry(str(versions.get(str(part["file"].iloc[0])) or ABSENT)),
            Entry(str(part["started_at"].min())),
        )
        for name, part in reversed(grouped)
    )
    head = ("session", "machine", "commit", "runs", "cells", "schema", "started (UTC)")
    return Table("sessions", "Sessions, newest first", head, body, frozenset({3, 4}))


def _floors(source: Source) -> Table:
    body = tuple(
        (
            Entry(machine),
            Entry(cell),
            Entry(f"{100 * floor.in_turns:.1f} %", raw=floor.in_turns),
            Entry(f"{100 * floor.apart:.1f} %", raw=floor.apart),
            Entry(floor.as_of),
        )
        for (machine, cell), floor in source.floors.items()
    )
    head = ("machine", "cell", "in turns", "apart", "calibrated")
    return Table("floors", "Noise floor of the step time", head, body, frozenset({2, 3}))


def _drifts(source: Source) -> Table:
    body = tuple(
        (
            Entry(machine),
            Entry(drift.seen, raw=float(drift.sessions)),
            Entry(percent(drift.shared), raw=drift.shared),
            Entry(percent(drift.spread), raw=drift.spread),
        )
        for machine, drift in source.drifts.items()
    )
    head = ("machine", "known from", "all cells together", "a cell")
    return Table("drifts", "Drift between sessions", head, body, frozenset({1, 2, 3}))
