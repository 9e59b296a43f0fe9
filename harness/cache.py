"""Where derived files may lie. Everything under it can be deleted at any time."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """EPOCHMARK_CACHE, else the platform's user cache; the folder need not exist."""
    if chosen := os.environ.get("EPOCHMARK_CACHE"):
        return Path(chosen).expanduser()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base).expanduser() / "epochmark"
    return Path("~/.cache/epochmark").expanduser()
