"""Prints a table of runs for people, for machines, and for a README. Reads no files.

A run that did not end well is shown with its status, never as a zero.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from harness.break_even import AGAINST, BREAK_EVEN, in_words, with_break_even
from harness.cells import AXES
from harness.columns import FLAGS, INTEGERS, NUMBERS
from harness.metrics import METRICS, OF_BLOCKS, PRICED
from harness.registry import workloads
from harness.summary import COUNTS, DRIFT, ENDS, INTERVALS, footnotes, reasons, summary
from harness.units import ABSENT, FORMS, formatted

if TYPE_CHECKING:  # scipy takes a while to import
    from harness.drift import Drifts

USUAL = (
    "step_time_s",
    "throughput_examples_per_s",
    "scaling_efficiency",
    "collectives_fraction",
    "epoch_time_s",
    "compile_time_s",
    "infer_latency_s",
    "infer_throughput_examples_per_s",
    "peak_host_memory_bytes",
    "peak_device_memory_bytes",
    "quality",
    "skipped_steps",
    "cost_per_epoch_usd",
)
"""The metrics of the usual table; those that no row has are left out of any."""

COSTS = (
    "epoch_time_s",
    "cost_per_epoch_usd",
    "cost_per_million_examples_usd",
    "fixed_cost_usd",
    "cost_to_quality_usd",
    "cost_per_thousand_inferences_usd",
    "quality",
)

FIGURES = (
    "step_time_s",
    "throughput_examples_per_s",
    "mfu",
    "compile_time_s",
    "epoch_time_s",
    "epoch_fraction",
    "input_wait_fraction",
    "peak_host_memory_bytes",
    "peak_device_memory_bytes",
)
"""What a workload's README says of its speed."""

VIEWS = {"usual": USUAL, "wide": tuple(METRICS), "costs": COSTS, "figures": FIGURES}

Column = tuple[str, Callable[["pd.Series[Any]"], str]]
"""A title, and what stands in a row."""

_UNFOLDED = 10_000


@dataclass(frozen=True)
class _Printed:
    """A table as text: what all rows share, its cells, and the sentences beneath."""

    title: str
    labels: list[str]
    figures: list[str]
    rows: list[tuple[list[str], list[str]]]
    notes: list[str]


def show(
    frame: pd.DataFrame,
    drifts: Drifts | None = None,
    *,
    output: str,
    view: str = "usual",
    width: int | None = None,
) -> str:
    """The latest run of each cell as `table`, `json` or `csv`; `view` is one of VIEWS.

    `drifts` are those of the machines, where they are known (`harness.drift`). A table folds at
    `width`: by default the terminal's, and none when output is not a terminal.
    """
    rows = _rows(frame, drifts, view)
    if output == "json":
        return json.dumps(_records(rows), indent=1, allow_nan=False, ensure_ascii=False)
    if output == "csv":
        return rows.to_csv(index=False, lineterminator="\n").rstrip("\n")
    if rows.empty:
        return "The results hold no runs."
    if width is None and sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
    return _text(_printed(rows, view), width)


def _rows(frame: pd.DataFrame, drifts: Drifts | None, view: str) -> pd.DataFrame:
    rows = summary(frame, drifts)
    return with_break_even(rows) if view == "costs" else rows


def markdown(frame: pd.DataFrame, drifts: Drifts | None = None, *, view: str = "usual") -> str:
    """The same table for a README."""
    rows = _rows(frame, drifts, view)
    if rows.empty:
        return "The results hold no runs."
    printed = _printed(rows, view)
    lines = [
        _markdown_row([*printed.labels, *printed.figures]),
        _markdown_row(["---"] * len(printed.labels) + ["---:"] * len(printed.figures)),
        *(_markdown_row([*labels, *figures]) for labels, figures in printed.rows),
    ]
    return "\n\n".join([printed.title, "\n".join(lines), *map(_escaped, printed.notes)])


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    special = str.maketrans({mark: f"\\{mark}" for mark in "|*"} | {"\n": " "})
    # What stands in back quotes is code, where a backslash would be printed.
    parts = text.split("`")
    return "`".join(
        part if place % 2 else part.translate(special) for place, part in enumerate(parts)
    )


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Strict JSON knows no NaN: what is absent, an empty text too, is null."""
    marks = {*FLAGS, "extrapolated", "altered", "replayed"}
    plain = {*NUMBERS, *INTEGERS, *ENDS, DRIFT, BREAK_EVEN, *COUNTS, *marks}
    columns: dict[str, list[Any]] = {}
    for name in rows.columns:
        present = rows[name].notna() if name in plain else rows[name] != ""
        columns[name] = [
            value if known else None
            for value, known in zip(rows[name].tolist(), present, strict=True)
        ]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _printed(rows: pd.DataFrame, view: str) -> _Printed:
    shared = [name for name in _label_columns(rows) if _is_shared(rows, name)]
    labels = [name for name in _label_columns(rows) if name not in shared]
    metrics = [name for name in VIEWS[view] if rows[name].notna().any()]
    columns = [column for name in metrics for column in (_own(name), *_beside(name, rows, view))]
    numbers = reasons(rows)
    replicated = bool((rows["n"] + rows["left_out"] > 1).any())
    body = []
    for _, row in rows.iterrows():
        texts = [str(row[name]) for name in labels]
        status = _status(row, numbers, replicated=replicated)
        body.append(([*texts, status], [text(row) for _, text in columns]))
    notes = footnotes(rows, shows_cost=any(name in PRICED for name in metrics))
    if any(title == _BREAK_EVEN_TITLE for title, _ in columns):
        notes.append(_BREAK_EVEN_NOTE)
    return _Printed(
        title=", ".join(f"{_words(name)} {rows[name].iloc[0]}" for name in shared),
        labels=[*map(_words, labels), "status"],
        figures=[title for title, _ in columns],
        rows=body,
        notes=notes,
    )


_BREAK_EVEN_TITLE = "break-even"
_BREAK_EVEN_NOTE = (
    "The fixed cost is paid once, for start-up and compilation. 'break-even' is the number of "
    "epochs from which on a cell costs no more than the cell of its workload with the lowest fixed "
    "cost (that one has a dash)."
)


def _own(name: str) -> Column:
    title = "examples/s" if name.startswith("thr") else METRICS[name].title

    def text(row: pd.Series[Any]) -> str:
        unit, quality = quality_form(str(row["workload"]), str(row["quality_metric"]))
        found = formatted(name, row[name], quality_unit=unit)
        return f"{quality} {found}" if name == "quality" and found != ABSENT else found

    return title, text


def _beside(name: str, rows: pd.DataFrame, view: str) -> list[Column]:
    """The columns that follow a metric's own."""
    found = []
    wanted = ("cost_per_epoch_usd",) if view == "costs" else OF_BLOCKS.values()
    if name in wanted and rows[INTERVALS[name][0]].notna().any():
        found.append(("95 % interval", _span(name, *INTERVALS[name])))
    if name == "step_time_s" and view in ("wide", "figures"):
        found.append(("step p10 to p90", _span(name, "step_time_p10_s", "step_time_p90_s")))
    if name == "fixed_cost_usd" and view == "costs" and (rows[AGAINST] != "").any():
        found.append((_BREAK_EVEN_TITLE, in_words))
    return found


def _span(name: str, lower: str, upper: str) -> Callable[[pd.Series[Any]], str]:
    form = FORMS[METRICS[name].form]

    def text(row: pd.Series[Any]) -> str:
        low, high = row[lower], row[upper]
        return ABSENT if low != low else f"{form(low)} to {form(high)}"

    return text


def _label_columns(rows: pd.DataFrame) -> list[str]:
    several = len(set(zip(rows["machine"], rows["cell"], rows["batch_size"], strict=True)))
    differs = several > rows.groupby(["machine", "cell"], observed=True).ngroups
    return ["machine", *AXES, *(["batch_size"] if differs else [])]


def _is_shared(rows: pd.DataFrame, name: str) -> bool:
    """Is the column better said once? What a table is about stays in it, even for one row."""
    return name not in ("workload", "backend") and rows[name].nunique() == 1


def _words(name: str) -> str:
    return {"api_style": "style", "batch_size": "batch size"}.get(name, name)


def _status(row: pd.Series[Any], numbers: dict[str, int], *, replicated: bool) -> str:
    parts = [str(row["status"])]
    if row["status"] != "ok" and row["reason"] in numbers:
        parts.append(f"[{numbers[row['reason']]}]")
    if replicated:
        whole = f" of {row['n'] + row['left_out']}" if row["left_out"] else ""
        parts.append(f"n={row['n']}{whole}")
    named = (
        ("*", "contended"),
        ("^", "throttled"),
        ("#", "simulated"),
        ("?", "slow_path"),
        ("~", "extrapolated"),
        ("!", "altered"),
        ("=", "untimed"),
    )
    marks = [mark for mark, name in named if row[name]]
    return " ".join(parts + marks)


def quality_form(workload: str, metric: str) -> tuple[str, str]:
    """The declared unit and title of a quality metric.

    The bare name for a workload that is not installed or has another metric by now.
    """
    declared = workloads().get(workload)
    if declared is None or declared.quality_metric != metric:
        return "", metric.replace("_", " ")
    return declared.quality_unit, declared.quality_title or metric.replace("_", " ")


def _text(printed: _Printed, width: int | None) -> str:
    full = _drawn(printed.labels, [labels for labels, _ in printed.rows], printed, _UNFOLDED)
    natural = max(map(len, full))
    if width is not None and natural > width:
        # The cell in one column that may take several lines leaves room for whole numbers.
        cells = [[" ".join(labels)] for labels, _ in printed.rows]
        full = _drawn(["cell and status"], cells, printed, width)
    fill = width or max(natural, 100)
    title = wrap(printed.title[:1].upper() + printed.title[1:], fill)
    notes = [line for note in printed.notes for line in wrap(note, fill, break_on_hyphens=False)]
    return "\n".join([*title, "", *full, "", *notes])


def _drawn(labels: list[str], texts: list[list[str]], printed: _Printed, width: int) -> list[str]:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    body = [[*text, *figures] for text, (_, figures) in zip(texts, printed.rows, strict=True)]
    titles = [*labels, *printed.figures]
    widths = _widths([titles, *body], width)
    gap = int(width == _UNFOLDED)  # beside the blank that the box draws
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False, show_edge=False)
    for place, (title, size) in enumerate(zip(titles, widths, strict=True)):
        justify: Literal["left", "right"] = "left" if place < len(labels) else "right"
        table.add_column(Text(title), overflow="fold", justify=justify, width=size)
    for row in body:
        table.add_row(*map(Text, row))
    out = StringIO()
    width = max(width, sum(widths) + len(widths))
    Console(file=out, width=width, color_system=None, force_terminal=False).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def _widths(lines: list[list[str]], width: int) -> list[int]:
    """Widths that break no word, for half a number is a wrong number; spare room spares lines.

    `lines` starts with the titles, which need not stay on one line. The first column, which has
    the longest texts, gets what the others leave.
    """
    columns = list(zip(*lines, strict=True))
    if width == _UNFOLDED:
        return [max(map(len, column)) for column in columns]
    wanted = [max(map(len, texts)) for _title, *texts in columns]
    widths = [max(len(word) for text in column for word in text.split()) for column in columns]
    spare = width - sum(widths) - len(widths) + 1
    for place in sorted(range(1, len(widths)), key=lambda place: wanted[place] - widths[place]):
        more = wanted[place] - widths[place]
        if 0 < more <= spare:
            widths[place] += more
            spare -= more
    widths[0] += max(0, min(spare, wanted[0] - widths[0]))
    return widths
