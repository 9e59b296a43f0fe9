"""What training costs at each price that fits: the seconds are measured, the rate is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path

import pandas as pd

from harness.break_even import AGAINST, BREAK_EVEN, in_words, with_break_even
from harness.cost import cost_usd
from harness.metrics import METRICS, PRICED
from harness.prices import read_prices, snapshots
from harness.ranking import rankable
from harness.report.parts import Entry, Row, Table, cell_page, each, figure, name_of, remarks, slug
from harness.schema import Price
from harness.units import ABSENT, FORMS

COSTS = tuple(PRICED)

KINDS = ("on-demand", "spot")


@dataclass(frozen=True)
class Offer:
    """A price of one snapshot; `texts` and `values` hold a list per row, in the order of
    `costs_of`."""

    id: str
    title: str
    device: str
    price: Price
    values: tuple[tuple[float | None, ...], ...]

    @property
    def provenance(self) -> str:
        """The title with the date and the source of the price."""
        return f"{self.title}; as of {self.price.as_of}, source {self.price.source}"

    @property
    def texts(self) -> list[list[str]]:
        """As they are printed."""
        return [
            [ABSENT if value is None else FORMS["usd"](value) for value in row]
            for row in self.values
        ]


def cost_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that cost anything; those that may be ranked have a break-even."""
    kept = rows[(rows["status"] == "ok") & rows[list(COSTS)].notna().any(axis=1)]
    kept = kept.reset_index(drop=True)
    ranked = with_break_even(kept[rankable(kept)])
    return kept.assign(
        **{
            BREAK_EVEN: ranked[BREAK_EVEN].reindex(kept.index),
            AGAINST: ranked[AGAINST].reindex(kept.index, fill_value=""),
        }
    )


def costs_of(rows: pd.DataFrame) -> tuple[str, ...]:
    """The kinds of cost that some row has."""
    return tuple(name for name in COSTS if rows[name].notna().any())


def cost_table(rows: pd.DataFrame) -> Table:
    """At the price that stands in each record."""
    names = costs_of(rows)
    head = ("cell", "epoch", *(METRICS[name].title for name in names), "break-even")
    body = tuple(
        (
            Entry(
                str(row["cell"]), href=cell_page(row), notes=(str(row["machine"]), *remarks(row))
            ),
            figure(row, "epoch_time_s"),
            *(figure(row, name) for name in names),
            _break_even(row),
        )
        for row in each(rows)
    )
    return Table("costs", "Costs of each cell", head, body, frozenset(range(1, 2 + len(names))))


def _break_even(row: Row) -> Entry:
    """The cell that the others of its workload are held against says so."""
    if row[AGAINST] == row["cell"]:
        return Entry("lowest fixed cost", raw=nan)
    return Entry(in_words(row), raw=float(row[BREAK_EVEN]))


def offers(rows: pd.DataFrame, results: Path) -> list[Offer]:
    """Every price of a kind of device that some row ran on, those of the newest snapshot first."""
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
    values = tuple(
        tuple(_cost(row, name, price, device) for name in costs_of(rows)) for row in each(rows)
    )
    return Offer(slug(price.id, Path(price.snapshot).stem), title, device, price, values)


def _cost(row: Row, name: str, price: Price, device: str) -> float | None:
    """None on another kind of device: seconds of a processor say nothing about a GPU's."""
    seconds, figures = PRICED[name]
    values = [row[figure_name] for figure_name in figures]
    if row["device"] != device or any(value != value for value in values):
        return None
    return float(cost_usd(float(seconds(*values)), price.usd_per_hour))


def kinds_table(found: list[Offer]) -> Table:
    """On-demand and spot side by side, for an hour."""
    pairs: dict[tuple[str, ...], dict[str, Price]] = {}
    for offer in found:
        price = offer.price
        key = (price.provider, price.instance, price.region, price.snapshot)
        pairs.setdefault(key, {})[price.kind] = price
    body = tuple(_kinds(key, pair) for key, pair in pairs.items())
    head = ("instance", "snapshot", "on-demand, USD/h", "spot, USD/h", "spot saves")
    return Table("kinds", "Spot against on-demand, an hour", head, body, frozenset({2, 3, 4}))


def _kinds(key: tuple[str, ...], pair: Mapping[str, Price]) -> tuple[Entry, ...]:
    rates = [pair[kind].usd_per_hour if kind in pair else None for kind in KINDS]
    saved = None if None in rates else 1 - (rates[1] or 0.0) / (rates[0] or 1.0)
    return (
        Entry(" ".join(key[:3])),
        Entry(key[3]),
        *(Entry(ABSENT) if rate is None else Entry(f"{rate:.10g}", raw=rate) for rate in rates),
        Entry(ABSENT) if saved is None else Entry(f"{100 * saved:.1f} %", raw=saved),
    )


def epochs_table(found: list[Offer], rows: pd.DataFrame) -> Table:
    """The shortest epoch of each workload, at the lowest price of both kinds."""
    timed = rows[rankable(rows) & rows["epoch_time_s"].notna()]
    places = timed.groupby(["workload", "scale", "device"], observed=True, sort=False)[
        "epoch_time_s"
    ].idxmin()
    body = tuple(_epoch_at(row, found) for row in each(timed.loc[places.tolist()]))
    head = ("workload", "the shortest epoch", "epoch", "on-demand", "spot")
    caption = "The shortest epoch of each workload, at the lowest price of the newest snapshot"
    return Table("epochs-at", caption, head, body, frozenset({2, 3, 4}))


def _epoch_at(row: Row, found: list[Offer]) -> tuple[Entry, ...]:
    return (
        Entry(f"{row['workload']}, {row['scale']}, {row['device']}"),
        Entry(
            name_of(row, "backend", "precision", "api_style"),
            href=cell_page(row),
            notes=(str(row["machine"]), *remarks(row)),
        ),
        figure(row, "epoch_time_s"),
        *(_at_lowest(row, found, kind) for kind in KINDS),
    )


def _at_lowest(row: Row, found: list[Offer], kind: str) -> Entry:
    prices = [one.price for one in found if one.device == row["device"] and one.price.kind == kind]
    if not prices:
        return Entry(ABSENT, raw=nan)
    newest = [price for price in prices if price.snapshot == prices[0].snapshot]
    lowest = min(newest, key=lambda price: price.usd_per_hour)
    cost = float(cost_usd(float(row["epoch_time_s"]), lowest.usd_per_hour))
    return Entry(FORMS["usd"](cost), raw=cost, notes=(f"{lowest.provider} {lowest.instance}",))
