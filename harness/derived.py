"""Small figures that take long to find again: a JSON file of each in the cache folder.

Anything there may be deleted at any time, and a file that cannot be read counts as deleted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.cache import cache_folder


def read(kind: str, digest: str) -> dict[str, Any] | None:
    """What was found of that digest; None when nothing is there."""
    try:
        found = json.loads(_path(kind, digest).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def keep(kind: str, digest: str, fields: dict[str, Any]) -> None:
    """Keep it for the next time."""
    path = _path(kind, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields, allow_nan=False), encoding="utf-8")


def _path(kind: str, digest: str) -> Path:
    return cache_folder() / kind / f"{digest}.json"
