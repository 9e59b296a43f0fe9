"""What `epochmark doctor --drift` does: learns from the results how far sessions are apart."""

from __future__ import annotations

import math
from pathlib import Path
from textwrap import wrap

from harness.drift import LEAST, Drift, Sessions, drift_of, sessions_of, write_sessions
from harness.errors import UsageError
from harness.statistics import LEVEL, Difference
from harness.table import load_table
from harness.units import percent

WIDTH = 100


def learn(results: Path, machine: str) -> tuple[str, Path]:
    """What the sessions of this machine show, and the file that has it now.

    Raises UsageError where they are too few.
    """
    runs = load_table(results).frame
    cells = sessions_of(runs[runs["machine"] == machine])
    drift = drift_of(cells)
    if drift is None:
        raise UsageError(
            f"The results have no {LEAST} sessions of {machine} that measured the same cells by "
            "the same code, in two processes or more and half an hour apart. Measure them with "
            "`epochmark run --replicates 5`, the same cells each time."
        )
    return text(machine, cells, drift), write_sessions(results, machine, cells)


def text(machine: str, cells: dict[str, Sessions], drift: Drift) -> str:
    """The drift in words."""
    seen = f"{machine}: {drift.seen}, {len(cells)} cells of the same code."
    if drift.spread == 0:
        said = f"{seen} They are no further apart than their processes differ."
        return "\n".join(wrap(said, WIDTH))
    apart = Difference(0.0, 0.0, math.inf).widened(drift.between).interval(1 - LEVEL)[1] - 1
    together = f", that of all cells together {percent(drift.shared)}" if drift.cells > 1 else ""
    said = (
        f"{seen} The level of a cell in one has a standard deviation of {percent(drift.spread)}"
        f"{together}. So two sessions of one cell differ "
        f"by less than {percent(apart)} in {100 * LEVEL:g} of 100 cases, beside what their "
        "processes differ by."
    )
    return "\n".join(wrap(said, WIDTH))
