"""What a person waits for after three years of nights: 100,000 rows.

The results are made once and kept in EPOCHMARK_NIGHTS, or else in a temporary folder; making them
takes a minute. The times are printed; only what a slow machine does not change is required.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright
from pytest_benchmark.fixture import BenchmarkFixture

from tests.benchmarks.nights import write_nights
from tests.benchmarks.record import record

ROWS = 100_000
EPOCHMARK = [sys.executable, "-m", "harness.cli"]
LIMIT = 25 * 2**20


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("EPOCHMARK_NIGHTS")
    results = Path(kept) if kept else tmp_path_factory.mktemp("nights")
    if not (results / "runs").exists():
        write_nights(results, ROWS)
    return results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache and a site for all of the module, in its order."""
    return tmp_path_factory.mktemp("scale")


def timed(
    benchmark: BenchmarkFixture, folder: Path, *arguments: str, rounds: int = 1, again: bool = False
) -> str:
    """What the command prints; it must end well."""
    done = benchmark.pedantic(  # type: ignore[no-untyped-call]
        subprocess.run,
        args=([*EPOCHMARK, *arguments],),
        kwargs={
            "check": True,
            "stdout": subprocess.PIPE,
            "text": True,
            "env": {**os.environ, "EPOCHMARK_CACHE": str(folder / "cache")},
        },
        rounds=rounds,
    )
    assert benchmark.stats is not None
    seconds = sorted(benchmark.stats.stats.data)
    command = f"{arguments[0]}, again" if again else arguments[0]
    record("rows", {"command": command, "rows": ROWS, "seconds": seconds}, key="command")
    return str(done.stdout)


def test_site_from_nothing(benchmark: BenchmarkFixture, nights: Path, folder: Path) -> None:
    out = folder / "site"
    timed(benchmark, folder, "report", "--results", str(nights), "--out", str(out))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"\nthe site weighs {size / 2**20:.1f} MiB")
    assert size < LIMIT


def test_site_again(benchmark: BenchmarkFixture, nights: Path, folder: Path) -> None:
    out = folder / "site"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    timed(benchmark, folder, "report", "--results", str(nights), "--out", str(out), again=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_overview_from_disk(folder: Path) -> None:
    """From the start of the navigation until every script has run, by the browser's own clock."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium on this machine")
    address = (folder / "site" / "index.html").as_uri()
    ready = "document.body.dataset.ready ? performance.now() : 0"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def opened() -> float:
            page = browser.new_context().new_page()
            page.goto(address)
            waited = page.wait_for_function(ready).json_value()
            assert page.locator("[data-when]:visible td").count() > 0
            return float(waited)

        times = [opened() for _ in range(5)]
        browser.close()
    print(f"\nthe overview is ready after {min(times):.0f} to {max(times):.0f} ms")


def test_trend(benchmark: BenchmarkFixture, nights: Path, folder: Path) -> None:
    told = timed(benchmark, folder, "trend", "--results", str(nights), rounds=3)
    assert "changed there" in told
    assert re.search(r"^[1-9]\d* steps in [1-9]\d* histories", told, re.MULTILINE)


def test_compare(benchmark: BenchmarkFixture, nights: Path, folder: Path) -> None:
    newest = [path.stem for path in sorted((nights / "runs").glob("*/*"))[-2:]]
    told = timed(benchmark, folder, "compare", *newest, "--results", str(nights), rounds=3)
    assert "no difference found" in told
