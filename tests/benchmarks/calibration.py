"""What this machine can tell apart: false alarms without a difference, findings with a planted one.

Each adds its part to results/calibration/<machine>.json:
`python -m tests.benchmarks.calibration alarms`, `ab` on the pairs of results/noise;
`... halves`, `compare` on the halves of every session with replicates, and on two sessions;
`... foretold`, slowdowns of the size that `compare` and `ab` say they would find;
`... planted CELL ATTEMPTS PERCENT BUDGET`, `ab`'s own search for a step made slower by real work;
`... contended CELL PERCENT PAIRS`, pairs beside a process that comes and goes.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from harness import statistics
from harness.ab import Failure, Outcome, Pair, decided, duel, measure_pair
from harness.cells import Cell, parse_cell
from harness.child import HERE, Installation
from harness.clock import utc_now
from harness.compare import usable
from harness.drift import Drift, Sessions, drift_of, sessions_of
from harness.metrics import METRICS, OF_BLOCKS
from harness.noise import Floor, read_floors
from harness.probes import machine_name
from harness.registry import workloads
from harness.statistics import ALPHA, LEVEL
from harness.table import load_table
from tests.benchmarks.record import RESULTS, record, recorded
from tests.slowed import slowed

RESAMPLED = 10_000
TRIES = 5
GROUP = 5
"""Real pairs that make one real comparison: the fewest after which one can be decided."""

BUSY_S = 4.0
"""How long the competitor of `contended` is busy, and then asleep."""

CLOSE = 0.2
"""The planted slowdown is sought until it is within this share of the one that is wanted."""

HALF = 2
"""Processes of a half, at least."""


@dataclass(frozen=True)
class Processes:
    """A figure of each process of a cell in a session, in the order of time."""

    session: str
    values: list[float]


@dataclass(frozen=True)
class Sides:
    """The figures of two sides' processes; of two sessions with the machine's drift, if known."""

    baseline: Sequence[float]
    contender: Sequence[float]
    drift: Drift | None = None

    def differ(self) -> bool:
        """Whether `compare` would tell them apart."""
        found = statistics.difference(self.baseline, self.contender)
        if self.drift:
            found = found.widened(self.drift.between)
        low, high = found.interval(ALPHA)
        return not low <= 1.0 <= high

    def hold(self) -> Iterator[bool]:
        """Of either side, whether the interval of its processes has the median of the other's."""
        between = self.drift.between if self.drift else None
        for one, other in permutations((self.baseline, self.contender)):
            bounds = statistics.interval(one, drift=between)
            yield bounds is not None and bounds[0] <= median(other) <= bounds[1]


def alarms(floors: dict[str, Floor]) -> dict[str, Any]:
    """How often `ab` tells identical code apart: in real searches, and in real pairs re-ordered.

    A search stops at the first look that is sure, so the order of a cell's pairs matters.
    """
    random = np.random.default_rng(2026)
    logs = {cell: np.log(floor.pair_ratios) for cell, floor in floors.items()}
    logs = {cell: pairs for cell, pairs in logs.items() if len(pairs) >= GROUP}
    groups = [
        pairs[start : start + GROUP].tolist()
        for pairs in logs.values()
        for start in range(0, len(pairs) - GROUP + 1, GROUP)
    ]
    cells = list(logs)
    if not cells:
        raise SystemExit(
            f"No cell has {GROUP} pairs. Measure them with `epochmark doctor --calibrate`."
        )
    drawn = [cells[place] for place in random.integers(len(cells), size=RESAMPLED)]
    return {
        "cells": len(cells),
        "pairs": sum(map(len, logs.values())),
        "real": len(groups),
        "real_alarms": sum(alarmed(group) for group in groups),
        "resampled": RESAMPLED,
        "resampled_alarms": sum(alarmed(random.permutation(logs[cell]).tolist()) for cell in drawn),
        "alpha": ALPHA,
    }


def replicated(runs: pd.DataFrame) -> list[Processes]:
    """The processes of each cell, metric and session that has enough of them to be halved."""
    return [
        Processes(str(session), rows[metric].tolist())
        for metric in OF_BLOCKS.values()
        for (session, *_), rows in usable(runs, metric)
        .sort_values("replicate", kind="stable")
        .groupby(["session", "cell", "protocol"], observed=True)
        if len(rows) >= 2 * HALF
    ]


def halves(found: Sequence[Processes]) -> dict[str, Any]:
    """What `compare` says of the earlier and the later half of each cell's processes in a session.

    Their code is the same. And does the interval of one half hold the median of the other? Then
    both again for halves that are drawn: whole processes, so that what they share stays.
    """
    if not found:
        raise SystemExit("No session has four processes of a cell: `epochmark run --replicates 6`.")
    random = np.random.default_rng(2026)
    real = [Sides(*_cut(one.values)) for one in found]
    places = random.integers(len(found), size=RESAMPLED)
    drawn = [Sides(*_cut(random.permutation(found[place].values).tolist())) for place in places]
    return {
        "sessions": sorted({one.session for one in found}),
        **judged(real),
        "resampled": judged(drawn),
        "alpha": ALPHA,
        "level": LEVEL,
    }


def between(cells: Mapping[str, Sessions]) -> dict[str, Any]:
    """What `compare` says of every two sessions of the same code, and their cover.

    Then both with the drift of the machine, as it is told without the two sessions: nothing is
    judged by what it was learned from. `speeds` are the later session's to the earlier one's,
    means over their cells: what the machine did in between.
    """
    names = sorted({name for one in cells.values() for name in one.sessions})
    drifts = {pair: drift_of(_without(cells, pair)) for pair in combinations(names, 2)}
    plain: list[Sides] = []
    drifted: list[Sides] = []
    logs: dict[tuple[str, str], list[float]] = {}
    for one in cells.values():
        sign = -1 if METRICS[one.metric].direction == "lower" else 1
        for pair in combinations(zip(one.sessions, one.figures, strict=True), 2):
            (early, before), (late, after) = pair
            plain.append(Sides(before, after))
            drift = drifts[min(early, late), max(early, late)]
            drifted += [Sides(before, after, drift)] if drift else []
            log = sign * statistics.difference(before, after).log
            logs.setdefault((early, late), []).append(log)
    return {
        "sessions": names,
        **judged(plain),
        "drifted": judged(drifted),
        "speeds": [math.exp(float(np.mean(several))) for several in logs.values()],
        "alpha": ALPHA,
        "level": LEVEL,
    }


def _without(cells: Mapping[str, Sessions], left_out: Sequence[str]) -> dict[str, Sessions]:
    """The cells without these sessions."""
    kept = {}
    for cell, one in cells.items():
        places = [place for place, name in enumerate(one.sessions) if name not in left_out]
        kept[cell] = one.at(places)
    return kept


def judged(pairs: Sequence[Sides]) -> dict[str, int]:
    """How many sides with the same code are told apart, and how many intervals hold."""
    held = [held for sides in pairs for held in sides.hold()]
    return {
        "comparisons": len(pairs),
        "alarms": sum(sides.differ() for sides in pairs),
        "intervals": len(held),
        "covered": sum(held),
    }


def _cut(values: list[float]) -> tuple[list[float], list[float]]:
    middle = (len(values) + 1) // 2
    return values[:middle], values[middle:]


def foretold(
    cells: Mapping[str, Sessions], searches: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """How often a slowdown is found that is as large as an earlier comparison says it would find.

    `compare`: halves drawn from a session's processes say the size, which is planted in a half of
    another session's. `ab`: so do GROUP pairs drawn from those of a cell's planted searches, less
    their mean, for as many of the others.
    """
    random = np.random.default_rng(2026)
    sessions = [one for one in cells.values() if min(map(len, one.figures)) >= 2 * HALF]
    pools = [pool for pool in _pools(searches) if len(pool) >= 2 * GROUP]

    def sides() -> tuple[statistics.Difference, statistics.Difference]:
        one = sessions[random.integers(len(sessions))]
        places = random.permutation(len(one.figures))[:2]
        drawn = (_cut(random.permutation(one.figures[place]).tolist()) for place in places)
        before, now = (statistics.difference(*pair) for pair in drawn)
        return before, now

    def pairs() -> tuple[statistics.Difference, statistics.Difference]:
        drawn = random.permutation(pools[random.integers(len(pools))])
        before, now = (drawn[start : start + GROUP].tolist() for start in (0, GROUP))
        return statistics.sequential_difference(before), statistics.sequential_difference(now)

    return {
        "compare": _attempts(sides if sessions else None),
        "ab": _attempts(pairs if pools else None),
        "ab_pairs": GROUP,
        "alpha": ALPHA,
        "power": statistics.POWER,
    }


def _pools(searches: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    """The logarithms of each cell's pairs, as if nothing had been planted."""
    for cell in dict.fromkeys(search["cell"] for search in searches):
        logs = [np.log(one["pair_ratios"]) for one in searches if one["cell"] == cell]
        yield np.concatenate([several - several.mean() for several in logs])


def _attempts(
    draw: Callable[[], tuple[statistics.Difference, statistics.Difference]] | None,
) -> dict[str, Any]:
    """Of RESAMPLED draws of two differences of the same code; those of endless size are no part."""
    sizes: list[float] = []
    found = 0
    for before, now in (draw() for _ in range(RESAMPLED)) if draw else ():
        size = before.detectable(ALPHA)
        if not 0 < size < math.inf:
            continue
        sizes.append(size)
        slowed_down = replace(now, log=now.log + math.log1p(size))
        found += slowed_down.interval(ALPHA)[0] > 1.0
    return {"attempts": len(sizes), "found": found, "size": median(sizes) if sizes else None}


def alarmed(logs: Sequence[float]) -> bool:
    """Whether looking after every pair would ever have told the sides apart."""
    found = (statistics.sequential_difference(logs[:n]) for n in range(2, len(logs) + 1))
    return any(decided(one, ALPHA, 0.0) for one in found if one.error > 0)


def planted(cell: Cell, share: float, attempts: int, budget_s: float) -> Iterator[dict[str, Any]]:
    """So many searches for a slowdown of that share, made by real work in the contender's step.

    What is known so far is yielded after every search.
    """
    with tempfile.TemporaryDirectory() as folder:
        products = work(cell, Path(folder), share)
        contender = slowed(Path(folder), cell.workload, products)
        found: list[Outcome] = []
        began = utc_now()
        for number in range(attempts):
            found.append(search(cell, contender, number, budget_s))
            yield {"began": began, "products": products, **told(cell, share, budget_s, found)}


def told(cell: Cell, share: float, budget_s: float, found: Sequence[Outcome]) -> dict[str, Any]:
    """The searches of a cell in a record: what was planted is the mean of all of their pairs."""
    logs = [log for outcome in found for log in outcome.logs]
    return {
        "cell": cell.id,
        "aimed_at": share,
        "planted": math.expm1(float(np.mean(logs))),
        "planted_error": float(np.std(logs, ddof=1)) / math.sqrt(len(logs)),
        "attempts": len(found),
        "found": sum(outcome.verdict(ALPHA) == "slower" for outcome in found),
        "budget_s": budget_s,
        "longest_s": max(outcome.seconds for outcome in found),
        "pairs": [len(outcome.pairs) for outcome in found],
        "pair_ratios": [math.exp(log) for log in logs],
    }


def work(cell: Cell, folder: Path, share: float) -> int:
    """How many products make the step slower by that share.

    First from what many more of them do, then from what so many do, since a product among few can
    take longer than one among many.
    """
    many = 64
    while (excess := slowdown(cell, folder, many)) <= 0.25 and many <= 4096:
        many *= 4
    products = max(1, round(many * share / excess))
    for _ in range(TRIES):
        found = slowdown(cell, folder, products)
        if abs(found / share - 1) <= CLOSE:
            break
        # One estimate is noisy: no correction goes further than half or double.
        factor = min(2.0, share / found) if found > 0 else 2.0
        products = max(1, round(products * max(0.5, factor)))
    return products


def slowdown(cell: Cell, folder: Path, products: int) -> float:
    """What so many products add to the step, as a share, by three pairs."""
    contender = slowed(folder, cell.workload, products)
    found = math.expm1(float(np.mean([measured(cell, contender, n) for n in range(3)])))
    print(f"{cell.id}: {products} products add {found:.1%}", flush=True)
    return found


def measured(cell: Cell, contender: Installation, number: int) -> float:
    """The first undisturbed pair's figure."""
    for _ in range(TRIES):
        pair = measure_pair(cell, HERE, contender, number=number)
        if isinstance(pair, Failure):
            raise SystemExit(f"{cell.id} cannot be measured: {pair.ended.reason}")
        if pair.log_ratio is not None:
            return pair.log_ratio
    raise SystemExit(f"{cell.id} cannot be measured: other work disturbs every pair")


def search(cell: Cell, contender: Installation, attempt: int, budget_s: float) -> Outcome:
    """One run of `epochmark ab`; each attempt has seeds of its own."""
    outcome = duel(
        cell,
        lambda number: measure_pair(cell, HERE, contender, number=100 * attempt + number),
        alpha=ALPHA,
        threshold=0.0,
        budget_s=budget_s,
    )
    ratios = ", ".join(f"{math.exp(log):.3f}" for log in outcome.logs)
    said = f"attempt {attempt + 1}: {outcome.verdict(ALPHA)} in {outcome.seconds:.0f} s ({ratios})"
    print(said, flush=True)
    return outcome


def contended(cell: Cell, share: float, pairs: int) -> dict[str, Any]:
    """Pairs of the same code, and of a slower step, while another process comes and goes."""
    with tempfile.TemporaryDirectory() as folder:
        slower = slowed(Path(folder), cell.workload, work(cell, Path(folder), share))
        with competitor():
            found = {
                "identical": [measure_pair(cell, HERE, HERE, number=n) for n in range(pairs)],
                "slower": [measure_pair(cell, HERE, slower, number=n) for n in range(pairs)],
            }
        alone = measure_pair(cell, HERE, HERE, number=pairs)
    return {
        "cell": cell.id,
        "aimed_at": share,
        "competitor": f"one process, {BUSY_S:g} s busy, {BUSY_S:g} s asleep",
        **{name: _beside(cell, several) for name, several in found.items()},
        "alone": _beside(cell, [alone]),
    }


def _beside(cell: Cell, pairs: Sequence[Pair | Failure]) -> dict[str, Any]:
    kept = tuple(pair for pair in pairs if isinstance(pair, Pair))
    blocks = [block for pair in kept for block in (*pair.baseline, *pair.contender)]
    outcome = Outcome(cell, pairs=kept)
    return {
        "pairs": len(kept),
        "blocks": len(blocks),
        "disturbed": sum(block.disturbed for block in blocks),
        "verdict": outcome.verdict(ALPHA),
        "pair_ratios": [math.exp(log) for log in outcome.logs],
    }


@contextmanager
def competitor() -> Iterator[None]:
    """A process that keeps a processor busy, sleeps as long, and so on, until the context ends."""
    code = f"""
from time import perf_counter, sleep
while True:
    began = perf_counter()
    while perf_counter() - began < {BUSY_S}:
        pass
    sleep({BUSY_S})
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _mine() -> pd.DataFrame:
    """The runs of this machine."""
    runs = load_table(RESULTS).frame
    return runs[runs["machine"] == machine_name()]


def main() -> None:
    what, *arguments = sys.argv[1:]
    if what == "alarms":
        record(what, alarms(read_floors(RESULTS, machine_name())))
    elif what == "halves":
        mine = _mine()
        record(what, halves(replicated(mine)))
        record("between", between(sessions_of(mine)))
    elif what == "foretold":
        record(what, foretold(sessions_of(_mine()), recorded("planted")))
    elif what == "contended":
        text, percent, pairs = arguments
        cell = parse_cell(text, list(workloads()))
        record(what, contended(cell, float(percent) / 100, int(pairs)), key="cell")
    else:
        text, attempts, percent, budget = arguments
        cell = parse_cell(text, list(workloads()))
        for part in planted(cell, float(percent) / 100, int(attempts), float(budget)):
            record(what, part, key="began")


if __name__ == "__main__":
    main()
