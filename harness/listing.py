"""Prints the list of cells and of data sets."""

from __future__ import annotations

from collections.abc import Sequence

from harness import answers
from harness.cells import AXES, Cell
from harness.support import Support


def render(cells: Sequence[tuple[Cell, Support]], output: str) -> str:
    """The cells as aligned lines, a JSON list or CSV."""
    rows = [{"cell": cell.id, **vars(cell), **vars(possible)} for cell, possible in cells]
    if output == "json":
        return answers.as_json(rows)
    if output == "csv":
        return answers.as_csv(rows, ["cell", *AXES, "status", "reason"])
    return _table(rows)


def _table(rows: Sequence[dict[str, str]]) -> str:
    if not rows:
        return "No cell of the selection can run here."
    width = max(len(row["cell"]) for row in rows)
    lines = []
    for row in rows:
        reason = f": {row['reason']}" if row["reason"] else ""
        lines.append(f"{row['cell']:<{width}}  {row['status']}{reason}")
    counts = dict.fromkeys(("supported", "unsupported", "unavailable"), 0)
    for row in rows:
        counts[row["status"]] += 1
    said = ", ".join(f"{count:,} {status}" for status, count in counts.items() if count)
    return "\n".join([*lines, f"{len(rows):,} cells: {said}."])


def data_table() -> str:
    """One line per workload and scale: what the cache holds and where it came from."""
    from harness import data
    from harness.localdata import VARIABLE
    from harness.registry import workloads

    lines = []
    for workload in workloads().values():
        for scale, declared in workload.scales.items():
            state = data.status(workload, scale)
            if declared.owned and state.state == "missing":
                where = f"yours to bring in the folder that {VARIABLE} names"
                lines.append(f"{workload.name}/{scale}: {where}; its README says how")
                continue
            size = f", {state.size_bytes / 2**20:.1f} MiB" if state.size_bytes else ""
            origin = f" from {state.source}{size}" if state.source else ""
            digest = f", digest {state.digest[:16]}" if state.digest else ""
            lines.append(f"{workload.name}/{scale}: {state.state}{origin}{digest}")
    lines.append("Fetch what is missing with `epochmark data fetch`.")
    return "\n".join(lines)
