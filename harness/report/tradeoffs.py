"""Accuracy against cost, memory against throughput: what each cell gives up for what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

import pandas as pd

from harness.advise import Floors, Judged, Wanted, advise
from harness.compare import rankable
from harness.errors import UsageError
from harness.metrics import METRICS
from harness.report.fronts import front
from harness.report.parts import (
    COLOURS,
    SYMBOLS,
    Chart,
    Entry,
    Table,
    axis_title,
    cell_page,
    each,
    figure,
    label,
    name_of,
    point_of,
    slug,
)
from harness.show import quality_form

PLANES = (
    ("quality", "Accuracy against cost", "cost_per_epoch_usd", "quality_error"),
    ("memory", "Memory against step time", "step_time_s", "peak_host_memory_bytes"),
    ("device", "Device memory against step time", "step_time_s", "peak_device_memory_bytes"),
    ("latency", "Memory against latency", "infer_latency_s", "peak_host_memory_bytes"),
)
"""Of both figures of a picture, less is better."""

GROUP = ["machine", "workload", "scale", "phase", "device"]


@dataclass(frozen=True)
class Tradeoff:
    """A workload on one machine."""

    id: str
    title: str
    table: Table
    charts: tuple[Chart, ...]
    note: str


def tradeoffs(rows: pd.DataFrame, runs: pd.DataFrame, floors: Floors) -> list[Tradeoff]:
    """For every workload of the summary that has two cells to choose between."""
    kept = rows[rankable(rows)]
    found = []
    for key, group in kept.groupby(GROUP, observed=True, sort=False):
        if len(group) > 1:
            words, note = _words(group, runs, floors)
            found.append(_tradeoff(tuple(map(str, key)), group, words, note))
    return found


def _words(
    group: pd.DataFrame, runs: pd.DataFrame, floors: Floors
) -> tuple[dict[tuple[str, str, int], Judged], str]:
    """What `epochmark advise` says of each cell; a reason where it says nothing."""
    first = group.iloc[0]
    if first["phase"] != "train":
        return {}, "epochmark advise is about training and says nothing of inference."
    mine = runs[runs["machine"] == first["machine"]]
    try:
        found = advise(mine, Wanted(str(first["workload"]), str(first["scale"])), floors)
    except UsageError as error:
        return {}, str(error)
    judged = {
        (one.candidate.machine, one.candidate.cell, one.candidate.batch_size): one
        for one in found.judged
    }
    return judged, (
        "The advice is that of epochmark advise, over cost, time, memory and quality "
        "together; noise is known from: " + found.noise + "."
    )


def _tradeoff(
    key: tuple[str, ...],
    group: pd.DataFrame,
    words: dict[tuple[str, str, int], Judged],
    note: str,
) -> Tradeoff:
    name = slug(*key)
    machine, workload, scale, phase, device = key
    planes = [plane for plane in PLANES if all(group[one].notna().sum() > 1 for one in plane[2:])]
    metrics = list(dict.fromkeys(one for plane in planes for one in plane[2:]))
    fronts = {plane[0]: _front(group, plane[2], plane[3]) for plane in planes}
    table = _table(name, group, metrics, fronts, words)
    charts = tuple(_chart(name, group, plane, fronts[plane[0]], table) for plane in planes)
    return Tradeoff(name, f"{workload}, {scale}, {phase}, {device}, {machine}", table, charts, note)


def _front(group: pd.DataFrame, x: str, y: str) -> list[int]:
    """Places in the group, along the front."""
    points = list(zip(group[x].tolist(), group[y].tolist(), strict=True))
    known = [place for place, point in enumerate(points) if all(map(isfinite, point))]
    return [known[place] for place in front([points[place] for place in known])]


def _table(
    name: str,
    group: pd.DataFrame,
    metrics: Sequence[str],
    fronts: dict[str, list[int]],
    words: dict[tuple[str, str, int], Judged],
) -> Table:
    titles = {plane[0]: plane[1] for plane in PLANES}
    body = []
    for place, row in enumerate(each(group)):
        on = [titles[plane].lower() for plane, places in fronts.items() if place in places]
        judged = words.get(point_of(row))
        body.append(
            (
                Entry(name_of(row, "backend", "precision", "api_style"), href=cell_page(row)),
                *(figure(row, metric) for metric in metrics),
                Entry(judged.verdict if judged else "-"),
                Entry("; ".join(on) or "-"),
            )
        )
    head = ("cell", *map(axis_title, metrics), "advice", "on the front of")
    numeric = frozenset(range(1, 1 + len(metrics)))
    return Table(f"table-{name}", "Cells and what they cost", head, tuple(body), numeric)


def _chart(
    name: str, group: pd.DataFrame, plane: tuple[str, str, str, str], on: list[int], table: Table
) -> Chart:
    kind, title, x, y = plane
    traces = (*_markers(group, x, y), _line(group, x, y, on))
    layout = {
        "xaxis": {"title": axis_title(x), "type": "log"},
        "yaxis": _axis(group, y),
        "hovermode": "closest",
    }
    return Chart(f"{kind}-{name}", f"{title} (less is better in both)", table.id, traces, layout)


def _unit(metric: str) -> float:
    """Bytes are drawn in GiB: a chart has no other way to say them."""
    return 2.0**30 if METRICS[metric].form == "bytes" else 1.0


def _axis(group: pd.DataFrame, metric: str) -> dict[str, object]:
    if _unit(metric) > 1:
        return {"title": f"{METRICS[metric].title} (GiB)"}
    first = group.iloc[0]
    unit, title = quality_form(str(first["workload"]), str(first["quality_metric"]))
    if METRICS[metric].form != "quality":
        return {"title": axis_title(metric)}
    if unit == "%":
        return {"title": label(f"1 - {title}"), "tickformat": ".1%"}
    return {"title": label(f"{title} ({unit})" if unit else title)}


def _markers(group: pd.DataFrame, x: str, y: str) -> Iterator[dict[str, object]]:
    places = {place: number for number, place in enumerate(group.index)}
    for number, (backend, part) in enumerate(group.groupby("backend", observed=True, sort=False)):
        rows = each(part)
        yield {
            "type": "scatter",
            "mode": "markers",
            "name": label(backend),
            "x": [None if row[x] != row[x] else float(row[x]) for row in rows],
            "y": [None if row[y] != row[y] else float(row[y]) / _unit(y) for row in rows],
            "text": [label(name_of(row, "backend", "precision", "api_style")) for row in rows],
            "customdata": [places[index] for index in part.index],
            "marker": {
                "color": COLOURS[number % len(COLOURS)],
                "symbol": SYMBOLS[number % len(SYMBOLS)],
                "size": 10,
            },
        }


def _line(group: pd.DataFrame, x: str, y: str, on: list[int]) -> dict[str, object]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "front",
        "x": [float(value) for value in group[x].iloc[on]],
        "y": [float(value) / _unit(y) for value in group[y].iloc[on]],
        "line": {"shape": "hv", "dash": "dot", "color": "#808080"},
        "hoverinfo": "skip",
    }
