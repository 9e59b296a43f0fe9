"""What `epochmark options` says: each option of the loop beside plain `fit`, cell by cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from statistics import median
from textwrap import wrap
from typing import Any

from harness import answers
from harness.effects import (
    BATCH_MEMORY_BYTES,
    DEARER,
    FOLDER,
    LONGER,
    PARTS,
    PLAIN,
    PLATEAU,
    VARIANTS,
    Effect,
    effects,
)
from harness.errors import ResultsError
from harness.registry import workload
from harness.run_command import outcome
from harness.schema import Run
from harness.store import read_file, results_files, spelled
from harness.units import digits, quality, ruled, size, usd

WIDTH = 100
STOPPED = "stop at cost"
HEAD = ("workload", "backend", "n", "to reach", *(variant.name for variant in VARIANTS))


def line(name: str, run: Run) -> str:
    """A finished run, for the eyes of somebody who waits."""
    return f"{run.cell}, {name}: {outcome(run)}"


def stored(results: Path) -> list[Effect]:
    """The effects in the newest session of results/options that holds each cell and seed."""
    place = results / FOLDER
    if not (place / "runs").is_dir():
        raise ResultsError(
            f"There is nothing of options in {spelled(results)!r}. "
            "Measure some with `epochmark options --only GLOB`."
        )
    newest: dict[tuple[str, str, str, int], list[Effect]] = {}
    for path in results_files(place):
        # As a whole: an older session, perhaps of another machine, fills no gap of a newer one.
        session: dict[tuple[str, str, str, int], list[Effect]] = {}
        for one in effects(read_file(path).runs):
            session.setdefault((one.workload, one.backend, one.setting, one.seed), []).append(one)
        newest |= session
    return [one for several in newest.values() for one in several]


def rows(found: Iterable[Effect]) -> list[tuple[str, ...]]:
    """A row per workload, backend and setting, which is named where there are several."""
    found = list(found)
    several = len({one.setting for one in found}) > 1

    def cell(one: Effect) -> tuple[str, str, str]:
        return one.workload, one.backend, one.setting

    return [
        _row(f"{name} {setting}" if several else name, backend, list(group))
        for (name, backend, setting), group in groupby(sorted(found, key=cell), key=cell)
    ]


def _row(title: str, backend: str, group: Sequence[Effect]) -> tuple[str, ...]:
    unit = _unit(group[0].workload)
    plain = [one for one in group if one.variant == PLAIN]
    mark = "*" if any(one.contended for one in group) else ""
    told = [_told([one for one in group if one.variant == v.name], unit) for v in VARIANTS[1:]]
    prices = [one.plain_usd for one in plain if one.plain_usd is not None]
    paid = usd(median(prices)) if prices else "1"
    target = quality(median(one.target for one in plain), unit=unit)
    return title, backend + mark, str(len(plain)), target, paid, *told


def _unit(name: str) -> str:
    return workload(name).quality_unit


def _told(seeds: Sequence[Effect], unit: str) -> str:
    """The median ratio, or how many seeds reached the quality, with where they ended."""
    if not seeds:
        return "-"
    ended = quality(median(one.quality for one in seeds), unit=unit)
    if seeds[0].variant == STOPPED:
        return f"{digits(median(one.spent_ratio for one in seeds))} x, ends at {ended}"
    reached = [one.cost_ratio for one in seeds if one.cost_ratio is not None]
    batch = f" (batch {seeds[0].batch_size})" if seeds[0].variant == "batch from memory" else ""
    if len(reached) < len(seeds):
        return f"{len(reached)} of {len(seeds)} reach it, ends at {ended}{batch}"
    return f"{digits(median(reached))} x{batch}"


def notes(found: Sequence[Effect]) -> list[str]:
    """What the table's figures are."""
    said = [
        f"Each figure is what was paid until the quality that {PLAIN} has after its declared "
        "epochs, with the same seed: start-up, compile, the search of a batch, training and "
        f"evaluation, as a multiple of what {PLAIN} paid (medians over n seeds). Every variant "
        f"but {PLAIN} is a custom loop, and has {LONGER} times the declared epochs to get there.",
        f"accumulate: {PARTS} parts of the declared batch; batch from memory: a step within "
        f"{size(BATCH_MEMORY_BYTES)}; plateau: the learning rate times {PLATEAU}; {STOPPED}: all "
        f"that was paid until a tenth of a point took {DEARER:g} times the average of {PLAIN}.",
    ]
    if any(one.contended for one in found):
        said.append("* Other processes used the machine meanwhile.")
    return said


def text(found: Sequence[Effect]) -> str:
    """A table with what its figures are."""
    lines = ruled(HEAD, rows(found))
    return "\n".join([*lines, "", *(part for note in notes(found) for part in wrap(note, WIDTH))])


def markdown(found: Sequence[Effect]) -> str:
    """The same, for the README."""
    table = [HEAD, ["---"] * len(HEAD), *rows(found)]
    lines = [f"| {' | '.join(row)} |" for row in table]
    return "\n".join([*lines, "", *notes(found)])


def records(found: Sequence[Effect]) -> list[dict[str, Any]]:
    """A dictionary per variant, cell and seed."""
    return [asdict(one) for one in found]


def as_json(found: Sequence[Effect]) -> str:
    """Every effect, with what the figures are."""
    return answers.as_json({"effects": records(found), "notes": notes(found)})


def as_csv(found: Sequence[Effect]) -> str:
    """A row per effect."""
    listed = records(found)
    return answers.as_csv(listed, list(listed[0]) if listed else [])
