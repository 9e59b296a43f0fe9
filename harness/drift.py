"""What a machine does between sessions: how far the same code is from itself at another hour.

The processes of one session share its hour, so how they differ says nothing of the next one. What
sessions of the same code showed is kept in results/drift/<machine>.json; the variance between them
(ISO 5725-3 calls it an intermediate measure of precision) belongs in whatever is said of more than
one session: the interval of a row, and the difference of sides from different sessions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.cellbook import CellBook, book
from harness.columns import PACKAGES
from harness.metrics import OF_BLOCKS
from harness.ranking import rankable
from harness.statistics import Variance

LEAST = 3
"""Sessions that a drift is told from: two say nearly nothing of how far a third will be."""

APART = pd.Timedelta(minutes=30)
"""A session that began sooner after the one before is of the same hour, and does not count."""

NEWEST = 20
"""So many sessions of a cell count: what the machine did before says less of what it will do."""

# What two sessions must share to be of the same code, beside the cell.
_KIND = (
    "batch_size", "workload_version", "protocol", "numerics", "variables", "python", "driver",
    *PACKAGES,
)  # fmt: skip


@dataclass(frozen=True)
class Sessions:
    """A cell's figures in sessions of the same code: of each session, oldest first, its processes.

    Raw, in the metric's unit; `began` is when each session's first run of the cell did.
    """

    metric: str
    sessions: tuple[str, ...]
    began: tuple[str, ...]
    figures: tuple[tuple[float, ...], ...]

    def at(self, places: Sequence[int]) -> Sessions:
        """The sessions at these places alone."""
        return replace(
            self,
            sessions=tuple(self.sessions[place] for place in places),
            began=tuple(self.began[place] for place in places),
            figures=tuple(self.figures[place] for place in places),
        )


@dataclass(frozen=True)
class Drift:
    """Mean squares of an analysis of variance: of sessions over all cells, and of single cells.

    Both are of logarithms and of `cells` cells a session on average; `noise` is the part of either
    that is of a session's few processes. Henderson's third method (Biometrics 9, 1953), since not
    every session has every cell.
    """

    sessions: int
    within: pd.Timedelta
    together: Variance
    alone: Variance
    cells: float
    noise: float

    def of(self, shared: float = 1.0, own: float = 1.0) -> Variance:
        """So many times what the cells of a session share, and what each has of its own.

        By default that of one cell in one session. With Satterthwaite's degrees of freedom.
        """
        parts = [
            Variance(self.together.value * shared / self.cells, self.together.freedom),
            Variance(self.alone.value * (own - shared / self.cells), self.alone.freedom),
        ]
        value = sum(part.value for part in parts) - own * self.noise
        if value <= 0:
            return Variance(0.0, math.inf)
        return Variance(value, value**2 / sum(part.value**2 / part.freedom for part in parts))

    @property
    def between(self) -> Variance:
        """Of the difference of two sessions' levels of a cell."""
        return self.of(2.0, 2.0)

    @property
    def seen(self) -> str:
        """From what it is known, in words."""
        hours = self.within / pd.Timedelta(hours=1)
        return f"{self.sessions} sessions within " + (
            f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.0f} days"
        )

    @property
    def shared(self) -> float:
        """The standard deviation of what all cells of a session have in common, as a share."""
        return math.expm1(math.sqrt(self.of(own=0.0).value))

    @property
    def spread(self) -> float:
        """The standard deviation of a cell's level in a session, as a share."""
        return math.expm1(math.sqrt(self.of().value))


Drifts = Mapping[str, Drift]
"""By machine; one that is not there is not known."""


def sessions_of(runs: pd.DataFrame) -> dict[str, Sessions]:
    """The cells that sessions of the same code measured, APART, in two processes or more.

    `runs` are of one machine. Of a cell that changed, what was measured in most sessions counts;
    of equals the newest.
    """
    found: dict[str, list[tuple[int, str, Sessions]]] = {}
    for phase, metric in OF_BLOCKS.items():
        mine = runs[rankable(runs) & (runs["phase"] == phase) & (runs[metric] > 0)]
        for (cell, *_), rows in mine.groupby(["cell", *_KIND], observed=True):
            one = _apart(rows, metric)
            if len(one.sessions) > 1:
                found.setdefault(str(cell), []).append((len(one.sessions), one.sessions[-1], one))
    return {cell: max(kinds, key=lambda kind: kind[:2])[-1] for cell, kinds in found.items()}


def _apart(rows: pd.DataFrame, metric: str) -> Sessions:
    began = pd.to_datetime(rows["started_at"]).groupby(rows["session"], observed=True).min()
    kept: dict[str, tuple[float, ...]] = {}
    last: pd.Timestamp | None = None
    for session, start in began.sort_values().items():
        figures = tuple(map(float, rows.loc[rows["session"] == session, metric]))
        if len(figures) > 1 and (last is None or start - last >= APART):
            kept[str(session)] = figures
            last = start
    starts = tuple(f"{began[session]:%Y-%m-%dT%H:%M:%SZ}" for session in kept)
    found = Sessions(metric, tuple(kept), starts, tuple(kept.values()))
    return found.at(range(len(kept))[-NEWEST:])


def drift_of(cells: Mapping[str, Sessions]) -> Drift | None:
    """None where fewer than LEAST sessions are known, or no cell is in two of them."""
    levels = pd.DataFrame(
        (cell, session, np.mean(np.log(figures)), np.var(np.log(figures), ddof=1) / len(figures))
        for cell, one in cells.items()
        for session, figures in zip(one.sessions, one.figures, strict=True)
    )
    if levels.empty or levels[1].nunique() < LEAST:
        return None
    # What is left of sessions and levels beside the cells is regressed on each other.
    inside = _within(levels[2], levels[0]).to_numpy()
    sessions = _within(pd.get_dummies(levels[1], dtype=float), levels[0]).to_numpy()
    fit, _, rank, _ = np.linalg.lstsq(sessions, inside)
    if rank == 0:
        return None
    rest = float(((inside - sessions @ fit) ** 2).sum())
    whole = len(levels) - levels[0].nunique()
    own = whole - int(rank)
    began = pd.to_datetime([start for one in cells.values() for start in one.began])
    return Drift(
        sessions=levels[1].nunique(),
        within=began.max() - began.min(),
        together=Variance((float((inside**2).sum()) - rest) / rank, float(rank)),
        alone=Variance(rest / own, own) if own else Variance(0.0, math.inf),
        cells=whole / rank,
        noise=float(levels[3].mean()),
    )


def _within(values: Any, cells: pd.Series[str]) -> Any:
    """How far the rows are from the mean of their cell."""
    return values - values.groupby(cells).transform("mean")


def _sessions(fields: Mapping[str, Any]) -> Sessions:
    figures = tuple(tuple(map(float, one)) for one in fields["figures"])
    names = tuple(map(str, fields["sessions"]))
    if len(figures) != len(names) or any(len(one) < 2 for one in figures):
        raise ValueError("not two figures or more of each session")
    if not all(0 < value < math.inf for one in figures for value in one):
        raise ValueError("a figure that is not positive")
    began = tuple(map(str, fields["began"]))
    if len(began) != len(names) or pd.to_datetime(list(began), utc=True).hasnans:
        raise ValueError("not a time of each session")
    return Sessions(str(fields["metric"]), names, began, figures)


_BOOK = CellBook("drift", "sessions", "tell again with `epochmark doctor --drift`", _sessions)
read_sessions = _BOOK.read
write_sessions = _BOOK.write


def known_drifts(results: Path, *tables: pd.DataFrame) -> dict[str, Drift]:
    """Of those of the runs' machines whose drift is known."""
    machines = {str(machine) for runs in tables for machine in runs["machine"].unique()}
    found = {machine: machine_drift(results, machine) for machine in sorted(machines)}
    return {machine: drift for machine, drift in found.items() if drift is not None}


def machine_drift(results: Path, machine: str) -> Drift | None:
    """None where it is not known."""
    return drift_of(read_sessions(book(results, _BOOK.folder), machine))
