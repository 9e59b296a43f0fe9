"""asv's own comparisons, given the samples, and `epochmark compare` tell planted cases alike."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.compare import compare
from harness.schema import Block, Run
from harness.table import load_table
from tests.records import SAMPLES, make_run, write_session
from tests.test_report import cell

PLANTED = {"tensorflow": 1.0, "jax": 1.25, "torch": 0.8}
"""What the contender's step takes, as a multiple of the baseline's."""

ROOT = Path(__file__).parents[1]
RESULTS = Path("results")
SIDES = ("before", "after")
MARKS = {"+": "slower", "-": "faster", "": "no difference found"}
PROCESSES, BLOCKS, STEP_S = 5, 40, 0.010

SUITE = '''
"""The samples of the first process of each backend, from the commit's own record."""

import sys
from pathlib import Path

from harness import asv
from harness.store import read_file


class Train:
    param_names = ["backend"]
    params = [["tensorflow", "jax", "torch"]]
    unit = "seconds"

    def track_step_time_s(self, backend):
        runs = read_file(Path(sys.prefix) / "planted.jsonl").runs
        run = next(run for run in runs if f"/{backend}/" in run.cell and run.replicate == 0)
        return asv.value("step_time_s", run)
'''


INSTALL = f'''
"""Puts the commit's record into asv's environment, and the packages and the harness from here."""

import shutil, sys, sysconfig
from pathlib import Path

shutil.copy("planted.jsonl", sys.prefix)
here = Path(sysconfig.get_path("purelib"), "here.pth")
here.write_text({str(ROOT)!r} + chr(10) + {sysconfig.get_path("purelib")!r})
'''


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_CACHE", "cache")
    monkeypatch.setenv("HOME", str(tmp_path))  # where asv keeps what it knows of the machine


def side(planted: dict[str, float], seed: int) -> list[Run]:
    """Processes that differ by a hundredth, of blocks that differ by a hundredth."""
    random = np.random.default_rng(seed)
    runs = []
    for backend, factor in planted.items():
        for replicate in range(PROCESSES):
            step = STEP_S * factor * random.lognormal(0, 0.01)
            blocks = [Block(10, 10 * step * float(s)) for s in random.lognormal(0, 0.01, BLOCKS)]
            changes = {"run": f"{backend}-{replicate}", "replicate": replicate}
            samples = replace(SAMPLES, steady=tuple(blocks))
            runs.append(make_run(cell=cell(backend), samples=samples, **changes))
    return runs


def git(*arguments: str) -> None:
    named = ("git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    subprocess.run([*named, *arguments], check=True)


def two_commits() -> None:
    """A repository in this folder whose commits hold a record each, and what asv needs of it."""
    git("init", "--quiet", "--initial-branch=main", ".")
    for place, name in enumerate(SIDES):
        runs = side(PLANTED if place else dict.fromkeys(PLANTED, 1.0), seed=place)
        started = f"2026-11-2{place}T10:00:00Z"
        written = write_session(RESULTS, *runs, session=name, started_at=started, replicates=5)
        shutil.copy(written, "planted.jsonl")
        Path("install.py").write_text(INSTALL)
        git("add", "planted.jsonl", "install.py")
        git("commit", "--quiet", "--message", name)
        git("tag", name)
    Path("suites").mkdir()
    Path("suites/__init__.py").touch()
    Path("suites/train.py").write_text(SUITE)
    configuration = {
        "version": 1, "project": "planted", "repo": ".", "branches": ["main"],
        "benchmark_dir": "suites", "environment_type": "virtualenv",
        "pythons": [f"{sys.version_info.major}.{sys.version_info.minor}"],
        "build_command": [], "install_command": ["in-dir={build_dir} python install.py"],
        "uninstall_command": [],
    }  # fmt: skip
    Path("asv.conf.json").write_text(json.dumps(configuration))


def asv(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "asv", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def marks(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What asv's table puts before each backend, in our words: + for worse, - for better."""
    rows = [line.split("|") for line in done.stdout.splitlines() if "track_step_time_s" in line]
    rows = [row for row in rows if len(row) > 2]
    found = {
        backend: MARKS[row[1].strip()] for row in rows for backend in PLANTED if backend in row[-2]
    }
    assert len(found) == len(rows) == len(PLANTED), done.stdout + done.stderr
    return found


def our_verdicts(sides: Sequence[str]) -> dict[str, str]:
    found = compare(*(load_table(RESULTS, [name]).frame for name in sides))
    return {row.cell.split("/")[3]: row.verdict for row in found.rows}


def test_planted_cases_are_told_alike() -> None:
    """By `asv continuous`, which measures both commits, and by `asv compare` of what it stored."""
    two_commits()
    verdicts = our_verdicts(SIDES)
    assert verdicts == {"tensorflow": "no difference found", "jax": "slower", "torch": "faster"}
    assert asv("machine", "--yes").returncode == 0
    measured = asv("continuous", "--no-only-changed", *SIDES)
    assert marks(measured) == verdicts
    assert measured.returncode == 1  # one of them has become slower
    assert marks(asv("compare", *SIDES)) == verdicts
