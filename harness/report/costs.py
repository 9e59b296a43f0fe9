"""What training costs at each price that fits: the seconds are measured, the rate is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.break_even import in_words, with_break_even
from harness.cost import cost_usd
from harness.metrics import PRICED
from harness.prices import read_prices, snapshots
from harness.report.parts import Entry, Row, Table, cell_page, each, figure, slug
from harness.schema import Price
from harness.units import ABSENT, FORMS

COSTS = tuple(PRICED)


@dataclass(frozen=True)
class Offer:
    """A price of one snapshot; `texts` and `values` hold a list per row, in the order of COSTS."""

    id: str
    title: str
    device: str
    price: Price
    values: tuple[tuple[float | None, ...], ...]

    @property
    def texts(self) -> list[list[str]]:
        """As they are printed."""
        return [
            [ABSENT if value is None else FORMS["usd"](value) for value in row]
            for row in self.values
        ]


def cost_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that cost anything, with their break-even."""
    kept = rows[(rows["status"] == "ok") & rows[list(COSTS)].notna().any(axis=1)]
    return with_break_even(kept.reset_index(drop=True))


def cost_table(rows: pd.DataFrame) -> Table:
    """At the price that stands in each record."""
    head = (
        "cell",
        "epoch",
        "cost/epoch",
        "cost/10⁶ examples",
        "fixed cost",
        "cost to quality",
        "cost/10³ inferences",
        "break-even",
    )
    body = tuple(
        (
            Entry(str(row["cell"]), href=cell_page(row), notes=(str(row["machine"]),)),
            figure(row, "epoch_time_s"),
            *(figure(row, name) for name in COSTS),
            Entry(in_words(row)),
        )
        for row in each(rows)
    )
    return Table("costs", "Costs of each cell", head, body, frozenset(range(1, 7)))


def offers(rows: pd.DataFrame, results: Path) -> list[Offer]:
    """Every price of every snapshot that is of a kind of device some row ran on."""
    devices = set(rows["device"].astype(str))
    found = []
    for path in reversed(snapshots(results)):
        for price in read_prices(results, path.stem).values():
            device = device_of(price)
            if device in devices:
                found.append(_offer(rows, price, device))
    return found


def device_of(price: Price) -> str:
    """The kind of device that is rented."""
    if price.accelerator.startswith("CPU"):
        return "cpu"
    return "tpu" if "TPU" in price.accelerator else "gpu"


def _offer(rows: pd.DataFrame, price: Price, device: str) -> Offer:
    title = (
        f"{price.provider} {price.instance}, {price.region}, {price.kind}, "
        f"{price.usd_per_hour:.10g} USD/h ({price.snapshot})"
    )
    values = tuple(tuple(_cost(row, name, price, device) for name in COSTS) for row in each(rows))
    return Offer(slug(price.id, Path(price.snapshot).stem), title, device, price, values)


def _cost(row: Row, name: str, price: Price, device: str) -> float | None:
    """None on another kind of device: seconds of a processor say nothing about a GPU's."""
    seconds, figures = PRICED[name]
    values = [row[figure_name] for figure_name in figures]
    if row["device"] != device or any(value != value for value in values):
        return None
    return float(cost_usd(float(seconds(*values)), price.usd_per_hour))


def kinds_table(found: list[Offer], rows: pd.DataFrame) -> Table:
    """On-demand and spot side by side, for an hour and for the cheapest epoch of all rows."""
    seconds = rows["epoch_time_s"].min()
    pairs: dict[tuple[str, ...], dict[str, Price]] = {}
    for offer in found:
        price = offer.price
        key = (price.provider, price.instance, price.region, price.snapshot)
        pairs.setdefault(key, {})[price.kind] = price
    body = tuple(_kinds(key, pair, float(seconds)) for key, pair in pairs.items())
    head = (
        "instance",
        "snapshot",
        "on-demand, USD/h",
        "spot, USD/h",
        "spot saves",
        "the shortest epoch, on-demand",
        "spot",
    )
    return Table("kinds", "Spot against on-demand", head, body, frozenset({2, 3, 4, 5, 6}))


def _kinds(key: tuple[str, ...], pair: Mapping[str, Price], seconds: float) -> tuple[Entry, ...]:
    rates = [pair[kind].usd_per_hour if kind in pair else None for kind in ("on-demand", "spot")]
    saved = None if None in rates else 1 - (rates[1] or 0.0) / (rates[0] or 1.0)
    return (
        Entry(" ".join(key[:3])),
        Entry(key[3]),
        *(Entry(ABSENT) if rate is None else Entry(f"{rate:.10g}", raw=rate) for rate in rates),
        Entry(ABSENT) if saved is None else Entry(f"{100 * saved:.1f} %", raw=saved),
        *(_epoch(rate, seconds) for rate in rates),
    )


def _epoch(rate: float | None, seconds: float) -> Entry:
    if rate is None or seconds != seconds:
        return Entry(ABSENT)
    cost = float(cost_usd(seconds, rate))
    return Entry(FORMS["usd"](cost), raw=cost)
