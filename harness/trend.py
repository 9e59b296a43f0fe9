"""Steps in the history of a figure: where it changed, by how much, and what else changed there.

The places come from `ruptures` (exact segmentation with a penalty per change point); whether a step
is one at all is decided by Welch's test between the segments beside it, corrected for all places
that it could have been at: the segmentation chose the one that differs most. Apache Otava 0.8 would
bring clients of BigQuery, PostgreSQL and Slack, and a numpy that is pinned (2.2) below what the
backends here were measured with. Knows no files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from harness import statistics
from harness.errors import unknown
from harness.metrics import METRICS, better
from harness.noise import Floor
from harness.ranking import POINT, rankable
from harness.statistics import ALPHA, LEVEL, Difference

FIGURES = (
    "step_time_s",
    "compile_time_s",
    "epoch_time_s",
    "infer_latency_s",
    "infer_throughput_examples_per_s",
    "peak_host_memory_bytes",
    "peak_device_memory_bytes",
    "quality_error",
    "cost_per_epoch_usd",
)
"""The metrics that are watched unless others are named."""

SEGMENT = 4
"""Sessions on either side of a step, at least: with fewer, Welch's test tells little."""

MAGNITUDE = 0.02
"""A step is this share at least, and more than the means of two segments differ by in the machine's
noise, where that is known."""

CAUSES = (
    "suite_commit", "workload_version", "keras", "tensorflow", "jax", "torch", "numpy", "python",
    "os", "cpu", "accelerators", "driver", "variables", "protocol", "numerics", "data_source",
    "price", "price_snapshot",
)  # fmt: skip
"""Columns that can explain a step when they change at it."""

_TEXTS = (
    "workload", "quality_metric", "higher_is_better", "session", "started_at", *CAUSES,
)  # fmt: skip

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """A change of the level, between the session before it and the first one after it.

    `new` says that the newest session of all is the first that shows it: no shorter history does.
    """

    machine: str
    cell: str
    batch_size: int
    metric: str
    before: str
    session: str
    started_at: str
    levels: tuple[float, float]
    difference: Difference
    worse: bool
    changed: tuple[str, ...]
    new: bool


@dataclass(frozen=True)
class Series:
    """A cell's figure, a value per session in the order of time: the median of its processes."""

    point: tuple[Any, ...]
    metric: str
    values: Floats
    every: pd.DataFrame
    places: Any

    @property
    def rows(self) -> pd.DataFrame:
        """The session of each value, with its processes and their 95 % interval.

        A part of those of all series of the metric.
        """
        rows: pd.DataFrame = self.every.iloc[self.places]
        return rows


@dataclass(frozen=True)
class History:
    """Every step, oldest first; the series that were looked at, and how many are too short."""

    steps: tuple[Step, ...]
    series: tuple[Series, ...]
    short: int
    alpha_per_series: float


def history(
    runs: pd.DataFrame,
    *,
    metrics: Sequence[str] = FIGURES,
    segment: int = SEGMENT,
    magnitude: float = MAGNITUDE,
    floors: Mapping[tuple[str, str], Floor] | None = None,
    alpha: float = ALPHA,
) -> History:
    """The steps of every cell's metrics, from the table of runs.

    `floors` are the noise by machine and cell, for step times. Raises UsageError for an unknown
    metric.
    """
    for name in metrics:
        if name not in METRICS:
            raise unknown("metric", name, list(METRICS))
    every = tuple(every_series(runs, metrics))
    long = [series for series in every if len(series.values) >= 2 * segment]
    per_series = alpha / max(1, len(long))
    rule = _Rule(segment, magnitude, floors or {}, per_series)
    newest = _newest(runs) if len(runs) else ""
    steps = [step for series in long for step in _steps(series, rule, newest)]
    steps.sort(key=lambda step: (step.started_at, step.cell, step.metric))
    return History(tuple(steps), every, len(every) - len(long), per_series)


@dataclass(frozen=True)
class _Rule:
    segment: int
    magnitude: float
    floors: Mapping[tuple[str, str], Floor]
    alpha: float

    def least(self, series: Series) -> float:
        """The smallest step of this series that is told, as a logarithm."""
        machine, cell = (str(series.point[POINT.index(name)]) for name in ("machine", "cell"))
        floor = self.floors.get((machine, cell)) if series.metric == "step_time_s" else None
        noise = floor.between(self.segment) if floor and floor.known else 0.0
        return math.log1p(max(self.magnitude, noise))


def every_series(runs: pd.DataFrame, metrics: Sequence[str]) -> Iterator[Series]:
    """A series per metric, machine, cell and batch size.

    A session whose median is not positive is left out: steps are ratios.
    """
    point = list(POINT)
    # Sessions are told apart once for all metrics: that takes most of the time.
    columns = list(dict.fromkeys((*point, *_TEXTS, *metrics)))
    runs = runs.loc[rankable(runs), columns].reset_index(drop=True)
    sessions = runs.groupby([*point, "session"], sort=False, observed=True).ngroup()
    for metric in metrics:
        there = runs[metric].notna()
        medians = runs.loc[there, metric].groupby(sessions[there]).median()
        there &= sessions.isin(medians.index[medians > 0])
        kept = sessions[there]
        figures = runs.loc[there, metric]
        spread = _spread(figures, kept)
        # A session's first run stands for its texts: to ask each of so many columns takes longer.
        first = kept[~kept.duplicated()]
        rows = runs.loc[first.index, [*point, *_TEXTS]]
        rows = rows.assign(value=medians[first].to_numpy())
        rows[list(spread.columns)] = spread.loc[first].to_numpy()
        rows = rows.sort_values("started_at", kind="stable")
        values = rows["value"].to_numpy(np.float64)
        # Places and not frames: splitting so many columns takes longer than all the rest.
        groups: dict[Any, Any] = rows.groupby(point, sort=False, observed=True).indices
        for name, places in groups.items():
            yield Series(tuple(name), metric, values[places], rows, places)


def _spread(figures: pd.Series[float], sessions: pd.Series[int]) -> pd.DataFrame:
    """Of each session, how many processes, and `statistics.interval` of them, for all at once."""
    values = np.log(figures.where(figures > 0).to_numpy(np.float64))
    logs = pd.Series(values, index=figures.index).groupby(sessions)
    count = logs.size()
    several = count.where((count > 1) & (logs.count() == count))
    half = special.stdtrit(several - 1, (1 + LEVEL) / 2) * logs.std(ddof=1) / np.sqrt(several)
    ends = {"low": np.exp(logs.mean() - half), "high": np.exp(logs.mean() + half)}
    return pd.DataFrame({"processes": count, **ends})


def _newest(runs: pd.DataFrame) -> str:
    """The session of the run that began last."""
    return str(runs["session"].iloc[int(np.argmax(runs["started_at"].to_numpy(object)))])


def _steps(series: Series, rule: _Rule, newest: str) -> Iterator[Step]:
    # A cell that is not measured any more has nothing new to tell, nor has a machine.
    current = str(series.rows.iloc[-1]["session"]) == newest
    for ends, difference in _found(series, series.values, rule):
        new = current and not _known(series, ends[1], rule)
        yield _step(series, ends, difference, new=new)


def _known(series: Series, place: int, rule: _Rule) -> bool:
    """Whether a shorter history shows the step already.

    Any of them: a small step comes and goes as values come in, and is told once.
    """
    shorter = range(len(series.values) - 1, max(place - rule.segment, 2 * rule.segment) - 1, -1)
    return any(
        # A place moves by some sessions when another value comes in.
        abs(place - other) <= rule.segment
        for end in shorter
        for (_, other, _), _ in _found(series, series.values[:end], rule)
    )


Ends = tuple[int, int, int]
"""Where the segment before a step begins, the step, and where the segment after it ends."""


def _found(series: Series, values: Floats, rule: _Rule) -> list[tuple[Ends, Difference]]:
    """The places at which the level changes surely, and by enough."""
    places = _places(np.log(values), rule.segment)
    edges = [0, *places, len(values)]
    alpha = rule.alpha / max(1, len(values) - 2 * rule.segment + 1)
    found = []
    for ends in zip(edges, places, edges[2:], strict=False):
        start, place, end = ends
        levels = (values[start:place].tolist(), values[place:end].tolist())
        difference = statistics.difference(*levels)
        low, high = difference.interval(alpha)
        if not low <= 1.0 <= high and abs(difference.log) >= rule.least(series):
            found.append((ends, difference))
    return found


def _places(logs: Floats, segment: int) -> list[int]:
    """Where the level changes: the segmentation of least squares, each change at a price.

    The price is Bayes's information criterion for a level and a place, in units of the variance
    between neighbours, which steps hardly touch.
    """
    import ruptures

    count = len(logs)
    if count < 2 * segment:
        return []
    spread = float(np.median(np.abs(np.diff(logs)))) / (0.6745 * math.sqrt(2))
    if spread == 0:
        spread = float(np.std(np.diff(logs))) / math.sqrt(2)
    if spread == 0:
        return []
    penalty = 3 * math.log(count) * spread**2
    search = ruptures.KernelCPD(kernel="linear", min_size=segment).fit(logs)
    places: list[int] = search.predict(pen=penalty)
    return places[:-1]


def _step(series: Series, ends: Ends, found: Difference, *, new: bool) -> Step:
    start, place, end = ends
    (_, before), (_, after) = series.rows.iloc[[place - 1, place]].iterrows()
    levels = (series.values[start:place], series.values[place:end])
    rises, higher = found.log > 0, bool(before["higher_is_better"])
    return Step(
        machine=str(before["machine"]),
        cell=str(before["cell"]),
        batch_size=int(before["batch_size"]),
        metric=series.metric,
        before=str(before["session"]),
        session=str(after["session"]),
        started_at=str(after["started_at"]),
        levels=(float(np.median(levels[0])), float(np.median(levels[1]))),
        difference=found,
        worse=rises == (better(series.metric, higher_is_better=higher) == "lower"),
        changed=tuple(_changes(before, after)),
        new=new,
    )


def _changes(before: pd.Series[Any], after: pd.Series[Any]) -> Iterator[str]:
    for name in CAUSES:
        one, other = str(before[name]), str(after[name])
        if one != other:
            # Long texts say that they changed, not how.
            shown = f" {one or 'absent'} to {other or 'absent'}" if len(one + other) < 60 else ""
            yield f"{name}{shown}"
