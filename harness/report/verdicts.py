"""Verdicts of `harness.compare` that pages show, made beforehand: a browser has no statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise

import pandas as pd

from harness.cells import API_STYLES, BACKENDS, PRECISIONS
from harness.compare import CROSSABLE, KEY_COLUMNS, UNRANKED, Comparison, compare, usable
from harness.compare import Row as Compared
from harness.errors import UsageError
from harness.report.parts import plain
from harness.summary import latest, summary
from harness.trend import FIGURES

SESSIONS = 3
"""Of each machine, so many of the newest sessions with replicates are compared within."""

STEPS = 2
"""So many of the newest pairs of consecutive sessions are compared."""

AXIS_VALUES = {"backend": BACKENDS, "precision": PRECISIONS, "api_style": API_STYLES}

READ = (
    "cell", *CROSSABLE, *KEY_COLUMNS, "session", "replicate", "status", *UNRANKED,
    *FIGURES,
)  # fmt: skip
"""The columns that a comparison reads; with all of them it takes several times as long."""

TURNED = {"faster": "slower", "slower": "faster", "better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Contrast:
    """Two sets of runs held against each other, one comparison per metric.

    `kind` is what differs; `command` makes the same comparison. A metric that the two sides may
    not be compared by has the reason in `refused`.
    """

    kind: str
    machine: str
    session: str
    baseline: str
    contender: str
    command: str
    comparisons: Mapping[str, Comparison]
    refused: Mapping[str, str]

    @property
    def title(self) -> str:
        """Both sides, and where they were measured."""
        where = f", session {self.session}" if self.session else ""
        return f"{self.kind.replace('api_', '')}: {self.contender} against {self.baseline}{where}"


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
    """Every contrast; `sessions` are those with replicates by machine, newest first."""

    contrasts: tuple[Contrast, ...]
    sessions: Mapping[str, tuple[str, ...]]
    summaries: Mapping[tuple[str, str], pd.DataFrame]

    @cached_property
    def index(self) -> Mapping[tuple[str, str, str, str, str], Verdict]:
        """By machine, session, metric, baseline and contender."""
        return {
            (contrast.machine, contrast.session, metric, *ends): verdict
            for contrast in self.contrasts
            if contrast.session
            for metric, comparison in contrast.comparisons.items()
            for row in comparison.rows
            for ends, verdict in [(_ends(row), verdict_of(row, comparison))]
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


def _ends(row: Compared) -> tuple[str, str]:
    """The two cells that a crossed name means."""
    parts = [part.split("|") for part in row.cell.split("/")]
    one, other = ("/".join(part[place % len(part)] for part in parts) for place in (0, 1))
    return one, other


def judge(runs: pd.DataFrame) -> Verdicts:
    """All contrasts that the table of runs allows."""
    sessions = {str(machine): _replicated(runs, machine) for machine in runs["machine"].unique()}
    found: list[Contrast] = []
    summaries = {}
    for machine, names in sessions.items():
        own = runs[runs["machine"] == machine]
        for session in names:
            part = plain(own[own["session"] == session])
            summaries[machine, session] = summary(part)
            found += _within(part, machine, session)
        found += _between_sessions(own, machine)
    found += _between_machines(runs)
    return Verdicts(tuple(found), sessions, summaries)


def _replicated(runs: pd.DataFrame, machine: object) -> tuple[str, ...]:
    """The machine's newest sessions that have a cell several times which no newer one has so."""
    kept = runs[(runs["machine"] == machine) & (runs["status"] == "ok")]
    sizes = kept.groupby(["session", "cell", "batch_size"], observed=True, sort=False).size()
    cells: dict[str, set[tuple[str, int]]] = {}
    for session, cell, batch in sizes[sizes > 1].index:
        cells.setdefault(str(session), set()).add((str(cell), int(batch)))
    chosen: list[str] = []
    known: set[tuple[str, int]] = set()
    for session in reversed([str(name) for name in runs["session"].drop_duplicates()]):
        if cells.get(session, set()) - known and len(chosen) < SESSIONS:
            chosen.append(session)
            known |= cells[session]
    return tuple(chosen)


def _within(part: pd.DataFrame, machine: str, session: str) -> Iterator[Contrast]:
    """Backends, precisions and styles of one session."""
    for axis, order in AXIS_VALUES.items():
        present = set(part[axis].astype(str))
        for one, other in combinations([value for value in order if value in present], 2):
            sides = [part[part[axis] == value] for value in (one, other)]
            command = f"epochmark compare --session {session} '*/{one}/*' '*/{other}/*'"
            yield from _contrast(axis, machine, session, (one, other), sides, command)


def _between_sessions(own: pd.DataFrame, machine: str) -> Iterator[Contrast]:
    """Each session against the one before it."""
    order = [str(name) for name in own["session"].drop_duplicates()]
    for one, other in list(pairwise(order))[-STEPS:]:
        sides = [plain(own[own["session"] == name]) for name in (one, other)]
        command = f"epochmark compare {one} {other}"
        yield from _contrast("session", machine, "", (one, other), sides, command)


def _between_machines(runs: pd.DataFrame) -> Iterator[Contrast]:
    for one, other in combinations(map(str, runs["machine"].unique()), 2):
        sides = [plain(latest(runs[runs["machine"] == name])) for name in (one, other)]
        command = "epochmark compare --across machine BASELINE CONTENDER"
        yield from _contrast("machine", "", "", (one, other), sides, command, across=["machine"])


def _contrast(
    kind: str,
    machine: str,
    session: str,
    names: tuple[str, str],
    sides: Sequence[pd.DataFrame],
    command: str,
    *,
    across: Sequence[str] = (),
) -> Iterator[Contrast]:
    """One contrast over all metrics; nothing where the sides share no cell that counts."""
    narrow = [side[list(READ)] for side in sides]
    comparisons: dict[str, Comparison] = {}
    refused: dict[str, str] = {}
    for metric in FIGURES:
        if any(usable(side, metric).empty for side in narrow):
            continue
        try:
            comparisons[metric] = compare(narrow[0], narrow[1], metric=metric, across=across)
        except UsageError as error:
            refused[metric] = str(error)
    told = {metric: text for metric, text in refused.items() if text.startswith("Not comparable")}
    if comparisons or told:
        yield Contrast(kind, machine, session, *names, command, comparisons, told)
