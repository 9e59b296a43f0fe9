"""Writes the generated blocks of all READMEs: tables and advice from committed sessions, metrics.

A block stands between `<!-- begin NAME ARGUMENT -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from harness import coverage, profiles, workload_figures
from harness.metrics import METRICS

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- begin (\w+) ?(\S*) -->\n).*?(<!-- end -->)", re.DOTALL)


def metrics_table() -> str:
    """The metrics with unit, direction and definition."""
    rows = [
        f"| `{metric.name}` | {metric.unit} | {metric.direction} | {metric.definition} |"
        for metric in METRICS.values()
    ]
    return "\n".join(["| metric | unit | better | definition |", "|---|---|---|---|", *rows])


def results_table(session: str, results: Path, view: str = "usual") -> str:
    """The table of one session's file."""
    from harness.drift import known_drifts
    from harness.show import markdown
    from harness.table import load_table

    frame = load_table(results, [session]).frame
    return markdown(frame, known_drifts(results, frame), view=view).strip()


def advice(argument: str, results: Path) -> str:
    """What `epochmark advise` says for WORKLOAD:SESSION."""
    from harness.advise import Wanted
    from harness.advise_command import advice, text
    from harness.table import load_table

    workload, _, session = argument.partition(":")
    frame = load_table(results, [session]).frame
    said = text(advice(frame, Wanted(workload), results))
    return f"```\n$ epochmark advise {workload} {session}\n{said}\n```"


def forecasts(scale: str, results: Path) -> str:
    """What a training step will need on accelerators, from results/preflight."""
    from harness.preflight_command import markdown

    return markdown(results, scale)


def loop_options(results: Path) -> str:
    """What the options of a training loop do to the cost of a quality, from results/options."""
    from harness.effects_command import markdown, stored

    return markdown(stored(results))


def calibration(results: Path) -> str:
    """What each machine can tell apart, from results/calibration."""
    from harness.calibration import markdown

    return markdown(results)


MAKERS: dict[str, Callable[[str, Path], str]] = {
    "metrics": lambda argument, results: metrics_table(),
    "results": results_table,
    "costs": lambda session, results: results_table(session, results, "costs"),
    "advice": advice,
    "forecasts": forecasts,
    "calibration": lambda argument, results: calibration(results),
    "effects": lambda argument, results: loop_options(results),
    "standard": workload_figures.standard,
    "seeds": workload_figures.seeds,
    "profile": profiles.table,
    "coverage": lambda scale, results: coverage.markdown(results, scale),
}


def rewritten(text: str, results: Path) -> str:
    """The text with every block made anew."""

    def block(found: re.Match[str]) -> str:
        begin, name, argument, end = found.groups()
        return f"{begin}{MAKERS[name](argument, results)}\n{end}"

    return BLOCK.sub(block, text)


def files() -> list[Path]:
    """The project's README and each workload's."""
    return [ROOT / "README.md", *sorted((ROOT / "workloads").glob("*/README.md"))]


def main() -> None:
    """Rewrite them in place."""
    for path in files():
        made = rewritten(path.read_text(encoding="utf-8"), ROOT / "results")
        path.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
