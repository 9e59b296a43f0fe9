"""A training's state in one file: written whole or not at all, whenever the process is killed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.errors import WorkerError
from harness.workload import Array

_STEP = "step"


def write(path: Path, step: int, arrays: Sequence[Array]) -> int:
    """The state after so many steps, in place of an older one; returns the file's bytes.

    It is on the disk before the older one goes.
    """
    from safetensors.numpy import save

    named = {str(place): np.asarray(array, order="C") for place, array in enumerate(arrays)}
    content = save({_STEP: np.array([step]), **named})
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    return len(content)


def read(path: Path) -> tuple[int, list[Array]]:
    """The steps done and the arrays; raises WorkerError for a file that is no checkpoint."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        named = load(path.read_bytes())
        return int(named.pop(_STEP)[0]), [named[str(place)] for place in range(len(named))]
    except (OSError, KeyError, SafetensorError) as error:
        raise WorkerError("error", f"the checkpoint {path.name} cannot be read: {error}") from error
