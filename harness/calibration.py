"""The calibration record of each machine as a table: what it can tell apart, and what that costs.

`python -m tests.benchmarks.calibration` and the benchmarks beside it write the record,
results/calibration/<machine>.json; here it is only read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from harness.units import percent

Record = Mapping[str, Any]

MIB = 2**20


def markdown(results: Path) -> str:
    """A row per figure, a column per machine."""
    paths = sorted((results / "calibration").glob("*.json"))
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    rows = [
        ("", "asked", *(record["machine"] for record in records)),
        ("---",) * (2 + len(records)),
    ]
    for title, asked, told in [*FIGURES, *_planted(records), *_peers(records)]:
        found = [told(record) for record in records]
        if any(found):
            rows.append((title, asked, *(text or "-" for text in found)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _share(part: str, hits: str, of: str, *, within: str = "") -> Callable[[Record], str]:
    def told(record: Record) -> str:
        found = record.get(part, {})
        found = found.get(within, {}) if within else found
        return f"{found[hits]:,} of {found[of]:,}" if found.get(of) else ""

    return told


def _most(part: str, form: Callable[[Record], float], text: str) -> Callable[[Record], str]:
    def told(record: Record) -> str:
        found = [form(entry) for entry in record.get(part, [])]
        return text.format(max(found)) if found else ""

    return told


def _rows(command: str) -> Callable[[Record], str]:
    def told(record: Record) -> str:
        found = [e["seconds"] for e in record.get("rows", []) if e["command"] == command]
        return f"{median(found[0]):.1f} s" if found else ""

    return told


def _drifts(record: Record) -> str:
    return "; ".join(f"{speed:.3f}" for speed in record.get("between", {}).get("speeds", []))


def _foretold(command: str) -> Callable[[Record], str]:
    def told(record: Record) -> str:
        found = record.get("foretold", {}).get(command, {})
        if not found.get("attempts"):
            return ""
        return (
            f"{found['found']:,} of {found['attempts']:,} (typical size {percent(found['size'])})"
        )

    return told


def _contended(side: str) -> Callable[[Record], str]:
    def told(record: Record) -> str:
        return "; ".join(
            f"{entry[side]['verdict']} (median pair {median(entry[side]['pair_ratios']):.3f}, "
            f"{100 * entry[side]['disturbed'] / entry[side]['blocks']:.0f} % of blocks marked)"
            for entry in record.get("contended", [])
            if entry[side]["pair_ratios"]
        )

    return told


FIGURES: Sequence[tuple[str, str, Callable[[Record], str]]] = (
    ("same code: false alarms of `compare`, one half of a session to the other", "1 %",
     _share("halves", "alarms", "comparisons")),
    ("the same, halves drawn from whole processes", "1 %",
     _share("halves", "alarms", "comparisons", within="resampled")),
    ("the same, one session to another, without the machine's drift", "",
     _share("between", "alarms", "comparisons")),
    ("the same, with the drift that the other sessions show", "1 %",
     _share("between", "alarms", "comparisons", within="drifted")),
    ("same code: speed of a later session to an earlier one's, mean over cells", "1", _drifts),
    ("same code: false alarms of `ab`, five pairs", "1 %", _share("alarms", "real_alarms", "real")),
    ("the same, pairs in another order", "1 %",
     _share("alarms", "resampled_alarms", "resampled")),
    ("the 95 % interval of one half holds the other's median", "90 %",
     _share("halves", "covered", "intervals")),
    ("of one session alone, another's", "90 %", _share("between", "covered", "intervals")),
    ("of one session with the drift that the others show, another's", "90 %",
     _share("between", "covered", "intervals", within="drifted")),
    ("a slowdown as large as `compare` said that it would find, in another session's processes: "
     "found", "90 %", _foretold("compare")),
    ("one as large as `ab` said after five pairs, in five others: found", "90 %", _foretold("ab")),
    ("same code in `ab` beside a process that comes and goes", "no difference",
     _contended("identical")),
    ("slower code in `ab` beside that process", "slower", _contended("slower")),
    ("the harness adds to a step, at most", "1 %",
     _most("overhead", lambda entry: 100 * entry["added_share"], "{:.3f} %")),
    ("the harness adds to peak memory, at most", "100 MiB",
     _most("memory", lambda entry: entry["added_bytes"] / MIB, "{:.0f} MiB")),
    ("`compare` over 100,000 rows", "3 s", _rows("compare")),
    ("`trend` over 100,000 rows", "3 s", _rows("trend")),
    ("`report` over 100,000 rows, from nothing", "30 s", _rows("report")),
    ("`preflight` of a TPU at scale smoke, from nothing", "360 s",
     _most("plans", lambda entry: entry["first_s"], "{:.0f} s")),
    ("the same again", "seconds", _most("plans", lambda entry: entry["again_s"], "{:.1f} s")),
)  # fmt: skip


def _planted(records: Sequence[Record]) -> Iterator[tuple[str, str, Callable[[Record], str]]]:
    """A row per cell and size of the work that was planted in its step."""
    searches = [search for record in records for search in record.get("planted", [])]
    for cell, aim in dict.fromkeys((search["cell"], search["aimed_at"]) for search in searches):

        def told(record: Record, cell: str = cell, aim: float = aim) -> str:
            return "; ".join(
                f"{search['found']} of {search['attempts']} at {100 * search['planted']:.1f} %, "
                f"within {search['longest_s']:.0f} s"
                for search in record.get("planted", [])
                if (search["cell"], search["aimed_at"]) == (cell, aim)
            )

        yield f"`{cell}` slower by about {100 * aim:g} %: found by `ab`", "95 %", told


def _peers(records: Sequence[Record]) -> Iterator[tuple[str, str, Callable[[Record], str]]]:
    """A row per network that is not ours: our step's time to its own, as FLOPs are to FLOPs."""
    sides = [side for record in records for side in record.get("peers", [])]
    for cell, peer in dict.fromkeys((side["cell"], side["peer"]) for side in sides):

        def told(record: Record, cell: str = cell) -> str:
            for side in record.get("peers", []):
                if side["cell"] == cell:
                    per_flop = side["ratio_per_flop"] / side["ratio_median"]
                    low, high = (per_flop * side[f"ratio_ci96_{end}"] for end in ("low", "high"))
                    return f"{side['ratio_per_flop']:.3f} ({low:.3f} to {high:.3f})"
            return ""

        yield f"step of `{cell}` beside {peer}, per FLOP (96 % interval)", "at most 1", told
