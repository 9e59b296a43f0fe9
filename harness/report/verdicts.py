"""Verdicts of `harness.compare` that pages show, made beforehand: a browser has no statistics."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product

import pandas as pd

from harness.cells import API_STYLES, BACKENDS, PRECISIONS
from harness.compare import (
    CROSSABLE,
    KEY_COLUMNS,
    Comparison,
    NotComparableError,
    Pair,
    compare,
    every_pair,
)
from harness.compare import Row as Compared
from harness.drift import Drifts
from harness.errors import UsageError
from harness.ranking import UNRANKED
from harness.report.parts import plain, slug
from harness.summary import latest, summary
from harness.trend import FIGURES

SESSIONS = 5
"""Of each machine, so many sessions with replicates are compared within."""

NEWEST = 5
"""Of each machine, so many of the newest sessions are held against each other."""

MEETINGS = 4
"""Of each two machines, so many pairs of sessions are held against each other."""

AXIS_VALUES = {"backend": BACKENDS, "precision": PRECISIONS, "api_style": API_STYLES}

READ = tuple(
    dict.fromkeys(
        (
            "cell",
            *CROSSABLE,
            *KEY_COLUMNS,
            "session",
            "replicate",
            "status",
            "higher_is_better",
            *UNRANKED,
            *FIGURES,
        )
    )
)
"""The columns that a comparison reads; with all of them it takes several times as long."""

TURNED = {"faster": "slower", "slower": "faster", "better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Contrast:
    """Two sets of runs held against each other, one comparison per metric.

    `kind` is what differs; `arguments` are those of the command that makes the same comparison. A
    metric by which the two sides are not comparable is in `refused`; where only the protocol
    differs, what was found across it is in `comparisons` too.
    """

    kind: str
    machine: str
    session: str
    baseline: str
    contender: str
    arguments: tuple[str, ...]
    comparisons: Mapping[str, Comparison]
    refused: Mapping[str, NotComparableError]

    @property
    def id(self) -> str:
        """What is contrasted: a published link to it must not mean another one later."""
        place = [one for one in (self.machine, self.session) if one]
        return slug(self.kind, *place, self.baseline, self.contender)

    @property
    def title(self) -> str:
        """Both sides, and where they were measured."""
        where = "".join(
            f", {name} {value}"
            for name, value in (("session", self.session), ("on", self.machine))
            if value
        )
        return f"{self.kind.replace('api_', '')}: {self.contender} against {self.baseline}{where}"

    def command(self, metric: str) -> str:
        """What prints the comparison by one metric."""
        across = ("--across", "protocol") if metric in self.refused else ()
        return command(*across, *self.arguments, metric=metric)


def command(*arguments: str, metric: str) -> str:
    """A call of `epochmark compare`, quoted for a shell: names come from results."""
    named = () if metric == "step_time_s" else ("--metric", metric)
    return shlex.join(("epochmark", "compare", *named, *arguments))


@dataclass(frozen=True)
class Verdict:
    """Contender to baseline; `processes` and `medians` are of baseline and contender."""

    ratio: float
    low: float
    high: float
    word: str
    processes: tuple[int, int]
    medians: tuple[float, float]

    def turned(self) -> Verdict:
        """Baseline to contender."""
        ends = (1 / self.high, 1 / self.low if self.low > 0 else float("inf"))
        word = TURNED.get(self.word, self.word)
        return Verdict(1 / self.ratio, *ends, word, self.processes[::-1], self.medians[::-1])


@dataclass(frozen=True)
class Verdicts:
    """Every contrast; `sessions` are those with replicates by machine, newest first.

    `pairs` are any two cells of one workload in such a session, by the metric.
    """

    contrasts: tuple[Contrast, ...]
    sessions: Mapping[str, tuple[str, ...]]
    summaries: Mapping[tuple[str, str], pd.DataFrame]
    pairs: Mapping[tuple[str, str], Mapping[str, Sequence[Pair]]]

    @cached_property
    def index(self) -> Mapping[tuple[str, str, str, str, str], Verdict]:
        """By machine, session, metric, baseline and contender."""
        return {
            (contrast.machine, contrast.session, metric, *ends): verdict
            for contrast in self.contrasts
            if contrast.session
            for metric, comparison in contrast.comparisons.items()
            for row in comparison.rows
            for ends, verdict in [(ends_of(row), verdict_of(row, comparison))]
            if verdict is not None
        }

    def of(
        self, machine: str, session: str, metric: str, baseline: str, contender: str
    ) -> Verdict | None:
        """On two cells of a session; None where none was given."""
        found = self.index.get((machine, session, metric, baseline, contender))
        if found is None:
            other = self.index.get((machine, session, metric, contender, baseline))
            return None if other is None else other.turned()
        return found


def verdict_of(row: Compared, comparison: Comparison) -> Verdict | None:
    """What was found of one cell; None where no verdict could be given."""
    if row.difference is None:
        return None
    low, high = row.difference.interval(comparison.alpha_per_cell)
    medians = (row.baseline, row.contender)
    return Verdict(row.difference.ratio(), low, high, row.verdict, row.processes, medians)


def ends_of(row: Compared) -> tuple[str, str]:
    """The two cells that a crossed name means."""
    parts = [part.split("|") for part in row.cell.split("/")]
    one, other = ("/".join(part[place % len(part)] for part in parts) for place in (0, 1))
    return one, other


def judge(runs: pd.DataFrame, drifts: Drifts) -> Verdicts:
    """All contrasts that the table of runs allows."""
    sessions = {str(machine): _replicated(runs, machine) for machine in runs["machine"].unique()}
    found: list[Contrast] = []
    summaries = {}
    pairs = {}
    for machine, names in sessions.items():
        own = runs[runs["machine"] == machine]
        for session in names:
            part = plain(own[own["session"] == session])
            summaries[machine, session] = summary(part, drifts)
            # Of a replicate that was run again the last try, as globs mean it.
            read = latest(part)[[*READ, "workload", "scale", "phase"]]
            found += _within(read, machine, session)
            pairs[machine, session] = {
                metric: tuple(every_pair(read, metric)) for metric in FIGURES
            }
    newest = {machine: _newest(runs, machine) for machine in sessions}
    for machine, frames in newest.items():
        found += _between_sessions(machine, frames, drifts)
    found += _between_machines(newest, drifts)
    return Verdicts(tuple(found), sessions, summaries, pairs)


def _replicated(runs: pd.DataFrame, machine: object) -> tuple[str, ...]:
    """The machine's sessions that have a cell several times, newest first.

    Those come first into the number that have a cell so which no newer one has.
    """
    kept = runs[(runs["machine"] == machine) & (runs["status"] == "ok")]
    sizes = kept.groupby(["session", "cell", "batch_size"], observed=True, sort=False).size()
    cells: dict[str, set[tuple[str, int]]] = {}
    for session, cell, batch in sizes[sizes > 1].index:
        cells.setdefault(str(session), set()).add((str(cell), int(batch)))
    order = [name for name in _sessions(kept) if name in cells]
    known: set[tuple[str, int]] = set()
    with_more: list[str] = []
    others: list[str] = []
    for session in order:
        (with_more if cells[session] - known else others).append(session)
        known |= cells[session]
    chosen = {*[*with_more, *others][:SESSIONS]}
    return tuple(name for name in order if name in chosen)


def _sessions(runs: pd.DataFrame) -> list[str]:
    """Newest first."""
    return [str(name) for name in reversed(runs["session"].drop_duplicates().tolist())]


def _within(part: pd.DataFrame, machine: str, session: str) -> Iterator[Contrast]:
    """Backends, precisions and styles of one session."""
    for axis, order in AXIS_VALUES.items():
        present = set(part[axis].astype(str))
        for one, other in combinations([value for value in order if value in present], 2):
            sides = [part[part[axis] == value] for value in (one, other)]
            across = (axis,) if axis == "precision" else ()
            allowed = ("--across", axis) if across else ()
            arguments = (*allowed, "--session", session, f"*/{one}/*", f"*/{other}/*")
            yield from _contrast(
                axis, machine, session, (one, other), sides, arguments, across=across, drifts={}
            )


Frames = Mapping[str, pd.DataFrame]
"""Runs by session."""


def _newest(runs: pd.DataFrame, machine: str) -> Frames:
    """The machine's newest sessions, newest first."""
    own = runs[runs["machine"] == machine]
    return {
        name: plain(own.loc[own["session"] == name, list(READ)]) for name in _sessions(own)[:NEWEST]
    }


def _meeting(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two sessions have a cell in common that ended well."""
    cells = [set(side.loc[side["status"] == "ok", "cell"]) for side in (one, other)]
    return bool(cells[0] & cells[1])


def _between_sessions(machine: str, frames: Frames, drifts: Drifts) -> Iterator[Contrast]:
    """Every two of the newest sessions, the newer against the older."""
    for new, old in combinations(frames, 2):
        sides = [frames[old], frames[new]]
        if _meeting(*sides):
            names = (old, new)
            yield from _contrast("session", machine, "", names, sides, names, drifts=drifts)


def _between_machines(newest: Mapping[str, Frames], drifts: Drifts) -> Iterator[Contrast]:
    """The newest sessions of every two machines."""
    for one, other in combinations(newest, 2):
        meetings = [
            pair for pair in product(newest[one], newest[other])
            if _meeting(newest[one][pair[0]], newest[other][pair[1]])
        ]  # fmt: skip
        for pair in meetings[:MEETINGS]:
            sides = [newest[one][pair[0]], newest[other][pair[1]]]
            names = (f"{one} ({pair[0]})", f"{other} ({pair[1]})")
            arguments = ("--across", "machine", *pair)
            yield from _contrast(
                "machine", "", "", names, sides, arguments, across=("machine",), drifts=drifts
            )


def _contrast(
    kind: str,
    machine: str,
    session: str,
    names: tuple[str, str],
    sides: Sequence[pd.DataFrame],
    arguments: tuple[str, ...],
    *,
    across: tuple[str, ...] = (),
    drifts: Drifts,
) -> Iterator[Contrast]:
    """One contrast over all metrics; nothing where the sides share no cell that counts."""
    narrow = (sides[0][list(READ)], sides[1][list(READ)])
    comparisons: dict[str, Comparison] = {}
    refused: dict[str, NotComparableError] = {}
    for metric in FIGURES:
        if any(side[metric].isna().all() for side in narrow):
            continue
        try:
            comparisons[metric] = compare(*narrow, metric=metric, across=across, drifts=drifts)
        except NotComparableError as error:
            refused[metric] = error
            if {one.key for one in error.differing} == {"protocol"}:
                allowed = (*across, "protocol")
                comparisons[metric] = compare(*narrow, metric=metric, across=allowed, drifts=drifts)
        except UsageError:  # no cell of both sides counts
            continue
    if comparisons or refused:
        yield Contrast(kind, machine, session, *names, arguments, comparisons, refused)
