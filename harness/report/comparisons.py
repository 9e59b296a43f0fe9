"""The data of the page that holds any two cells, sessions or machines against each other."""

from __future__ import annotations

from typing import Any

import pandas as pd

from harness.compare import Comparison
from harness.compare import Row as Compared
from harness.metrics import METRICS
from harness.report.parts import axis_title, cell_page, each, span_of, text_of
from harness.report.verdicts import Contrast, Verdicts, verdict_of
from harness.statistics import ALPHA
from harness.trend import FIGURES
from harness.units import ABSENT, formatted, percent


def contrast_titles(verdicts: Verdicts) -> list[tuple[str, str]]:
    """The id and title of each contrast, as the page offers them."""
    return [(str(place), one.title) for place, one in enumerate(verdicts.contrasts)]


def contrast_data(contrast: Contrast) -> dict[str, Any]:
    """A data file: what `epochmark compare` says, per metric."""
    return {
        "title": contrast.title,
        "command": contrast.command,
        "baseline": contrast.baseline,
        "contender": contrast.contender,
        "metrics": [
            {"name": name, "title": axis_title(name), **_told(comparison)}
            for name, comparison in contrast.comparisons.items()
        ],
        "refused": [
            {"title": axis_title(name), "reason": reason}
            for name, reason in contrast.refused.items()
        ],
    }


def _told(comparison: Comparison) -> dict[str, Any]:
    mean = ""
    if comparison.mean is not None:
        low, high = comparison.mean.interval(ALPHA)
        mean = (
            f"Geometric mean over the cells: {comparison.mean.ratio():.3f} "
            f"({low:.3f} to {high:.3f})."
        )
    return {
        "rows": [_row(row, comparison) for row in comparison.rows],
        "mean": mean,
        "level": f"{100 * (1 - comparison.alpha_per_cell):.4g} % interval",
        "left_out": comparison.left_out,
    }


def _row(row: Compared, comparison: Comparison) -> list[str]:
    """Cell, baseline, contender, ratio, interval, verdict, what would have been found."""
    values = [formatted(comparison.metric, value) for value in (row.baseline, row.contender)]
    verdict = verdict_of(row, comparison)
    if row.difference is None or verdict is None:
        return [row.cell, *values, ABSENT, ABSENT, row.verdict, ABSENT]
    found = row.difference.detectable(comparison.alpha_per_cell)
    return [
        row.cell,
        *values,
        f"{verdict.ratio:.3f}",
        f"{verdict.low:.3f} to {verdict.high:.3f}",
        verdict.word,
        percent(found),
    ]


def cells_data(rows: pd.DataFrame, verdicts: Verdicts) -> dict[str, Any]:
    """Every cell's figures, and the verdicts on pairs of cells within one session."""
    names = [name for name in FIGURES if rows[name].notna().any()]
    kept = rows[rows["status"] == "ok"]
    return {
        "metrics": [
            {"name": name, "title": axis_title(name), "better": METRICS[name].direction}
            for name in names
        ],
        "cells": [
            {
                "name": f"{row['cell']} @ {row['machine']}, batch {row['batch_size']}",
                "href": cell_page(row),
                "n": int(row["n"]),
                "texts": [text_of(row, name) for name in names],
                "spans": [span_of(row, name) for name in names],
            }
            for row in each(kept)
        ],
        "verdicts": _pairs(kept, names, verdicts),
    }


def _pairs(kept: pd.DataFrame, names: list[str], verdicts: Verdicts) -> dict[str, list[list[Any]]]:
    """By the places of two cells: metric's place, what was found, the session, both medians."""
    points = zip(kept["machine"].astype(str), kept["cell"].astype(str), strict=True)
    places = {point: place for place, point in enumerate(points)}
    found: dict[str, list[list[Any]]] = {}
    for (machine, session, metric, *ends), verdict in verdicts.index.items():
        pair = [places.get((machine, cell)) for cell in ends]
        if None in pair or metric not in names:
            continue
        for key, told in ((pair, verdict), (pair[::-1], verdict.turned())):
            text = f"{told.word}: {told.ratio:.3f} ({told.low:.3f} to {told.high:.3f})"
            medians = [formatted(metric, value) for value in told.medians]
            told_of = [names.index(metric), text, session, *medians]
            found.setdefault(f"{key[0]}|{key[1]}", []).append(told_of)
    return found
