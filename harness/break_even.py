"""From how many epochs on a cell is the cheaper one, though it starts more dearly."""

from __future__ import annotations

from math import nan

import pandas as pd

from harness.cost import Cost, break_even, exactly

BREAK_EVEN = "break_even_epochs"
"""A column: epochs; NaN where that is never, for the cell it is held against, and where costs are
unknown."""

AGAINST = "break_even_against"
"""A column: the cell of the group with the lowest fixed cost; empty where costs are unknown."""

GROUP = ["machine", "workload", "scale", "phase", "device", "batch_size"]


def with_break_even(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a summary with both columns; a group is one workload on one machine."""
    found = rows.copy()
    found[BREAK_EVEN] = nan
    found[AGAINST] = ""
    known = rows["fixed_cost_usd"].notna() & rows["cost_per_epoch_usd"].notna()
    for _, group in rows[known & (rows["status"] == "ok")].groupby(GROUP, observed=True):
        costs = _costs(group)
        base = min(costs, key=lambda place: costs[place].fixed_usd)
        found.loc[group.index, AGAINST] = rows["cell"].astype(str)[base]
        for place in costs.keys() - {base}:
            epochs = break_even(costs[place], costs[base])
            if epochs is not None:
                found.loc[place, BREAK_EVEN] = epochs
    return found


def _costs(group: pd.DataFrame) -> dict[int, Cost]:
    columns = (group["fixed_cost_usd"].tolist(), group["cost_per_epoch_usd"].tolist())
    pairs = zip(group.index.tolist(), *columns, strict=True)
    return {place: Cost(exactly(fixed), exactly(epoch)) for place, fixed, epoch in pairs}
