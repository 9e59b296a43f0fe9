"""The report over time: links, commands, comparisons, and what books may put into its pages."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.compare import NotComparableError, compare, every_pair
from harness.preflight_command import markdown
from harness.registry import workloads
from harness.report.build import build
from harness.report.verdicts import command
from harness.schema import Protocol, Run
from harness.table import load_table
from tests.records import ENVIRONMENT, SAMPLES, failed_run, make_run, write_session
from tests.test_report import (
    RESULTS,
    ROOT,
    SCRIPT,
    SITE,
    Reader,
    cell,
    page,
    replicated,
    taken,
    timed,
)

OLD, NEW = "20261120T100000Z-aaa1111", "20261122T100000Z-bbb2222"


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_CACHE", "cache")


def measured(session: str, day: int, *runs: Run) -> None:
    """A session of that day in November."""
    at = f"2026-11-{day:02}T10:00:00Z"
    dated = [replace(run, started_at=at, run=f"{session}-{run.run}") for run in runs]
    write_session(RESULTS, *dated, session=session, started_at=at, replicates=5)


def styled(backend: str, style: str, step: float, replicate: int, **changes: Any) -> Run:
    one = timed(backend, replicate, step * (1 + 0.02 * ((replicate * 7) % 5)), **changes)
    name = one.cell.replace("/functional/", f"/{style}/")
    return replace(one, cell=name, run=f"{backend}-{style}-{replicate}")


def both_axes() -> list[Run]:
    """Two backends and two styles, five processes of each."""
    steps = {("jax", "functional"): 0.01, ("jax", "sequential"): 0.011,
             ("torch", "functional"): 0.03, ("torch", "sequential"): 0.05}  # fmt: skip
    return [styled(*key, step, place) for key, step in steps.items() for place in range(5)]


def contrasts() -> dict[str, Any]:
    return {
        path.stem.removeprefix("contrast-"): taken(path) for path in SITE.glob("data/contrast-*")
    }


# Links


def test_what_an_older_site_linked_to_is_in_a_newer_one() -> None:
    """Each path, and each comparison that an address may name."""
    measured(OLD, 20, *replicated())
    build(RESULTS, Path("older"))
    measured(NEW, 22, *both_axes())
    build(RESULTS, SITE)
    paths = {one.relative_to("older").as_posix() for one in Path("older").rglob("*.*")}
    assert {one for one in paths if not (SITE / one).exists()} == set()
    assert sum(one.startswith("data/contrast-backend--laptop--") for one in paths) == 3
    pattern = re.compile(r'<option value="([^"]+)"')
    older, newer = (
        set(pattern.findall((site / "compare.html").read_text())) for site in (Path("older"), SITE)
    )
    assert older < newer
    assert taken(Path("older/data") / f"contrast-{min(older)}.js") == contrasts()[min(older)]


def test_a_cell_links_to_its_history_where_it_has_one() -> None:
    measured(OLD, 20, timed("jax", 0, 0.02))
    measured(NEW, 22, timed("jax", 0, 0.02), timed("torch", 0, 0.03))
    build(RESULTS, SITE)
    linked = {}
    for path in SITE.glob("cell/*.html"):
        (found,) = re.findall(r"history\.html#cell=([^\"&]+)", path.read_text()) or [""]
        linked["jax" if "jax" in path.name else "torch"] = found
    assert linked["torch"] == ""
    assert (SITE / f"data/history-{linked['jax']}.js").exists()


def test_without_results_no_link_leads_nowhere() -> None:
    write_session(RESULTS)
    build(RESULTS, SITE)
    assert [path.name for path in SITE.rglob("*.html")] == ["index.html"]
    for address in page("index.html").addresses:
        assert address.startswith("data:") or (SITE / address.partition("#")[0]).exists(), address


# Comparisons


def test_every_pair_is_what_compare_says_of_the_two() -> None:
    changes: dict[str, Any] = {"numerics": {"matmul_precision": "other"}}
    odd = [styled("torch", "subclassing", 0.02, place, **changes) for place in range(5)]
    few = [
        styled("jax", "subclassing", 0.02, 0),
        failed_run("oom", "no memory", cell=cell("torch")),
    ]
    measured(NEW, 22, *both_axes(), *odd, *few)
    frame = load_table(RESULTS).frame
    for metric in ("step_time_s", "peak_host_memory_bytes"):
        cells = sorted(map(str, frame["cell"].unique()))
        found = {frozenset((one.baseline, one.contender)): one for one in every_pair(frame, metric)}
        assert {frozenset(pair) for pair in combinations(cells, 2)} == set(found)
        for pair in found.values():
            sides = [frame[frame["cell"] == name] for name in (pair.baseline, pair.contender)]
            if isinstance(pair.found, NotComparableError):
                with pytest.raises(NotComparableError, match=re.escape(str(pair.found))):
                    compare(*sides, metric=metric)
                continue
            expected = compare(*sides, metric=metric)
            assert (pair.found.rows, pair.found.alpha_per_cell) == (
                expected.rows,
                expected.alpha_per_cell,
            )


def test_two_cells_that_differ_in_several_axes_have_a_verdict() -> None:
    measured(NEW, 22, *both_axes())
    build(RESULTS, SITE)
    cells = taken(SITE / "data/cells.js")
    names = [one["name"].split(" @ ")[0] for one in cells["cells"]]
    (path,) = SITE.glob("data/pairs-*.js")
    pairs = taken(path)["pairs"]
    assert len(pairs) == 6
    ends = (cell("jax"), cell("torch").replace("functional", "sequential"))
    session, *found = pairs["|".join(str(names.index(name)) for name in ends)]
    frame = load_table(RESULTS).frame
    (row,) = compare(*(frame[frame["cell"] == name] for name in ends)).rows
    assert row.difference is not None
    told = next(one for one in found if cells["metrics"][one[0]]["name"] == "step_time_s")
    assert session == NEW
    assert told[1].startswith(f"slower: {row.difference.ratio():.3f} (")
    assert told[2].startswith(f"faster: {1 / row.difference.ratio():.3f} (")


def test_each_two_of_the_newest_sessions_are_compared_and_machines_too() -> None:
    for place, name in enumerate((OLD, NEW, "20261123T100000Z-ccc3333")):
        measured(name, 20 + place, *replicated())
    elsewhere = replace(ENVIRONMENT, machine="server")
    runs = [replace(run, environment=elsewhere) for run in replicated()]
    measured("20261124T100000Z-ddd4444", 24, *runs)
    build(RESULTS, SITE)
    kinds = [one["title"].partition(":")[0] for one in contrasts().values()]
    assert (kinds.count("session"), kinds.count("machine")) == (3, 3)


def test_a_refusal_says_in_words_what_differs_and_is_compared_across_it_beside() -> None:
    measured(OLD, 20, *replicated())
    measured(NEW, 22, *(replace(run, protocol=Protocol(min_blocks=9)) for run in replicated()))
    build(RESULTS, SITE)
    (found,) = [one for name, one in contrasts().items() if name.startswith("session--")]
    (refused,) = found["refused"]
    assert refused["reason"] == "Not comparable: different protocols (min blocks: 6, 9)."
    assert refused["titles"].startswith("step, compile, epoch")
    assert found["metrics"][0]["across"] == "protocol"
    assert found["metrics"][0]["command"] == f"epochmark compare --across protocol {OLD} {NEW}"
    assert len(found["metrics"][0]["rows"]) == 3


def test_a_quality_has_its_unit() -> None:
    declared = workloads()["recommender"].quality_metric
    runs = [
        styled("jax", style, 0.01, place, quality_metric=declared)
        for style in ("functional", "sequential")
        for place in range(2)
    ]
    epochs = (replace(SAMPLES.epochs[-1], quality={declared: 0.52}),)
    measured(NEW, 22, *(replace(run, samples=replace(run.samples, epochs=epochs)) for run in runs))
    build(RESULTS, SITE)
    found = next(one for name, one in contrasts().items() if name.startswith("api_style--"))
    rows = next(one["rows"] for one in found["metrics"] if one["name"] == "quality_error")
    assert rows[0][4] == "48.0 %"


# Commands


def run(line: str) -> str:
    """What the command prints, as a shell would start it."""
    program, *arguments = shlex.split(line)
    assert program == "epochmark"
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, (line, done.output)
    return done.output


def test_the_commands_that_are_shown_run_and_say_the_same() -> None:
    measured(OLD, 20, *replicated())
    measured(NEW, 22, *(replace(run, protocol=Protocol(min_blocks=9)) for run in both_axes()))
    elsewhere = replace(ENVIRONMENT, machine="server")
    runs = [replace(run, environment=elsewhere) for run in replicated()]
    measured("20261124T100000Z-ddd4444", 24, *runs)
    build(RESULTS, SITE)
    found = contrasts()
    for kind in ("backend", "api_style", "session", "machine"):
        one = next(one for name, one in found.items() if name.startswith(f"{kind}--"))
        metric = next(m for m in one["metrics"] if m["name"] == "peak_host_memory_bytes")
        assert "no verdict: identical samples" in run(metric["command"])
        metric = next(m for m in one["metrics"] if m["name"] == "step_time_s")
        said = run(metric["command"])
        for row in metric["rows"]:
            assert re.search(rf"{re.escape(row[0])} .* {re.escape(row[2])} ", said), (row, said)


def test_names_from_results_are_quoted_in_a_command() -> None:
    name = "it's; curl evil | sh"
    line = command("--session", name, "*/jax/*", "*/torch/*", metric="infer_latency_s")
    assert shlex.split(line) == [
        "epochmark", "compare", "--metric", "infer_latency_s", "--session", name,
        "*/jax/*", "*/torch/*",
    ]  # fmt: skip


# History


def test_a_step_is_on_the_page_with_what_changed_there() -> None:
    for night in range(10):
        step = 0.010 if night < 5 else 0.013
        packages = ENVIRONMENT.packages | {"keras": "3.15.0" if night < 5 else "<b>3.16"}
        environment = replace(ENVIRONMENT, packages=packages)
        runs = [
            timed("jax", one, step * (1 + 0.01 * one), environment=environment) for one in (0, 1)
        ]
        measured(f"202611{night + 1:02}T100000Z-abc{night}", night + 1, *runs)
    build(RESULTS, SITE)
    text = (SITE / "history.html").read_text()
    (row,) = [row for row in page("history.html").tables["steps"][1:] if row[2][0] == "step"]
    assert row[0][0] == "20261106T100000Z-abc5"
    assert row[3][0] == "10.1 ms to 13.1 ms"
    assert row[6][0].startswith("keras 3.15.0 to <b>3.16")
    assert Reader(text).running == []
    assert re.search(r"\d+ steps? in the \d+ histories that are long enough", text)
    (path,) = SITE.glob("data/history-*.js")
    figure = next(one for one in taken(path)["figures"] if one["metric"] == "step_time_s")
    (step_there,) = figure["steps"]
    assert step_there["at"] == 5
    assert "Changed there: keras 3.15.0 to <b>3.16" in step_there["text"]
    assert figure["processes"] == [2] * 10
    assert all(low < value < high for low, value, high in zip(
        figure["low"], figure["values"], figure["high"], strict=True
    ))  # fmt: skip
    assert figure["title"] == "step"
    assert figure["axis"] == "step (s)"


def test_the_interval_of_a_session_is_that_of_the_summary() -> None:
    measured(OLD, 20, *both_axes())
    measured(NEW, 22, *both_axes())
    build(RESULTS, SITE)
    from harness.summary import summary

    rows = summary(load_table(RESULTS, [NEW]).frame)
    ends = rows.loc[rows["cell"] == cell("jax"), ["step_time_low_s", "step_time_high_s"]].iloc[0]
    (path,) = SITE.glob("data/history-*-jax-float32-functional-*.js")
    figure = taken(path)["figures"][0]
    assert (figure["low"][1], figure["high"][1]) == pytest.approx(tuple(ends), rel=1e-3)


def test_a_history_too_short_says_so_in_plain_words() -> None:
    measured(OLD, 20, timed("jax", 0, 0.02))
    build(RESULTS, SITE)
    assert "Nothing was measured in enough sessions" in (SITE / "history.html").read_text()


# Preflight


def test_preflight_begins_with_the_matrix_of_the_readme() -> None:
    write_session(RESULTS, make_run())
    shutil.copytree(ROOT / "results/preflight", RESULTS / "preflight")
    build(RESULTS, SITE)
    reader = page("preflight.html")
    shown = [row for device in ("tpu", "gpu") for row in reader.tables[f"peaks-standard-{device}"]]
    lines = [line.strip("| ").split(" | ") for line in markdown(RESULTS, "standard").splitlines()]
    wanted = [line for line in lines if len(line) == 8]
    assert len(shown) == len(wanted) > 30
    for row, line in zip(shown, wanted, strict=True):
        peaks = ["-" if text in ("not tried", "unsupported") else text for text, _ in row]
        assert peaks == [part.partition(",")[0] for part in line]
    reasons = {(row[1][0], row[2][0]) for row in reader.tables["unsupported"][1:]}
    assert ("jax", "float16, without units on a TPU") in reasons
    text = (SITE / "preflight.html").read_text()
    assert "planned by XLA&#39;s compiler for GPUs" in text
    assert next(iter(reader.tables)) == "peaks-standard-tpu"


# Tables


def test_a_column_of_numbers_says_its_unit_in_csv() -> None:
    measured(NEW, 22, *both_axes())
    build(RESULTS, SITE)
    text = (SITE / "cost.html").read_text()
    assert '<th scope="col" class="n" data-csv="epoch (s)">epoch</th>' in text


def test_a_long_id_ends_a_line_behind_a_slash_only() -> None:
    measured(NEW, 22, timed("jax", 0, 0.02))
    build(RESULTS, SITE)
    text = (SITE / "cost.html").read_text()
    assert "recommender/<wbr>smoke/<wbr>train/<wbr>jax/<wbr>float32" in text


# Safety


def test_scripts_in_the_books_are_only_text() -> None:
    packages = {**ENVIRONMENT.packages, SCRIPT: SCRIPT}
    measured(NEW, 22, timed("jax", 0, 0.02, environment=replace(ENVIRONMENT, packages=packages)))
    shutil.copytree(ROOT / "results/prices", RESULTS / "prices")
    newest = max((RESULTS / "prices").glob("*.csv"))
    quoted = SCRIPT.replace('"', '""')
    lines = newest.read_text().splitlines()
    row = lines[1].split(",")
    source = row.index("aws/karpenter-provider-aws")
    row[source] = f'"{quoted}"'
    newest.write_text("\n".join([lines[0], ",".join(row), *lines[2:]]) + "\n")
    fields = {"as_of": SCRIPT, "suite_commit": SCRIPT, "batch_size": 1, "outcome": SCRIPT,
              "reason": SCRIPT, "method": SCRIPT}  # fmt: skip
    name = f"{SCRIPT.replace('/', '')}/smoke/preflight/jax/float32/functional/tpu-v4"
    noise = {"as_of": SCRIPT, "suite_commit": SCRIPT, "pair_ratios": [1.0, 1.1, 0.9],
             "step_times_s": [0.1, 0.11, 0.12] * 2}  # fmt: skip
    for folder, machine, cells in (
        ("preflight", "tpu-v4", {name: fields}),
        ("noise", "laptop", {SCRIPT: noise}),
    ):
        (RESULTS / folder).mkdir()
        book = {"machine": SCRIPT, "cells": cells}
        (RESULTS / folder / f"{machine}.json").write_text(json.dumps(book))
    build(RESULTS, SITE)
    for path in SITE.rglob("*.html"):
        assert Reader(path.read_text()).running == [], path
    for path in SITE.glob("data/*.js"):
        assert not re.search(r"<(script|img)|</script", path.read_text()), path
    for name in ("preflight.html", "environment.html"):
        assert "document.title=" in (SITE / name).read_text(), f"{name} shows the text itself"
