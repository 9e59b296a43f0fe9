"""Help and lists answer at once: nothing slow to import is loaded for them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SLOW = ("tensorflow", "jax", "torch", "keras", "pandas", "pyarrow")

CHILD = """
import atexit, json, sys
slow = sys.argv.pop(1).split(",")
atexit.register(lambda: print(json.dumps(sorted(set(slow) & set(sys.modules)))))
from harness.cli import main
main()
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["list"],
        ["list", "--plan", "quick", "--format", "json"],
        ["run", "--help"],
        ["plans"],
        ["metrics"],
    ],
    ids=" ".join,
)
def test_nothing_slow_is_imported(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, ",".join(SLOW), *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    *answer, loaded = done.stdout.splitlines()
    assert answer
    assert json.loads(loaded) == []
