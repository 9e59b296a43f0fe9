"""How much of N devices' throughput a cell gets: its row held against the row of one device."""

from __future__ import annotations

from math import nan
from typing import Any

import pandas as pd

from harness.cells import device_count, device_kind
from harness.ranking import rankable

SAME = (
    "machine", "workload", "scale", "phase", "backend", "precision", "api_style", "batch_size",
    "protocol", "workload_version", "keras", "tensorflow", "jax", "torch",
)  # fmt: skip
"""What both rows must share, beside the kind of device."""

THROUGHPUT = "throughput_examples_per_s"


def with_scaling(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a summary with `scaling_efficiency`; NaN without a ranked row of one device."""
    found = rows.copy()
    found["scaling_efficiency"] = nan
    measured = rows[(rows["status"] == "ok") & rows[THROUGHPUT].notna()]
    figures = {
        place: (_key(row), device_count(str(row["device"])), float(row[THROUGHPUT]))
        for place, row in measured.iterrows()
    }
    ranked = set(rows.index[rankable(rows)])
    alone = {
        key: throughput
        for place, (key, count, throughput) in figures.items()
        if count == 1 and place in ranked
    }
    for place, (key, count, throughput) in figures.items():
        if count > 1 and key in alone:
            found.loc[place, "scaling_efficiency"] = throughput / (count * alone[key])
    return found


def _key(row: pd.Series[Any]) -> tuple[str, ...]:
    return (*(str(row[name]) for name in SAME), device_kind(str(row["device"])))
