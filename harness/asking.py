"""Asks a module of ours that needs a framework, in a process of its own: it prints its answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.child import without_paths
from harness.environment import worker_environment
from harness.errors import EpochmarkError


def asked(
    module: str,
    backend: str,
    *arguments: str,
    device: str,
    timeout_s: float,
    python: str = sys.executable,
    root: Path | None = None,
) -> Any:
    """What `python -m harness.MODULE BACKEND ARGUMENTS` prints last, as JSON.

    It runs in a worker's environment, on the source tree `root` where it is not the installed one.
    Raises EpochmarkError, without a full stop, for a process that fails or takes too long.
    """
    try:
        done = subprocess.run(
            [python, "-m", f"harness.{module}", backend, *arguments],
            cwd=root,
            env=worker_environment(backend=backend, device=device, root=root),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        raise EpochmarkError(f"not done after {timeout_s:g} s") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise EpochmarkError(without_paths(said[-1]))
    return json.loads(done.stdout.splitlines()[-1])
