"""Where the time of a step at scale standard goes, by kind of operation, from results/profiles.

`python -m tests.benchmarks.profiles` writes those records; here they are only read.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.units import ABSENT, seconds

KINDS = {
    # What XLA hands to that library: convolutions, products, and what it fuses to them.
    "YNNPACK": r"^ynn",
    "convolutions": r"conv",
    "matrix products": r"matmul|einsum|(^|_|::)(b?mm|addmm|dot|gemm|linear)(_|$)",
    "recurrent layer": r"lstm|rnn",
    "attention": r"attention|softmax",
    "normalisation": r"batch_?norm|layer_?norm|fusedbatch",
    "random numbers": r"bernoulli|random|rng|threefry",
    "embeddings, gathers and scatters": r"gather|scatter|embedding|index|segment",
    "copies, fills and layouts": (
        r"copy|transpose|clone|contiguous|concat|(^|:)cat$|slice|pad|cast|fill|zero|tensorlist|tile"
    ),
    "loop": r"while",
}
"""Each kind's operations, by their names in small letters; the first kind that matches counts."""

REST = "elementwise operations and reductions"

LEAST = 0.01
"""Kinds that take less of every backend's step are shown with the rest."""


def kind(name: str) -> str:
    """Of an operation, as a backend names it; a bitcast, which XLA names too, does nothing."""
    plain = name.lower().replace("bitcast_", "")
    return next((kind for kind, form in KINDS.items() if re.search(form, plain)), REST)


def table(argument: str, results: Path) -> str:
    """Seconds of a step on each backend, shared out as its profile's are, of WORKLOAD:MACHINE."""
    name, _, machine = argument.partition(":")
    path = results / "profiles" / f"{machine}.json"
    found = json.loads(path.read_text(encoding="utf-8"))[name]
    shares = [_shares(one["operations_s"]) for one in found]
    shown = {kind for split in shares for kind, share in split.items() if share >= LEAST} - {REST}
    order = sorted(shown, key=lambda kind: -max(split.get(kind, 0.0) for split in shares))

    def parts(of_each: Iterable[float]) -> list[str]:
        taken = zip(found, of_each, strict=True)
        return [_seconds(one["step_s"] * share) for one, share in taken]

    rest = (sum(split[kind] for kind in split.keys() - shown) for split in shares)
    lines = [
        [machine, *(one["backend"] for one in found)],
        ["---", *["---:"] * len(found)],
        *([kind, *parts(split.get(kind, 0.0) for split in shares)] for kind in order),
        [REST, *parts(rest)],
        ["step, not profiled", *parts(1.0 for _ in found)],
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shares(operations: Mapping[str, float]) -> Mapping[str, float]:
    whole = sum(operations.values())
    kinds: defaultdict[str, float] = defaultdict(float)
    for name, spent in operations.items():
        kinds[kind(name)] += spent / whole
    return kinds


def _seconds(found: float) -> str:
    return seconds(found) if found else ABSENT
