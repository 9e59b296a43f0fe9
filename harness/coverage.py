"""Which cells of a scale the results have seen to the end, as the README tells it."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pandas as pd

from harness.cells import API_STYLES, BACKENDS, Cell, all_cells
from harness.registry import workload, workloads
from harness.support import unsupported
from harness.table import load_table
from harness.units import ABSENT


def markdown(results: Path, scale: str) -> str:
    """Per workload, phase and precision on a processor, how the cells of each style ended.

    That is the status of a cell's newest run under its workload's present Major.Minor, `gate` in
    place of `ok` where no run went on from the equality gate, a dash where it was never tried. One
    status is that of every backend.
    """
    ended = _ended(load_table(results).frame)
    lines = [
        f"| scale {scale}, cpu | phase | precision | {' | '.join(API_STYLES)} |",
        "|---|---|---|" + "---|" * len(API_STYLES),
    ]
    offered = [
        cell
        for cell in all_cells(list(workloads()))
        if (cell.scale, cell.device) == (scale, "cpu") and not unsupported(cell)
    ]
    by_name = sorted(offered, key=_head)
    for head, group in groupby(by_name, key=_head):
        by_style: dict[str, dict[str, str]] = {style: {} for style in API_STYLES}
        for cell in group:
            by_style[cell.api_style][cell.backend] = ended.get(cell.id, ABSENT)
        lines.append(f"| {' | '.join([*head, *map(_entry, by_style.values())])} |")
    return "\n".join(lines)


def _head(cell: Cell) -> tuple[str, str, str]:
    return cell.workload, cell.phase, cell.precision


def _ended(runs: pd.DataFrame) -> dict[str, str]:
    present = {name: _series(workload(name).version) for name in workloads()}
    version = runs["workload_version"].astype(str).map(_series)
    mine = runs[version == runs["workload"].astype(str).map(present)]
    newest = mine.groupby("cell", observed=True)["status"].last().astype(str)
    timed = set(mine.loc[(mine["status"] == "ok") & ~mine["untimed"], "cell"])
    return {
        str(cell): "gate" if status == "ok" and cell not in timed else status
        for cell, status in newest.items()
    }


def _series(version: str) -> str:
    """The part of a version within which results can be compared."""
    return version.rpartition(".")[0]


def _entry(found: dict[str, str]) -> str:
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return ", ".join(f"{name} {found[name]}" for name in BACKENDS if name in found)
