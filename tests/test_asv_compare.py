"""asv's own comparison, given the samples, and `epochmark compare` tell planted cases alike."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from asv.results import Results
from asv.runner import BenchmarkResult

from harness import asv
from harness.compare import compare
from harness.report.asvpages import write_results
from harness.schema import Block, Run
from harness.table import load_table
from tests.records import SAMPLES, make_run, write_session
from tests.test_report import cell

PLANTED = {"tensorflow": 1.0, "jax": 1.25, "torch": 0.8}
"""What the contender's step takes, as a multiple of the baseline's."""

RESULTS = Path("results")
MARKS = {"+": "slower", "-": "faster", "": "no difference found"}
PROCESSES, BLOCKS, STEP_S = 5, 40, 0.010
GIT = ("git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.org")


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_CACHE", "cache")


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


def commits(count: int) -> Iterator[str]:
    """Of a repository in this folder, which is made."""
    subprocess.run([*GIT, "init", "--quiet", "--initial-branch=main", "."], check=True)
    for number in range(count):
        subprocess.run(
            [*GIT, "commit", "--quiet", "--allow-empty", "--message", str(number)], check=True
        )
        head = subprocess.run([*GIT, "rev-parse", "HEAD"], capture_output=True, check=True)
        yield head.stdout.decode().strip()


def asv_results(commit: str, runs: list[Run]) -> None:
    """asv's results of a commit, with the samples of one process of each backend, as asv has."""
    frame = load_table(RESULTS, [commit]).frame
    write_results(frame.assign(commit=commit, committed_s=0), Path("asv"))
    benchmarks = json.loads(Path("asv/benchmarks.json").read_text())
    (name,) = (one for one in benchmarks if one.endswith("track_step_time_s"))
    first = {run.cell: asv.SAMPLES["step_time_s"](run) for run in runs if run.replicate == 0}
    samples = [first[cell(label.strip("'"))] for label in benchmarks[name]["params"][0]]
    (path,) = Path("asv").glob(f"*/{commit[:8]}-existing.json")
    found = Results.load(str(path))
    count = len(samples)
    result = BenchmarkResult([0.0] * count, samples, [1] * count, 0, "", None)
    found.add_result(benchmarks[name], result, record_samples=True)
    found.save("asv")


def asv_marks(baseline: str, contender: str) -> dict[str, str]:
    """What `asv compare` puts before each backend: + for worse, - for better."""
    configuration = {
        "version": 1, "project": "x", "repo": ".", "branches": ["main"], "results_dir": "asv",
        "environment_type": "existing",
    }  # fmt: skip
    Path("asv.conf.json").write_text(json.dumps(configuration))
    done = subprocess.run(
        [sys.executable, "-m", "asv", "compare", baseline, contender],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split("|") for line in done.stdout.splitlines() if "track_step_time_s" in line]
    found = {backend: row[1].strip() for row in rows for backend in PLANTED if backend in row[-2]}
    assert len(found) == len(rows), done.stdout
    return found


def test_planted_cases_are_told_alike() -> None:
    sides = []
    for place, commit in enumerate(commits(2)):
        runs = side(PLANTED if place else dict.fromkeys(PLANTED, 1.0), seed=place)
        started = f"2026-11-2{place}T10:00:00Z"
        write_session(RESULTS, *runs, session=commit, started_at=started, replicates=PROCESSES)
        asv_results(commit, runs)
        sides.append(commit)
    ours = compare(*(load_table(RESULTS, [commit]).frame for commit in sides))
    verdicts = {row.cell.split("/")[3]: row.verdict for row in ours.rows}
    assert verdicts == {"tensorflow": "no difference found", "jax": "slower", "torch": "faster"}
    assert {name: MARKS[mark] for name, mark in asv_marks(*sides).items()} == verdicts
