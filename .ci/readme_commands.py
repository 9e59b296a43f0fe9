"""Runs the commands of README.md and of the first day on a GPU, in the environment `make` made.

Every line of a `sh` block is run, but those that lead here or that were run just before, as SKIPPED
tells. The first command that fails ends the run with its exit status, and so does one that does not
say what its page tells it says without a GPU.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]

SKIPPED = {
    "README.md": ("git clone", "cd ", "make test", "#"),
    "docs/first-day-on-a-gpu.md": (
        "git clone", "make .venv/installed", "make test", "#",
        # Several GB; `tests/test_venvs.py` makes a small one and resolves the others.
        "for name in cuda-jax",
        # The README's own, or part of what its `make bench` and the tests do.
        "epochmark data fetch", "epochmark doctor", "epochmark run --plan quick",
        "epochmark report",
    ),
}  # fmt: skip
"""By page, how commands begin that are not run."""

GPU_DRIVER = Path("/proc/driver/nvidia/version")


class Command(NamedTuple):
    """`says` is what its page tells that it says without a GPU; empty where it tells nothing."""

    line: str
    says: str = ""


def commands(text: str, skipped: tuple[str, ...] = SKIPPED["README.md"]) -> list[Command]:
    """The lines of all `sh` blocks, comments behind them cut off."""
    blocks = re.split(r"^ *```sh\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
    found = []
    for block, below in zip(blocks[1::2], blocks[2::2], strict=True):
        told = re.match(r"\s*Without a GPU it says `([^`]+)`", below)
        says = told.group(1) if told else ""
        lines = [line.split("  #")[0].strip() for line in block.splitlines()]
        found += [Command(line, says) for line in lines if line]
    return [one for one in found if not one.line.startswith(skipped) or _of_a_device(one.line)]


def _of_a_device(line: str) -> bool:
    """What is asked of an accelerator is not what was asked of the processor."""
    return line.startswith("epochmark doctor --device")


def run(command: Command) -> int:
    """Its exit status; 1 when it does not say what it should."""
    print(f"$ {command.line}", flush=True)
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command.line],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        check=False,
        stdout=subprocess.PIPE if command.says else None,
        stderr=subprocess.STDOUT if command.says else None,
        text=True,
    )
    print(done.stdout or "", end="", flush=True)
    if done.returncode != 0:
        print(f"Command {command.line!r} ended with {done.returncode}.", file=sys.stderr)
    elif command.says and command.says not in " ".join(done.stdout.split()):
        print(f"Command {command.line!r} did not say {command.says!r}.", file=sys.stderr)
        return 1
    return done.returncode


def main() -> int:
    """Run them all; returns the exit status."""
    for page, skipped in SKIPPED.items():
        if page != "README.md" and GPU_DRIVER.exists():
            print(f"There is a GPU here: the commands of {page} are left to its reader.")
            continue
        for command in commands((ROOT / page).read_text(encoding="utf-8"), skipped):
            if status := run(command):
                return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
