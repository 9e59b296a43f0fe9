"""The price book: dated snapshots of unit prices in results/prices, read and checked.

A snapshot is a CSV file named by its day or month; each row is one price of one kind with its
source. Knows no run. A price that is not in the book does not exist: nothing is guessed.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import date
from math import isfinite
from pathlib import Path

from harness.cells import device_count, device_kind
from harness.errors import ResultsError, UsageError, unknown
from harness.schema import Price

KINDS = ("on-demand", "spot")
UNDATED = "undated"
DEAREST = 100.0
"""US dollars an hour for one accelerator, or for a machine without: above stand sentinels such as
700 that catalogues write for "not sold here"."""

Row = dict[str, str]


def _text(value: str) -> bool:
    return value != "" and value == value.strip()


def _whole(value: str) -> bool:
    return value.isascii() and value.isdigit()


def _rate(value: str) -> bool:
    try:
        return isfinite(float(value)) and float(value) > 0
    except ValueError:
        return False


def _day(value: str) -> bool:
    try:
        return value == UNDATED or date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def _or_empty(check: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda value: value == "" or check(value)


COLUMNS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "id": ("a text", _text),
    "accelerator": ("a text", _text),
    "count": ("a whole number, 0 for a machine without accelerator", _whole),
    "vcpu": ("a whole number or nothing", _or_empty(_whole)),
    "memory_gib": ("a positive number or nothing", _or_empty(_rate)),
    "provider": ("a text", _text),
    "instance": ("a text", _text),
    "region": ("a text", _text),
    "kind": (" or ".join(KINDS), KINDS.__contains__),
    "usd_per_hour": ("a positive number", _rate),
    "currency": ("USD", "USD".__eq__),
    "source": ("a text", _text),
    "source_licence": ("a text", _text),
    "as_of": (f"a date such as 2026-08-03, or {UNDATED}", _day),
    "note": ("a text or nothing", _or_empty(_text)),
}
"""Each column of a snapshot, with what its values must be."""


def read_prices(results: Path, snapshot: str | None = None) -> dict[str, Price]:
    """Every price by id, of one snapshot or of all; where these share an id, the newest one's.

    Raises ResultsError naming file, line and field for a row that is not valid, UsageError for a
    snapshot that does not exist.
    """
    paths = snapshots(results)
    if snapshot is not None:
        wanted = [path for path in paths if snapshot in (path.name, path.stem)]
        if not wanted:
            raise unknown("price snapshot", snapshot, [path.stem for path in paths])
        paths = wanted
    prices: dict[str, Price] = {}
    for path in paths:
        prices |= {row["id"]: _price(row, path) for row in read_snapshot(path)}
    return dict(sorted(prices.items()))


def snapshots(results: Path) -> list[Path]:
    """The files of the book, oldest first."""
    # By stem: a month's file is older than one of a day in it.
    return sorted((results / "prices").glob("*.csv"), key=lambda path: path.stem)


def composed(provider: str, instance: str, region: str, kind: str) -> str:
    """A price's id."""
    return ":".join((provider, instance, region, kind))


def find_price(name: str, results: Path) -> Price:
    """The price of that id; raises UsageError when there is none."""
    prices = read_prices(results)
    if name not in prices:
        raise no_such_price(name)
    return prices[name]


def covers(price: Price, device: str) -> bool:
    """Whether the machine of that price has as many accelerators as a cell on that device needs."""
    if device_kind(device) == "cpu":
        return True
    count = re.match(r"(\d+)x ", price.accelerator)
    return count is not None and int(count[1]) >= device_count(device)


def no_such_price(name: str) -> UsageError:
    """The sentence for an id that is not in the book."""
    return UsageError(f"Unknown price {name!r}. `epochmark prices` lists the known ids.")


def configured_price(start: Path) -> str | None:
    """`[tool.epochmark] price` of the nearest pyproject.toml at or above `start`."""
    for folder in (start.resolve(), *start.resolve().parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            return _price_in(path)
    return None


def _price_in(path: Path) -> str | None:
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path.name} cannot be read: {error}. Correct it.") from error
    tool = settings.get("tool", {}).get("epochmark", {})
    price = tool.get("price")
    if price is not None and not isinstance(price, str):
        raise UsageError(
            f"The price in [tool.epochmark] of {path.name} is {price!r}, not a text. "
            "`epochmark prices` lists the known ids."
        )
    return price


def read_snapshot(path: Path) -> list[Row]:
    """The rows of a snapshot, every one valid; raises ResultsError for the first that is not."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            _check_header(path, tuple(rows.fieldnames or ()))
            found: dict[str, Row] = {}
            for row in rows:
                _check(path, rows.line_num, row)
                if row["id"] in found:
                    raise _wrong(path, rows.line_num, "id", row["id"], "an id of its own")
                found[row["id"]] = row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultsError(f"The prices in {path} cannot be read: {error}.") from error
    _check_spot(path, found)
    return list(found.values())


def _check_header(path: Path, names: tuple[str, ...]) -> None:
    if names != tuple(COLUMNS):
        raise ResultsError(
            f"{path}, line 1: the columns should be {','.join(COLUMNS)}. Correct the header."
        )


def _check(path: Path, line: int, row: Mapping[str, str]) -> None:
    # csv gives None as the name of surplus fields, and as the value of missing ones.
    if set(row) != set(COLUMNS) or None in row.values():
        raise _wrong(path, line, "row", ",".join(map(str, row.values())), f"{len(COLUMNS)} fields")
    for name, (expected, check) in COLUMNS.items():
        if not check(row[name]):
            raise _wrong(path, line, name, row[name], expected)
    expected_id = composed(row["provider"], row["instance"], row["region"], row["kind"])
    if row["id"] != expected_id:
        raise _wrong(path, line, "id", row["id"], expected_id)
    most = DEAREST * max(1, int(row["count"]))
    if float(row["usd_per_hour"]) > most:
        expected = f"at most {most:g}, that is {DEAREST:g} for each accelerator"
        raise _wrong(path, line, "usd_per_hour", row["usd_per_hour"], expected)


def _check_spot(path: Path, rows: Mapping[str, Row]) -> None:
    for name, row in rows.items():
        full = rows.get(name.removesuffix("spot") + "on-demand")
        if row["kind"] == "spot" and full is not None:
            spot, demand = row["usd_per_hour"], full["usd_per_hour"]
            if float(spot) > float(demand):
                raise ResultsError(
                    f"{path}: the spot price {name!r} is {spot}, above the {demand} on demand. "
                    "Correct the row."
                )


def _price(row: Row, path: Path) -> Price:
    return Price(
        id=row["id"],
        usd_per_hour=float(row["usd_per_hour"]),
        accelerator=_unit(row),
        provider=row["provider"],
        instance=row["instance"],
        region=row["region"],
        kind=row["kind"],
        as_of=row["as_of"],
        source=row["source"],
        snapshot=path.name,
    )


def _unit(row: Mapping[str, str]) -> str:
    """What the price buys: `8x A100 80GB`, or `CPU 8 vCPU` where there is no accelerator."""
    if int(row["count"]):
        return f"{row['count']}x {row['accelerator']}"
    return f"{row['accelerator']} {row['vcpu']} vCPU" if row["vcpu"] else row["accelerator"]


def _wrong(path: Path, line: int, name: str, value: str, expected: str) -> ResultsError:
    return ResultsError(
        f"{path}, line {line}: {name} is {value!r}; expected {expected}. Correct the row."
    )
