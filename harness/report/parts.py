"""What pages are made of: tables and their entries, charts, links. All in them is plain text.

Nothing here is trusted markup: templates escape every text, and chart labels are escaped for
Plotly, which reads a little HTML.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite
from typing import Any

import pandas as pd

from harness.metrics import METRICS
from harness.ranking import POINT, UNRANKED
from harness.show import quality_form
from harness.summary import INTERVALS
from harness.units import ABSENT, formatted

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette (2008), which colour-blind readers can tell apart."""

SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x")

MARKS = {
    "contended": "other work ran beside it",
    "throttled": "on a throttled accelerator",
    "simulated": "devices simulated on a processor",
    "slow_path": "an expected fast path was not taken",
    "extrapolated": "epoch extrapolated",
    "altered": "changed after it was written",
}
"""What each mark of a row says."""

SPANS = INTERVALS | {
    name: (f"{name}_low", f"{name}_high")
    for name in (
        "throughput_examples_per_s",
        "compile_time_s",
        "startup_time_s",
        "peak_host_memory_bytes",
        "peak_device_memory_bytes",
        "quality",
        "cost_per_million_examples_usd",
        "fixed_cost_usd",
        "cost_per_thousand_inferences_usd",
        "energy_per_epoch_j",
    )
}
"""The columns of the ends of intervals: the summary's, and those of `harness.report.source`."""

Row = Mapping[str, Any]
"""A row of a summary or of the table of runs, by its columns."""


@dataclass(frozen=True)
class Entry:
    """One place of a table; `raw` is what sorting and CSV take, the text unless given.

    `relative` may be shown in place of the text, and the second of `spans` in place of the first.
    """

    text: str
    raw: float | str | None = None
    href: str = ""
    css: str = ""
    notes: tuple[str, ...] = ()
    relative: str = ""
    spans: tuple[str, str] | tuple[()] = ()

    @property
    def plain(self) -> str:
        """The number behind the text, or the text."""
        if self.raw is None:
            return self.text
        if isinstance(self.raw, float):
            return repr(self.raw) if isfinite(self.raw) else ""
        return self.raw


@dataclass(frozen=True)
class Table:
    """`id` names it in the page and its CSV file; `numeric` are the places of number columns."""

    id: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    numeric: frozenset[int] = frozenset()
    labels: int = 1


@dataclass(frozen=True)
class Chart:
    """Plotly's traces and axes; `table` is the id of the table that holds the same numbers."""

    id: str
    caption: str
    table: str
    traces: tuple[Mapping[str, Any], ...]
    layout: Mapping[str, Any]

    @property
    def spec(self) -> dict[str, Any]:
        """What the page's script draws."""
        return {"traces": list(self.traces), "layout": dict(self.layout)}


def slug(*parts: object) -> str:
    """A name for a file or an anchor: stable, so that links to a published page stay good.

    What could not stand in a file name is replaced; a digest keeps such names apart.
    """
    text = "--".join(map(str, parts))
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", text.replace("/", "-")).strip(".-")[:120]
    known = all(re.fullmatch(r"[A-Za-z0-9_./-]*", str(part)) for part in parts)
    if known and safe == text.replace("/", "-"):
        return safe
    return f"{safe}-{sha256(text.encode()).hexdigest()[:8]}"


def cell_page(row: Row) -> str:
    """The page of a row's cell."""
    return f"cell/{slug(*(row[name] for name in POINT))}.html"


def each(rows: pd.DataFrame) -> list[Row]:
    """The rows, as dictionaries."""
    names = [str(name) for name in rows.columns]
    return [dict(zip(names, row, strict=True)) for row in rows.to_numpy(object).tolist()]


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame without categories, whose reading one by one takes a hundred times as long."""
    texts = [name for name, kind in frame.dtypes.items() if kind == "category"]
    return frame.astype(dict.fromkeys(texts, object))


def label(text: object) -> str:
    """A text for a chart: Plotly takes tags for markup."""
    return html.escape(str(text), quote=False)


def text_of(row: Row, metric: str) -> str:
    """A row's figure as `epochmark show` prints it."""
    unit, _ = quality_form(str(row["workload"]), str(row["quality_metric"]))
    return formatted(metric, float(row[metric]), quality_unit=unit)


def figure(row: Row, metric: str) -> Entry:
    """A row's figure, its interval beneath where there is one."""
    value = float(row[metric])
    span = span_of(row, metric)
    return Entry(text_of(row, metric), raw=value, notes=(span,) if span else ())


def span_of(row: Row, metric: str) -> str:
    """The 95 % interval in words; empty where there is none."""
    if metric not in SPANS:
        return ""
    low, high = (float(row[end]) for end in SPANS[metric])
    if not isfinite(low + high):
        return ""
    if METRICS[metric].form == "quality" and row["quality_metric"] and row[metric] <= 1.0 < high:
        high = 1.0  # no share is more
    return between(*(text_of({**row, metric: end}, metric) for end in (low, high)))


def between(low: str, high: str) -> str:
    """An interval in words, its unit said once."""
    unit = high.partition(" ")[2]
    return f"{low.removesuffix(f' {unit}')} to {high}"


def marks(row: Row) -> tuple[str, ...]:
    """What must be known about a row beside its numbers."""
    return tuple(text for name, text in MARKS.items() if row[name])


def remarks(row: Row) -> tuple[str, ...]:
    """The same, and what became of the cell's other processes (`harness.report.source`)."""
    return (*marks(row), *filter(None, [str(row["beside"])]))


def why_unranked(row: Row) -> str:
    """The status of a row that is not ok, or the mark for which it counts in no comparison."""
    if row["status"] != "ok":
        return str(row["status"])
    return " and ".join(MARKS[name] for name in UNRANKED if row[name])


def name_of(row: Row, *axes: str) -> str:
    """Some of a row's axes, joined."""
    return ", ".join(str(row[axis]) for axis in axes)


def point_of(row: Row) -> tuple[str, str, int]:
    """What identifies a row: machine, cell, batch size."""
    return str(row["machine"]), str(row["cell"]), int(row["batch_size"])


def facts(pairs: Sequence[tuple[str, object]], *, id: str, caption: str) -> Table:
    """A table of names and values."""
    rows = tuple((Entry(name), Entry(str(value) or ABSENT)) for name, value in pairs)
    return Table(id, caption, ("", "value"), rows)


def axis_title(metric: str) -> str:
    """A metric's title with its unit."""
    declared = METRICS[metric]
    unit = "" if declared.unit == "1" else f" ({declared.unit})"
    return f"{declared.title}{unit}"
