"""Reads dated public price catalogues into snapshots of the price book.

A catalogue tells rates only. What an instance is (accelerators, processors) stands in the book
already, so the instances and regions that the book has are the ones that are imported.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from harness.errors import ResultsError, UsageError, unknown
from harness.prices import COLUMNS, KINDS, Row, composed, read_snapshot, snapshots
from harness.store import spelled

Rates = Mapping[str, float]
"""US dollars an hour by price id."""


@dataclass(frozen=True)
class Catalogue:
    """How one kind of file is read, and where it comes from."""

    read: Callable[[str], Rates]
    source: str
    licence: str
    bare: bool = False
    """Whether it has a GPU's price apart from that of the machine it is in."""


def _karpenter(text: str) -> Rates:
    """`prices -> region -> on_demand | spot -> instance -> rate`."""
    return {
        composed("gcp", instance, region, kind): float(rate)
        for region, kinds in json.loads(text)["prices"].items()
        for key, kind in zip(("on_demand", "spot"), KINDS, strict=True)
        for instance, rate in kinds.get(key, {}).items()
    }


def _skypilot(provider: str) -> Callable[[str], Rates]:
    """A row per instance and zone; of a region's zones the cheapest one counts."""

    def read(text: str) -> Rates:
        found: dict[str, float] = {}
        for row in csv.DictReader(text.splitlines(), strict=True):
            # Cloud TPUs are rows without an instance; a GPU's row there is not a whole machine.
            tpu = row["AcceleratorName"].removeprefix("tpu-")
            instance = row["InstanceType"] or tpu * (tpu != row["AcceleratorName"])
            for column, kind in zip(("Price", "SpotPrice"), KINDS, strict=True):
                if instance and row[column]:
                    name = composed(provider, instance, row["Region"], kind)
                    found[name] = min(float(row[column]), found.get(name, float("inf")))
        return found

    return read


_SKYPILOT = "skypilot-org/skypilot-catalog catalogs/v8"
CATALOGUES = {
    "karpenter-gcp": Catalogue(
        _karpenter,
        "cloudpilot-ai/karpenter-provider-gcp pkg/providers/pricing/initial-prices.json",
        "Apache-2.0",
    ),
    **{
        f"skypilot-{provider}": Catalogue(
            _skypilot(provider),
            f"{_SKYPILOT}/{provider}/vms.csv",
            "none found",
            bare=provider == "gcp",
        )
        for provider in ("aws", "azure", "gcp")
    },
}


def import_prices(path: Path, catalogue: str, as_of: str, results: Path) -> tuple[Path, int]:
    """Write a snapshot of that day; returns its path and how many prices it has from the file.

    Raises UsageError for a file that is not such a catalogue, that has none of the book's
    instances, or whose prices the day's snapshot already holds.
    """
    if catalogue not in CATALOGUES:
        raise unknown("catalogue", catalogue, list(CATALOGUES))
    rows = _updated(path, CATALOGUES[catalogue], _day(as_of), results)
    target = results / "prices" / f"{as_of}.csv"
    before = read_snapshot(target) if target.exists() else []
    twice = {row["id"] for row in before} & {row["id"] for row in rows}
    if twice:
        raise UsageError(
            f"{spelled(target)} already has {len(twice)} of these prices, {min(twice)!r} the first."
        )
    _write(target, [*before, *rows])
    return target, len(rows)


def _day(as_of: str) -> str:
    try:
        return date.fromisoformat(as_of).isoformat()
    except ValueError as error:
        raise UsageError(f"--as-of is {as_of!r}; expected a date such as 2026-08-03.") from error


def _updated(path: Path, catalogue: Catalogue, as_of: str, results: Path) -> list[Row]:
    """The book's newest row of every price that the catalogue has, with the catalogue's rate."""
    try:
        rates = catalogue.read(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{spelled(path)} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise UsageError(
            f"{spelled(path)} is not a catalogue of that kind (from {catalogue.source})."
        ) from error
    book = {row["id"]: row for file in snapshots(results) for row in read_snapshot(file)}
    facts = {
        "currency": "USD",
        "source": catalogue.source,
        "source_licence": catalogue.licence,
        "as_of": as_of,
        "note": "",
    }
    rows = [
        {**book[name], **facts, "usd_per_hour": f"{rates[name]:.6f}"}
        for name in sorted(book)
        if name in rates and not (catalogue.bare and _with_gpu(book[name]))
    ]
    if not rows:
        raise UsageError(f"{spelled(path)} has none of the instances and regions of the book.")
    return rows


def _with_gpu(row: Row) -> bool:
    return row["count"] != "0" and not row["accelerator"].startswith("TPU")


def _write(target: Path, rows: list[Row]) -> None:
    """Beside the target and then in its place, so that a row that is not valid changes nothing."""
    new = target.with_suffix(".new")
    try:
        with new.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(COLUMNS), lineterminator="\n")
            writer.writeheader()
            writer.writerows(sorted(rows, key=lambda row: row["id"]))
        read_snapshot(new)
        new.replace(target)
    except ResultsError as error:
        raise UsageError(f"Nothing was imported. {error}") from error
    finally:
        new.unlink(missing_ok=True)
