"""Grams of CO2 equivalent from energy: the table of grid intensities, and energy that is estimated.

Reads results/carbon/<date>.csv; a region is `provider:region` of a cloud, or a country's ISO code.
An estimate of energy is made on reading, when it is asked for; it enters no record.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from harness.errors import ResultsError, UsageError

J_PER_KWH = 3.6e6
UNDATED = "undated"
DIRTIEST = 2000.0
"""Grams a kWh: no grid is above, burning lignite alone gives some 1,200."""


@dataclass(frozen=True)
class Intensity:
    """Of a grid: grams of CO2 equivalent a kWh, the year it is of, and who says so."""

    region: str
    name: str
    g_per_kwh: float
    year: str
    source: str
    snapshot: str

    def grams(self, joules: float) -> float:
        """For so much energy."""
        return joules / J_PER_KWH * self.g_per_kwh


def _intensity(value: str) -> bool:
    try:
        return isfinite(float(value)) and 0 <= float(value) <= DIRTIEST
    except ValueError:
        return False


def _text(value: str) -> bool:
    return value != "" and value == value.strip()


def _year(value: str) -> bool:
    return value == UNDATED or (value.isascii() and value.isdigit() and len(value) == 4)


COLUMNS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "region": ("a text", _text),
    "name": ("a text", _text),
    "g_per_kwh": (f"a number from 0 to {DIRTIEST:g}", _intensity),
    "year": (f"a year, or {UNDATED}", _year),
    "source": ("a text", _text),
    "source_licence": ("a text", _text),
}
"""Each column of the table, with what its values must be."""


def read_intensities(results: Path) -> dict[str, Intensity]:
    """Every grid by region; where tables share one, the newest one's.

    Raises ResultsError naming file, line and field for a row that is not valid.
    """
    found: dict[str, Intensity] = {}
    for path in sorted((results / "carbon").glob("*.csv")):
        found |= _read(path)
    return found


def find_intensity(region: str, book: Mapping[str, Intensity]) -> Intensity:
    """Raises UsageError for a region that is not in the table."""
    if region not in book:
        raise UsageError(
            f"There is no grid intensity for {region!r}. A region is one of a cloud, such as "
            "'gcp:us-central1', or a country's ISO code, such as 'DEU'."
        )
    return book[region]


def _read(path: Path) -> dict[str, Intensity]:
    found: dict[str, Intensity] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if tuple(rows.fieldnames or ()) != tuple(COLUMNS):
                raise ResultsError(f"{path}, line 1: the columns should be {','.join(COLUMNS)}.")
            for row in rows:
                _check(path, rows.line_num, row, found)
                found[row["region"]] = Intensity(
                    region=row["region"],
                    name=row["name"],
                    g_per_kwh=float(row["g_per_kwh"]),
                    year=row["year"],
                    source=row["source"],
                    snapshot=path.name,
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultsError(f"The grid intensities in {path} cannot be read: {error}.") from error
    return found


def _check(path: Path, line: int, row: Mapping[str, str], known: Mapping[str, Intensity]) -> None:
    where = f"{path}, line {line}"
    if set(row) != set(COLUMNS) or None in row.values():
        raise ResultsError(f"{where}: expected {len(COLUMNS)} fields. Correct the row.")
    for name, (expected, check) in COLUMNS.items():
        if not check(row[name]):
            raise ResultsError(
                f"{where}: {name} is {row[name]!r}; expected {expected}. Correct the row."
            )
    if row["region"] in known:
        raise ResultsError(f"{where}: region {row['region']!r} is there twice. Correct the row.")


# Estimated energy


@dataclass(frozen=True)
class PowerModel:
    """Watts of a virtual processor, idle and at full load, and the data centre's overhead (PUE)."""

    idle_w: float
    full_w: float
    pue: float

    def watts(self, processors: int, load: float) -> float:
        """Of so many processors at that share of their time; linear between idle and full."""
        return processors * (self.idle_w + load * (self.full_w - self.idle_w)) * self.pue


MODELS = {
    "aws": PowerModel(0.74, 3.5, 1.135),
    "gcp": PowerModel(0.71, 4.26, 1.1),
    "azure": PowerModel(0.78, 3.76, 1.185),
}
"""Per cloud provider, from SPECpower results of its processors: their mean, for gcp their median.

Azure's overhead is that of its whole fleet, as in the methodology's section on PUE; the 1.125 of
Appendix I is what the statement quoted there says of the newest designs.
"""

MODEL_SOURCE = (
    "Cloud Carbon Footprint, Methodology, Appendix I and Power Usage Effectiveness (processors "
    "only: no memory, disks, network)"
)
