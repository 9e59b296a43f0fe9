"""The generated parts of the workloads' READMEs: what committed sessions say of one workload."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev

from harness.cells import parse_cell
from harness.gate import NORMS
from harness.registry import workload, workloads
from harness.schema import Run
from harness.store import read_file, results_files
from harness.units import ABSENT, quality
from harness.workload import Workload

FIGURES = ("output", "loss", *NORMS)


def standard(argument: str, results: Path) -> str:
    """Speed, memory and the gate's deviations, of WORKLOAD:SESSION."""
    from harness.drift import known_drifts
    from harness.show import markdown
    from harness.table import load_table

    name, _, session = argument.partition(":")
    frame = load_table(results, [session]).frame
    mine = frame[frame["workload"] == name]
    figures = markdown(mine, known_drifts(results, mine), view="figures").strip()
    return f"Session {session}: {figures}\n\n{_gates(_runs(name, session, results))}"


def seeds(argument: str, results: Path) -> str:
    """Quality over the runs of WORKLOAD:SESSION that ended ok, by backend and precision."""
    name, _, session = argument.partition(":")
    declared = workload(name)
    runs = _runs(name, session, results)
    lines = [
        f"| {declared.quality_title}, session {session} | runs | seeds | mean | "
        "standard deviation | range |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for (backend, precision), group in groupby(sorted(runs, key=_group), key=_group):
        ok = [run for run in group if run.status == "ok"]
        counts = f"{len(ok)} | {len({run.seed for run in ok})}"
        lines.append(f"| {backend}, {precision} | {counts} | {_spread(ok, declared)} |")
    bounds = {declared.scales[_scale(run)].quality_bounds for run in runs}
    for low, high in sorted(bounds):
        ends = (quality(end, unit=declared.quality_unit) for end in (low, high))
        lines.append(f"| accepted | | | | | {' to '.join(ends)} |")
    return "\n".join(lines)


def _runs(name: str, session: str, results: Path) -> list[Run]:
    (path,) = results_files(results, [session])
    return [run for run in read_file(path).runs if run.cell.startswith(f"{name}/")]


def _gates(runs: Sequence[Run]) -> str:
    """The worst relative deviation of each figure from the reference, and what is accepted."""
    figures = [name for name in FIGURES if any(name in run.gate.deviation for run in runs)]
    head = " | ".join(figure.replace("_", " ") for figure in figures)
    lines = [f"| equality gate | {head} |", "|---|" + "---:|" * len(figures)]
    for backend, group in groupby(sorted(runs, key=_group), key=lambda run: _group(run)[0]):
        found = [run.gate.deviation for run in group]
        worst = {name: max(one[name] for one in found if name in one) for name in found[0]}
        lines.append(f"| {backend} | {_row(worst, figures)} |")
    accepted = {_row(run.gate.tolerance, figures) for run in runs}
    lines += [f"| accepted | {row} |" for row in sorted(accepted)]
    return "\n".join(lines)


def _row(values: dict[str, float], figures: Sequence[str]) -> str:
    return " | ".join(f"{values[name]:.1e}" if name in values else ABSENT for name in figures)


def _spread(runs: Sequence[Run], declared: Workload) -> str:
    """Mean, standard deviation and range; of one run there is no deviation, of none nothing."""
    found = [run.samples.epochs[-1].quality[run.quality_metric] for run in runs]

    def text(value: float) -> str:
        return quality(value, unit=declared.quality_unit)

    if not found:
        return " | ".join([ABSENT] * 3)
    deviation = text(stdev(found)) if len(found) > 1 else ABSENT
    return f"{text(mean(found))} | {deviation} | {text(min(found))} to {text(max(found))}"


def _group(run: Run) -> tuple[str, str]:
    cell = parse_cell(run.cell, list(workloads()))
    return cell.backend, cell.precision


def _scale(run: Run) -> str:
    return parse_cell(run.cell, list(workloads())).scale
