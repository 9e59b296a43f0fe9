"""Which backend is fastest, by how much, whether that is sure, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.compare import usable
from harness.metrics import METRICS
from harness.registry import workloads
from harness.report.parts import Entry, Row, Table, cell_page, each, figure, marks, slug
from harness.report.verdicts import Verdict, Verdicts
from harness.units import digits

PRIMARY = {"train": "step_time_s", "infer": "infer_latency_s"}
"""What backends are ranked by, in each phase; less is better."""

COST = {"train": "cost_per_epoch_usd", "infer": "cost_per_thousand_inferences_usd"}

GROUP = ["workload", "precision", "api_style", "batch_size"]


@dataclass(frozen=True)
class Winner:
    """The backends of one workload, precision and style, best first.

    `sure` says that the first is faster than every other one by more than noise; `session` is the
    one that has them side by side (empty: each backend's own newest runs, which tell nothing sure).
    """

    workload: str
    title: str
    setting: str
    best: str
    sure: bool
    sentence: str
    cost: str
    basis: str
    session: str
    command: str
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
    session, ranked = _side_by_side(group, metric, verdicts)
    if ranked.empty:
        return
    ranked = ranked.sort_values(metric, kind="stable")
    best = each(ranked)[0]
    against = {
        str(row["cell"]): verdicts.of(
            str(best["machine"]), session, metric, str(best["cell"]), str(row["cell"])
        )
        for row in each(ranked.iloc[1:])
    }
    sure = bool(against) and all(
        one is not None and one.word == "slower" for one in against.values()
    )
    workload, precision, style, batch = key
    several = group["batch_size"].nunique() > 1
    yield Winner(
        workload=str(workload),
        title=_title(str(workload)),
        setting=f"{precision}, {style}" + (f", batch {batch}" if several else ""),
        best=str(best["backend"]),
        sure=sure,
        sentence=_sentence(ranked, against, metric),
        cost=_cost_sentence(ranked),
        basis=_basis(ranked, session),
        session=session,
        command=_command(best, session),
        table=_table(ranked, against, metric, slug(*key)),
    )


def _side_by_side(group: pd.DataFrame, metric: str, verdicts: Verdicts) -> tuple[str, pd.DataFrame]:
    """The session that has most of the group's backends several times, the newest of equals.

    Without one, the newest runs of each backend.
    """
    machine = str(group.iloc[0]["machine"])
    found: list[tuple[int, str, pd.DataFrame]] = []
    for session in verdicts.sessions.get(machine, ()):
        rows = verdicts.summaries[machine, session]
        rows = rows[rows["cell"].isin(group["cell"]) & rows["batch_size"].isin(group["batch_size"])]
        rows = usable(rows, metric)
        found.append((int((rows["n"] > 1).sum()), session, rows))
    best = max(found, key=lambda one: one[0], default=None)
    if best is None or best[0] < 2:
        return "", usable(group, metric)
    return best[1], best[2]


def _title(workload: str) -> str:
    declared = workloads().get(workload)
    return declared.title if declared else workload


def _sentence(ranked: pd.DataFrame, against: dict[str, Verdict | None], metric: str) -> str:
    best = each(ranked)[0]
    value = figure(best, metric).text
    what = METRICS[metric].title
    if len(ranked) == 1:
        return f"Only {best['backend']} was measured: {value} a {what}."
    told, untold = [], []
    for row in each(ranked.iloc[1:]):
        verdict = against[str(row["cell"])]
        if verdict is not None and verdict.word == "slower":
            told.append(
                f"{digits(verdict.ratio)} times as fast as {row['backend']} "
                f"({digits(verdict.low)} to {digits(verdict.high)})"
            )
        else:
            untold.append(str(row["backend"]))
    if not told and all(against[cell] is None for cell in against):
        return (
            f"{best['backend']} has the lowest {what} ({value}), from too few processes to be sure."
        )
    parts = [f"{best['backend']}: {value} a {what}"]
    parts += [f"surely {' and '.join(told)}"] if told else []
    parts += [f"not told apart from {' and '.join(untold)}"] if untold else []
    return "; ".join(parts) + "."


def _cost_sentence(ranked: pd.DataFrame) -> str:
    name = COST.get(str(ranked.iloc[0]["phase"]), "")
    if not name or ranked[name].isna().all():
        return ""
    best = each(ranked)[0]
    title = "An epoch" if name == "cost_per_epoch_usd" else "A thousand inferences"
    return f"{title} with {best['backend']} costs {figure(best, name).text} at the reference price."


def _basis(ranked: pd.DataFrame, session: str) -> str:
    counts = sorted({int(n) for n in ranked["n"]})
    each = " to ".join(dict.fromkeys(map(str, (counts[0], counts[-1]))))
    processes = "process" if counts[-1] == 1 else "processes"
    where = f"in turns in session {session}" if session else "each backend's newest session"
    return f"{each} {processes} per backend, {where}"


def _command(best: Row, session: str) -> str:
    if not session:
        return ""
    parts = str(best["cell"]).split("/")
    only = "/".join(part if place != 3 else "*" for place, part in enumerate(parts))
    return f"epochmark show {session} --only '{only}'"


def _table(
    ranked: pd.DataFrame, against: dict[str, Verdict | None], metric: str, name: str
) -> Table:
    cost = COST.get(str(ranked.iloc[0]["phase"]), "")
    cost = cost if cost and ranked[cost].notna().any() else ""
    rows = []
    for place, row in enumerate(each(ranked)):
        verdict = against.get(str(row["cell"]))
        rows.append(
            (
                Entry(str(row["backend"]), href=cell_page(row), notes=marks(row)),
                figure(row, metric),
                *_against(place, verdict),
                *((figure(row, cost),) if cost else ()),
            )
        )
    head = ("backend", METRICS[metric].title, "times the first", "verdict")
    titles = (*head, METRICS[cost].title) if cost else head
    numeric = frozenset({1, 2, 4} if cost else {1, 2})
    return Table(f"backends-{name}", "Backends, fastest first", titles, tuple(rows), numeric)


def _against(place: int, verdict: Verdict | None) -> Sequence[Entry]:
    if place == 0:
        return (Entry("1", raw=1.0), Entry("fastest here"))
    if verdict is None:
        return (Entry("-", raw=float("nan")), Entry("no verdict: too few processes"))
    span = f"{digits(verdict.low)} to {digits(verdict.high)}"
    word = "surely slower" if verdict.word == "slower" else verdict.word
    return (Entry(digits(verdict.ratio), raw=verdict.ratio, notes=(span,)), Entry(word))
