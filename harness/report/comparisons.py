"""The data of the page that holds any two cells, sessions or machines against each other."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from harness.columns import protocol_digest
from harness.compare import Comparison, NotComparableError
from harness.compare import Row as Compared
from harness.metrics import METRICS
from harness.report.parts import cell_page, each, marks, slug, span_of, text_of
from harness.report.source import Source
from harness.report.verdicts import Contrast, Verdict, Verdicts, command, ends_of, verdict_of
from harness.schema import Protocol
from harness.show import quality_form
from harness.statistics import ALPHA
from harness.store import read_file, results_files
from harness.trend import FIGURES
from harness.units import ABSENT, differing, formatted, percent

Units = Mapping[str, str]
"""The unit of each cell's quality."""

Protocols = Mapping[str, Protocol]
"""By digest."""


def compare_data(source: Source) -> Iterator[tuple[str, Any]]:
    """The page's data files, each with its key."""
    kept = source.rows[source.rows["status"] == "ok"]
    units = {
        str(row["cell"]): quality_form(str(row["workload"]), str(row["quality_metric"]))[0]
        for row in each(source.rows)
    }
    protocols = _protocols(source)
    yield "cells", cells_data(kept, source.verdicts)
    for group, pairs in pairs_data(kept, source.verdicts, units, protocols).items():
        yield f"pairs-{group}", pairs
    for contrast in source.verdicts.contrasts:
        yield f"contrast-{contrast.id}", contrast_data(contrast, units, protocols)


def _protocols(source: Source) -> Protocols:
    """Those of refused comparisons: the table of runs has digests, which tell nobody anything."""
    wanted = {
        digest
        for contrast in source.verdicts.contrasts
        for error in contrast.refused.values()
        for one in error.differing
        if one.key == "protocol"
        for digest in (*one.baseline, *one.contender)
    }
    runs = source.runs[source.runs["protocol"].isin(wanted)]
    files = set(runs.drop_duplicates("protocol", keep="last")["file"].astype(str))
    read = [path for path in results_files(source.results) if path.name in files]
    return {
        protocol_digest(run.protocol): run.protocol for path in read for run in read_file(path).runs
    }


def contrast_titles(verdicts: Verdicts) -> list[tuple[str, str]]:
    """The id and title of each contrast, as the page offers them."""
    return [(one.id, one.title) for one in verdicts.contrasts]


def contrast_data(contrast: Contrast, units: Units, protocols: Protocols) -> dict[str, Any]:
    """What `epochmark compare` says, per metric; the same refusal is told once."""
    refused: dict[str, list[str]] = {}
    for name, error in contrast.refused.items():
        refused.setdefault(reason(error, protocols), []).append(METRICS[name].title)
    return {
        "title": contrast.title,
        "command": contrast.command(next(iter(contrast.refused), "step_time_s")),
        "metrics": [
            {
                "name": name,
                "title": METRICS[name].title,
                "command": contrast.command(name),
                "across": "protocol" if name in contrast.refused else "",
                **_told(comparison, units),
            }
            for name, comparison in contrast.comparisons.items()
        ],
        "refused": [
            {"titles": ", ".join(titles), "reason": text} for text, titles in refused.items()
        ],
    }


NAMES = {
    "version": "versions of the workload",
    "batch": "batch sizes",
    "machine": "machines",
    "protocol": "protocols",
    "numerics": "numeric settings",
    "energy": "ways of reading energy",
}
"""What a key of `harness.compare` is called by people."""


def reason(error: NotComparableError, protocols: Protocols) -> str:
    """Why two sides are not comparable, in words."""
    parts = []
    for one in error.differing:
        told = one.example
        if one.key == "protocol":
            known = [protocols.get(digest) for digest in (*one.baseline, *one.contender)]
            ends = [asdict(found) for found in known if found is not None]
            told = f"in {one.cell}"
            if len(ends) == len(known) > 1:
                ends = [end | {"timeout_s": ""} for end in ends]
                told = "; ".join(differing(ends[0], ends[-1])).replace("_", " ")
        parts.append(f"different {NAMES[one.key]} ({told})")
    return f"Not comparable: {' and '.join(parts)}."


def _told(comparison: Comparison, units: Units) -> dict[str, Any]:
    mean = ""
    if comparison.mean is not None:
        low, high = comparison.mean.interval(ALPHA)
        mean = (
            f"Geometric mean over the cells: {comparison.mean.ratio():.3f} "
            f"({low:.3f} to {high:.3f})."
        )
    return {
        "rows": [_row(row, comparison, units) for row in comparison.rows],
        "mean": mean,
        "level": f"{100 * (1 - comparison.alpha_per_cell):.4g} % interval",
        "left_out": comparison.left_out,
    }


def _row(row: Compared, comparison: Comparison, units: Units) -> list[str]:
    """Cell, verdict, ratio, interval, baseline, contender, what would have been found."""
    unit = units.get(ends_of(row)[0], "")
    values = [
        formatted(comparison.metric, value, quality_unit=unit)
        for value in (row.baseline, row.contender)
    ]
    verdict = verdict_of(row, comparison)
    if row.difference is None or verdict is None:
        return [row.cell, row.verdict, ABSENT, ABSENT, *values, ABSENT]
    found = row.difference.detectable(comparison.alpha_per_cell)
    return [
        row.cell,
        verdict.word,
        f"{verdict.ratio:.3f}",
        f"{verdict.low:.3f} to {verdict.high:.3f}",
        *values,
        percent(found),
    ]


# Two cells

GROUP = ("machine", "workload", "scale", "phase")
"""Cells that share these may have a verdict: their pairs are in one file."""


def cells_data(kept: pd.DataFrame, verdicts: Verdicts) -> dict[str, Any]:
    """Every cell's figures; with verdicts on its pairs, the group that has them."""
    names = _names(kept)
    judged = {
        (machine, cell)
        for (machine, _), metrics in verdicts.pairs.items()
        for pairs in metrics.values()
        for pair in pairs
        for cell in (pair.baseline, pair.contender)
    }
    return {
        "metrics": [{"name": name, "title": METRICS[name].title} for name in names],
        "first": _first(kept, verdicts),
        "cells": [
            {
                "name": f"{row['cell']} @ {row['machine']}, batch {row['batch_size']}",
                "id": shlex.quote(str(row["cell"])),
                "group": _group(row) if (row["machine"], row["cell"]) in judged else "",
                "href": cell_page(row),
                "n": int(row["n"]),
                "marks": list(marks(row)),
                "texts": [text_of(row, name) for name in names],
                "spans": [span_of(row, name) for name in names],
            }
            for row in each(kept)
        ],
    }


def _first(kept: pd.DataFrame, verdicts: Verdicts) -> list[int]:
    """The places of the two cells that the page begins with: a pair with a verdict."""
    places = {
        (str(row["machine"]), str(row["cell"])): place for place, row in enumerate(each(kept))
    }
    for (machine, _), metrics in verdicts.pairs.items():
        for pairs in metrics.values():
            for pair in pairs:
                ends = [places.get((machine, cell)) for cell in (pair.baseline, pair.contender)]
                known = [end for end in ends if end is not None]
                if len(known) == 2:
                    return known
    return [0, min(1, len(kept) - 1)]


def _names(kept: pd.DataFrame) -> list[str]:
    return [name for name in FIGURES if kept[name].notna().any()]


def _group(row: Mapping[str, Any]) -> str:
    return slug(*(row[name] for name in GROUP))


def pairs_data(
    kept: pd.DataFrame, verdicts: Verdicts, units: Units, protocols: Protocols
) -> dict[str, dict[str, Any]]:
    """By group and by the places of two cells, all that the newest session with both says.

    Each figure has its place, the verdict, the verdict the other way round, and both medians.
    """
    places = {
        (str(row["machine"]), str(row["cell"]), int(row["batch_size"])): (place, _group(row))
        for place, row in enumerate(each(kept))
    }
    names = _names(kept)
    groups: dict[str, dict[str, Any]] = {}
    for (machine, session), metrics in verdicts.pairs.items():
        for metric, pairs in metrics.items():
            for pair in pairs:
                ends = [
                    places.get((machine, cell, pair.batch_size))
                    for cell in (pair.baseline, pair.contender)
                ]
                if None in ends or metric not in names:
                    continue
                (one, group), (other, _) = (end for end in ends if end is not None)
                made = groups.setdefault(group, {"sessions": {}, "pairs": {}})
                made["sessions"].setdefault(session, command_start(session))
                known = made["pairs"].setdefault(f"{one}|{other}", [session])
                if known[0] == session:
                    known.append(
                        [names.index(metric), *_both(pair.found, metric, units, protocols)]
                    )
    return groups


def command_start(session: str) -> str:
    """The command of two cells of a session, but for the metric and their names."""
    return command("--session", session, metric="step_time_s")


def _both(
    found: Comparison | NotComparableError, metric: str, units: Units, protocols: Protocols
) -> list[str]:
    if isinstance(found, NotComparableError):
        return [reason(found, protocols)] * 2
    (row,) = found.rows
    unit = units.get(ends_of(row)[0], "")
    medians = [
        formatted(metric, value, quality_unit=unit) for value in (row.baseline, row.contender)
    ]
    verdict = verdict_of(row, found)
    if verdict is None:
        return [row.verdict, row.verdict, *medians]
    return [_text(verdict), _text(verdict.turned()), *medians]


def _text(verdict: Verdict) -> str:
    return f"{verdict.word}: {verdict.ratio:.3f} ({verdict.low:.3f} to {verdict.high:.3f})"
