"""A machine's record of such figures, results/<book>/<machine>.json, written part by part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.clock import utc_now
from harness.probes import machine_name
from harness.runner import suite_commit
from harness.store import write_json

RESULTS = Path(__file__).parents[2] / "results"


def record(name: str, part: dict[str, Any], *, key: str = "", book: str = "calibration") -> None:
    """Put a part into the machine's record in place of an older one.

    With `key` the part is one of several, and takes the place of the one with the same value there.
    """
    path = _path(book)
    found = _read(path)
    dated = {"as_of": utc_now()[:10], "suite_commit": suite_commit(), **part}
    found["machine"] = machine_name()
    others = [other for other in found.get(name, []) if other.get(key) != part[key]] if key else []
    found[name] = [*others, dated] if key else dated
    write_json(path, found)
    print(json.dumps({k: v for k, v in dated.items() if not isinstance(v, list)}, indent=1))


def recorded(name: str, *, book: str = "calibration") -> list[dict[str, Any]]:
    """The parts of that name, which have keys, in this machine's record; empty without one."""
    parts: list[dict[str, Any]] = _read(_path(book)).get(name, [])
    return parts


def _path(book: str) -> Path:
    return RESULTS / book / f"{machine_name()}.json"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
