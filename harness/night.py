"""The morning after a night: the newest session against the last good one, and what is new.

Writes Markdown: a summary, and a file for each new regression, from which an issue can be made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness import compare_command, trend_command
from harness.compare import compare
from harness.drift import known_drifts
from harness.errors import ResultsError, UsageError
from harness.ranking import UNRANKED
from harness.schema import NOT_TRIED
from harness.store import read_file, results_files
from harness.table import load_table
from harness.trend import Step, history


@dataclass(frozen=True)
class Night:
    """What the newest session showed.

    `good` is the last good session before it, None without one; `verdicts` is what `compare` says
    of both, or why it cannot. `failures` are runs that were tried and are not ok.
    """

    session: str
    machine: str
    started_at: str
    ok: int
    failures: tuple[str, ...]
    good: str | None
    verdicts: str
    regressions: tuple[Step, ...]
    broken: int


def night(results: Path, say: Callable[[str], None]) -> Night:
    """Read the results; raises ResultsError where the newest session tried nothing, or none is."""
    table = load_table(results)
    for notice in table.notices:
        say(notice)
    runs = table.frame
    # Of the files, since a night that was ended before its first run has no row.
    session = read_file(results_files(results)[-1]).session.session
    mine = runs[runs["session"] == session]
    tried = mine[~mine["status"].isin(NOT_TRIED)]
    if tried.empty:
        why = f": {mine.iloc[0]['reason']}" if len(mine) else ""
        raise ResultsError(f"Session {session}, the newest, tried no cell{why}.")
    newest = mine.iloc[0]
    good = last_good(runs, session)
    steps = history(runs, floors=trend_command.known_floors(results, runs)).steps
    return Night(
        session=session,
        machine=str(newest["machine"]),
        started_at=str(newest["started_at"]),
        ok=int((tried["status"] == "ok").sum()),
        failures=tuple(
            f"{run['cell']}: {run['status']}, {run['reason']}"
            for _, run in tried[tried["status"] != "ok"].iterrows()
        ),
        good=good,
        verdicts=_verdicts(results, runs, good, session),
        regressions=tuple(step for step in steps if step.worse and step.new),
        broken=table.broken,
    )


def last_good(runs: pd.DataFrame, session: str) -> str | None:
    """The newest session before that one, of the same machine, that measured all its cells well.

    Every run that was tried there is ok, and every cell has one that nothing else ran beside.
    """
    mine = runs[runs["session"] == session]
    begun = mine["started_at"].min()
    earlier = runs[
        runs["machine"].isin(mine["machine"].unique())
        & (runs["session"] != session)
        & (runs["started_at"] < begun)
        & ~runs["status"].isin(NOT_TRIED)
    ]
    wanted = set(mine.loc[~mine["status"].isin(NOT_TRIED), "cell"].astype(str))
    by_session = {str(name): group for name, group in earlier.groupby("session", observed=True)}
    for name in sorted(by_session, key=lambda name: by_session[name]["started_at"].min())[::-1]:
        there = by_session[name]
        quiet = there.loc[~there[list(UNRANKED)].any(axis=1), "cell"]
        if (there["status"] == "ok").all() and wanted <= set(quiet.astype(str)):
            return name
    return None


def _verdicts(results: Path, runs: pd.DataFrame, good: str | None, session: str) -> str:
    if good is None:
        return "There is no good night before it with the same cells on this machine."
    try:
        sides = [runs[runs["session"] == name] for name in (good, session)]
        return compare_command.text(compare(*sides, drifts=known_drifts(results, runs)))
    except UsageError as error:
        return str(error)


def summary(found: Night) -> str:
    """In Markdown; what comes from results stands in code blocks, where nothing is markup."""
    against = f"Against the last good night, session {found.good}:" if found.good else ""
    parts = [
        f"## Night of {found.started_at[:10]} on {found.machine}",
        f"Session {found.session}: {found.ok} runs are ok, {len(found.failures)} are not. "
        f"New regressions in the history: {len(found.regressions)}.",
        *([_block("\n".join(found.failures))] if found.failures else []),
        *([_block("\n\n".join(map(trend_command.paragraph, found.regressions)))]
          if found.regressions else []),
        *([against] if against else []),
        _block(found.verdicts),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _block(text: str) -> str:
    return "```text\n" + text.replace("```", "'''") + "\n```"


def key(step: Step) -> str:
    """The same for every night on which this figure of this cell gets worse."""
    point = "\n".join([step.machine, step.cell, str(step.batch_size), step.metric])
    return hashlib.sha256(point.encode()).hexdigest()[:12]


def issue(step: Step) -> str:
    """A title in the first line, the text below an empty one."""
    title = f"Regression of {step.metric}: {step.cell} [{key(step)}]"
    advice = (
        "Measure both sides in turns before believing it: "
        "`epochmark ab --baseline COMMIT --only CELL`."
    )
    return f"{title}\n\n{_block(trend_command.paragraph(step))}\n\n{advice}\n"


def put(found: Night, folder: Path) -> list[Path]:
    """The summary, then the issues; files of an earlier night in the folder are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("regression-*.md"):
        old.unlink()
    texts = {"summary.md": summary(found)}
    texts |= {f"regression-{key(step)}.md": issue(step) for step in found.regressions}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]
