"""What `epochmark trend` does: reads the history, finds its steps, prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import pandas as pd

from harness import answers
from harness.cellbook import book
from harness.noise import Floor, floors_of
from harness.registry import workloads
from harness.selection import matching
from harness.table import load_table
from harness.trend import FIGURES, MAGNITUDE, SEGMENT, History, Step, history
from harness.units import digits, formatted

WIDTH = 100


def trend(
    results: Path,
    *,
    metrics: Sequence[str],
    only: Sequence[str],
    segment: int = SEGMENT,
    magnitude: float = MAGNITUDE,
    say: Callable[[str], None],
) -> tuple[History, int]:
    """The history of the results folder, and how many lines or files of it were broken."""
    table = load_table(results)
    for notice in table.notices:
        say(notice)
    runs = matching(table.frame, only, list(workloads()))
    found = history(
        runs,
        metrics=metrics or FIGURES,
        segment=segment,
        magnitude=magnitude,
        floors=known_floors(results, runs),
    )
    return found, table.broken


def known_floors(results: Path, runs: pd.DataFrame) -> dict[tuple[str, str], Floor]:
    """The noise of the runs' machines, by machine and cell."""
    return floors_of(book(results, "noise"), map(str, runs["machine"].unique()))


def text(found: History) -> str:
    """A paragraph for each step, then what was looked at."""
    parts = [paragraph(step) for step in found.steps]
    long = len(found.series) - found.short
    told = f"{len(found.steps)} steps in {long} histories"
    if found.short:
        told += f"; {found.short} more are too short to tell"
    return "\n\n".join([*parts, f"{told}."])


def paragraph(step: Step) -> str:
    before, after = (formatted(step.metric, level) for level in step.levels)
    change = 100 * (step.difference.ratio() - 1)
    head = f"{'worse' if step.worse else 'better'}{' (new)' if step.new else ''}: {step.cell}"
    body = (
        f"{step.metric} {before} to {after} ({'+' if change > 0 else ''}{digits(change, 2)} %) "
        f"with session {step.session}"
    )
    causes = (
        f"changed there: {'; '.join(step.changed)}"
        if step.changed
        else ("nothing that is recorded changed there")
    )
    lines = [*wrap(body, WIDTH - 4), *wrap(causes, WIDTH - 4, break_on_hyphens=False)]
    return "\n".join([head, *(f"    {line}" for line in lines)])


def as_json(found: History) -> str:
    """Every step, and what was looked at."""
    steps = [_record(step, found.alpha_per_series) for step in found.steps]
    fields = {"steps": steps, "histories": len(found.series), "too_short": found.short}
    return answers.as_json(fields)


def as_csv(found: History) -> str:
    """A row per step."""
    rows = [_record(step, found.alpha_per_series) for step in found.steps]
    return answers.as_csv(rows, _COLUMNS)


_COLUMNS = (
    "machine", "cell", "batch_size", "metric", "session", "started_at", "baseline", "contender",
    "ratio", "low", "high", "verdict", "new", "changed",
)  # fmt: skip


def _record(step: Step, alpha: float) -> dict[str, Any]:
    low, high = step.difference.interval(alpha)
    return {
        "machine": step.machine,
        "cell": step.cell,
        "batch_size": step.batch_size,
        "metric": step.metric,
        "session": step.session,
        "started_at": step.started_at,
        "baseline": step.levels[0],
        "contender": step.levels[1],
        "ratio": step.difference.ratio(),
        "low": low,
        "high": high,
        "verdict": "worse" if step.worse else "better",
        "new": step.new,
        "changed": list(step.changed),
    }
