"""asv's own pages: made of the rows, asking nobody for anything, and linked both ways."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.downloads import NpmPackage
from harness.errors import DataError
from harness.report import asvpages
from harness.report.build import build
from harness.table import load_table
from tests.records import ENVIRONMENT, failed_run, make_run, write_session
from tests.test_report import cell, replicated, timed

RESULTS, SITE = Path("results"), Path("site")
ROOT = Path(__file__).parents[1]
HEAD = subprocess.run(
    ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
).stdout.strip()


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_CACHE", "cache")


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every package is there, each file empty: for what does not look at the pages."""
    for package in asvpages.SCRIPTS:
        folder = tmp_path / "cache" / "scripts" / package.folder
        folder.mkdir(parents=True)
        for member in package.members:
            (folder / Path(member).name).touch()


HERE = {"suite_commit": HEAD[:12]}


def results_of(folder: Path, *files: str) -> list[dict[str, Any]]:
    return [json.loads((folder / name).read_text()) for name in files]


def written(tmp_path: Path) -> tuple[dict[str, Any], Path]:
    """asv's benchmarks as written from the results, and the folder they are in."""
    placed = asvpages.placed(load_table(RESULTS).frame)
    asvpages.write_results(placed, tmp_path / "asv")
    return results_of(tmp_path / "asv", "benchmarks.json")[0], tmp_path / "asv"


def value(benchmarks: dict[str, Any], folder: Path, name: str, *labels: object) -> Any:
    """What asv is given for one point of a benchmark, on the machine of the records."""
    params = benchmarks[name]["params"]
    place = 0
    for label, axis in zip(labels, params, strict=True):
        place = place * len(axis) + axis.index(repr(label))
    (row,) = results_of(folder, f"laptop/{HEAD[:8]}-existing.json")
    assert row["commit_hash"] == HEAD
    return row["results"][name][0][place]


NAME = "recommender.smoke_train_cpu.track_step_time_s"


def test_asv_gets_the_median_of_the_processes(tmp_path: Path) -> None:
    write_session(RESULTS, *(timed("jax", n, step, **HERE) for n, step in enumerate((3, 1, 2))))
    benchmarks, folder = written(tmp_path)
    assert value(benchmarks, folder, NAME, "jax", "float32", "functional", 256) == 2.0
    assert benchmarks[NAME]["unit"] == "seconds"


def test_of_two_sessions_at_a_commit_the_newer_one_counts(tmp_path: Path) -> None:
    for day, step in (("23", 1.0), ("22", 3.0)):
        started = f"2026-11-{day}T10:00:00Z"
        run = timed("jax", 0, step, started_at=started, **HERE)
        write_session(RESULTS, run, session=f"s{day}", started_at=started)
    benchmarks, folder = written(tmp_path)
    assert value(benchmarks, folder, NAME, "jax", "float32", "functional", 256) == 1.0


def test_what_did_not_end_well_or_was_disturbed_has_no_value(tmp_path: Path) -> None:
    failed = failed_run("oom", "no memory", run="f", cell=cell("torch"), **HERE)
    write_session(RESULTS, timed("jax", 0, 1.0, **HERE), failed)
    benchmarks, folder = written(tmp_path)
    assert value(benchmarks, folder, NAME, "jax", "float32", "functional", 256) == 1.0
    assert value(benchmarks, folder, NAME, "torch", "float32", "functional", 256) is None


@pytest.mark.parametrize("commit", [f"{HEAD[:12]}+", "0" * 12, ""])
def test_runs_of_no_commit_of_the_branch_are_left_out(commit: str) -> None:
    write_session(RESULTS, make_run(suite_commit=commit))
    with pytest.raises(DataError, match=r"^no run was measured at a commit of this branch"):
        asvpages.publish(load_table(RESULTS).frame, SITE / "asv")
    assert not SITE.exists()


@pytest.mark.usefixtures("scripts")
def test_how_many_are_left_out_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    write_session(RESULTS, timed("jax", 0, 1.0, **HERE), make_run(run="x", suite_commit=""))
    built = build(RESULTS, SITE, asv=True)
    note = "asv's own pages leave out 1 run, which is of no commit of this branch."
    assert note in built.notices


@pytest.mark.usefixtures("scripts")
def test_the_report_and_asv_link_to_each_other() -> None:
    write_session(RESULTS, timed("jax", 0, 1.0, **HERE))
    assert build(RESULTS, SITE, asv=True).notices == ()
    for name, address in (("index.html", "asv/index.html"), ("history.html", "asv/index.html")):
        assert f'href="{address}"' in (SITE / name).read_text()
    cells = next((SITE / "cell").iterdir()).read_text()
    assert 'href="../asv/index.html"' in cells
    assert 'href="../index.html"' in (SITE / "asv" / "index.html").read_text()


@pytest.mark.parametrize("asked", [False, True])
def test_without_them_the_report_says_so_and_links_to_nothing(asked: bool) -> None:
    write_session(RESULTS, *replicated())
    built = build(RESULTS, SITE, asv=asked)
    said = "no run was measured at a commit of this branch" if asked else "epochmark report --asv"
    page = (SITE / "history.html").read_text()
    assert said in page.replace("<code>", "").replace("</code>", "")
    assert any(said in notice for notice in built.notices) == asked
    assert [path for path in SITE.rglob("*.html") if "asv/index.html" in path.read_text()] == []


@pytest.mark.usefixtures("scripts")
def test_every_request_of_the_page_is_for_a_file_of_the_site() -> None:
    write_session(RESULTS, timed("jax", 0, 1.0, **HERE))
    build(RESULTS, SITE, asv=True)
    page = SITE / "asv" / "index.html"
    text = page.read_text()
    asked = re.findall(r'<(?:script|link|img)[^>]*?(?:src|href)="([^"]*)"', text, re.DOTALL)
    assert len(asked) > 15
    assert [address for address in asked if not (page.parent / address).is_file()] == []
    assert "script-src 'self';" in text
    assert re.findall(r" on\w+=", text) == []
    assert list((SITE / "asv").rglob("*.json")) == []


def test_a_script_of_asv_that_is_not_known_leaves_its_pages_out(tmp_path: Path) -> None:
    page = '<head><script src="https://example.org/new.min.js" integrity="x"></script></head>'
    with pytest.raises(DataError, match=r"^this version of asv asks for new\.min\.js, "):
        asvpages.own_requests_only(page, tmp_path)


def test_a_package_that_is_not_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(
        '#!/bin/sh\nwhile [ "$1" != --pack-destination ]; do shift; done\necho x > "$2/a.tgz"\n'
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(npm.parent), prepend=":")
    with pytest.raises(DataError, match=r"^a\.tgz has SHA-256 73cb3858a687a849, expected 0000"):
        NpmPackage("toy", "1.0.0", "0" * 64, ("a.js",)).into(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"^this machine has no npm$"):
        NpmPackage("toy", "1.0.0", "0" * 64, ("a.js",)).into(tmp_path)


def test_names_from_results_stay_inside_the_folder(tmp_path: Path) -> None:
    outside = replace(ENVIRONMENT, machine="../..")
    write_session(RESULTS, make_run(environment=outside, **HERE))
    written(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"asv", "results", "cache"}
    assert len(list((tmp_path / "asv").glob("*/machine.json"))) == 1
