"""What `epochmark advise` does: reads the noise floors, prints the choice and its reason."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite
from pathlib import Path
from textwrap import wrap
from typing import Any

import pandas as pd

from harness import answers
from harness.advise import OBJECTIVES, Advice, Candidate, Judged, Wanted, advise
from harness.cellbook import book
from harness.cells import all_cells
from harness.drift import known_drifts
from harness.errors import UsageError, unknown
from harness.noise import floors_of
from harness.registry import workloads
from harness.show import quality_form
from harness.statistics import LEVEL
from harness.summary import price_note
from harness.support import support
from harness.units import ABSENT, percent, quality, ruled, seconds, size, usd

WIDTH = 100
BEST = {"cost": "cheapest", "time": "fastest", "memory": "smallest", "quality": "best"}
BETTER = {"cost": "cheaper", "time": "faster", "memory": "smaller", "quality": "better"}


def advice(frame: pd.DataFrame, wanted: Wanted, results: Path) -> Advice:
    """The choice from these runs; raises UsageError for a name or bound that cannot be."""
    if wanted.workload not in workloads():
        raise unknown("workload", wanted.workload, list(workloads()))
    if wanted.by not in OBJECTIVES:
        raise unknown("objective", wanted.by, list(OBJECTIVES), where="--by")
    floors = floors_of(book(results, "noise"), map(str, frame["machine"].unique()))
    return advise(frame, wanted, floors, known_drifts(results, frame))


def bound(text: str | None, unit: str) -> float | None:
    """A quality as it is written: `67 %`, `0.67`, `6.9`; raises UsageError for anything else."""
    if text is None:
        return None
    number = text.strip().removesuffix("%").strip()
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if not isfinite(value) or value < 0:
        raise UsageError(f"--quality is {text!r}; expected a number such as 0.67 or 67%.")
    share = value / 100 if text.strip().endswith("%") else value
    if unit == "%" and share > 1:
        raise UsageError(
            f"--quality is {text!r}, more than all; write a share such as 0.67 or 67%."
        )
    return share


# Printing


def text(found: Advice) -> str:
    """The candidates worth a look, then the choice, what it saves, and what is not known."""
    shown = [one for one in found.judged if one.kept or one.candidate == found.default]
    lines = ruled(_head(found), [_line(found, one) for one in shown or found.judged])
    notes = [*sentences(found), *_caveats(found), price_note(found.runs)]
    wrapped = [part for note in notes for part in wrap(note, WIDTH, break_on_hyphens=False)]
    again = ["", f"Again: {again_command(found.chosen)}"] if found.chosen else []
    return "\n".join([_title(found), "", *lines, "", *wrapped, *again])


def _title(found: Advice) -> str:
    wanted = found.wanted
    parts = [f"{wanted.workload}, scale {found.scale}: training for {_epochs(found)}"]
    if wanted.quality is not None:
        one = found.judged[0].candidate
        word = "at least" if one.higher_is_better else "at most"
        parts.append(f"{_quality_name(one)} {word} {_quality(one, wanted.quality)}")
    if wanted.memory_bytes is not None:
        parts.append(f"memory at most {size(wanted.memory_bytes)}")
    if wanted.budget_usd is not None:
        parts.append(f"cost at most {usd(wanted.budget_usd)}")
    return ", ".join(parts)


def _epochs(found: Advice) -> str:
    several = " or ".join(map(str, found.epochs))
    return f"{several} epoch{'s' if found.epochs != (1,) else ''}"


def _head(found: Advice) -> list[str]:
    machine = ["machine"] if _several(found, "machine") else []
    batch = ["batch"] if _several(found, "batch_size") else []
    figures = ["n", "cost", "95 % interval", "time", "peak memory", "quality", ""]
    return ["cell", *machine, *batch, *figures]


def _several(found: Advice, name: str) -> bool:
    return len({getattr(one.candidate, name) for one in found.judged}) > 1


def _line(found: Advice, one: Judged) -> list[str]:
    candidate = one.candidate
    typical = candidate.typical
    machine = [candidate.machine] if _several(found, "machine") else []
    batch = [str(candidate.batch_size)] if _several(found, "batch_size") else []
    ends = candidate.cost_interval
    memory = typical["memory_bytes"]
    return [
        candidate.name + " ~" * candidate.extrapolated,
        *machine,
        *batch,
        str(candidate.processes),
        usd(typical["cost_usd"]),
        " to ".join(map(usd, ends)) if ends else ABSENT,
        seconds(typical["time_s"]),
        size(memory) if isfinite(memory) else ABSENT,
        f"{_quality_name(candidate)} {_quality(candidate, candidate.quality)}",
        one.verdict,
    ]


def _quality(one: Candidate, value: float) -> str:
    unit, _ = quality_form(one.cell.split("/")[0], one.quality_metric)
    return quality(value, unit=unit)


def _quality_name(one: Candidate) -> str:
    return quality_form(one.cell.split("/")[0], one.quality_metric)[1]


def sentences(found: Advice) -> list[str]:
    """The recommendation with its reason, and what it saves."""
    chosen, by = found.chosen, found.wanted.by
    if chosen is None:
        return [f"None of the {len(found.judged)} cells keeps these bounds."]
    cost = usd(chosen.typical["cost_usd"])
    said = f"Recommended for {found.wanted.workload}: {chosen.name}, {cost} for {_epochs(found)}"
    return [f"{said}: {_reason(found, chosen, by)}.", *_saving(found, chosen, by)]


def _reason(found: Advice, chosen: Candidate, by: str) -> str:
    fitting = found.fitting
    if fitting == 1:
        return "it is the only cell that was measured and fits"
    if not found.ties:
        return f"it is surely the {BEST[by]} of the {fitting} cells that fit"
    others = _names(found.ties)
    if chosen == found.default:
        return f"it is what Keras gives by default, and {others} cannot be told to be {BETTER[by]}"
    return (
        f"it is the {BEST[by]} measured of the {fitting} cells that fit; not told apart from it: "
        f"{others}"
    )


def _names(candidates: Sequence[Candidate], most: int = 3) -> str:
    names = [one.name for one in candidates[:most]]
    more = len(candidates) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _saving(found: Advice, chosen: Candidate, by: str) -> list[str]:
    default = found.default
    if default is None:
        return [
            "The default of Keras (tensorflow, float32, functional) was not measured beside it."
        ]
    if default == chosen:
        return []
    figure = OBJECTIVES[by]
    if not (isfinite(chosen.typical[figure]) and 0 < default.typical[figure] < inf):
        return []
    saved = 1 - chosen.typical[figure] / default.typical[figure]
    what = {"quality": "error"}.get(by, by)
    if abs(saved) < 0.0005:
        return [f"That is as much {what} as the default {default.name} takes."]
    word = "less" if saved > 0 else "more"
    head = f"That is {percent(abs(saved))} {word} {what} than the default {default.name}"
    if found.saved is None or saved < 0:
        return [f"{head}."]
    low, high = (1 - 1 / ratio for ratio in found.saved.interval(1 - LEVEL))
    return [f"{head} (95 % interval {percent(low)} to {percent(high)})."]


_NOISES = {
    "own processes": "",
    "other cells": (
        "A cell of one process is judged by how the processes of the others differ; more processes "
        "(--replicates 5) tell more apart."
    ),
    "noise floor": "Every cell is one process, judged by this machine's noise floor.",
    "unknown": (
        "Every cell is one process, and this machine's noise is not known: no difference counts. "
        "Measure with --replicates 5, or the noise with `epochmark doctor --calibrate`."
    ),
}


def _caveats(found: Advice) -> list[str]:
    hidden = len(found.judged) - sum(one.kept for one in found.judged)
    notes = [_NOISES[found.noise]] if _NOISES[found.noise] else []
    if hidden and found.chosen:
        notes.append(
            f"{hidden} of the {len(found.judged)} cells are beaten in something and better in "
            "nothing, or miss a bound (--format csv has them all)."
        )
    if any(one.candidate.extrapolated for one in found.judged):
        notes.append("~ Extrapolated from a part of an epoch.")
    if _several(found, "batch_size"):
        notes.append("The cells do not all train with the same batch size.")
    notes += [f"Left out: {count} {reason}." for reason, count in found.left_out.items()]
    missing, possible = unmeasured(found)
    if missing:
        notes.append(
            f"Not measured: {len(missing)} of the {possible} cells that can run here, such as "
            f"{missing[0]}."
        )
    return notes


def unmeasured(found: Advice) -> tuple[list[str], int]:
    """Training cells of the workload and scale that run here and have no run; and how many run."""
    point = (found.wanted.workload, found.scale, "train")
    every = [c for c in all_cells(list(workloads())) if not c.on_request]
    cells = [c for c in every if (c.workload, c.scale, c.phase) == point]
    possible = [cell.id for cell in cells if support(cell).runs]
    return [cell for cell in possible if cell not in found.seen], len(possible)


def again_command(chosen: Candidate) -> str:
    """What measures the chosen cell anew."""
    return f"epochmark run --only '{chosen.cell}' --replicates {max(5, chosen.processes)}"


def records(found: Advice) -> list[dict[str, Any]]:
    """A dictionary per candidate; what is not known is None."""
    return [_record(one) for one in found.judged]


def _record(one: Judged) -> dict[str, Any]:
    candidate = one.candidate
    low, high = candidate.cost_interval or (None, None)
    memory = candidate.typical["memory_bytes"]
    return {
        "cell": candidate.cell,
        "machine": candidate.machine,
        "batch_size": candidate.batch_size,
        "epochs": candidate.epochs,
        "processes": candidate.processes,
        "cost_usd": candidate.typical["cost_usd"],
        "cost_low_usd": low,
        "cost_high_usd": high,
        "time_s": candidate.typical["time_s"],
        "memory_bytes": memory if isfinite(memory) else None,
        "quality": candidate.quality,
        "quality_metric": candidate.quality_metric,
        "extrapolated": candidate.extrapolated,
        "pareto": one.kept,
        "verdict": one.verdict,
    }


def as_json(found: Advice) -> str:
    """The candidates and the choice."""
    return answers.as_json(
        {
            "workload": found.wanted.workload,
            "scale": found.scale,
            "by": found.wanted.by,
            "recommended": found.chosen.cell if found.chosen else None,
            "reason": " ".join(sentences(found)),
            "as_good": [one.cell for one in found.ties],
            "default": found.default.cell if found.default else None,
            "noise": found.noise,
            "left_out": dict(found.left_out),
            "not_measured": unmeasured(found)[0],
            "again": again_command(found.chosen) if found.chosen else None,
            "cells": records(found),
        }
    )


def as_csv(found: Advice) -> str:
    """A row per candidate."""
    rows = records(found)
    return answers.as_csv(rows, list(rows[0]))
