"""asv's own pages, made of the same rows as the report; `harness.asv` is how asv measures.

The rows become asv's results in a temporary folder, of which `asv publish` makes its pages. As they
come they ask other hosts for scripts and fetch their data, which a page from disk may not: the
copy in the site does neither. asv itself is not imported.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from harness.asv import TRACKED, UNITS
from harness.cache import cache_folder
from harness.cells import PHASES
from harness.compare import usable
from harness.downloads import NpmPackage, run
from harness.errors import DataError
from harness.metrics import METRICS
from harness.report.parts import plain, slug

ROOT = Path(__file__).resolve().parents[2]
PUBLISH_TIMEOUT_S = 1200.0
PARAMETERS = ("backend", "precision", "api_style", "batch_size")
SUITE = ["workload", "scale", "phase", "device"]

SCRIPTS = (
    NpmPackage(
        "jquery",
        "3.3.1",
        "2c7c70a1e796c1568ff05d45a8cb2da2a0fc6e37426c65e4eef6ee55e217933e",
        ("LICENSE.txt", "dist/jquery.min.js"),
    ),
    NpmPackage(
        "flot",
        "0.8.3",
        "5e4cea78a9efa2d3dbba363ac76c688951e6c638ee916883c36e23516208b1ed",
        (
            "LICENSE.txt",
            "jquery.flot.js",
            "jquery.flot.time.js",
            "jquery.flot.selection.js",
            "jquery.flot.categories.js",
        ),
    ),
    NpmPackage(
        "flot-orderbars",
        "1.0.0",
        "e5523ee7cca778f194b34fc31afb6dda40bf1557e6669fda4730c29f53e87101",
        ("js/jquery.flot.orderBars.js",),
    ),
    NpmPackage(
        "stupid-table-plugin",
        "1.1.3",
        "1186089584b7c2f7fec9ad4232e9aa1adbfea273eaa233b713beb8c2c916b4ac",
        ("LICENSE", "stupidtable.min.js"),
    ),
    NpmPackage(
        "blueimp-md5",
        "2.19.0",
        "0fff5798c7733b21f3e4c0de69ccba12af266e0f01c3e3a41051c0e49a655512",
        ("LICENSE.txt", "js/md5.min.js"),
    ),
    NpmPackage(
        "bootstrap",
        "3.1.1",
        "23b27da4dd80b8fbe8972ac4be87037627e007ad5dd1edb27435844f0a4646a0",
        (
            "LICENSE",
            "dist/js/bootstrap.min.js",
            "dist/css/bootstrap.min.css",
            "dist/fonts/glyphicons-halflings-regular.woff",
        ),
    ),
)
"""What asv 0.6.6's pages ask other hosts for; of stupidtable a later version than theirs."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'none'"
)


def publish(runs: pd.DataFrame, out: Path) -> int:
    """Put the pages into a folder; returns how many runs are of no commit they could be shown at.

    Raises DataError with a short reason where there can be no pages.
    """
    if importlib.util.find_spec("asv") is None:
        raise DataError("asv is not installed")
    kept = placed(runs)
    if kept.empty:
        raise DataError(
            "no run was measured at a commit of this branch, or its history is not all here"
        )
    scripts = _scripts()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_results(kept, folder / "results")
        configuration = json.loads((ROOT / "asv.conf.json").read_text(encoding="utf-8"))
        configuration |= {
            "project_url": "../index.html",
            "repo": str(ROOT),
            "branches": ["HEAD"],
            "results_dir": "results",
            "html_dir": "html",
        }
        _write(folder / "asv.conf.json", configuration)
        asv = [sys.executable, "-m", "asv", "publish", "--config", "asv.conf.json", "--no-pull"]
        run(asv, PUBLISH_TIMEOUT_S, cwd=folder)
        _copy(folder / "html", scripts, out)
    return len(runs) - len(kept)


# Rows as asv's results


def placed(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the branch's commits, with the commit's whole name and time (`committed_s`).

    A run of changed sources (a `+` behind its commit) is at no commit.
    """
    known = {commit[:12]: (commit, at) for commit, at in _commits()}
    kept = plain(runs[runs["phase"].isin(PHASES)])
    found = [known.get(commit) for commit in kept["suite_commit"]]
    kept["commit"] = [one[0] if one else "" for one in found]
    kept["committed_s"] = [one[1] if one else 0 for one in found]
    return kept[kept["commit"] != ""]


def _commits() -> Iterator[tuple[str, int]]:
    """The commits of the branch, as asv counts them, with their times; none without git."""
    git = ["git", "-C", str(ROOT), "log", "--first-parent", "--format=%H %ct"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return
    for line in done.stdout.splitlines():
        commit, at = line.split()
        yield commit, int(at)


def write_results(runs: pd.DataFrame, folder: Path) -> None:
    suites = {_suite(key): part for key, part in runs.groupby(SUITE, sort=True)}
    benchmarks = {
        f"{suite}.track_{metric}": _benchmark(suite, metric, part)
        for suite, part in suites.items()
        for metric in TRACKED[part["phase"].iloc[0]]
    }
    values: dict[tuple[str, str], dict[str, list[Any]]] = {}
    for name, benchmark in benchmarks.items():
        part = suites[name.rpartition(".")[0]]
        for place, row in _values(part, name.rpartition("track_")[2], benchmark):
            values.setdefault(place, {})[name] = row
    shown = {name: benchmarks[name] for results in values.values() for name in results}
    _write(folder / "benchmarks.json", shown | {"version": 2})
    dates = dict(zip(runs["commit"], runs["committed_s"], strict=True))
    for (machine, commit), results in values.items():
        _write(
            folder / machine / f"{commit[:8]}-existing.json",
            {
                "version": 2,
                "commit_hash": commit,
                "env_name": "existing",
                "date": 1000 * dates[commit],
                "params": {"machine": machine},
                "python": "",
                "requirements": {},
                "env_vars": {},
                "result_columns": ["result", "params", "version"],
                "results": results,
                "durations": {},
            },
        )
    for label, part in runs.groupby("machine", sort=True):
        machine, newest = slug(label), part.iloc[-1]
        _write(
            folder / machine / "machine.json",
            {
                "version": 1,
                "machine": machine,
                "cpu": str(newest["cpu"]),
                "num_cpu": str(newest["cpu_count"]),
                "os": str(newest["os"]),
                "arch": str(newest["accelerators"]),
                "ram": "",
            },
        )


def _suite(key: tuple[Any, ...]) -> str:
    workload, *rest = key
    return f"{slug(workload)}.{slug('_'.join(map(str, rest)))}"


def _benchmark(suite: str, metric: str, rows: pd.DataFrame) -> dict[str, Any]:
    """What asv knows of a benchmark; its version is the workload's newest."""
    declared = METRICS[metric]
    name = f"{suite}.track_{metric}"
    return {
        "name": name,
        "pretty_name": f"{suite.replace('.', ' ')}: {declared.title}",
        "code": declared.definition,
        "type": "track",
        "unit": UNITS.get(declared.unit, declared.unit),
        "version": str(rows["workload_version"].iloc[-1]),
        "param_names": list(PARAMETERS),
        "params": [list(map(repr, dict.fromkeys(rows[axis].tolist()))) for axis in PARAMETERS],
        "timeout": 0,
    }


def _values(
    rows: pd.DataFrame, metric: str, benchmark: dict[str, Any]
) -> Iterator[tuple[tuple[str, str], list[Any]]]:
    """For each machine and commit: a figure per point, the median of its newest session there."""
    counted = usable(rows, metric).sort_values("started_at", kind="stable")
    point = ["machine", "commit", *PARAMETERS]
    medians = counted.groupby([*point, "session", "workload_version"], sort=False)[metric].median()
    newest = medians.reset_index().drop_duplicates(point, keep="last")
    for (machine, commit), part in newest.groupby(["machine", "commit"], sort=True):
        points = zip(*(map(repr, part[axis].tolist()) for axis in PARAMETERS), strict=True)
        known = dict(zip(points, part[metric].tolist(), strict=True))
        figures = [known.get(labels) for labels in product(*benchmark["params"])]
        version = str(part["workload_version"].iloc[-1])
        yield (slug(machine), str(commit)), [figures, benchmark["params"], version]


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")


# asv's pages as pages of the site


def _scripts() -> Path:
    """The folder that has a folder for each package; fetched once."""
    folder = cache_folder() / "scripts"
    for package in SCRIPTS:
        target = folder / package.folder
        if not target.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                package.into(Path(scratch))
                shutil.copytree(scratch, target)
    return folder


def _copy(html: Path, scripts: Path, out: Path) -> None:
    index = html / "index.html"
    changed = own_requests_only(index.read_text(encoding="utf-8"), scripts)
    shutil.copytree(html, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.json"))
    for package in SCRIPTS:
        shutil.copytree(
            scripts / package.folder, out / "scripts" / package.folder, dirs_exist_ok=True
        )
    for path in out.glob("scripts/*/*.css"):
        flat = path.read_text(encoding="utf-8").replace("url(../fonts/", "url(")
        path.write_text(flat, encoding="utf-8")
    for path in html.rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        place = out / path.relative_to(html)
        place.with_name(f"{path.name}.js").write_text(f"epochmarkTake({text});\n", encoding="utf-8")
    (out / "index.html").write_text(changed, encoding="utf-8")


def own_requests_only(text: str, scripts: Path) -> str:
    """asv's page with scripts of its own, a policy that forbids all others, and a way back."""
    files = {path.name: path.relative_to(scripts).as_posix() for path in scripts.glob("*/*.*s")}

    def local(found: re.Match[str]) -> str:
        attribute, name = found.groups()
        known = re.sub(r"^jquery-[\d.]+min", "jquery.min", name)
        known = known if known in files else known.replace(".min", "")
        if known not in files:
            raise DataError(f"this version of asv asks for {name}, which is not known here")
        return f'{attribute}="scripts/{files[known]}"'

    text = re.sub(r"<script[^>]*>\s*function js_load_failure.*?</script>", "", text, flags=re.S)
    text = re.sub(r' (integrity|crossorigin|referrerpolicy|onerror)="[^"]*"', "", text)
    text = re.sub(r'(?<=<script )(src)="https:[^"]*/([^"/]+)"', local, text)
    text = re.sub(r'(?<=<link rel="stylesheet" )(href)="https:[^"]*/([^"/]+)"', local, text)
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    text = text.replace("<head>", f"<head>\n    {policy}", 1)
    own = '<script src="../static/asv-data.js"></script>'
    text = text.replace('<script language="javascript"', f"{own}\n    <script ", 1)
    back = '<li><a href="../index.html">Epochmark\'s report</a></li>'
    return text.replace('<li id="nav-li-"', f'{back}\n\t<li id="nav-li-"', 1)
