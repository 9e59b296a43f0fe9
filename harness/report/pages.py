"""Each page's name, template and what stands in it; pure functions of the source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import join
from typing import Any

import pandas as pd

from harness.metrics import METRICS
from harness.ranking import POINT, rankable
from harness.report.cellpage import cell_page_of
from harness.report.cellsessions import session_tables
from harness.report.comparisons import compare_data, contrast_titles
from harness.report.costs import cost_rows, cost_table, costs_of, epochs_table, kinds_table, offers
from harness.report.environments import environments
from harness.report.forecasts import (
    forecasts_table,
    matrices,
    targets_table,
    unsupported_table,
    where_from,
)
from harness.report.histories import curves, lead, steps_table, with_curve
from harness.report.matrix import LEVELS, matrix
from harness.report.method import method
from harness.report.panels import about, about_panel, note_of_scale, panels
from harness.report.parts import Entry, Row, Table, cell_page, each, point_of, slug, why_unranked
from harness.report.reached import reached_table
from harness.report.source import Source
from harness.report.tradeoffs import tradeoffs
from harness.report.winners import PRIMARY, Winner, one_each, winners
from harness.schema import STATUSES, Run
from harness.summary import footnotes, price_note

FIRST = "index.html"
ASV = "asv/index.html"

NAVIGATION = (
    (FIRST, "Overview"),
    ("tradeoffs.html", "Trade-offs"),
    ("compare.html", "Compare"),
    ("history.html", "History"),
    ("cost.html", "Cost"),
    ("preflight.html", "Preflight"),
    ("environment.html", "Environment"),
    ("method.html", "Method"),
)


@dataclass(frozen=True)
class Page:
    """A file of the site: a template with its context."""

    path: str
    template: str
    title: str
    context: Mapping[str, Any]


@dataclass(frozen=True)
class DataFile:
    """A file that a page loads when it shows what is in it."""

    path: str
    key: str
    content: Any


@dataclass(frozen=True)
class AsvPages:
    """Whether asv's own pages are in the site, and what is to be said of that."""

    note: str
    there: bool = False


def pages(source: Source, asv: AsvPages) -> Iterator[Page | DataFile]:
    """The whole site, but for asv's own pages."""
    yield from _overviews(source)
    yield from _cells(source)
    yield from _tradeoffs(source)
    yield from _compare(source)
    yield from _history(source, asv)
    yield from _cost(source)
    yield _preflight(source)
    yield _environment(source)
    yield _method()


# Overview


def _overviews(source: Source) -> Iterator[Page]:
    """A page for each panel; the site's first page is a copy of the first."""
    every = panels(source)
    for panel in every:
        found = winners(panel.rows, source.verdicts)
        context = {
            "panel": panel,
            "panels": every,
            "of_panel": about_panel(panel, source),
            "of_scale": note_of_scale(panel.rows),
            "first": one_each(found),
            "winners": found,
            "without": _without(panel.rows, found),
            "tables": matrix(panel.rows),
            "primary": PRIMARY.get(panel.rows["phase"].iloc[0], "step_time_s"),
            "metrics": METRICS,
            "levels": range(LEVELS),
            "notes": _notes(panel.rows),
            "price": price_note(panel.rows),
            "about": about(source),
            "statuses": _statuses(panel.rows),
            "source": source,
        }
        if panel is every[0]:
            yield Page(FIRST, "overview.html", "Overview", context)
        yield Page(panel.path, "overview.html", "Overview", context)


def _without(rows: pd.DataFrame, found: Sequence[Winner]) -> list[str]:
    """The workloads of which no backend can be ranked, with what became of each."""
    told = []
    for name, group in rows.groupby("workload", observed=True, sort=False):
        if name not in {winner.workload for winner in found}:
            words = (f"{row['backend']}: {why_unranked(row) or 'no figure'}" for row in each(group))
            told.append(f"{name} ({', '.join(dict.fromkeys(words))})")
    return told


def _notes(rows: pd.DataFrame) -> list[str]:
    """The footnotes of `epochmark show`, but for reasons and marks, which stand in the cells."""
    return [
        note.replace("`", "").lstrip("*!~ ")
        for note in footnotes(rows, shows_cost=False)
        if not note.startswith("[")
    ]


def _statuses(rows: pd.DataFrame) -> Table:
    counts = rows["status"].astype(str).value_counts()
    known = [name for name in STATUSES if name in counts.index]
    body = tuple(
        (
            Entry(name, css="" if name == "ok" else "status"),
            Entry(str(counts[name]), raw=float(counts[name])),
            Entry("; ".join(_reasons(rows, name)) or "-"),
        )
        for name in known
    )
    return Table(
        "statuses", "What became of the cells", ("status", "cells", "why"), body, frozenset({1})
    )


def _reasons(rows: pd.DataFrame, status: str) -> list[str]:
    found = rows.loc[(rows["status"] == status) & (rows["reason"] != ""), "reason"].astype(str)
    return list(dict.fromkeys(found))[:5]


# The other pages


def _cells(source: Source) -> Iterator[Page]:
    told = with_curve(source.history)
    sessions = session_tables(source.runs, source.rows, source.drifts)
    runs = dict(list(source.counted.groupby(list(POINT), observed=True)))
    for key, rows in source.rows.groupby(list(POINT), observed=True, sort=False):
        first = each(rows)[0]
        frame = runs[key]
        records = [
            source.records[place]
            for row in each(frame)
            for place in [(str(row["machine"]), str(row["session"]), str(row["run"]))]
            if place in source.records
        ]
        yield Page(
            cell_page(first),
            "cell.html",
            str(first["cell"]),
            {
                "row": first,
                "rows": each(rows),
                "cell": cell_page_of(rows, frame, records, [sessions[point_of(first)]]),
                "again": join(["epochmark", "run", "--only", str(first["cell"])]),
                "replays": [_replay(row) for row in each(frame)],
                "history": f"history.html#cell={slug(*key)}" if slug(*key) in told else "",
            },
        )


def _replay(row: Row) -> str:
    """The process again, with its seed and protocol, and a verdict."""
    return join(["epochmark", "replay", f"{row['file']}:{row['run']}"])


def _tradeoffs(source: Source) -> Iterator[Page]:
    found = tradeoffs(source.rows, source.counted, source.floors, source.drifts)
    yield Page("tradeoffs.html", "tradeoffs.html", "Trade-offs", {"tradeoffs": found})


def _compare(source: Source) -> Iterator[Page | DataFile]:
    titles = contrast_titles(source.verdicts)
    yield Page("compare.html", "compare.html", "Compare", {"contrasts": titles})
    for key, content in compare_data(source):
        yield DataFile(f"data/{key}.js", key, content)


def _history(source: Source, asv: AsvPages) -> Iterator[Page | DataFile]:
    found = curves(source.history)
    context = {
        "curves": found,
        "steps": steps_table(source.history),
        "lead": lead(source.history),
        "metrics": METRICS,
        "asv": ASV if asv.there else "",
        "asv_note": asv.note,
    }
    yield Page("history.html", "history.html", "History", context)
    for curve in found:
        content = {"title": curve.title, "figures": curve.figures}
        yield DataFile(f"data/history-{curve.id}.js", f"history-{curve.id}", content)


def _cost(source: Source) -> Iterator[Page | DataFile]:
    rows = cost_rows(source.rows)
    found = offers(rows, source.prices)
    context = {
        "table": cost_table(rows),
        "offers": found,
        "kinds": kinds_table(found),
        "epochs": epochs_table(found, rows),
        "reached": reached_table(source.rows[rankable(source.rows)], _ranked_runs(source)),
        "notes": [price_note(rows)] if len(rows) else [],
        "columns": len(costs_of(rows)),
    }
    yield Page("cost.html", "cost.html", "Cost", context)
    for offer in found:
        content = {"title": offer.provenance, "texts": offer.texts, "values": offer.values}
        yield DataFile(f"data/cost-{offer.id}.js", f"cost-{offer.id}", content)


def _ranked_runs(source: Source) -> dict[tuple[str, str, int], list[Run]]:
    """The records of the processes that may be ranked."""
    found: dict[tuple[str, str, int], list[Run]] = {}
    for row in each(source.counted[rankable(source.counted)]):
        record = source.records.get((str(row["machine"]), str(row["session"]), str(row["run"])))
        found.setdefault(point_of(row), []).extend([record] if record else [])
    return found


def _preflight(source: Source) -> Page:
    context = {
        "matrices": matrices(source.forecasts),
        "table": forecasts_table(source.forecasts),
        "unsupported": unsupported_table(source.forecasts),
        "where_from": where_from(source.forecasts),
        "targets": targets_table(),
    }
    return Page("preflight.html", "preflight.html", "Preflight", context)


def _environment(source: Source) -> Page:
    return Page("environment.html", "environment.html", "Environment", environments(source))


def _method() -> Page:
    return Page("method.html", "method.html", "Method", method())
