"""What `epochmark ab` does: two sides, cell by cell, progress lines, closing table, exit status."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import wrap
from typing import Any

from harness import answers, runner, sides
from harness.ab import PROTOCOL, Outcome, differences, duel, measure_pair
from harness.cellbook import book
from harness.cells import Cell
from harness.child import Installation
from harness.errors import UsageError
from harness.noise import read_floors
from harness.plans import planned, runnable
from harness.probes import machine_name
from harness.statistics import ALPHA, POWER
from harness.units import percent, ruled

WIDTH = 100

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """The arguments of the command; `budget_s` is of each cell.

    `threshold` is a share, or None for what a pair of the same code stays below on this machine,
    by the calibrations in `results`.
    """

    baseline: str
    contender: str
    baseline_variables: tuple[str, ...]
    contender_variables: tuple[str, ...]
    plan: str | None
    only: tuple[str, ...]
    threshold: float | None
    budget_s: float
    timeout_s: float
    results: Path = Path("results")
    alpha: float = ALPHA


def share(percent: str) -> float:
    """A threshold as it is given, as a share. Raises UsageError for anything else."""
    try:
        found = float(percent) / 100
    except ValueError:
        found = -1.0
    if not 0 <= found < math.inf:
        raise UsageError(f"{percent!r} is no threshold: give percent, such as 3, or 'noise'.")
    return found


def carry_out(request: Request, say: Say) -> tuple[list[Outcome], bool]:
    """Measure every cell in turns; returns the outcomes and whether one has regressed."""
    variables = [
        _variables(given) for given in (request.baseline_variables, request.contender_variables)
    ]
    if request.baseline == request.contender and variables[0] == variables[1]:
        say("Both sides are the same: this measures the noise of the machine.")
    cells = runnable(planned(request.plan, request.only))
    thresholds = _thresholds(cells, request)
    alpha = request.alpha / len(cells)
    with ExitStack() as stack:
        named = zip((request.baseline, request.contender), variables, strict=True)
        installations = [
            stack.enter_context(sides.installation(name, given)) for name, given in named
        ]
        runner.prepare_data(cells, say)
        with runner.terminated_as_interrupted():
            outcomes = [
                _cell(cell, limit, f"[{place}/{len(cells)}]", installations, request, alpha, say)
                for place, (cell, limit) in enumerate(zip(cells, thresholds, strict=True), 1)
            ]
    return outcomes, any(outcome.regressed(alpha) for outcome in outcomes)


def _thresholds(cells: Sequence[Cell], request: Request) -> list[float]:
    if request.threshold is not None:
        return [request.threshold] * len(cells)
    floors = read_floors(book(request.results, "noise"), machine_name())
    missing = [cell.id for cell in cells if cell.id not in floors or not floors[cell.id].known]
    if missing:
        raise UsageError(
            f"This machine's noise is not known for {', '.join(missing)}. Measure it with "
            "`epochmark doctor --calibrate --only CELL`, or give --threshold in percent."
        )
    return [floors[cell.id].in_turns for cell in cells]


def _variables(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"{text!r} is not a variable: write NAME=VALUE.")
        found[name] = value
    return found


def _cell(
    cell: Cell,
    threshold: float,
    position: str,
    installations: Sequence[Installation],
    request: Request,
    alpha: float,
    say: Say,
) -> Outcome:
    say(f"{position} {cell.id}")
    protocol = replace(PROTOCOL, timeout_s=request.timeout_s)
    return duel(
        cell,
        lambda number: measure_pair(cell, *installations, number=number, protocol=protocol),
        alpha=alpha,
        threshold=threshold,
        budget_s=request.budget_s,
        listener=lambda outcome: say(f"    {_progress(outcome, alpha)}"),
    )


def _progress(outcome: Outcome, alpha: float) -> str:
    if outcome.failure is not None:
        ended = outcome.failure.ended
        return f"the {outcome.failure.side} ended as {ended.status!r}: {ended.reason}"
    log = outcome.pairs[-1].log_ratio
    told = f"pair {len(outcome.pairs)}: {'disturbed' if log is None else _number(math.exp(log))}"
    found = outcome.difference
    if found is None:
        return told
    return f"{told}, together {_number(found.ratio())} ({_interval(found.interval(alpha))})"


# The closing table


def text(outcomes: Sequence[Outcome], request: Request) -> str:
    """A line per cell, then what must be known about them."""
    alpha = request.alpha / len(outcomes)
    level = f"{100 * (1 - alpha):.4g} % interval"
    head = ["cell", "pairs", "ratio", level, "verdict", "finds", "ended by"]
    body = [_line(outcome, alpha) for outcome in outcomes]
    lines = ruled(head, body)
    notes = [part for note in _notes(outcomes, request) for part in wrap(note, WIDTH)]
    return "\n".join(["Step time, contender to baseline", "", *lines, "", *notes])


def _line(outcome: Outcome, alpha: float) -> list[str]:
    ratio = interval = finds = ""
    found = outcome.difference
    if found is not None:
        ratio, interval = _number(found.ratio()), _interval(found.interval(alpha))
        finds = percent(found.detectable(alpha))
    pairs = f"{len(outcome.logs)}"
    return [outcome.cell.id, pairs, ratio, interval, outcome.verdict(alpha), finds, outcome.ended]


def _notes(outcomes: Sequence[Outcome], request: Request) -> list[str]:
    notes = [
        f"Where nothing differs, one such table in {1 / request.alpha:g} gives a false alarm, "
        "however early a cell was decided. 'finds' is the slowdown that so many pairs find in "
        f"{100 * POWER:g} % of attempts."
    ]
    disturbed = sum(len(outcome.pairs) - len(outcome.logs) for outcome in outcomes)
    if disturbed:
        notes.append(f"{disturbed} pairs do not count: other work disturbed most of their turns.")
    for outcome in outcomes:
        if outcome.failure is not None:
            ended = outcome.failure.ended
            notes.append(f"{outcome.cell.id}, {outcome.failure.side}: {ended.reason}")
    told = sorted({line for outcome in outcomes for line in differences(outcome)})
    if told:
        notes.append(f"The sides differ (baseline, contender) in {'; '.join(told)}.")
    return notes


def as_json(outcomes: Sequence[Outcome], request: Request) -> str:
    """The cells with every pair's ratio, and what the sides differ in."""
    return answers.as_json(
        {
            "baseline": request.baseline,
            "contender": request.contender,
            "metric": "step_time_s",
            "alpha": request.alpha,
            "cells": [_record(outcome, request, len(outcomes)) for outcome in outcomes],
        }
    )


def as_csv(outcomes: Sequence[Outcome], request: Request) -> str:
    """A row per cell."""
    rows = [_record(outcome, request, len(outcomes)) for outcome in outcomes]
    kept = [name for name, value in rows[0].items() if not isinstance(value, list)]
    return answers.as_csv(rows, kept)


def _record(outcome: Outcome, request: Request, cells: int) -> dict[str, Any]:
    alpha = request.alpha / cells
    return {
        "cell": outcome.cell.id,
        **answers.figures(outcome.difference, alpha),
        "verdict": outcome.verdict(alpha),
        "threshold": outcome.threshold,
        "regressed": outcome.regressed(alpha),
        "ended": outcome.ended,
        "reason": outcome.failure.ended.reason if outcome.failure else "",
        "seconds": round(outcome.seconds, 3),
        "disturbed_pairs": len(outcome.pairs) - len(outcome.logs),
        "pair_ratios": [math.exp(log) for log in outcome.logs],
        "differences": differences(outcome),
    }


def _interval(ends: tuple[float, float]) -> str:
    return "not yet known" if math.isinf(ends[1]) else " to ".join(map(_number, ends))


def _number(value: float) -> str:
    return f"{value:.3f}"
