"""The two sides of an A/B run: from what a person names to the installation whose code is run."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness.child import Installation
from harness.errors import UsageError
from harness.venvs import SOURCE


@contextmanager
def installation(name: str, variables: Mapping[str, str]) -> Iterator[Installation]:
    """What `name` means: `.` (this installation), an environment or interpreter, or a commit.

    Another environment runs this source tree with its own packages; a commit is checked out into a
    temporary worktree and run with this environment's packages.
    Raises UsageError for anything else.
    """
    if name == ".":
        yield Installation(variables=variables)
    elif (interpreter := _interpreter(Path(name))) is not None:
        yield Installation(python=str(interpreter), root=SOURCE, variables=variables)
    else:
        with _worktree(name) as root:
            yield Installation(root=root, variables=variables)


def _interpreter(path: Path) -> Path | None:
    """The Python of an environment's folder, or the file itself; links are kept, they matter."""
    if path.is_dir():
        path = path / "bin" / "python"
    return path.absolute() if path.is_file() and os.access(path, os.X_OK) else None


@contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    found = _git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if not found:
        raise UsageError(
            f"{commit!r} is neither '.', nor an environment (a folder with bin/python, or an "
            "interpreter), nor a commit of the suite."
        )
    if not _git("cat-file", "-t", f"{found}:harness/ab.py"):
        raise UsageError(f"Commit {commit!r} is older than `epochmark ab`: it cannot take turns.")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / found[:12]
        _git("worktree", "add", "--detach", str(root), found, check=True)
        try:
            yield root
        finally:
            _git("worktree", "remove", "--force", str(root))


def _git(*arguments: str, check: bool = False) -> str:
    """What git says of the source tree; empty where it refuses or is missing."""
    try:
        done = subprocess.run(
            ["git", "-C", str(SOURCE), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise UsageError("git is not installed, so no commit can be run.") from error
    if check and done.returncode:
        raise UsageError(f"git {arguments[0]} failed: {done.stderr.strip().splitlines()[-1]}.")
    return done.stdout.strip() if done.returncode == 0 else ""
