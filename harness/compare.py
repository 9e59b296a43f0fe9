"""Compares two sets of runs, cell by cell, with a verdict that says how sure it is.

It refuses what is not comparable: `KEYS` must agree between the two sides of every cell. Knows no
files; `harness.compare_command` finds the two sides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness import statistics
from harness.cells import AXES
from harness.errors import UsageError, unknown
from harness.metrics import METRICS
from harness.statistics import ALPHA, Difference, Rounds

UNRANKED = ("contended", "throttled", "simulated", "altered")
"""Columns of marks: a row that has one counts on no side of a comparison."""

CROSSABLE = ("backend", "precision", "api_style", "device")
"""Axes over which one workload's cells may be held against each other; precisions, which compute
different things, with `--across precision` only."""

PAIRS = 8
"""From so many replicates on, those of one session are compared in pairs."""

TIMES = ("s", "examples/s")  # units of which "faster" and "slower" are said

# What a backend says about itself, or what comes out of a run, is no setting of it.
_OUTCOMES = frozenset({"other_frameworks_loaded", "parameters"})
# What is set alike under every backend; the rest is a backend's own way, such as its kernels.
_OF_EVERY_BACKEND = frozenset(
    {"matmul_precision", "dtype_policy", "variable_dtype", "input_pipeline", "input_workers"}
)
_OF_A_PRECISION = frozenset({"dtype_policy", "variable_dtype", "matmul_precision"})


@dataclass(frozen=True)
class Row:
    """One cell on both sides: the crossed axes stand as `a|b` in its name.

    `difference` is None where no verdict can be given; `verdict` then says why.
    """

    cell: str
    baseline: float
    contender: float
    processes: tuple[int, int]
    verdict: str
    difference: Difference | None = None


@dataclass(frozen=True)
class Uncompared:
    """A cell without a run that counts on one side or both: what is there on either, in words."""

    cell: str
    baseline: str
    contender: str


@dataclass(frozen=True)
class Comparison:
    """Every cell of both sides, those of one side alone, and those that have no run that counts.

    Bonferroni: with `alpha_per_cell` each, the cells together keep `alpha`.
    """

    metric: str
    rows: tuple[Row, ...]
    alpha: float
    alpha_per_cell: float
    only_baseline: tuple[str, ...]
    only_contender: tuple[str, ...]
    uncompared: tuple[Uncompared, ...]
    left_out: int
    mean: Difference | None


def compare(
    baseline: pd.DataFrame,
    contender: pd.DataFrame,
    *,
    metric: str = "step_time_s",
    across: Sequence[str] = (),
    alpha: float = ALPHA,
) -> Comparison:
    """Contender against baseline; frames of the table of runs.

    Raises UsageError for an unknown metric or key, and when the sides are not comparable or have
    no cell in common.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, list(METRICS))
    for key in across:
        if key not in KEYS:
            raise unknown("key", key, list(KEYS), where="--across")
    crossed = crossed_axes(baseline, contender)
    kept = [usable(side, metric) for side in (baseline, contender)]
    groups = [_by_cell(side, crossed) for side in kept]
    common = [name for name in groups[0] if name in groups[1]]
    if not common:
        raise UsageError(_nothing_in_common(baseline, contender, kept, metric))
    pairs = {name: (groups[0][name], groups[1][name]) for name in common}
    every = [_by_cell(side, crossed) for side in (baseline, contender)]
    uncompared = tuple(_uncompared(every, groups, metric))
    kinds = [_by_cell(_kinds(side), crossed) for side in kept]
    _refuse({name: (kinds[0][name], kinds[1][name]) for name in common}, crossed, metric, across)
    return _judged(
        metric,
        {_title(name, pair, crossed): pair for name, pair in pairs.items()},
        alpha,
        only=(_alone(*every), _alone(*every[::-1])),
        uncompared=uncompared,
        left_out=len(baseline) + len(contender) - sum(map(len, kept)),
    )


def crossed_axes(baseline: pd.DataFrame, contender: pd.DataFrame) -> tuple[str, ...]:
    """The axes of which each side has one value, and not the same one."""
    crossed = []
    for axis in CROSSABLE:
        one, other = (set(side[axis].astype(str)) for side in (baseline, contender))
        if len(one) == len(other) == 1 and one != other:
            crossed.append(axis)
    return tuple(crossed)


# What must agree


def _version(row: pd.Series[Any], crossed: Sequence[str]) -> Hashable:
    return str(row["workload_version"]).rpartition(".")[0]


def _same(name: str) -> Callable[[pd.Series[Any], Sequence[str]], Hashable]:
    return lambda row, crossed: str(row[name])


KEYS: Mapping[str, Callable[[pd.Series[Any], Sequence[str]], Hashable]] = {
    "version": _version,
    "precision": _same("precision"),
    "batch": _same("batch_size"),
    "machine": _same("machine"),
    "protocol": _same("protocol"),
    "numerics": lambda row, crossed: tuple(sorted(_settings(row, crossed).items())),
    "energy": _same("energy_method"),
}
"""What two rows must share before they may be compared, and how each is read from a row."""

_OF_ONE_METRIC = {"energy": "energy_per_epoch_j"}
"""Keys that matter to one metric only: whether a counter was read changes no other."""


def _settings(row: pd.Series[Any], crossed: Sequence[str]) -> dict[str, str]:
    """The numeric settings of a row that its own axes do not already say."""
    found: dict[str, str] = json.loads(str(row["numerics"]) or "{}")
    kept = found.keys() - _OUTCOMES
    if "backend" in crossed:
        kept &= _OF_EVERY_BACKEND
    if "precision" in crossed:
        kept -= _OF_A_PRECISION
    return {name: found[name] for name in kept}


KEY_COLUMNS = (
    "workload_version", "precision", "batch_size", "machine", "protocol", "numerics",
    "energy_method",
)  # fmt: skip
"""The columns that the keys are read from."""

Pairs = Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]


def _refuse(pairs: Pairs, crossed: Sequence[str], metric: str, across: Sequence[str]) -> None:
    """Name every key that differs, with an example, before anything is compared."""
    kinds = {
        name: [[row for _, row in side.iterrows()] for side in sides]
        for name, sides in pairs.items()
    }
    told = []
    for key, read in KEYS.items():
        if key in across or _OF_ONE_METRIC.get(key, metric) != metric:
            continue
        differing = [
            (name, values[0], values[1])
            for name, sides in kinds.items()
            for values in [_values(read, sides, crossed)]
            if len(values[0] | values[1]) > 1
        ]
        if differing:
            told.append((key, f"{key} ({_example(key, *differing[0])})"))
    if told:
        allow = " ".join(f"--across {key}" for key, _ in told)
        names = "; ".join(text for _, text in told)
        raise UsageError(f"Not comparable: {names}. To compare nevertheless, add {allow}.")


def _values(
    read: Callable[[pd.Series[Any], Sequence[str]], Hashable],
    sides: Sequence[Sequence[pd.Series[Any]]],
    crossed: Sequence[str],
) -> tuple[set[Any], set[Any]]:
    """The different values of a key on the two sides."""
    one, other = ({read(row, crossed) for row in side} for side in sides)
    return one, other


def _kinds(side: pd.DataFrame) -> pd.DataFrame:
    """One row of each cell and kind that the keys can tell apart."""
    return side[["cell", *KEY_COLUMNS]].drop_duplicates()


def _example(key: str, name: str, baseline: set[Any], contender: set[Any]) -> str:
    if key == "numerics":
        one, other = (dict(sorted(side)[0]) for side in (baseline, contender))
        if one == other:  # a side differs within itself
            one = dict(sorted(baseline | contender)[-1])
        keys = sorted(k for k in {*one, *other} if one.get(k) != other.get(k))
        first = keys[0]
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        return f"{first} is {one.get(first, 'absent')!r} and {other.get(first, 'absent')!r}{more}"
    values = sorted(map(str, baseline | contender))
    return " and ".join(map(repr, values[:2])) + f" in {name}"


# Cells and figures


def usable(side: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Runs that may be ranked, with the metric."""
    return side[rankable(side) & side[metric].notna()]


def rankable(side: pd.DataFrame) -> pd.Series[bool]:
    """Of each run, whether it may be ranked: ok, undisturbed, not edited by hand."""
    return (side["status"] == "ok") & ~side[list(UNRANKED)].any(axis=1)


def _by_cell(side: pd.DataFrame, crossed: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The runs of each cell, by the cell's name with `*` for a crossed axis."""
    places = [AXES.index(axis) for axis in crossed]

    def named(cell: str) -> str:
        parts = cell.split("/")
        return "/".join("*" if place in places else part for place, part in enumerate(parts))

    names = side["cell"].astype(str).map({cell: named(str(cell)) for cell in side["cell"].unique()})
    return {str(name): group for name, group in side.groupby(names, sort=True)}


def _title(name: str, pair: tuple[pd.DataFrame, pd.DataFrame], crossed: Sequence[str]) -> str:
    parts = name.split("/")
    for axis in crossed:
        parts[AXES.index(axis)] = "|".join(str(side[axis].iloc[0]) for side in pair)
    return "/".join(parts)


def _alone(groups: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in groups if name not in others)


def _uncompared(
    every: Sequence[Mapping[str, pd.DataFrame]],
    usable: Sequence[Mapping[str, pd.DataFrame]],
    metric: str,
) -> Iterator[Uncompared]:
    """Cells that a side has runs of, but none that counts.

    Not those that simply have no such figure, as an inference has no training step.
    """
    without = {_ABSENT, _without(metric)}
    for name in sorted({*every[0], *every[1]}):
        if any(name in all_ and name not in kept for all_, kept in zip(every, usable, strict=True)):
            told = [_found(side.get(name), metric) for side in every]
            if not without.issuperset(told):
                yield Uncompared(name, *told)


_ABSENT = "absent"


def _without(metric: str) -> str:
    return f"ok without {metric}"


def _found(side: pd.DataFrame | None, metric: str) -> str:
    """What a side's runs of a cell are, such as `ok`, `oom` or `ok but contended`."""
    if side is None:
        return _ABSENT
    return " and ".join(dict.fromkeys(_kind(row, metric) for _, row in side.iterrows()))


def _kind(row: pd.Series[Any], metric: str) -> str:
    marks = [mark for mark in UNRANKED if row[mark]]
    if row["status"] != "ok":
        return str(row["status"])
    if marks:
        return f"ok but {' and '.join(marks)}"
    return "ok" if pd.notna(row[metric]) else _without(metric)


def _nothing_in_common(
    baseline: pd.DataFrame, contender: pd.DataFrame, kept: Sequence[pd.DataFrame], metric: str
) -> str:
    sides = {"baseline": baseline, "contender": contender}
    for (name, side), usable in zip(sides.items(), kept, strict=True):
        if len(side) and usable.empty:
            return (
                f"The {name} has {len(side)} runs, but none that is ok, undisturbed and has "
                f"{metric}."
            )
    return "The two sides have no cell in common."


def _judged(
    metric: str,
    pairs: Pairs,
    alpha: float,
    *,
    only: tuple[Any, Any],
    uncompared: tuple[Uncompared, ...],
    left_out: int,
) -> Comparison:
    figures = {name: _figures(metric, *pair) for name, pair in pairs.items()}
    judged = [name for name, found in figures.items() if found[-1] is not None]
    per_cell = alpha / max(1, len(judged))
    rows = tuple(
        Row(name, *values, processes, reason or _verdict(metric, difference, per_cell), difference)
        for name, (reason, values, processes, difference) in figures.items()
    )
    rounds = [(_rounds(metric, pairs[name][0]), _rounds(metric, pairs[name][1])) for name in judged]
    mean = statistics.mean_difference(rounds) if rounds else None
    return Comparison(metric, rows, alpha, per_cell, *only, uncompared, left_out, mean)


def _rounds(metric: str, side: pd.DataFrame) -> Rounds:
    """A session measures all of its cells once before it measures any a second time."""
    names = zip(side["session"].astype(str), side["replicate"], strict=True)
    return list(zip(names, side[metric].tolist(), strict=True))


def _figures(
    metric: str, baseline: pd.DataFrame, contender: pd.DataFrame
) -> tuple[str, tuple[float, float], tuple[int, int], Difference | None]:
    """Why there is no verdict, if so; medians; processes; and the difference."""
    values = [side[metric].to_numpy(float) for side in (baseline, contender)]
    medians = (float(pd.Series(values[0]).median()), float(pd.Series(values[1]).median()))
    counts = (len(values[0]), len(values[1]))
    if not all((side > 0).all() for side in values):
        return "no verdict: not positive", medians, counts, None
    if min(counts) < 2:
        return "no verdict: one process", medians, counts, None
    found = _difference(metric, baseline, contender)
    if found.error == 0.0:
        return "no verdict: identical samples", medians, counts, None
    return "", medians, counts, found


def _difference(metric: str, baseline: pd.DataFrame, contender: pd.DataFrame) -> Difference:
    """Paired where one session measured both sides in turns, often enough.

    Pairs take out what moves both sides, and cost half of the degrees of freedom. A turn that
    counts on one side only is in no pair.
    """
    one, other = (_rounds(metric, side) for side in (baseline, contender))
    turns = [dict(side) for side in (one, other)]
    common = [turn for turn in turns[0] if turn in turns[1]]
    if len(turns[0]) == len(one) and len(turns[1]) == len(other) and len(common) >= PAIRS:
        return statistics.paired_difference(*([side[turn] for turn in common] for side in turns))
    return statistics.difference(*([value for _, value in side] for side in (one, other)))


def _verdict(metric: str, difference: Difference | None, alpha: float) -> str:
    if difference is None:
        return ""
    low, high = difference.interval(alpha)
    if low <= 1.0 <= high:
        return "no difference found"
    declared = METRICS[metric]
    better = (high < 1.0) == (declared.direction == "lower")
    words = ("faster", "slower") if declared.unit in TIMES else ("better", "worse")
    return words[0] if better else words[1]
