"""How a command answers programs: CSV and strict JSON from a dictionary per row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # lists answer without the numerical libraries
    from harness.statistics import Difference

FIGURES = ("ratio", "low", "high", "detectable")


def figures(difference: Difference | None, alpha: float) -> dict[str, float | None]:
    """What a comparison says; None for what is not known or has no end."""
    if difference is None:
        return dict.fromkeys(FIGURES)
    found = (difference.ratio(), *difference.interval(alpha), difference.detectable(alpha))
    return {name: v if isfinite(v) else None for name, v in zip(FIGURES, found, strict=True)}


def as_json(fields: Any) -> str:
    """Without NaN and infinities, which JSON does not have."""
    return json.dumps(fields, indent=1, allow_nan=False)


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """A line per row under a line of names; a list is one field, its parts split by semicolons."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_field(row[name]) for name in columns] for row in rows)
    return out.getvalue().rstrip("\n")


def _field(value: Any) -> Any:
    return "; ".join(map(str, value)) if isinstance(value, list) else value
