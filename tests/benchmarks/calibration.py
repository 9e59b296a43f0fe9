"""What this machine can tell apart: false alarms without a difference, findings with a planted one.

`python -m tests.benchmarks.calibration alarms` reads the pairs of results/noise and compares them
with each other; `... planted CELL ATTEMPTS` makes a cell's step slower by real work and runs
`epochmark ab`'s own search for it; `... halves SESSION ...` holds the first half of a session's
replicates against the second. Each adds its part to results/calibration/<machine>.json.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from harness import statistics
from harness.ab import Failure, Outcome, decided, duel, measure_pair
from harness.cells import Cell, parse_cell
from harness.child import HERE, Installation
from harness.clock import utc_now
from harness.compare import usable
from harness.noise import Floor, read_floors
from harness.probes import machine_name
from harness.registry import workloads
from harness.runner import suite_commit
from harness.statistics import ALPHA, LEVEL
from harness.table import load_table
from tests.slowed import slowed

RESULTS = Path(__file__).parents[2] / "results"
RESAMPLED = 10_000
MOST_PAIRS = 12
TRIES = 5
HALVED = ("step_time_s", "infer_throughput_examples_per_s")
GROUP = 5
"""Real pairs that make one real comparison: the fewest after which one can be decided."""

CLOSE = 0.2
"""The planted slowdown is sought until it is within this share of the one that is wanted."""

PROCESSES = 8
"""Processes of each side of a resampled `compare`."""


def alarms(floors: dict[str, Floor]) -> dict[str, Any]:
    """How often identical code is told apart, in real comparisons and in resampled ones."""
    random = np.random.default_rng(2026)
    logs = {cell: np.log(floor.pair_ratios) for cell, floor in floors.items()}
    times = {cell: np.log(floor.step_times_s) for cell, floor in floors.items()}
    groups = [
        pairs[start : start + GROUP].tolist()
        for pairs in logs.values()
        for start in range(0, len(pairs) - GROUP + 1, GROUP)
    ]
    cells = list(floors)
    drawn = [cells[place] for place in random.integers(len(cells), size=RESAMPLED)]
    # Which side a pair of identical code calls the baseline is arbitrary: it is drawn too.
    sequences = (
        (random.choice(logs[cell], MOST_PAIRS) * random.choice([-1.0, 1.0], MOST_PAIRS)).tolist()
        for cell in drawn
    )
    sides = (np.exp(random.choice(times[cell], (2, PROCESSES))) for cell in drawn)
    return {
        "real_comparisons": len(groups),
        "real_alarms": sum(alarmed(group) for group in groups),
        "resampled_ab": RESAMPLED,
        "resampled_ab_alarms": sum(map(alarmed, sequences)),
        "resampled_compare": RESAMPLED,
        "resampled_compare_alarms": sum(differ(*pair) for pair in sides),
        "alpha": ALPHA,
    }


def halves(sessions: Sequence[str]) -> dict[str, Any]:
    """What `compare` says of the first and the second half of a session's replicates, cell by cell.

    Their code is the same. And does the interval of one half hold the median of the other?
    """
    pairs = [pair for session in sessions for pair in _halved(load_table(RESULTS, [session]).frame)]
    held = [holds(one, other) for pair in pairs for one, other in permutations(pair)]
    return {
        "sessions": list(sessions),
        "comparisons": len(pairs),
        "alarms": sum(differ(*pair) for pair in pairs),
        "alpha": ALPHA,
        "intervals": len(held),
        "covered": sum(held),
        "level": LEVEL,
    }


def _halved(runs: pd.DataFrame) -> Iterator[tuple[list[float], list[float]]]:
    """Of each cell with two undisturbed processes or more in either half of the session."""
    middle = runs["replicate"].max() / 2
    for metric in HALVED:
        for _, rows in usable(runs, metric).groupby("cell", observed=True):
            late = rows["replicate"] > middle
            one, other = (rows.loc[part, metric].tolist() for part in (~late, late))
            if min(len(one), len(other)) >= 2:
                yield one, other


def holds(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the interval of one side's processes has the median of the other's."""
    bounds = statistics.interval(one)
    return bounds is not None and bounds[0] <= median(other) <= bounds[1]


def alarmed(logs: Sequence[float]) -> bool:
    """Whether looking after every pair would ever have told the sides apart."""
    found = (statistics.sequential_difference(logs[:n]) for n in range(2, len(logs) + 1))
    return any(decided(one, ALPHA, 0.0) for one in found if one.error > 0)


def differ(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `compare` would tell these two sessions' processes apart."""
    low, high = statistics.difference(list(one), list(other)).interval(ALPHA)
    return not low <= 1.0 <= high


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
        "as_of": utc_now()[:10],
        "suite_commit": suite_commit(),
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


def record(name: str, part: Any) -> None:
    """Put a part into the machine's calibration record."""
    path = RESULTS / "calibration" / f"{machine_name()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found["machine"] = machine_name()
    if name == "planted":
        # One that goes on takes its own place; none takes another's, whatever it found.
        others = [p for p in found.get(name, []) if p.get("began") != part["began"]]
        found[name] = [*others, part]
    else:
        found[name] = part
    path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in part.items() if not isinstance(v, list)}, indent=1))


def main() -> None:
    what, *arguments = sys.argv[1:]
    if what == "halves":
        record(what, {"as_of": utc_now()[:10], **halves(arguments)})
        return
    if what == "alarms":
        record(what, {"as_of": utc_now()[:10], **alarms(read_floors(RESULTS, machine_name()))})
    else:
        text, attempts, percent, budget = arguments
        cell = parse_cell(text, list(workloads()))
        for part in planted(cell, float(percent) / 100, int(attempts), float(budget)):
            record(what, part)


if __name__ == "__main__":
    main()
