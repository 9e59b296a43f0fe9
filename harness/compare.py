"""Compares two sets of runs, cell by cell, with a verdict that says how sure it is.

It refuses what is not comparable: `KEYS` must agree between the two sides of every cell. Knows no
files; `harness.compare_command` finds the two sides.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from statistics import median
from typing import Any

import pandas as pd

from harness import statistics
from harness.cells import AXES
from harness.drift import Drifts
from harness.errors import UsageError, unknown
from harness.metrics import METRICS, OF_TIME, better
from harness.paths import LOST, SEEN
from harness.ranking import UNRANKED, rankable
from harness.statistics import ALPHA, Difference, Rounds, Variance

CROSSABLE = ("backend", "precision", "api_style", "device")
"""Axes over which one workload's cells may be held against each other; precisions, which compute
different things, with `--across precision` only."""

PAIRS = 8
"""From so many replicates on, those of one session are compared in pairs."""

TIMES = ("s", "examples/s")  # units of which "faster" and "slower" are said

# What a backend says about itself, or what comes out of a run, is no setting of it. A framework
# that takes another kernel than before is what a comparison is for, so it is told and not refused.
_OUTCOMES = frozenset({"other_frameworks_loaded", "parameters", LOST, *SEEN})
# What is set alike under every backend; the rest is a backend's own way, such as its kernels.
_OF_EVERY_BACKEND = frozenset(
    {"matmul_precision", "dtype_policy", "variable_dtype", "input_pipeline", "input_workers"}
)
_OF_A_PRECISION = frozenset({"dtype_policy", "variable_dtype", "matmul_precision"})


@dataclass(frozen=True)
class Differing:
    """A key that two sides do not share: a cell, and the values of it on each side, as texts."""

    key: str
    cell: str
    baseline: tuple[str, ...]
    contender: tuple[str, ...]
    example: str


class NotComparableError(UsageError):
    """The sides differ in what must agree, unless that is allowed by name."""

    def __init__(self, differing: Sequence[Differing]) -> None:
        names = "; ".join(f"{one.key} ({one.example})" for one in differing)
        allow = " ".join(f"--across {one.key}" for one in differing)
        super().__init__(f"Not comparable: {names}. To compare nevertheless, add {allow}.")
        self.differing = tuple(differing)


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

    Bonferroni: with `alpha_per_cell` each, the cells together keep `alpha`. Sides are `apart` if
    they were measured in other sessions; the intervals have what the machines did between them,
    unless they are `unknown`. `kernels` are those that differ between the sides, in words.
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
    apart: bool
    unknown: tuple[str, ...]
    kernels: tuple[str, ...]


def compare(
    baseline: pd.DataFrame,
    contender: pd.DataFrame,
    *,
    metric: str = "step_time_s",
    across: Sequence[str] = (),
    alpha: float = ALPHA,
    drifts: Drifts | None = None,
) -> Comparison:
    """Contender against baseline; frames of the table of runs.

    `drifts` are those of the machines, where they are known: figures of time from other sessions
    differ by them. Raises UsageError for an unknown metric or key, and when the sides are not
    comparable or have no cell in common.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, list(METRICS))
    for key in across:
        if key not in KEYS:
            raise unknown("key", key, list(KEYS), where="--across")
    crossed = crossed_axes(baseline, contender)
    kept = [usable(side, metric) for side in (baseline, contender)]
    groups = [_by_cell(side, crossed, metric) for side in kept]
    common = [name for name in groups[0] if name in groups[1]]
    if not common:
        raise UsageError(_nothing_in_common(baseline, contender, kept, metric))
    pairs = {name: (groups[0][name], groups[1][name]) for name in common}
    _refuse(pairs, crossed, metric, across)
    every = [_named(side, crossed) for side in (baseline, contender)]
    titled = {_title(pair, crossed): pair for pair in pairs.values()}
    return _judged(
        metric,
        titled,
        drifts or {},
        alpha,
        only=(_alone(*every), _alone(*every[::-1])),
        uncompared=tuple(_uncompared((baseline, contender), every, groups, metric)),
        kernels=() if "backend" in crossed else tuple(_kernels(titled)),
        left_out=len(baseline) + len(contender) - sum(map(len, kept)),
    )


@dataclass(frozen=True)
class Pair:
    """Two cells of one workload in one session, as `compare` finds them without any other.

    Where the two may not be compared there is what they differ in.
    """

    baseline: str
    contender: str
    batch_size: int
    found: Comparison | NotComparableError


def every_pair(session: pd.DataFrame, metric: str) -> Iterator[Pair]:
    """What `compare` says of every two cells of one workload, scale, phase and batch size.

    `session` are the runs of one session. Two precisions are compared across them.
    """
    kept = usable(session, metric)
    same = ["workload", "scale", "phase", "batch_size"]
    for _, group in kept.groupby(same, observed=True):
        batch_size = int(group["batch_size"].iloc[0])
        sides = _by_cell(group, (), metric)
        for one, other in combinations(sides, 2):
            yield Pair(one, other, batch_size, _alone_together(sides[one], sides[other], metric))


def _alone_together(one: Side, other: Side, metric: str) -> Comparison | NotComparableError:
    parts = zip(_axes(one.cell), _axes(other.cell), strict=False)
    crossed = tuple(axis for (axis, this), (_, that) in parts if this != that)
    pair = {_title((one, other), crossed): (one, other)}
    try:
        _refuse(pair, crossed, metric, ("precision",))
    except NotComparableError as error:
        return error
    # Of one session, in which nothing drifts between the sides.
    return _judged(metric, pair, {}, ALPHA)


def crossed_axes(baseline: pd.DataFrame, contender: pd.DataFrame) -> tuple[str, ...]:
    """The axes of which each side has one value, and not the same one."""
    crossed = []
    for axis in CROSSABLE:
        one, other = (set(side[axis].astype(str)) for side in (baseline, contender))
        if len(one) == len(other) == 1 and one != other:
            crossed.append(axis)
    return tuple(crossed)


# What must agree


Kind = Mapping[str, Any]
"""A row of KEY_COLUMNS."""


def _version(row: Kind, crossed: Sequence[str]) -> Hashable:
    return str(row["workload_version"]).rpartition(".")[0]


def _same(name: str) -> Callable[[Kind, Sequence[str]], Hashable]:
    return lambda row, crossed: str(row[name])


KEYS: Mapping[str, Callable[[Kind, Sequence[str]], Hashable]] = {
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


def _settings(row: Kind, crossed: Sequence[str]) -> dict[str, str]:
    """The numeric settings of a row that its own axes do not already say."""
    found = _read(str(row["numerics"]))
    kept = found.keys() - _OUTCOMES
    if "backend" in crossed:
        kept &= _OF_EVERY_BACKEND
    if "precision" in crossed:
        kept -= _OF_A_PRECISION
    return {name: found[name] for name in kept}


def _kernels(pairs: Pairs) -> Iterator[str]:
    """Which kernels, of those that both sides' records tell, are not the same on both."""
    for name, sides in pairs.items():
        told = [[_read(str(kind["numerics"])) for kind in side.kinds.values()] for side in sides]
        for kernel in sorted(SEEN):
            one, other = ({r[kernel] for r in side if kernel in r} for side in told)
            if one and other and one != other:
                was, now = (" or ".join(map(repr, sorted(side))) for side in (one, other))
                yield f"{kernel} of {name} is {was} in the baseline, {now} in the contender"


@cache
def _read(numerics: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(numerics or "{}")
    return found


KEY_COLUMNS = (
    "workload_version", "precision", "batch_size", "machine", "protocol", "numerics",
    "energy_method",
)  # fmt: skip
"""The columns that the keys are read from."""

_MACHINE = KEY_COLUMNS.index("machine")


@dataclass(frozen=True)
class Side:
    """The usable runs of a cell: a figure, a session and a replicate of each.

    `machines` are those of the sessions, `higher_is_better` is said of the quality. `kinds` are the
    different rows of KEY_COLUMNS, which is all that the keys can tell apart.
    """

    cell: str
    higher_is_better: bool = True
    values: list[float] = field(default_factory=list)
    turns: list[tuple[str, int]] = field(default_factory=list)
    machines: dict[str, str] = field(default_factory=dict)
    kinds: dict[tuple[Hashable, ...], Kind] = field(default_factory=dict)

    @property
    def shares(self) -> dict[str, float]:
        """Of each session, the share of the side's runs."""
        counts = Counter(session for session, _ in self.turns)
        return {session: count / len(self.turns) for session, count in counts.items()}

    @property
    def rounds(self) -> Rounds:
        """A session measures all of its cells once before it measures any a second time."""
        return list(zip(self.turns, self.values, strict=True))


Pairs = Mapping[str, tuple[Side, Side]]


def _refuse(pairs: Pairs, crossed: Sequence[str], metric: str, across: Sequence[str]) -> None:
    """Name every key that differs, with an example, before anything is compared."""
    told = []
    for key, read in KEYS.items():
        if key in across or _OF_ONE_METRIC.get(key, metric) != metric:
            continue
        differing = [
            (name, values[0], values[1])
            for name, sides in pairs.items()
            for values in [_values(read, sides, crossed)]
            if len(values[0] | values[1]) > 1
        ]
        if differing:
            cell, one, other = differing[0]
            told.append(
                Differing(key, cell, _texts(one), _texts(other), _example(key, cell, one, other))
            )
    if told:
        raise NotComparableError(told)


def _texts(values: set[Any]) -> tuple[str, ...]:
    return tuple(sorted(map(str, values)))


def _values(
    read: Callable[[Kind, Sequence[str]], Hashable],
    sides: tuple[Side, Side],
    crossed: Sequence[str],
) -> tuple[set[Any], set[Any]]:
    """The different values of a key on the two sides."""
    one, other = ({read(kind, crossed) for kind in side.kinds.values()} for side in sides)
    return one, other


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


def _by_cell(side: pd.DataFrame, crossed: Sequence[str], metric: str) -> dict[str, Side]:
    """The runs of each cell, by the cell's name with `*` for a crossed axis."""
    cells = _named(side, crossed)
    names = {cell: name for name, cell in cells.items()}
    higher = dict(zip(side["cell"], side["higher_is_better"], strict=True))
    found = {name: Side(cells[name], bool(higher[cells[name]])) for name in sorted(cells)}
    columns = (side[name].tolist() for name in ("cell", metric, "session", "replicate"))
    kinds = zip(*(side[name].tolist() for name in KEY_COLUMNS), strict=True)
    for cell, value, session, replicate, kind in zip(*columns, kinds, strict=True):
        one = found[names[cell]]
        one.values.append(float(value))
        one.turns.append((session, replicate))
        one.machines[session] = kind[_MACHINE]
        if kind not in one.kinds:
            one.kinds[kind] = dict(zip(KEY_COLUMNS, kind, strict=True))
    return found


def _named(side: pd.DataFrame, crossed: Sequence[str]) -> dict[str, str]:
    """The cells by their names with `*` for a crossed axis, of which a side has one value."""
    return {_starred(str(cell), crossed): str(cell) for cell in side["cell"].unique()}


def _starred(cell: str, crossed: Sequence[str]) -> str:
    return "/".join("*" if axis in crossed else part for axis, part in _axes(cell))


def _axes(cell: str) -> list[tuple[str, str]]:
    """Each part with its axis; a file that others wrote may have too few parts, or too many."""
    parts = cell.split("/")
    return list(zip((*AXES, *[""] * len(parts)), parts, strict=False))


def _title(pair: tuple[Side, Side], crossed: Sequence[str]) -> str:
    sides = zip(*(_axes(side.cell) for side in pair), strict=True)
    return "/".join(f"{a}|{b}" if axis in crossed else a for (axis, a), (_, b) in sides)


def _alone(groups: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in groups if name not in others)


def _uncompared(
    sides: Sequence[pd.DataFrame],
    every: Sequence[Mapping[str, str]],
    usable: Sequence[Mapping[str, Any]],
    metric: str,
) -> Iterator[Uncompared]:
    """Cells that a side has runs of, but none that counts.

    Not those that simply have no such figure, as an inference has no training step.
    """
    without = {_ABSENT, _without(metric)}
    for name in sorted({*every[0], *every[1]}):
        lacking = (
            name in cells and name not in kept for cells, kept in zip(every, usable, strict=True)
        )
        if any(lacking):
            told = [
                _found(side[side["cell"] == cells[name]], metric) if name in cells else _ABSENT
                for side, cells in zip(sides, every, strict=True)
            ]
            if not without.issuperset(told):
                yield Uncompared(name, *told)


_ABSENT = "absent"


def _without(metric: str) -> str:
    return f"ok without {metric}"


def _found(side: pd.DataFrame, metric: str) -> str:
    """What a side's runs of a cell are, such as `ok`, `oom` or `ok but contended`."""
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
    drifts: Drifts,
    alpha: float = ALPHA,
    *,
    only: tuple[Any, Any] = ((), ()),
    uncompared: tuple[Uncompared, ...] = (),
    left_out: int = 0,
    kernels: tuple[str, ...] = (),
) -> Comparison:
    drifts = drifts if metric in OF_TIME else {}
    figures = {name: _figures(*pair, drifts) for name, pair in pairs.items()}
    judged = [name for name, found in figures.items() if found[-1] is not None]
    directions = {
        name: better(metric, higher_is_better=one.higher_is_better)
        for name, (one, _) in pairs.items()
    }
    per_cell = alpha / max(1, len(judged))
    rows = tuple(
        Row(
            name,
            *values,
            processes,
            reason or _verdict(metric, directions[name], difference, per_cell),
            difference,
        )
        for name, (reason, values, processes, difference) in figures.items()
    )
    # Accuracies and errors have no mean together.
    together = len({directions[name] for name in judged}) == 1
    mean = _mean([pairs[name] for name in judged], drifts) if together else None
    moved = _moved(list(pairs.values()))
    unknown = tuple(sorted(moved.keys() - drifts.keys()))
    return Comparison(
        metric, rows, alpha, per_cell, *only, uncompared, left_out, mean, bool(moved), unknown,
        kernels,
    )  # fmt: skip


def _mean(sides: Sequence[tuple[Side, Side]], drifts: Drifts) -> Difference | None:
    found = statistics.mean_difference([(one.rounds, other.rounds) for one, other in sides])
    return found and found.widened(*_between(sides, drifts))


def _between(sides: Sequence[tuple[Side, Side]], drifts: Drifts) -> list[Variance]:
    """What the machines' drift adds to the mean over cells of contender to baseline."""
    return [
        drifts[machine].of(*amounts)
        for machine, amounts in _moved(sides).items()
        if machine in drifts
    ]


def _moved(sides: Sequence[tuple[Side, Side]]) -> dict[str, tuple[float, float]]:
    """Of each machine, how often its drift is in the mean over cells of contender to baseline.

    Of what the cells of a session share, and of what each has of its own. A session has it as often
    as its share of one side is larger than of the other, squared; one that both sides share alike
    has nothing of it.
    """
    together: dict[tuple[str, str], float] = defaultdict(float)
    alone: dict[str, float] = defaultdict(float)
    for one, other in sides:
        shares = (one.shares, other.shares)
        for session, machine in {**one.machines, **other.machines}.items():
            more = shares[1].get(session, 0.0) - shares[0].get(session, 0.0)
            together[machine, session] += more / len(sides)
            alone[machine] += (more / len(sides)) ** 2
    found: dict[str, tuple[float, float]] = {}
    for machine in (name for name, own in alone.items() if own > 0):
        shared = sum(more**2 for (name, _), more in together.items() if name == machine)
        found[machine] = (shared, alone[machine])
    return found


def _figures(
    baseline: Side, contender: Side, drifts: Drifts
) -> tuple[str, tuple[float, float], tuple[int, int], Difference | None]:
    """Why there is no verdict, if so; medians; processes; and the difference."""
    values = (baseline.values, contender.values)
    medians = (median(values[0]), median(values[1]))
    counts = (len(values[0]), len(values[1]))
    if not all(value > 0 for side in values for value in side):
        return "no verdict: not positive", medians, counts, None
    if min(counts) < 2:
        return "no verdict: one process", medians, counts, None
    found = _difference(baseline, contender, drifts)
    if found.error == 0.0:
        return "no verdict: identical samples", medians, counts, None
    return "", medians, counts, found


def _difference(baseline: Side, contender: Side, drifts: Drifts) -> Difference:
    """Paired where one session measured both sides in turns, often enough.

    Else with what the machine did between sessions. Pairs take out what moves both sides, and cost
    half of the degrees of freedom. A turn that counts on one side only is in no pair.
    """
    sides = (baseline, contender)
    one, other = (dict(side.rounds) for side in sides)
    common = [turn for turn in one if turn in other]
    once = all(len(set(side.turns)) == len(side.turns) for side in sides)
    if once and len(common) >= PAIRS:
        return statistics.paired_difference(*([x[turn] for turn in common] for x in (one, other)))
    found = statistics.difference(baseline.values, contender.values)
    return found.widened(*_between([sides], drifts)) if found.error else found


def _verdict(metric: str, direction: str, difference: Difference | None, alpha: float) -> str:
    if difference is None:
        return ""
    low, high = difference.interval(alpha)
    if low <= 1.0 <= high:
        return "no difference found"
    words = ("faster", "slower") if METRICS[metric].unit in TIMES else ("better", "worse")
    return words[0] if (high < 1.0) == (direction == "lower") else words[1]
