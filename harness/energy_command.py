"""What `epochmark energy` does: energy and carbon of an epoch, by cell; measured or estimated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from textwrap import wrap
from typing import Any

import pandas as pd

from harness import answers
from harness.carbon import (
    MODEL_SOURCE,
    MODELS,
    Intensity,
    find_intensity,
)
from harness.summary import summary
from harness.units import ABSENT, FORMS, digits, ruled

WIDTH = 100
ESTIMATE = "estimate"
UNKNOWN = (
    "No run has energy: its machine has no counter that can be read (RAPL of the processors, NVML "
    "of NVIDIA's accelerators). --estimate uses a power model in its place, for cells on CPUs "
    "whose record says how busy these were, and whose price is of a cloud with a model."
)


@dataclass(frozen=True)
class Line:
    """A cell's epoch; None for what is not known. `method` is a counter's, or `estimate`."""

    cell: str
    machine: str
    method: str
    joules: float | None
    intensity: Intensity | None

    @property
    def grams(self) -> float | None:
        if self.joules is None or self.intensity is None:
            return None
        return self.intensity.grams(self.joules)


def lines(
    frame: pd.DataFrame, book: dict[str, Intensity], *, region: str | None, estimate: bool
) -> list[Line]:
    """The latest training rows of each cell.

    A cell's grid is that of `region`, else of its price's region. Raises UsageError for a region
    that is not in the table.
    """
    chosen = find_intensity(region, book) if region else None
    rows = summary(frame)
    rows = rows[(rows["status"] == "ok") & (rows["phase"] == "train")]
    return [_line(row, book, chosen, estimate=estimate) for _, row in rows.iterrows()]


def _line(
    row: pd.Series[Any], book: dict[str, Intensity], chosen: Intensity | None, *, estimate: bool
) -> Line:
    joules, method = float(row["energy_per_epoch_j"]), str(row["energy_method"])
    if not isfinite(joules) and estimate:
        joules, method = _estimated_j(row), ESTIMATE
    known = isfinite(joules)
    place = f"{row['price_provider']}:{row['price_region']}"
    return Line(
        cell=str(row["cell"]),
        machine=str(row["machine"]),
        method=method if known else "",
        joules=joules if known else None,
        intensity=chosen or book.get(place),
    )


def _estimated_j(row: pd.Series[Any]) -> float:
    """NaN where the model has no say: on accelerators, and without a provider or a load."""
    model = MODELS.get(str(row["price_provider"]))
    if model is None or row["device"] != "cpu":
        return float("nan")
    load = float(row["own_cpu_share"])  # NaN stays; as the second of `min` it would be lost
    return model.watts(int(row["cpu_count"]), min(load, 1.0)) * float(row["epoch_time_s"])


def text(found: Sequence[Line]) -> str:
    """A line per cell, then whose figures these are."""
    if not any(line.joules is not None for line in found):
        return UNKNOWN
    head = ["cell", "energy/epoch", "known by", "grid", "CO2e/epoch"]
    body = [_printed(line) for line in found]
    notes = [part for note in _notes(found) for part in wrap(note, WIDTH)]
    return "\n".join([*ruled(head, body), "", *notes])


def _printed(line: Line) -> list[str]:
    grams = line.grams
    return [
        line.cell,
        ABSENT if line.joules is None else FORMS["joules"](line.joules),
        line.method or ABSENT,
        line.intensity.region if line.intensity else ABSENT,
        ABSENT if grams is None else f"{digits(grams)} g",
    ]


def _notes(found: Sequence[Line]) -> list[str]:
    notes = []
    if any(line.method == ESTIMATE for line in found):
        notes.append(
            "An estimate is no measurement: the processors' watts, linear between idle and full "
            "load, times the epoch's seconds, for the provider of the reference price. Source: "
            f"{MODEL_SOURCE}."
        )
    grids = {line.intensity.region: line.intensity for line in found if line.intensity}
    notes += [
        f"{grid.region} ({grid.name}): {digits(grid.g_per_kwh)} g CO2e a kWh ({grid.year}; "
        f"{grid.source})."
        for grid in grids.values()
    ]
    if any(line.intensity is None for line in found):
        notes.append("Cells without a grid have no price with a known region: name one (--region).")
    return notes


def records(found: Sequence[Line]) -> list[dict[str, Any]]:
    """A dictionary per cell; what is not known is None."""
    return [
        {
            "cell": line.cell,
            "machine": line.machine,
            "energy_per_epoch_j": line.joules,
            "method": line.method or None,
            "region": line.intensity.region if line.intensity else None,
            "g_per_kwh": line.intensity.g_per_kwh if line.intensity else None,
            "carbon_per_epoch_g": line.grams,
        }
        for line in found
    ]


def as_json(found: Sequence[Line]) -> str:
    """The cells, and the model of the estimates."""
    return answers.as_json({"cells": records(found), "power_model": MODEL_SOURCE})


def as_csv(found: Sequence[Line]) -> str:
    """A row per cell."""
    columns = ["cell", "machine", "energy_per_epoch_j", "method", "region", "g_per_kwh"]
    return answers.as_csv(records(found), [*columns, "carbon_per_epoch_g"])
