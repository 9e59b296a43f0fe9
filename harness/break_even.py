"""From how many epochs on a cell is the cheaper one, though it starts more dearly."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

import pandas as pd

from harness.cost import Cost, break_even, exactly
from harness.ranking import rankable
from harness.units import ABSENT

BREAK_EVEN = "break_even_epochs"
"""A column: epochs; NaN where that is never, for the cell it is held against, and where costs are
unknown."""

AGAINST = "break_even_against"
"""A column: the cell of the group with the lowest fixed cost; empty where costs are unknown."""

GROUP = [
    "machine", "workload", "scale", "phase", "device", "batch_size", "protocol", "workload_version",
    "price", "price_snapshot",
]  # fmt: skip
"""What cells share whose costs may be held against each other."""


def with_break_even(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a summary with both columns; a group is what ranked rows of a workload share."""
    found = rows.copy()
    found[BREAK_EVEN] = nan
    found[AGAINST] = ""
    known = rows["fixed_cost_usd"].notna() & rows["cost_per_epoch_usd"].notna()
    for _, group in rows[known & rankable(rows)].groupby(GROUP, observed=True):
        costs = _costs(group)
        base = min(costs, key=lambda place: costs[place].fixed_usd)
        found.loc[group.index, AGAINST] = rows["cell"].astype(str)[base]
        for place in costs.keys() - {base}:
            epochs = break_even(costs[place], costs[base])
            if epochs is not None:
                found.loc[place, BREAK_EVEN] = epochs
    return found


def in_words(row: Mapping[str, Any] | pd.Series[Any]) -> str:
    """What the columns of a row say; a dash for the cell that the others are held against."""
    epochs = row[BREAK_EVEN]
    if row[AGAINST] in ("", row["cell"]):
        return ABSENT
    if epochs != epochs:
        return "never"
    return "at once" if epochs == 0 else f"{epochs:.0f} epoch{'s' if epochs > 1 else ''}"


def _costs(group: pd.DataFrame) -> dict[int, Cost]:
    columns = (group["fixed_cost_usd"].tolist(), group["cost_per_epoch_usd"].tolist())
    pairs = zip(group.index.tolist(), *columns, strict=True)
    return {place: Cost(exactly(fixed), exactly(epoch)) for place, fixed, epoch in pairs}
