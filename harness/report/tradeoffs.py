"""Accuracy against cost, memory against throughput: what each cell gives up for what."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10

import pandas as pd

from harness.advise import Advice, Floors, Wanted, advise
from harness.drift import Drifts
from harness.errors import UsageError
from harness.metrics import METRICS
from harness.ranking import rankable
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
    remarks,
    slug,
)
from harness.show import quality_form
from harness.units import FORMS

PLANES = (
    ("quality", "Accuracy against cost", "cost_per_epoch_usd", "quality_error"),
    ("memory", "Memory against throughput", "throughput_examples_per_s", "peak_host_memory_bytes"),
    (
        "device",
        "Device memory against throughput",
        "throughput_examples_per_s",
        "peak_device_memory_bytes",
    ),
    ("latency", "Memory against latency", "infer_latency_s", "peak_host_memory_bytes"),
    (
        "inference",
        "Memory against throughput",
        "infer_throughput_examples_per_s",
        "peak_host_memory_bytes",
    ),
)
"""Pictures: down and left is better, so that an axis of which more is better runs leftwards."""

MOST_TICKS = 6

GROUP = ["machine", "workload", "scale", "phase", "device"]


@dataclass(frozen=True)
class Tradeoff:
    """A workload on one machine."""

    id: str
    title: str
    table: Table
    charts: tuple[Chart, ...]
    note: str


def tradeoffs(
    rows: pd.DataFrame, runs: pd.DataFrame, floors: Floors, drifts: Drifts
) -> list[Tradeoff]:
    """For every workload of the summary that has two cells to choose between."""
    kept = rows[rankable(rows)]
    found = []
    for key, group in kept.groupby(GROUP, observed=True, sort=False):
        if len(group) > 1:
            advice, note = _advice(group, runs, floors, drifts)
            found.append(_tradeoff(tuple(map(str, key)), group, advice, note))
    return found


def _advice(
    group: pd.DataFrame, runs: pd.DataFrame, floors: Floors, drifts: Drifts
) -> tuple[Advice | None, str]:
    """What `epochmark advise` says of these cells, and what must be known of it."""
    first = group.iloc[0]
    if first["phase"] != "train":
        return None, "epochmark advise is about training and says nothing of inference."
    mine = runs[runs["machine"] == first["machine"]]
    try:
        wanted = Wanted(str(first["workload"]), str(first["scale"]))
        found = advise(mine, wanted, floors, drifts)
    except UsageError as error:
        return None, str(error)
    epochs = " or ".join(map(str, found.epochs))
    return found, (
        "The advice is that of epochmark advise on the sessions shown, over cost, time, memory and "
        f"quality together. Cost and time are those of a whole training, start-up and compilation "
        f"and {epochs} epoch{'' if epochs == '1' else 's'}, where the cards of the overview hold "
        f"single steps against each other. Noise is known from: {found.noise}."
    )


def _said(advice: Advice | None) -> dict[tuple[str, str, int], Entry]:
    """The word of each cell that it judged."""
    if advice is None:
        return {}
    return {
        (one.candidate.machine, one.candidate.cell, one.candidate.batch_size): Entry(
            one.verdict, notes=(_why(advice),) if one.candidate is advice.chosen else ()
        )
        for one in advice.judged
    }


def _why(advice: Advice) -> str:
    """Why the chosen one is, which may not be the cheapest."""
    cheapest = advice.judged[0].candidate
    if advice.chosen is cheapest:
        return "the cheapest training" + (", not surely" if advice.ties else "")
    return f"Keras's default, whose training is not surely dearer than with {cheapest.name}"


def _tradeoff(
    key: tuple[str, ...], group: pd.DataFrame, advice: Advice | None, note: str
) -> Tradeoff:
    name = slug(*key)
    machine, workload, scale, phase, device = key
    planes = [plane for plane in PLANES if all(group[one].notna().sum() > 1 for one in plane[2:])]
    metrics = list(dict.fromkeys(one for plane in planes for one in plane[2:]))
    fronts = {plane[0]: _front(group, plane[2], plane[3]) for plane in planes}
    table = _table(name, group, metrics, fronts, _said(advice))
    charts = tuple(_chart(name, group, plane, fronts[plane[0]], table) for plane in planes)
    return Tradeoff(name, f"{workload}, {scale}, {phase}, {device}, {machine}", table, charts, note)


def _front(group: pd.DataFrame, x: str, y: str) -> list[int]:
    """Places in the group, along the front."""
    sides = [_signed(group, name) for name in (x, y)]
    points = list(zip(*sides, strict=True))
    known = [place for place, point in enumerate(points) if all(map(isfinite, point))]
    return [known[place] for place in front([points[place] for place in known])]


def _signed(group: pd.DataFrame, metric: str) -> list[float]:
    """The figures so that less is better."""
    return [_sign(metric) * float(value) for value in group[metric]]


def _sign(metric: str) -> float:
    return 1.0 if METRICS[metric].direction == "lower" else -1.0


def _table(
    name: str,
    group: pd.DataFrame,
    metrics: Sequence[str],
    fronts: dict[str, list[int]],
    said: dict[tuple[str, str, int], Entry],
) -> Table:
    titles = {plane[0]: plane[1] for plane in PLANES}
    names = _names(group)
    body = []
    for place, row in enumerate(each(group)):
        on = [titles[plane].lower() for plane, places in fronts.items() if place in places]
        body.append(
            (
                Entry(names[place], href=cell_page(row), notes=remarks(row)),
                *(figure(row, metric) for metric in metrics),
                said.get(point_of(row), Entry("-")),
                Entry("; ".join(on) or "-"),
            )
        )
    head = ("cell", *(METRICS[metric].title for metric in metrics), "advice", "on the front of")
    numeric = frozenset(range(1, 1 + len(metrics)))
    return Table(f"table-{name}", "Cells and what they cost", head, tuple(body), numeric)


def _names(group: pd.DataFrame) -> list[str]:
    """The axes that cells of a group differ in, the batch where that differs too."""
    several = group["batch_size"].nunique() > 1
    return [
        name_of(row, "backend", "precision", "api_style")
        + (f", batch {row['batch_size']}" if several else "")
        for row in each(group)
    ]


def _chart(
    name: str, group: pd.DataFrame, plane: tuple[str, str, str, str], on: list[int], table: Table
) -> Chart:
    kind, title, x, y = plane
    traces = (*_markers(group, x, y), _line(group, x, y, on))
    layout = {"xaxis": _logarithmic(group, x), "yaxis": _axis(group, y), "hovermode": "closest"}
    caption = f"{title} (better is down and left{_symbols(group)})"
    return Chart(f"{kind}-{name}", caption, table.id, traces, layout)


def _symbols(group: pd.DataFrame) -> str:
    """Which symbol stands for which precision, where there are several."""
    names = list(group["precision"].unique())
    told = [f"{SYMBOLS[at % len(SYMBOLS)]}: {name}" for at, name in enumerate(names)]
    return f"; {', '.join(told)}" if len(names) > 1 else ""


def _logarithmic(group: pd.DataFrame, metric: str) -> dict[str, object]:
    """An axis whose every tick has a unit; Plotly's own ticks of a short one read `2 3 4 0.001`."""
    values = [float(value) for value in group[metric] if isfinite(value) and value > 0]
    ends = [log10(min(values)), log10(max(values))]
    room = max(0.05, 0.08 * (ends[1] - ends[0]))
    ends = [ends[0] - room, ends[1] + room]
    places = ticks(10 ** ends[0], 10 ** ends[1])
    better = METRICS[metric].direction == "lower"
    texts, unit = _tick_texts(metric, places)
    return {
        "title": METRICS[metric].title + unit + ("" if better else ", more to the left"),
        "type": "log",
        "range": ends if better else ends[::-1],
        "tickvals": places,
        "ticktext": texts,
    }


def _tick_texts(metric: str, places: Sequence[float]) -> tuple[list[str], str]:
    """Without zeros that say nothing; a unit that all have is for the title."""
    form = FORMS[METRICS[metric].form]
    texts = [
        re.sub(r"(\.\d*?)0+(?= |$)", r"\1", form(value)).replace(". ", " ") for value in places
    ]
    units = {text.partition(" ")[2] for text in texts}
    if len(units) == 1:
        return [text.partition(" ")[0] for text in texts], f" ({units.pop()})"
    return texts, ""


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between, some four to eight on a logarithmic axis."""
    powers = range(floor(log10(low)), floor(log10(high)) + 1)
    for leading in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3)):
        found = [float(f"{one}e{power}") for power in powers for one in leading]
        found = [value for value in found if low <= value <= high]
        if len(found) <= MOST_TICKS:
            return found
    return [value for value in found if f"{value:e}".startswith("1.")]


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
    """A colour for each backend, a symbol for each precision."""
    places = {place: number for number, place in enumerate(group.index)}
    names = _names(group)
    backends, precisions = (list(group[axis].unique()) for axis in ("backend", "precision"))
    keys = ["backend", "precision"]
    shown: set[object] = set()
    for (backend, precision), part in group.groupby(keys, observed=True, sort=False):
        rows = each(part)
        yield {
            "type": "scatter",
            "mode": "markers",
            "name": label(backend),
            "legendgroup": label(backend),
            "showlegend": backend not in shown,
            "x": [None if row[x] != row[x] else float(row[x]) for row in rows],
            "y": [None if row[y] != row[y] else float(row[y]) / _unit(y) for row in rows],
            "text": [label(names[places[index]]) for index in part.index],
            "customdata": [places[index] for index in part.index],
            "marker": {
                "color": COLOURS[backends.index(backend) % len(COLOURS)],
                "symbol": SYMBOLS[precisions.index(precision) % len(SYMBOLS)],
                "size": 10,
            },
        }
        shown.add(backend)


def _line(group: pd.DataFrame, x: str, y: str, on: list[int]) -> dict[str, object]:
    """Rings, which show the front where it is a single point, and the steps between them."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "front",
        "x": [float(value) for value in group[x].iloc[on]],
        "y": [float(value) / _unit(y) for value in group[y].iloc[on]],
        "line": {"shape": "hv", "dash": "dot", "color": "#808080"},
        "marker": {"symbol": "circle-open", "size": 18, "color": "#808080", "line": {"width": 2}},
        "hoverinfo": "skip",
    }
