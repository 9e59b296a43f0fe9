"""Runs the commands of README.md, line by line, in the environment that `make` made.

Every line of a `sh` block is run, but `git clone`, `cd` (they lead here) and `make test` (the
caller has just run it). The first command that fails ends the run with its exit status.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = ("git clone", "cd ", "make test", "#")


def commands(text: str) -> list[str]:
    """The lines of all `sh` blocks, comments behind them cut off."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(SKIPPED)]


def main() -> int:
    """Run them all; returns the exit status."""
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for line in commands((ROOT / "README.md").read_text(encoding="utf-8")):
        print(f"$ {line}", flush=True)
        done = subprocess.run(
            ["bash", "-c", line], cwd=ROOT, env={**os.environ, "PATH": path}, check=False
        )
        if done.returncode != 0:
            print(f"README command {line!r} ended with {done.returncode}.", file=sys.stderr)
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
