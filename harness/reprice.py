"""Prices measured runs again: the seconds stay, the rate is another. Changes no results file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite, nan

import pandas as pd

from harness.columns import PRICE_TEXTS
from harness.cost import cost_usd
from harness.errors import UsageError
from harness.metrics import PRICED
from harness.prices import KINDS, composed, covers, no_such_price
from harness.schema import Price


@dataclass(frozen=True)
class Wish:
    """Which price a run gets: the one of that id, or its own with another region or kind."""

    price: str | None = None
    region: str | None = None
    kind: str | None = None

    def __call__(self, own: str) -> str:
        """The id of the price for a run that was priced by `own` (empty: by none)."""
        parts = own.split(":")
        if self.price or len(parts) != 4:
            return self.price or own
        provider, instance, region, kind = parts
        return composed(provider, instance, self.region or region, self.kind or kind)


def repriced(
    frame: pd.DataFrame, book: Mapping[str, Price], wish: Wish
) -> tuple[pd.DataFrame, list[str]]:
    """The table of runs with its costs at other prices, and a sentence for each price not found.

    Runs whose price is not found have no cost. Raises UsageError when that is all of them.
    """
    if wish.price and wish.price not in book:
        raise no_such_price(wish.price)
    runs = list(zip(frame["price"].astype(str), frame["device"].astype(str), strict=True))
    wanted = {run: wish(run[0]) for run in dict.fromkeys(runs)}
    found = {
        (own, device): book[other]
        for (own, device), other in wanted.items()
        if other in book and covers(book[other], device)
    }
    notices = list(
        dict.fromkeys(
            _uncovered(book[other], run[1]) if other in book else _missing(other, book)
            for run, other in wanted.items()
            if run not in found
        )
    )
    if not found:
        raise UsageError(notices[0] if notices else "The results hold no runs.")
    again = frame.copy()
    for name, get in _PRICE_COLUMNS.items():
        texts = [get(found[run]) if run in found else "" for run in runs]
        again[name] = pd.Categorical(texts)
    rates = pd.Series([found[run].usd_per_hour if run in found else nan for run in runs])
    again["price_usd_per_hour"] = rates.to_numpy(float)
    for metric, (seconds, figures) in PRICED.items():
        again[metric] = _costs(seconds(*(again[figure] for figure in figures)), rates)
    return again, notices


def _text(field: str) -> Callable[[Price], str]:
    return lambda price: str(getattr(price, field))


_PRICE_COLUMNS = {"price": _text("id"), **{f"price_{name}": _text(name) for name in PRICE_TEXTS}}


def _costs(seconds: pd.Series[float], rates: pd.Series[float]) -> list[float]:
    return [
        float(cost_usd(second, rate)) if isfinite(second) and isfinite(rate) else nan
        for second, rate in zip(seconds.tolist(), rates.tolist(), strict=True)
    ]


def _uncovered(price: Price, device: str) -> str:
    return f"{device} cells have no cost: {price.id} has {price.accelerator}."


def _missing(wanted: str, book: Mapping[str, Price]) -> str:
    """Why runs that would be priced so get no price, and what there is of the same instance."""
    if not wanted:
        return "Some runs were measured without a price: name one with --price ID."
    instance = wanted.split(":")[:2]
    others = [price for price in book.values() if [price.provider, price.instance] == instance]
    if not others:
        return f"There is no price {wanted!r}, nor another of that instance."
    known = ", ".join(f"{price.region} {price.kind}" for price in others)
    return f"There is no price {wanted!r}. Of {' '.join(instance)} there are: {known}."


def wish(price: str | None, region: str | None, kind: str | None) -> Wish:
    """Raises UsageError where both a price and a part of one are named."""
    if price and (region or kind):
        raise UsageError("--price names one price; leave out --region, --spot and --on-demand.")
    assert kind in (None, *KINDS)
    return Wish(price, region, kind)
