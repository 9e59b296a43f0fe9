"""All that the pages are made from, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path

import pandas as pd

from harness.advise import Floors
from harness.cellbook import book
from harness.drift import Drifts, known_drifts
from harness.errors import ResultsError
from harness.metrics import OF_TIME
from harness.preflight import read_forecasts
from harness.ranking import POINT, undisturbed
from harness.report.chosen import chosen, others
from harness.report.forecasts import Forecasts
from harness.report.parts import SPANS, each, plain, point_of
from harness.report.verdicts import Verdicts, judge
from harness.schema import Run
from harness.statistics import interval
from harness.store import read_file, results_files
from harness.summary import INTERVALS, latest, summary
from harness.table import load_table
from harness.targets import TARGETS
from harness.trend import History, history
from harness.trend_command import known_floors


@dataclass(frozen=True)
class Source:
    """The table of runs, its summary, and what was judged from it.

    `counted` are the runs of the sessions that count (`harness.report.chosen`), `records` what the
    files have of them, by machine, session and run. `prices` is the folder that has the price book.
    """

    runs: pd.DataFrame
    rows: pd.DataFrame
    counted: pd.DataFrame
    records: Mapping[tuple[str, str, str], Run]
    verdicts: Verdicts
    history: History
    floors: Floors
    drifts: Drifts
    results: Path
    prices: Path
    forecasts: Forecasts
    notices: tuple[str, ...]
    broken: int


def read_source(results: Path) -> Source:
    """Without runs that ended after the equality gate, which have no figure to show.

    Raises ResultsError where no results file can be read.
    """
    table = load_table(results)
    runs = table.frame[~table.frame["untimed"]].reset_index(drop=True)
    floors = known_floors(results, runs)
    drifts = known_drifts(results, runs)
    counted = plain(latest(chosen(runs)))
    return Source(
        runs=runs,
        rows=_rows(counted, drifts),
        counted=counted,
        records=_records(results, counted),
        verdicts=judge(runs, drifts),
        history=history(runs, floors=floors),
        floors=floors,
        drifts=drifts,
        results=results,
        prices=book(results, "prices"),
        forecasts=_forecasts(book(results, "preflight")),
        notices=table.notices,
        broken=table.broken,
    )


def _rows(counted: pd.DataFrame, drifts: Drifts) -> pd.DataFrame:
    """The summary, with an interval of every figure of SPANS.

    `beside` tells what became of the processes that a row leaves out.
    """
    runs = undisturbed(counted)
    rows = plain(summary(runs, drifts))
    told = others(counted)
    words = [told.get(point_of(row), "") if row["status"] == "ok" else "" for row in each(rows)]
    # Joined at once: a frame of this many columns, each added by itself, falls into pieces.
    return pd.concat([rows, _spans(rows, runs, drifts).assign(beside=words)], axis=1).copy()


def _spans(rows: pd.DataFrame, runs: pd.DataFrame, drifts: Drifts) -> pd.DataFrame:
    """Where the typical process lies; absent (NaN) where there is one alone."""
    more = {name: ends for name, ends in SPANS.items() if name not in INTERVALS}
    columns = {end: [nan] * len(rows) for ends in more.values() for end in ends}
    places: dict[tuple[object, ...], int] = {
        (*point_of(row), str(row["status"])): place for place, row in enumerate(each(rows))
    }
    kept = runs[list(dict.fromkeys((*POINT, "status", *more)))]
    for key, group in kept.groupby([*POINT, "status"], observed=True, sort=False):
        drift = drifts.get(str(key[0]))
        for name, ends in more.items():
            values = group[name].dropna().tolist()
            between = drift.between if drift and name in OF_TIME else None
            found = interval(values, drift=between)
            for end, value in zip(ends, found or (), strict=False):
                columns[end][places[tuple(key)]] = value
    return pd.DataFrame(columns, index=rows.index)


def _forecasts(results: Path) -> Forecasts:
    return {name: read_forecasts(results, name) for name in TARGETS}


def _records(results: Path, counted: pd.DataFrame) -> dict[tuple[str, str, str], Run]:
    """The samples behind the runs that count; those of other sessions are not read."""
    names = set(counted["file"].astype(str))
    found: dict[tuple[str, str, str], Run] = {}
    for path in results_files(results):
        if path.name not in names:
            continue
        try:
            runs = read_file(path).runs
        except ResultsError:  # told by the table already, which left it out
            continue
        found |= {(run.environment.machine, run.session, run.run): run for run in runs}
    return found
