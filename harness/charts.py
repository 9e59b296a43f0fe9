"""Pictures of results: bars in the terminal, and a Pareto front as a file."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from harness.advise import Advice, Judged
from harness.errors import UsageError, unknown
from harness.metrics import METRICS, OF_BLOCKS
from harness.show import quality_form
from harness.store import spelled
from harness.summary import INTERVALS, summary
from harness.units import FORMS, formatted

BAR = 40
"""Characters of the longest bar of a workload."""

FORMATS = ("svg", "png", "pdf")
_GROUP = ["machine", "workload", "scale", "phase", "device"]
# Okabe and Ito's palette (2008), which colour-blind readers can tell apart; and shapes beside it.
_STYLES = {
    "recommended": ("#D55E00", "*"),
    "not told apart": ("#0072B2", "o"),
    "a trade-off": ("#009E73", "s"),
    "beaten": ("#999999", "."),
}
_MISFIT = ("#CCCCCC", "x")


def bars(frame: pd.DataFrame, metric: str | None = None) -> str:
    """A bar per cell, as long as its figure is large beside the others of its workload.

    Of one metric: by default the step time, or what inference has in its place. Raises UsageError
    for a metric that is unknown or that no run has.
    """
    rows = summary(frame)
    rows = rows[rows["status"] == "ok"]
    names = [metric] if metric else list(OF_BLOCKS.values())
    for name in names:
        if name not in METRICS:
            raise unknown("metric", name, list(METRICS))
    drawn = [part for name in names for part in _groups(rows[rows[name].notna()], name)]
    if not drawn:
        raise UsageError(f"No run that is ok has {' or '.join(names)}.")
    return "\n\n".join(drawn)


def _groups(rows: pd.DataFrame, metric: str) -> list[str]:
    return [
        "\n".join([_title(metric, group), *_bars(group, metric)])
        for _, group in rows.groupby(_GROUP, sort=False, observed=True)
    ]


def _title(metric: str, group: pd.DataFrame) -> str:
    declared = METRICS[metric]
    first = group.iloc[0]
    place = "/".join(str(first[name]) for name in ("workload", "scale", "phase", "device"))
    return f"{place} on {first['machine']}: {declared.title}, {declared.direction} is better"


def _bars(group: pd.DataFrame, metric: str) -> list[str]:
    from rich.bar import Bar
    from rich.console import Console

    names = [str(cell).split("/", 3)[3].rpartition("/")[0] for cell in group["cell"]]
    width = max(map(len, names))
    longest = group[metric].abs().max() or 1.0
    lines = []
    for name, (_, row) in zip(names, group.iterrows(), strict=True):
        out = StringIO()
        console = Console(file=out, width=BAR, color_system=None, force_terminal=False)
        console.print(Bar(size=float(longest), begin=0, end=abs(float(row[metric])), width=BAR))
        drawn = out.getvalue().rstrip("\n").ljust(BAR)
        lines.append(f"{name:<{width}}  {drawn}  {_figure(row, metric)}")
    return lines


def _figure(row: pd.Series[Any], metric: str) -> str:
    unit, _ = quality_form(str(row["workload"]), str(row["quality_metric"]))
    said = formatted(metric, row[metric], quality_unit=unit)
    if metric not in INTERVALS:
        return said
    low, high = (row[end] for end in INTERVALS[metric])
    if low != low:
        return said
    form = FORMS[METRICS[metric].form]
    return f"{said} ({form(low)} to {form(high)})"


def pareto(found: Advice, path: Path) -> None:
    """Draw the candidates by cost and quality, the kept ones named, into an SVG, PNG or PDF file.

    Raises UsageError for another kind of file, and where it cannot be written.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise unknown("picture format", path.suffix, [f".{name}" for name in FORMATS])
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text stays text in the file; the same picture has the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "epochmark"}):
        figure = Figure(figsize=(8, 5), layout="constrained")
        _draw(found, figure.add_subplot())
        try:
            figure.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else None)
        except OSError as error:
            raise UsageError(
                f"{spelled(path)!r} cannot be written: {error.strerror}. Name another file."
            ) from error


def _draw(found: Advice, axes: Any) -> None:
    for verdict in dict.fromkeys(one.verdict for one in found.judged):
        group = [one for one in found.judged if one.verdict == verdict]
        colour, marker = _STYLES.get(verdict, _MISFIT)
        points = [_point(one) for one in group]
        axes.scatter(*zip(*points, strict=True), c=colour, marker=marker, s=60, label=verdict)
    for one in found.judged:
        if one.kept:
            axes.annotate(
                one.candidate.name, _point(one), xytext=(6, 4), textcoords="offset points", size=7
            )
    first = found.judged[0].candidate
    unit, title = quality_form(found.wanted.workload, first.quality_metric)
    axes.set_xscale("log")
    axes.set_xlabel(f"cost in US dollars for {first.epochs} epoch{'s' if first.epochs > 1 else ''}")
    axes.set_ylabel(f"{title} in {unit}" if unit else title)
    if not first.higher_is_better:
        axes.invert_yaxis()
    axes.set_title(f"{found.wanted.workload}, scale {found.scale}: better is up and left")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)


def _point(one: Judged) -> tuple[float, float]:
    candidate = one.candidate
    unit, _ = quality_form(candidate.cell.split("/")[0], candidate.quality_metric)
    share = 100.0 if unit == "%" else 1.0
    return candidate.typical["cost_usd"], share * candidate.quality
