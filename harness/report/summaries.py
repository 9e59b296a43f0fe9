"""The report in few words: a badge per workload, and Markdown for a pull request."""

from __future__ import annotations

from dataclasses import dataclass

from harness.report.panels import about, panels
from harness.report.parts import each, slug
from harness.report.source import Source
from harness.report.winners import Winner, one_each, winners

CHARACTER = 6.6
"""Pixels of a character at 11 pixels of Verdana, on the wide side."""


@dataclass(frozen=True)
class Badge:
    """Two texts side by side; `colour` is of the right one, under white letters."""

    id: str
    left: str
    right: str
    colour: str

    @property
    def widths(self) -> tuple[int, int]:
        one, other = (round(len(text) * CHARACTER) + 12 for text in (self.left, self.right))
        return one, other


def badges(source: Source) -> list[Badge]:
    """The fastest backend of each workload, in the first panel that has it."""
    return [_badge(winner) for winner in firsts(source).values()]


def firsts(source: Source) -> dict[str, Winner]:
    """For each workload the group that its panel shows first."""
    chosen: dict[str, Winner] = {}
    for panel in panels(source):
        found = one_each(winners(panel.rows, source.verdicts))
        chosen = {**{winner.workload: winner for winner in found}, **chosen}
    return chosen


def _badge(winner: Winner) -> Badge:
    value = winner.table.rows[0][1].text
    word = "" if winner.sure else " (alone)" if winner.ranked == 1 else " (not sure)"
    colour = "#1a6b4f" if winner.sure else "#5c5c5c"
    left = f"{winner.workload} {winner.where}"
    return Badge(slug(winner.workload), left, f"{winner.best} {value}{word}", colour)


def markdown(source: Source) -> str:
    """A table of the winners, and the steps that are new."""
    if source.runs.empty:
        return "## Epochmark\n\nThe results hold no runs.\n"
    lines = ["## Epochmark", "", _plain(about(source)), ""]
    lines += ["| workload | setting | fastest | sure | cost |", "| --- | --- | --- | --- | --- |"]
    for winner in firsts(source).values():
        cells = (
            winner.workload,
            f"{winner.where}, {winner.setting}",
            winner.sentence,
            "yes" if winner.sure else "no",
            winner.cost or "-",
        )
        lines.append(f"| {' | '.join(map(_plain, cells))} |")
    failed = source.rows[source.rows["status"] != "ok"]
    lines += ["", f"Cells that are not ok: {len(failed)}."]
    lines += [
        f"- {_plain(row['cell'])}: {_plain(row['status'])} ({_plain(row['reason'])})"
        for row in each(failed.head(20))
    ]
    new = [step for step in source.history.steps if step.new]
    lines += [f"New steps in the history: {len(new)}."]
    lines += [
        f"- {'worse' if step.worse else 'better'}: {_plain(step.cell)}, {_plain(step.metric)}, "
        f"{step.difference.ratio():.3f} times what it was"
        for step in new
    ]
    if source.notices:
        lines += ["", *(f"- {_plain(notice)}" for notice in source.notices)]
    return "\n".join(lines) + "\n"


def _plain(text: object) -> str:
    """Text that Markdown takes for nothing else: results must not write a comment's links."""
    kept = str(text).replace("\\", "\\\\").replace("\n", " ").replace("\r", " ")
    for mark in "`*_[]<>|#!@":
        kept = kept.replace(mark, f"\\{mark}" if mark not in "<>@" else f"&#{ord(mark)};")
    return kept
