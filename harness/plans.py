"""Named selections of cells: what one invocation measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.cells import Cell, all_cells, select
from harness.errors import UsageError, unknown
from harness.registry import workloads
from harness.support import support


@dataclass(frozen=True)
class Plan:
    """A rule over cells, with a line that says what it is for."""

    name: str
    purpose: str
    includes: Callable[[Cell], bool]


def _quick(cell: Cell) -> bool:
    axes = (cell.scale, cell.phase, cell.precision, cell.api_style, cell.device)
    return axes == ("smoke", "train", "float32", "functional", "cpu")


PLANS = {
    plan.name: plan
    for plan in (
        Plan("quick", "each workload x backend, float32, functional, train, smoke scale", _quick),
        Plan(
            "smoke",
            "the whole CPU matrix at smoke scale, train and infer",
            lambda cell: cell.scale == "smoke" and cell.device == "cpu",
        ),
        Plan(
            "standard", "the published networks, on every device", lambda c: c.scale == "standard"
        ),
        Plan(
            "nightly",
            "standard scale on the accelerators, smoke scale on the CPU",
            lambda c: (c.scale == "smoke") if c.device == "cpu" else (c.scale == "standard"),
        ),
    )
}


def planned(plan: str | None, only: Sequence[str]) -> list[Cell]:
    """The cells of a plan that the globs select, in the order of the product.

    A plan leaves out what is unsupported by nature, or measured on request alone; globs without one
    select from the whole product, so that a cell named on purpose gets its row and its reason.
    Raises UsageError for an unknown plan, an unknown name in a glob, or an empty selection.
    """
    names = list(workloads())
    if plan is None:
        cells = list(all_cells(names))
    elif plan not in PLANS:
        raise unknown("plan", plan, list(PLANS))
    else:
        included = PLANS[plan].includes
        cells = [
            cell
            for cell in all_cells(names)
            if included(cell) and not cell.on_request and support(cell).status != "unsupported"
        ]
    chosen = select(cells, only, names)
    if not chosen:
        raise UsageError(_empty(plan, only))
    return chosen


def runnable(cells: Sequence[Cell]) -> list[Cell]:
    """Those that this machine can measure; raises UsageError when there is none."""
    found = [cell for cell in cells if support(cell).runs]
    if not found:
        raise UsageError(f"None of these cells can run here: {support(cells[0]).reason}.")
    return found


def _empty(plan: str | None, only: Sequence[str]) -> str:
    globs = " or ".join(map(repr, only))
    if only:
        return f"Plan {plan!r} has no cell that matches {globs}. `epochmark list --plan {plan}`."
    return f"Plan {plan!r} has no cell that any declared workload supports yet."
