"""Which cell to train with: the Pareto set over cost, time, memory and quality, and one choice.

Knows no files. A cell counts as better only where that is sure: by how its processes differ
(`harness.statistics`), for a cell of one process by how those of the other cells do, and where no
cell has several by the machine's noise floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, isfinite, log, sqrt
from statistics import fmean, median, variance
from typing import Any

import pandas as pd

from harness import statistics
from harness.cells import SCALES, Cell
from harness.drift import Drift, Drifts
from harness.errors import UsageError
from harness.noise import Floor
from harness.ranking import POINT
from harness.statistics import ALPHA, Difference, Variance
from harness.summary import latest

OBJECTIVES = {
    "cost": "cost_usd",
    "time": "time_s",
    "memory": "memory_bytes",
    "quality": "quality_error",
}
"""What can be asked for, each with the figure of a process that says it; less is better."""

DEFAULT = {"backend": "tensorflow", "precision": "float32", "api_style": "functional"}
"""What Keras gives to who chooses nothing, and the style that its guides begin with."""

OF_TIME = ("cost", "time")
"""Objectives that are as good as the machine is fast at that hour."""

NOISES = ("own processes", "other cells", "noise floor", "unknown")

Floors = Mapping[tuple[str, str], Floor]
"""Noise floors by machine and cell."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for. `epochs` None: as many as were trained; bounds None: none."""

    workload: str
    scale: str | None = None
    epochs: int | None = None
    quality: float | None = None
    memory_bytes: float | None = None
    budget_usd: float | None = None
    by: str = "cost"


@dataclass(frozen=True)
class Candidate:
    """A cell on one machine; figures hold a number for each of its processes.

    `drift` is the machine's between sessions, None where it is not known.
    """

    cell: str
    machine: str
    session: str
    drift: Drift | None
    batch_size: int
    epochs: int
    quality_metric: str
    higher_is_better: bool
    extrapolated: bool
    figures: Mapping[str, tuple[float, ...]]

    @property
    def processes(self) -> int:
        return len(self.figures["cost_usd"])

    @property
    def name(self) -> str:
        """The axes that candidates differ in: backend, precision, style, device."""
        return self.cell.split("/", 3)[3]

    @cached_property
    def typical(self) -> dict[str, float]:
        """The median over its processes."""
        return {name: median(values) for name, values in self.figures.items()}

    @property
    def cost_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of its cost; None for one process."""
        drift = self.drift.between if self.drift else None
        return statistics.interval(self.figures["cost_usd"], drift=drift)

    @property
    def quality(self) -> float:
        return self.typical["quality"]


@dataclass(frozen=True)
class Judged:
    """A candidate with the word that the table says of it."""

    candidate: Candidate
    verdict: str
    kept: bool


@dataclass(frozen=True)
class Advice:
    """`ties` cannot be told from the chosen one; `chosen` None: nothing fits.

    `fitting` counts the candidates that keep every bound; `saved` is the default to the chosen one,
    None where their noise is not known; `noise` says whence it is known, one of NOISES; `runs` are
    those that were chosen from, `seen` the cells that have any.
    """

    wanted: Wanted
    scale: str
    epochs: tuple[int, ...]
    judged: tuple[Judged, ...]
    fitting: int
    chosen: Candidate | None
    ties: tuple[Candidate, ...]
    default: Candidate | None
    saved: Difference | None
    noise: str
    left_out: Mapping[str, int]
    runs: pd.DataFrame
    seen: frozenset[str]


def advise(
    frame: pd.DataFrame, wanted: Wanted, floors: Floors, drifts: Drifts | None = None
) -> Advice:
    """The choice among the latest runs of the table of runs.

    `floors` and `drifts` are what is known of the machines' noise. Raises UsageError where no run
    of the workload can be chosen from, with the reason.
    """
    runs, scale = _of_scale(frame, wanted)
    usable, left_out = _usable(runs)
    if usable.empty:
        raise UsageError(_nothing(wanted, scale, left_out))
    candidates = _candidates(usable, wanted, drifts or {})
    fitting = [one for one in candidates if not _misfit(one, wanted)]
    judge = _Judge(candidates, floors, max(1, len(fitting) - 1))
    front = [one for one in fitting if not any(judge.beats(other, one) for other in fitting)]
    figure = OBJECTIVES[wanted.by]
    by_figure = sorted(candidates, key=lambda one: one.typical[figure])
    default = next(filter(_is_default, by_figure), None)
    chosen, ties = _choice(fitting, default, wanted.by, judge)
    return Advice(
        wanted=wanted,
        scale=scale,
        epochs=tuple(sorted({one.epochs for one in candidates})),
        judged=tuple(_judged(one, wanted, chosen, ties, front) for one in by_figure),
        fitting=len(fitting),
        chosen=chosen,
        ties=tuple(ties),
        default=default,
        saved=judge.difference(chosen, default, wanted.by) if default and chosen else None,
        noise=judge.noise(),
        left_out=left_out,
        runs=usable,
        seen=frozenset(runs["cell"].astype(str)),
    )


# Which runs count


def _of_scale(frame: pd.DataFrame, wanted: Wanted) -> tuple[pd.DataFrame, str]:
    mine = frame[(frame["workload"] == wanted.workload) & (frame["phase"] == "train")]
    scales = [scale for scale in SCALES if (mine["scale"] == scale).any()]
    if not scales:
        raise UsageError(
            f"There are no training runs of {wanted.workload!r} in these results. Measure some "
            f"with `epochmark run --only '{wanted.workload}/smoke/train/*/float32/functional/cpu'`."
        )
    if wanted.scale is None and len(scales) > 1:
        raise UsageError(
            f"There are runs of {wanted.workload!r} at scales {' and '.join(scales)}. "
            "Choose one with --scale."
        )
    scale = wanted.scale or scales[0]
    if scale not in scales:
        raise UsageError(
            f"There are no training runs of {wanted.workload!r} at scale {scale!r}, only at "
            f"{' and '.join(scales)}."
        )
    return latest(mine[mine["scale"] == scale]), scale


def _usable(runs: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """The runs that may be chosen from, and how many cells are left out for which reason."""
    rules = {
        "not ok (its status says why)": runs["status"] != "ok",
        "beside other work on the machine": runs["contended"],
        "on a throttled accelerator": runs["throttled"],
        "on simulated devices": runs["simulated"],
        "changed by hand": runs["altered"],
        "stopped after the equality gate": runs["untimed"],
        "without a price": runs["price_usd_per_hour"].isna(),
        "without a whole epoch and its quality": runs["cost_per_epoch_usd"].isna()
        | runs["fixed_cost_usd"].isna()
        | runs["quality_error"].isna(),
    }
    left_out: dict[str, int] = {}
    for reason, hit in rules.items():
        hit = hit.reindex(runs.index)
        lost = set(runs.loc[hit, "cell"]) - set(runs.loc[~hit, "cell"])
        if lost:
            left_out[reason] = len(lost)
        runs = runs[~hit]
    kept = _of_one_kind(runs)
    others = set(runs["cell"]) - set(kept["cell"])
    if others:
        left_out["under another protocol or version of the workload"] = len(others)
    return kept, left_out


def _of_one_kind(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the protocol and workload version that has most cells; of equals the newest."""
    if runs.empty:
        return runs
    version = runs["workload_version"].astype(str).str.rpartition(".")[0]
    kinds = (runs["protocol"].astype(str) + " " + version).tolist()
    known = [
        (found["cell"].nunique(), found["started_at"].max(), kind)
        for kind, found in runs.groupby(kinds)
    ]
    wanted = max(known)[2]
    return runs.loc[[kind == wanted for kind in kinds]]


def _nothing(wanted: Wanted, scale: str, left_out: Mapping[str, int]) -> str:
    reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
    return (
        f"No cell of {wanted.workload!r} at scale {scale!r} can be chosen from ({reasons}). "
        "Measure again with `epochmark run`, with a price."
    )


def _candidates(runs: pd.DataFrame, wanted: Wanted, drifts: Drifts) -> list[Candidate]:
    groups = runs.groupby(list(POINT), observed=True)
    return [_candidate(group, wanted, drifts) for _, group in groups]


def _candidate(group: pd.DataFrame, wanted: Wanted, drifts: Drifts) -> Candidate:
    first = group.iloc[0]
    epochs = wanted.epochs or int(first["epochs"])
    start = group["startup_time_s"] + group["compile_time_s"]
    on_device = group["peak_device_memory_bytes"]
    figures: dict[str, Any] = {
        "cost_usd": group["fixed_cost_usd"] + epochs * group["cost_per_epoch_usd"],
        "time_s": start + epochs * group["epoch_time_s"],
        "memory_bytes": on_device.fillna(group["peak_host_memory_bytes"]).fillna(inf),
        "quality_error": group["quality_error"],
        "quality": group["quality"],
    }
    return Candidate(
        cell=str(first["cell"]),
        machine=str(first["machine"]),
        session=str(first["session"]),
        drift=drifts.get(str(first["machine"])),
        batch_size=int(first["batch_size"]),
        epochs=epochs,
        quality_metric=str(first["quality_metric"]),
        higher_is_better=bool(first["higher_is_better"]),
        extrapolated=bool(group["extrapolated"].any()),
        figures={name: tuple(map(float, values)) for name, values in figures.items()},
    )


def _is_default(one: Candidate) -> bool:
    axes = dict(zip(Cell.__dataclass_fields__, one.cell.split("/"), strict=True))
    return all(axes[axis] == value for axis, value in DEFAULT.items())


# What is better


class _Judge:
    """Tells candidates apart; a question to each of so many others keeps ALPHA over all of them."""

    def __init__(self, candidates: Sequence[Candidate], floors: Floors, others: int) -> None:
        self._candidates = candidates
        self._floors = floors
        self._alpha = ALPHA / others
        replicated = [one for one in candidates if one.processes > 1]
        self._spreads = {by: _spread(replicated, figure) for by, figure in OBJECTIVES.items()}

    def noise(self) -> str:
        """Whence the noise of costs and times is known."""
        if all(one.processes > 1 for one in self._candidates):
            return "own processes"
        if self._spreads["cost"] is not None:
            return "other cells"
        known = all((one.machine, one.cell) in self._floors for one in self._candidates)
        return "noise floor" if known else "unknown"

    def difference(self, one: Candidate, other: Candidate, by: str) -> Difference | None:
        """Other to one; None where the noise is not known, or a figure is not positive."""
        sides = [side.figures[OBJECTIVES[by]] for side in (one, other)]
        if not all(0 < value < inf for side in sides for value in side):
            return None
        between = _between(one, other) if by in OF_TIME else []
        if min(map(len, sides)) > 1:
            return statistics.difference(*sides).widened(*between)
        spread = self._spreads[by]
        if spread is None:
            return None
        logs = [fmean(map(log, side)) for side in sides]
        error = spread.error * sqrt(sum(1 / len(side) for side in sides))
        return Difference(logs[1] - logs[0], error, spread.freedom).widened(*between)

    def surely_better(self, one: Candidate, other: Candidate, by: str) -> bool:
        """Whether the first is lower by more than noise."""
        found = self.difference(one, other, by)
        if found is not None:
            return found.interval(self._alpha)[0] > 1.0
        floor = self._floor(one, other, by)
        figure = OBJECTIVES[by]
        return floor is not None and other.typical[figure] > (1 + floor) * one.typical[figure]

    def _floor(self, one: Candidate, other: Candidate, by: str) -> float | None:
        """What two single processes may differ by; known of times, which costs are made of."""
        keys = [(side.machine, side.cell) for side in (one, other)]
        if by not in OF_TIME or not all(key in self._floors for key in keys):
            return None
        between = _between(one, other)
        return max(self._floors[key].between(1, *between) for key in keys)

    def beats(self, one: Candidate, other: Candidate) -> bool:
        """Surely better in something, and no worse in anything.

        In quality it may be lower by less than what another seed changes, where that is known.
        """
        return any(self.surely_better(one, other, by) for by in OBJECTIVES) and not any(
            self._worse(one, other, by) for by in OBJECTIVES
        )

    def _worse(self, one: Candidate, other: Candidate, by: str) -> bool:
        if by == "quality" and self.difference(one, other, by) is not None:
            return self.surely_better(other, one, by)
        return one.typical[OBJECTIVES[by]] > other.typical[OBJECTIVES[by]]


def _between(one: Candidate, other: Candidate) -> list[Variance]:
    """What the machines did between the sessions of the two."""
    if one.session == other.session:
        return []
    if one.machine == other.machine:
        return [one.drift.between] if one.drift else []
    return [side.drift.of() for side in (one, other) if side.drift]


def _spread(replicated: Sequence[Candidate], figure: str) -> Difference | None:
    """How one process differs from the next, pooled over the cells that have several."""
    sides = [one.figures[figure] for one in replicated]
    sides = [side for side in sides if all(0 < value < inf for value in side)]
    freedom = sum(len(side) - 1 for side in sides)
    if not freedom:
        return None
    squares = sum(variance(map(log, side)) * (len(side) - 1) for side in sides)
    return Difference(0.0, sqrt(squares / freedom), freedom)


def _choice(
    fitting: Sequence[Candidate], default: Candidate | None, by: str, judge: _Judge
) -> tuple[Candidate | None, list[Candidate]]:
    """The best one, and those that cannot be told from it.

    Among these the default is chosen, since it needs no change.
    """
    if not fitting:
        return None, []
    best = min(fitting, key=lambda one: one.typical[OBJECTIVES[by]])
    as_good = [one for one in fitting if not judge.surely_better(best, one, by)]
    chosen = default if default in as_good else best
    return chosen, [one for one in as_good if one is not chosen]


# What is said of each


def _misfit(one: Candidate, wanted: Wanted) -> str:
    """Which bound it misses; empty where it keeps all."""
    if wanted.quality is not None and not _good_enough(one, wanted.quality):
        return "below the quality" if one.higher_is_better else "above the error"
    if wanted.memory_bytes is not None and one.typical["memory_bytes"] > wanted.memory_bytes:
        return "over the memory" if isfinite(one.typical["memory_bytes"]) else "memory unknown"
    if wanted.budget_usd is not None and one.typical["cost_usd"] > wanted.budget_usd:
        return "over the budget"
    return ""


def _good_enough(one: Candidate, bound: float) -> bool:
    return one.quality >= bound if one.higher_is_better else one.quality <= bound


def _judged(
    one: Candidate,
    wanted: Wanted,
    chosen: Candidate | None,
    ties: Sequence[Candidate],
    front: Sequence[Candidate],
) -> Judged:
    misfit = _misfit(one, wanted)
    if misfit:
        return Judged(one, misfit, kept=False)
    word = "recommended" if one is chosen else "not told apart" if one in ties else ""
    if one in front:
        return Judged(one, word or "a trade-off", kept=True)
    return Judged(one, word or "beaten", kept=one is chosen)
