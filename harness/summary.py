"""One row per cell from the table of runs, and what must be said about the rows beneath them."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.cells import API_STYLES, AXES, BACKENDS, PHASES, PRECISIONS, SCALES
from harness.columns import NUMBERS
from harness.metrics import PRICED
from harness.paths import LOST
from harness.ranking import POINT, UNRANKED, undisturbed
from harness.scaling import with_scaling
from harness.units import digits

if TYPE_CHECKING:  # scipy takes a while to import
    from harness.drift import Drift, Drifts

NO_PRICE = (
    "No price was chosen, so there is no cost. Choose one with --price ID (`epochmark prices` "
    "lists them) or [tool.epochmark] price in pyproject.toml."
)
INTERVALS = {
    "step_time_s": ("step_time_low_s", "step_time_high_s"),
    "epoch_time_s": ("epoch_time_low_s", "epoch_time_high_s"),
    "cost_per_epoch_usd": ("cost_per_epoch_low_usd", "cost_per_epoch_high_usd"),
    "infer_latency_s": ("infer_latency_low_s", "infer_latency_high_s"),
    "infer_throughput_examples_per_s": (
        "infer_throughput_low_examples_per_s",
        "infer_throughput_high_examples_per_s",
    ),
}
"""The columns of a row's 95 % intervals; absent (NaN) where there is one process. All are of times,
and so of the hour in which they were measured."""

ENDS = tuple(end for ends in INTERVALS.values() for end in ends)

COUNTS = ("n", "left_out")
"""The columns that count a row's processes: those behind its figures, and those that are not."""

DRIFT = "drift"
"""The column with the standard deviation of a session's times on the row's machine, as a share; and
`drift_seen` says from what it is known."""

_ORDER = (*SCALES, *PHASES, *BACKENDS, *PRECISIONS, *API_STYLES)
_OF_ONE_RUN = ["run", "replicate", "seed", "file"]


def summary(frame: pd.DataFrame, drifts: Drifts | None = None) -> pd.DataFrame:
    """The latest session's runs of each cell, batch size and machine: medians over replicates.

    Intervals are of another session on machines whose drift is given, else of the session while it
    ran; the column DRIFT is absent (NaN) where it is not.

    Every status keeps a row of its own, so that failed runs are neither dropped nor averaged over;
    `n` counts its runs, `left_out` those that may not be ranked where others may. Of a replicate
    that was run again in its session, the last try counts.
    """
    point = list(POINT)
    everyone = latest(frame)
    runs = undisturbed(everyone)
    groups = runs.groupby([*point, "status"], sort=False, observed=True)
    rows = groups.first().drop(columns=_OF_ONE_RUN)
    numbers = list(NUMBERS)
    rows[numbers] = groups[numbers].median()
    known = drifts or {}
    for metric, ends in INTERVALS.items():
        found = [_interval(values, known.get(str(key[0]))) for key, values in groups[metric]]
        for place, name in enumerate(ends):
            rows[name] = [pair[place] for pair in found]
    for mark in (*UNRANKED, "slow_path", "extrapolated"):
        rows[mark] = groups[mark].any()
    rows.insert(0, "n", groups.size())
    drifts_of_rows = [known.get(str(key[0])) for key in rows.index]
    rows[DRIFT] = [drift.spread if drift else nan for drift in drifts_of_rows]
    rows["drift_seen"] = [drift.seen if drift else "" for drift in drifts_of_rows]
    whole = everyone.groupby([*point, "status"], sort=False, observed=True).size()
    rows.insert(1, "left_out", whole - rows["n"])
    rows = with_scaling(rows.reset_index())
    ranks = [_rank(row) for _, row in rows.iterrows()]
    order = sorted(range(len(rows)), key=ranks.__getitem__)
    return rows.iloc[order].reset_index(drop=True)


def latest(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs of each point's latest session; of a replicate that was run again, the last try.

    A run that stopped after the gate, or was an attempt to replay another, stands for a point only
    where nothing else was measured.
    """
    point = list(POINT)
    runs = frame.drop_duplicates([*point, "session", "replicate"], keep="last")
    runs = runs.sort_values(["untimed", "replayed"], ascending=False, kind="stable")
    newest = runs.drop_duplicates(point, keep="last")[[*point, "session"]]
    return runs.merge(newest, on=[*point, "session"], how="inner")


def _interval(values: pd.Series[float], drift: Drift | None) -> tuple[float, float]:
    """Where the cell's typical process lies (`harness.statistics`)."""
    present = values.dropna().tolist()
    if len(present) < 2:
        return nan, nan
    from harness.statistics import interval  # scipy takes a while to import

    return interval(present, drift=drift.between if drift else None) or (nan, nan)


def _rank(row: pd.Series[Any]) -> tuple[Any, ...]:
    """Machines and workloads by name, the other axes as their lists order them, ok first."""
    axes = [str(row[axis]) for axis in AXES]
    places = [(_ORDER.index(value) if value in _ORDER else -1, value) for value in axes]
    return (row["machine"], places, row["batch_size"], row["status"] != "ok", row["status"])


def reasons(rows: pd.DataFrame) -> dict[str, int]:
    """The reasons of rows that are not ok, each with its footnote's number."""
    failed = rows.loc[(rows["status"] != "ok") & (rows["reason"] != ""), "reason"]
    return {str(reason): number for number, reason in enumerate(dict.fromkeys(failed), 1)}


def footnotes(rows: pd.DataFrame, *, shows_cost: bool) -> list[str]:
    """Sentences that belong under every printed form of these rows."""
    notes = [f"[{number}] {reason}" for reason, number in reasons(rows).items()]
    if (rows["n"] == 1).all():
        notes.append("Each row is one process; how processes differ was not measured.")
    else:
        notes.append("n counts the processes of a row; its numbers are their medians.")
        if rows[list(ENDS)].notna().any(axis=None):
            notes += _of_intervals(rows)
    if rows["left_out"].any():
        notes.append(
            "'of' counts them all: the rest ran beside other work, on a throttled accelerator, or "
            "was changed after it was written, and counts in no figure."
        )
    if rows["contended"].any():
        notes.append("* Other processes used the machine meanwhile; these rows are not ranked.")
    if rows["throttled"].any():
        notes.append(
            "^ The accelerator was slowed down by heat or by its supply of power; these rows are "
            "not ranked."
        )
    if rows["simulated"].any():
        notes.append(
            "# Several devices simulated on a processor that they share: whether it is right, not "
            "how fast several would be; these rows are not ranked."
        )
    if rows["slow_path"].any():
        notes.append(
            "? A fast path that this backend is expected to take on such a device was not taken; "
            f"the row's settings name it (`{LOST}`)."
        )
    if rows["altered"].any():
        notes.append("! The row was changed after it was written.")
    if rows["untimed"].any():
        notes.append(
            "= The run was to end after the equality gate (`--gate-only`) and has no time."
        )
    if rows["extrapolated"].any():
        shares = rows.loc[rows["extrapolated"], "epoch_fraction"]
        notes.append(
            "~ Time and cost of an epoch are extrapolated from its first steps: "
            f"{_span(shares.min(), shares.max())} of them."
        )
    if chosen := "; ".join(sorted({str(options) for options in rows["options"] if options})):
        notes.append(f"Trained with options of the loop: {chosen}.")
    if rows["protocol"].nunique() > 1:
        notes.append("Rows were measured under different protocols and cannot be ranked together.")
    if not shows_cost and (rows["price"] != "").any():
        return notes
    return [*notes, price_note(rows)]


def _of_intervals(rows: pd.DataFrame) -> list[str]:
    """What the 95 % interval of rows on machines whose drift is known, or is not, is of."""
    compared = "`epochmark compare` tells whether two rows do."
    told = rows[rows[list(ENDS)].notna().any(axis=1)]
    known = told.loc[told[DRIFT].notna(), [DRIFT, "drift_seen"]].drop_duplicates()
    notes = []
    if len(known):
        apart = "; ".join(
            f"standard deviation {digits(100 * share, 2)} %, {seen}"
            for share, seen in known.itertuples(index=False)
        )
        notes.append(
            "The 95 % interval is where another session of the row has its figure: from how the "
            "row's processes differ, and from how much further than that sessions of the same code "
            f"are apart on its machine ({apart}). {compared}"
        )
    if told[DRIFT].isna().any():
        notes.append(
            "The 95 % interval is of the typical process while the session ran, from how the "
            f"processes of the row differ. {compared}"
        )
    return notes


def _span(low: float, high: float) -> str:
    ends = list(dict.fromkeys((digits(100 * low, 2), digits(100 * high, 2))))
    return f"{' to '.join(ends)} %"


def price_note(rows: pd.DataFrame) -> str:
    """Whose prices the costs of these rows, or runs, are at."""
    priced = rows[(rows["price"] != "") & rows[list(PRICED)].notna().any(axis=1)]
    if priced.empty:
        return NO_PRICE
    prices = priced.drop_duplicates(["price", "price_usd_per_hour", "price_as_of"])
    words = [_price_in_words(price) for _, price in prices.iterrows()]
    said = f"Costs are seconds times the reference price {words[0]}."
    if len(words) > 1:
        said = (
            "Costs are seconds times a reference price, which is not the same for all rows: "
            f"{'; '.join(words)}."
        )
    return f"{said} It is not the price of the machine that was measured."


def _price_in_words(price: pd.Series[Any]) -> str:
    return (
        f"{price['price_provider']} {price['price_instance']}, {price['price_region']}, "
        f"{price['price_kind']}, {price['price_usd_per_hour']:.10g} USD/h "
        f"({price['price_as_of']}, source {price['price_source']})"
    )
