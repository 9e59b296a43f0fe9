"""Which backend is fastest, by how much, whether that is sure, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from shlex import join
from typing import Any

import pandas as pd

from harness.cells import AXES, Cell
from harness.compare import usable
from harness.metrics import METRICS
from harness.plans import PLANS
from harness.report.declared import reduced, title
from harness.report.parts import (
    Entry,
    Row,
    Table,
    cell_page,
    each,
    figure,
    remarks,
    slug,
    why_unranked,
)
from harness.report.verdicts import Verdict, Verdicts
from harness.units import ABSENT, digits

PRIMARY = {"train": "step_time_s", "infer": "infer_latency_s"}
"""What backends are ranked by, in each phase; less is better."""

ONE = {"step_time_s": "step", "infer_latency_s": "call on one example"}
"""What the time of each is of."""

COST = {"train": "cost_per_epoch_usd", "infer": "cost_per_thousand_inferences_usd"}

GROUP = ["workload", "precision", "api_style", "batch_size"]

SURE = ("--replicates", "5")
"""What `epochmark run` takes so that verdicts can be given."""


@dataclass(frozen=True)
class Winner:
    """The backends of one workload, precision and style, best first; then those not ranked.

    `sure` says that the first is faster than every other one by more than noise; `ranked` counts
    those that it could be. `where` says what the panel is of. `session` has them side by side
    (empty: none has); `remedy` is the command that would measure them so.
    """

    workload: str
    title: str
    reduced: str
    setting: str
    best: str
    where: str
    sure: bool
    ranked: int
    sentence: str
    cost: str
    basis: str
    session: str
    command: str
    remedy: str
    table: Table

    @property
    def id(self) -> str:
        return slug(self.workload, self.setting.replace(", ", "-").replace(" ", "-"))


def winners(rows: pd.DataFrame, verdicts: Verdicts) -> list[Winner]:
    """For each group of a panel's rows: one machine, scale, phase and device."""
    groups = rows.groupby(GROUP, observed=True, sort=False)
    return [winner for key, group in groups for winner in _winner(key, group, verdicts)]


def one_each(found: Sequence[Winner]) -> list[Winner]:
    """One per workload: the first that was measured side by side, else the first."""
    chosen: dict[str, Winner] = {}
    for winner in found:
        known = chosen.get(winner.workload)
        if known is None or (winner.session and not known.session):
            chosen[winner.workload] = winner
    return list(chosen.values())


def _winner(key: tuple[Any, ...], group: pd.DataFrame, verdicts: Verdicts) -> Iterator[Winner]:
    first = group.iloc[0]
    metric = PRIMARY.get(str(first["phase"]), "step_time_s")
    ranked = usable(group, metric)
    if ranked.empty:
        return
    session = _session(ranked)
    ranked = ranked.sort_values(metric, kind="stable")
    unranked = [row for row in each(group) if row["cell"] not in set(ranked["cell"])]
    best = each(ranked)[0]
    against = {
        str(row["cell"]): verdicts.of(
            str(best["machine"]), session, metric, str(best["cell"]), str(row["cell"])
        )
        for row in each(ranked.iloc[1:])
        if best["session"] == row["session"] == session
    }
    sure = len(ranked) > 1 and all(
        (one := against.get(str(row["cell"]))) is not None and one.word == "slower"
        for row in each(ranked.iloc[1:])
    )
    workload, precision, style, batch = key
    several = group["batch_size"].nunique() > 1
    yield Winner(
        workload=str(workload),
        title=title(str(workload)),
        reduced=reduced(str(workload), str(first["scale"])),
        setting=f"{precision}, {style}" + (f", batch {batch}" if several else ""),
        best=str(best["backend"]),
        where=", ".join(str(first[axis]) for axis in ("scale", "phase", "device")),
        sure=sure,
        ranked=len(ranked),
        sentence=_sentence(ranked, unranked, against, metric),
        cost=_cost_sentence(ranked),
        basis=_basis(ranked, session),
        session=session,
        command=_command(best, session),
        remedy="" if session else _remedy(group),
        table=_table(ranked, unranked, against, metric, slug(*key)),
    )


def _session(ranked: pd.DataFrame) -> str:
    """The one that has two backends or more several times; empty if none has."""
    counts = ranked.loc[ranked["n"] > 1, "session"].astype(str).value_counts()
    return str(counts.index[0]) if len(counts) and counts.iloc[0] > 1 else ""


Against = Mapping[str, Verdict | None]
"""Verdicts on the first backend's cell and another, by the other."""


def _sentence(ranked: pd.DataFrame, unranked: Sequence[Row], against: Against, metric: str) -> str:
    others = ", ".join(
        f"{row['backend']} ({why_unranked(row) or 'without this figure'})" for row in unranked
    )
    return _of_ranked(ranked, against, metric, alone=not others) + (
        f" Not ranked: {others}." if others else ""
    )


def _of_ranked(ranked: pd.DataFrame, against: Against, metric: str, *, alone: bool) -> str:
    best = each(ranked)[0]
    value = f"{figure(best, metric).text} for a {ONE[metric]}"
    if len(ranked) == 1:
        return f"Only {best['backend']} {'was measured' if alone else 'can be ranked'}: {value}."
    told, untold = [], []
    for row in each(ranked.iloc[1:]):
        verdict = against.get(str(row["cell"]))
        if verdict is not None and verdict.word == "slower":
            told.append(
                f"{digits(verdict.ratio)} times as fast as {row['backend']} "
                f"({digits(verdict.low)} to {digits(verdict.high)})"
            )
        else:
            untold.append(str(row["backend"]))
    if not any(against.values()):
        return (
            f"{best['backend']} takes the least time ({value}), from too few processes to be sure."
        )
    parts = [f"{best['backend']}: {value}"]
    parts += [f"surely {' and '.join(told)}"] if told else []
    parts += [f"not told apart from {' and '.join(untold)}"] if untold else []
    return "; ".join(parts) + "."


def _cost_sentence(ranked: pd.DataFrame) -> str:
    best = each(ranked)[0]
    name = COST.get(str(best["phase"]), "")
    if not name or best[name] != best[name]:
        return ""
    epoch = name == "cost_per_epoch_usd"
    title, verb = ("An epoch", "costs") if epoch else ("A thousand inferences", "cost")
    price = figure(best, name).text
    mark = " (extrapolated)" if epoch and best["extrapolated"] else ""
    return f"{title} with {best['backend']} {verb} {price}{mark} at the reference price."


def _basis(ranked: pd.DataFrame, session: str) -> str:
    counts = sorted({int(n) for n in ranked["n"]})
    each = " to ".join(dict.fromkeys(map(str, (counts[0], counts[-1]))))
    processes = "process" if counts[-1] == 1 else "processes"
    sessions = {*ranked["session"]}
    own = f"in session {next(iter(sessions))}" if len(sessions) == 1 else "in different sessions"
    where = f"in turns in session {session}" if session else own
    return f"{each} {processes} per backend, {where}"


def _command(best: Row, session: str) -> str:
    return join(["epochmark", "show", session, "--only", _glob(best)]) if session else ""


def _glob(row: Row) -> str:
    """The row's cell under every backend."""
    parts = str(row["cell"]).split("/")
    return "/".join(part if place != 3 else "*" for place, part in enumerate(parts))


def _remedy(group: pd.DataFrame) -> str:
    """What would measure these backends several times, in turns."""
    axes = str(group["cell"].iloc[0]).split("/")
    quick = len(axes) == len(AXES) and PLANS["quick"].includes(Cell(*axes))
    which = ["--plan", "quick"] if quick else ["--only", _glob(each(group)[0])]
    return join(["epochmark", "run", *which, *SURE])


def _table(
    ranked: pd.DataFrame,
    unranked: Sequence[Row],
    against: Against,
    metric: str,
    name: str,
) -> Table:
    cost = COST.get(str(ranked.iloc[0]["phase"]), "")
    cost = cost if cost and ranked[cost].notna().any() else ""
    first = each(ranked)[0]
    rows = []
    for place, row in enumerate((*each(ranked), *unranked)):
        counts = place < len(ranked)
        shown = [figure(row, one) for one in ((metric, cost) if cost else (metric,))]
        words = _against(row, first, against.get(str(row["cell"]))) if counts else _apart(row)
        name_of_it = Entry(str(row["backend"]), href=cell_page(row), notes=remarks(row))
        rows.append((name_of_it, shown[0], *words, *shown[1:]))
    head = ("backend", METRICS[metric].title, "times the first", "verdict")
    titles = (*head, METRICS[cost].title) if cost else head
    numeric = frozenset({1, 2, 4} if cost else {1, 2})
    return Table(f"backends-{name}", "Backends, fastest first", titles, tuple(rows), numeric)


def _apart(row: Row) -> Sequence[Entry]:
    """What stands in place of a verdict for a backend that is not ranked."""
    reason = (str(row["reason"]),) if row["status"] != "ok" and row["reason"] else ()
    words = f"not ranked: {why_unranked(row) or 'without this figure'}"
    css = "status" if row["status"] != "ok" else ""
    return Entry(ABSENT, raw=nan), Entry(words, css=css, notes=reason)


def _against(row: Row, first: Row, verdict: Verdict | None) -> Sequence[Entry]:
    if row["cell"] == first["cell"]:
        return (Entry("1", raw=1.0), Entry("fastest here"))
    if verdict is None:
        few = min(row["n"], first["n"]) < 2
        apart = row["session"] != first["session"]
        why = "too few processes" if few else "not in one session" if apart else "not compared"
        return (Entry(ABSENT, raw=nan), Entry(f"no verdict: {why}"))
    span = f"{digits(verdict.low)} to {digits(verdict.high)}"
    word = "surely slower" if verdict.word == "slower" else verdict.word
    return (Entry(digits(verdict.ratio), raw=verdict.ratio, notes=(span,)), Entry(word))
