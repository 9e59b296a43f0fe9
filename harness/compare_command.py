"""What `epochmark compare` does: finds the two sides in the results, compares, prints."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import Any

from harness import answers
from harness.cells import AXES
from harness.compare import Comparison, Row, compare
from harness.drift import known_drifts
from harness.errors import UsageError
from harness.metrics import METRICS, OF_TIME
from harness.registry import workloads
from harness.selection import matching
from harness.statistics import POWER
from harness.summary import latest
from harness.table import Table, load_table
from harness.units import formatted, percent, ruled

COMMIT = re.compile(r"[0-9a-f]{7,40}")
CHANGED = "+"
"""Behind the commit of a tree that was changed (`harness.runner.suite_commit`)."""

Say = Callable[[str], None]
WIDTH = 100


def compared(
    results: Path,
    baseline: str,
    contender: str,
    *,
    metric: str,
    across: Sequence[str],
    only: Sequence[str],
    session: str | None,
    output: str,
    say: Say,
) -> tuple[str, int]:
    """The comparison as text, and how many lines or files of the results were broken."""
    sides = [side(results, name, session=session) for name in (baseline, contender)]
    for notice in dict.fromkeys(notice for part in sides for notice in part.notices):
        say(notice)
    frames = [matching(found.frame, only, list(workloads())) for found in sides]
    drifts = known_drifts(results, *frames)
    found = compare(*frames, metric=metric, across=across, drifts=drifts)
    broken = max(part.broken for part in sides)
    return {"table": text, "json": as_json, "csv": as_csv}[output](found), broken


def side(results: Path, name: str, *, session: str | None = None) -> Table:
    """The runs that a name means: a glob on cells, a commit, else a session or results file.

    With `session`, globs and commits select from that session or file alone; without, the latest
    session of each of a glob's cells counts, as in `epochmark show`.
    Raises UsageError when the name means nothing.
    """
    among = [session] if session else []
    if not Path(name).suffix and ("*" in name or name.count("/") == len(AXES) - 1):
        whole = load_table(results, among)
        runs = matching(whole.frame, [name], list(workloads()))
        return Table(latest(runs), whole.notices, whole.broken)
    if COMMIT.fullmatch(name):
        whole = load_table(results, among)
        commits = whole.frame["suite_commit"].astype(str)
        changed = commits.str.endswith(CHANGED)
        runs = whole.frame[commits.str.startswith(name) & ~changed]
        if runs.empty:
            others = commits[commits.str.startswith(name)].unique()
            more = f" The results have {others[0]!r}, with changes." if len(others) else ""
            raise UsageError(f"No result was measured at commit {name!r}.{more}")
        return Table(runs, whole.notices, whole.broken)
    return load_table(results, [name])


# Printing


def text(found: Comparison) -> str:
    """A table of cells, then what it says as a whole and what must be known about it."""
    level = f"{100 * (1 - found.alpha_per_cell):.4g} % interval"
    head = ["cell", "baseline", "contender", "ratio", level, "verdict", "finds"]
    body = [_line(found, row) for row in found.rows]
    lines = ruled(head, body)
    notes = [part for note in _notes(found) for part in wrap(note, WIDTH, break_on_hyphens=False)]
    title = f"{METRICS[found.metric].title.capitalize()}, contender to baseline"
    return "\n".join([title, "", *lines, "", *notes])


def _line(found: Comparison, row: Row) -> list[str]:
    values = [formatted(found.metric, value) for value in (row.baseline, row.contender)]
    ratio = interval = finds = ""
    if row.difference is not None:
        alpha = found.alpha_per_cell
        ratio = _ratio(row.difference.ratio())
        interval = " to ".join(map(_ratio, row.difference.interval(alpha)))
        finds = percent(row.difference.detectable(alpha))
    return [row.cell, *values, ratio, interval, row.verdict, finds]


def _notes(found: Comparison) -> list[str]:
    notes = []
    if found.mean is not None:
        low, high = map(_ratio, found.mean.interval(found.alpha))
        judged = sum(row.difference is not None for row in found.rows)
        level = f"{100 * (1 - found.alpha):g} % interval"
        notes.append(
            f"Geometric mean over {_cells(judged)}: {_ratio(found.mean.ratio())} "
            f"({level} {low} to {high})."
        )
        notes.append(
            "Intervals are corrected for the number of cells: where nothing differs, one "
            f"comparison in {1 / found.alpha:g} gives a false alarm. 'finds' is the slowdown that "
            f"would be found in {100 * POWER:g} % of attempts whose processes differ as these do; "
            "those of another hour may differ more."
        )
    if found.kernels:
        notes.append(f"Other kernels were taken: {'; '.join(found.kernels)}.")
    if found.apart:
        notes.append(f"The sides were measured at different times: {_apart(found)}.")
    if any("one process" in row.verdict for row in found.rows):
        notes.append(
            "One process tells nothing about the next one: measure with --replicates 5 or more."
        )
    if found.left_out:
        notes.append(
            f"Left out, on both sides by one rule: {found.left_out} of the runs, not ok, beside "
            "other work on the machine, on a throttled accelerator, on simulated devices, changed "
            f"by hand, or without {found.metric}."
        )
    if found.uncompared:
        told = (
            f"{c.cell} (baseline: {c.baseline}; contender: {c.contender})" for c in found.uncompared
        )
        notes.append(f"Not compared, {_cells(len(found.uncompared))}: {', '.join(told)}.")
    for name, cells in (("baseline", found.only_baseline), ("contender", found.only_contender)):
        if cells:
            notes.append(f"Only the {name} has {_cells(len(cells))}: {', '.join(cells)}.")
    return notes


def _apart(found: Comparison) -> str:
    alike = "One session of both, or `epochmark ab`, has it on both sides alike"
    if found.metric in OF_TIME and not found.unknown:
        return (
            "the intervals have how far sessions of the same code are apart on the machine. "
            f"{alike}"
        )
    lacking = f"what the machine did in between is in no interval. {alike}"
    if found.metric not in OF_TIME:
        return lacking
    return f"{lacking}; `epochmark doctor --drift` tells it from several sessions of the same code"


def _cells(count: int) -> str:
    return f"{count} cell{'s' if count != 1 else ''}"


def _ratio(value: float) -> str:
    return f"{value:.3f}"


def rows(found: Comparison) -> list[dict[str, Any]]:
    """A dictionary per cell; what is not known is None."""
    return [_record(found, row) for row in found.rows]


def _record(found: Comparison, row: Row) -> dict[str, Any]:
    return {
        "cell": row.cell,
        "metric": found.metric,
        "baseline": row.baseline,
        "contender": row.contender,
        "baseline_processes": row.processes[0],
        "contender_processes": row.processes[1],
        **answers.figures(row.difference, found.alpha_per_cell),
        "verdict": row.verdict,
    }


def as_json(found: Comparison) -> str:
    """The cells, the geometric mean, and the cells of one side alone."""
    mean = answers.figures(found.mean, found.alpha)
    return answers.as_json(
        {
            "metric": found.metric,
            "alpha": found.alpha,
            "alpha_per_cell": found.alpha_per_cell,
            "cells": rows(found),
            "geometric_mean": {name: mean[name] for name in ("ratio", "low", "high")},
            "only_baseline": found.only_baseline,
            "only_contender": found.only_contender,
            "uncompared": [asdict(cell) for cell in found.uncompared],
            "left_out": found.left_out,
            "apart": found.apart,
            "unknown_drift": found.unknown,
            "kernels": found.kernels,
        }
    )


def as_csv(found: Comparison) -> str:
    """A row per cell."""
    found_rows = rows(found)
    return answers.as_csv(found_rows, list(found_rows[0]))
