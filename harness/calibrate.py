"""What `epochmark doctor --calibrate` does: pairs of the same code, in rounds over the cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import probes, runner
from harness.ab import Failure, Pair, measure_pair
from harness.cells import Cell
from harness.child import HERE
from harness.clock import utc_now
from harness.noise import Floor, floor_of, read_floors, write_floors
from harness.units import aligned, percent

Say = Callable[[str], None]


def calibrate(cells: Sequence[Cell], pairs: int, results: Path, say: Say) -> Path:
    """So many A/A pairs of every cell; the file is written after each round. Returns its path.

    Rounds go over all cells, so that drift of the machine hits them alike. A cell that fails is
    told and left out. A floor of more pairs than were measured so far stays until the last round.
    """
    runner.prepare_data(cells, say)
    machine, commit = probes.machine_name(), runner.suite_commit()
    before = read_floors(results, machine)  # a damaged file is told before hours are spent
    found: dict[Cell, list[Pair]] = {cell: [] for cell in cells}
    path = write_floors(results, machine, {})
    with runner.terminated_as_interrupted():
        for number in range(pairs):
            _measure_round(found, number, pairs, say)
            known = _known(found, commit)
            if number + 1 < pairs:
                known = {cell: floor for cell, floor in known.items() if _more(floor, before, cell)}
            path = write_floors(results, machine, known)
    return path


def _measure_round(found: dict[Cell, list[Pair]], number: int, pairs: int, say: Say) -> None:
    for cell in list(found):
        pair = measure_pair(cell, HERE, HERE, number=number)
        if isinstance(pair, Failure):
            say(f"{cell.id}: ended as {pair.ended.status!r}: {pair.ended.reason}")
            del found[cell]
            continue
        found[cell].append(pair)
        say(f"[{number + 1}/{pairs}] {cell.id}: {_told(pair)}")


def _known(found: dict[Cell, list[Pair]], commit: str) -> dict[str, Floor]:
    """What was known before is better than pairs that all were disturbed."""
    as_of = utc_now()[:10]
    floors = {
        cell.id: floor_of(pairs, as_of=as_of, suite_commit=commit) for cell, pairs in found.items()
    }
    return {cell: floor for cell, floor in floors.items() if floor.known}


def _more(floor: Floor, before: dict[str, Floor], cell: str) -> bool:
    return cell not in before or len(floor.pair_ratios) >= len(before[cell].pair_ratios)


def _told(pair: Pair) -> str:
    return "disturbed" if pair.log_ratio is None else f"ratio {math.exp(pair.log_ratio):.4f}"


def render(floors: dict[str, Floor]) -> str:
    """A line per cell: pairs, and the two floors."""
    head = ("cell", "pairs", "floor in turns", "floor apart", "as of")
    return "\n".join(aligned([head, *(_row(cell, floor) for cell, floor in floors.items())]))


def _row(cell: str, floor: Floor) -> tuple[str, ...]:
    shares = [percent(share) for share in (floor.in_turns, floor.apart)]
    return cell, str(len(floor.pair_ratios)), *shares, floor.as_of
