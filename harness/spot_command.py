"""What `epochmark interrupt` and `epochmark spot` do: kill and resume; price what that costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from statistics import median
from textwrap import wrap
from typing import Any

import pandas as pd

from harness import accelerators, answers, probes, runner
from harness.cells import Cell
from harness.clock import utc_now
from harness.errors import UsageError
from harness.interruption import (
    Interruption,
    Kill,
    interruption_of,
    kill_and_resume,
    read_interruptions,
    write_interruptions,
)
from harness.metrics import hampered
from harness.prices import composed
from harness.schema import Price
from harness.spot import Outlook, outlook
from harness.summary import summary
from harness.units import aligned, digits, ruled, seconds, size, usd

WIDTH = 100
Say = Callable[[str], None]


def interrupt(cells: Sequence[Cell], kills: int, results: Path, say: Say) -> tuple[Path, bool]:
    """Kill and resume every cell so many times, and keep what it took.

    Returns the file, and whether every cell got through; those that did not are told and left out.
    """
    runner.prepare_data(cells, say)
    machine, commit = probes.machine_name(), runner.suite_commit()
    path = write_interruptions(
        results, machine, {}
    )  # a damaged file is told before hours are spent
    through = True
    for cell in cells:
        found = []
        for number in range(kills):
            with accelerators.watched(cell.device) as watches:
                kill = kill_and_resume(cell, number=number)
            if hampered(accelerators.seen(watches)):
                say(f"{cell.id}: the accelerator was slowed down, or others computed on it")
                through = False
                break
            if not isinstance(kill, Kill):
                say(f"{cell.id}: ended as {kill.status!r}: {kill.reason}")
                through = False
                break
            found.append(kill)
        else:
            one = interruption_of(found, as_of=utc_now()[:10], suite_commit=commit)
            path = write_interruptions(results, machine, {cell.id: one})
            say(f"{cell.id}: {_told(one)}")
    return path, through


def _told(one: Interruption) -> str:
    return (
        f"checkpoint {seconds(median(one.checkpoint_s))} ({size(one.checkpoint_bytes)}), restart "
        f"{seconds(median(one.restart_s))}, losses within {max(one.loss_deviation):.1e}"
    )


def render(found: dict[str, Interruption]) -> str:
    """A line per cell of the machine's file."""
    head = ("cell", "kills", "checkpoint", "size", "restart", "losses differ by", "as of")
    return "\n".join(aligned([head, *(_row(cell, one) for cell, one in found.items())]))


def _row(cell: str, one: Interruption) -> tuple[str, ...]:
    return (
        cell,
        str(len(one.restart_s)),
        seconds(median(one.checkpoint_s)),
        size(one.checkpoint_bytes),
        seconds(median(one.restart_s)),
        f"{max(one.loss_deviation):.1e}",
        one.as_of,
    )


# Spot against on demand


def outlooks(
    frame: pd.DataFrame,
    book: dict[str, Price],
    results: Path,
    *,
    rate: float,
    interval_s: float | None,
    epochs: int | None,
) -> tuple[dict[str, Outlook], list[str]]:
    """What the latest runs' training would cost on both, by cell, and what is missing for which.

    Raises UsageError where no cell has all that it takes.
    """
    rows = summary(frame)
    rows = rows[(rows["status"] == "ok") & (rows["phase"] == "train")]
    twice = set(rows.loc[rows["cell"].duplicated(), "cell"])
    found: dict[str, Outlook] = {}
    missing: dict[str, int] = {}
    for machine, group in rows.groupby("machine", observed=True):
        seen = read_interruptions(results, str(machine))
        for _, row in group.iterrows():
            one = _outlook(row, book, seen, rate, interval_s, epochs)
            if isinstance(one, Outlook):
                of = f" (batch {row['batch_size']}, {machine})" if row["cell"] in twice else ""
                found[f"{row['cell']}{of}"] = one
            else:
                missing[one] = missing.get(one, 0) + 1
    if not found:
        reasons = "; ".join(f"{count} {reason}" for reason, count in missing.items())
        raise UsageError(f"No training can be priced on spot capacity ({reasons or 'no runs'}).")
    return found, [f"Left out: {count} {reason}." for reason, count in missing.items()]


def _outlook(
    row: pd.Series[Any],
    book: dict[str, Price],
    seen: dict[str, Interruption],
    rate: float,
    interval_s: float | None,
    epochs: int | None,
) -> Outlook | str:
    """The outlook of a row, or what is missing for it."""
    if row["cell"] not in seen:
        return "never interrupted (measure with `epochmark interrupt`)"
    kinds = [
        book.get(composed(row["price_provider"], row["price_instance"], row["price_region"], kind))
        for kind in ("spot", "on-demand")
    ]
    spot, full = kinds
    if spot is None or full is None:
        return "without a price of both kinds"
    count = epochs or row["epochs"]
    work_s = row["startup_time_s"] + row["compile_time_s"] + count * row["epoch_time_s"]
    if not isfinite(work_s):
        return "without a whole epoch"
    one = seen[str(row["cell"])]
    return outlook(
        float(work_s),
        rate=rate,
        interval_s=interval_s,
        checkpoint_s=median(one.checkpoint_s),
        restart_s=median(one.restart_s),
        spot_usd_per_hour=spot.usd_per_hour,
        on_demand_usd_per_hour=full.usd_per_hour,
    )


def text(found: dict[str, Outlook], rate: float, notes: Sequence[str]) -> str:
    """A line per cell."""
    figures = ["work", "checkpoint every", "on spot", "spot cost", "on demand", "cheaper up to"]
    lines = ruled(["cell", *figures], [_line(cell, one) for cell, one in found.items()])
    said = [
        f"At {digits(rate)} interruptions an hour. 'on spot' is the expected time, checkpoints and "
        "restarts included; 'cheaper up to' is how many an hour make spot as dear as on demand.",
        *notes,
    ]
    return "\n".join([*lines, "", *(part for note in said for part in wrap(note, WIDTH))])


def _line(cell: str, one: Outlook) -> list[str]:
    return [
        cell,
        seconds(one.work_s),
        seconds(one.interval_s),
        seconds(one.expected_s) if isfinite(one.expected_s) else "never done",
        usd(float(one.spot_usd)) if one.spot_usd.is_finite() else "no end",
        usd(float(one.on_demand_usd)),
        f"{digits(one.bearable_rate)} /h",
    ]


def records(found: dict[str, Outlook]) -> list[dict[str, Any]]:
    """A dictionary per cell; what has no end is None."""
    return [
        {
            "cell": cell,
            "work_s": one.work_s,
            "interval_s": one.interval_s,
            "expected_s": one.expected_s if isfinite(one.expected_s) else None,
            "spot_usd": float(one.spot_usd) if one.spot_usd.is_finite() else None,
            "on_demand_usd": float(one.on_demand_usd),
            "bearable_rate_per_h": one.bearable_rate,
        }
        for cell, one in found.items()
    ]


def as_json(found: dict[str, Outlook], rate: float, notes: Sequence[str]) -> str:
    """The cells with the rate."""
    told = {"rate_per_h": rate, "cells": records(found), "notes": list(notes)}
    return answers.as_json(told)


def as_csv(found: dict[str, Outlook], rate: float, notes: Sequence[str]) -> str:
    """A row per cell."""
    rows = records(found)
    return answers.as_csv(rows, list(rows[0]))
