"""The report without a browser: what its pages say, that they say it safely, how large it is."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.compare import compare
from harness.errors import ResultsError, UsageError
from harness.report.build import Built, build
from harness.report.fronts import front
from harness.report.matrix import level
from harness.report.parts import each, slug
from harness.report.winners import winners
from harness.schema import Block, Protocol, Run, Samples
from harness.show import show
from harness.table import load_table
from tests.records import ENVIRONMENT, PRICE, SAMPLES, failed_run, make_run, write_session

RESULTS = Path("results")
SITE = Path("site")
ROOT = Path(__file__).parents[1]
SCRIPT = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_CACHE", "cache")


class Reader(HTMLParser):
    """Tables by id, as rows of (text, number); addresses; and tags that would run something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[tuple[str, str | None]]]] = {}
        self.addresses: list[str] = []
        self.running: list[str] = []
        self._table = ""
        self._cell: list[str] | None = None
        self._note = False
        self._value: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = dict(attributes)
        if tag == "div" and "data-name" in known:
            self._table = known["data-name"] or ""
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self._cell, self._value = [], known.get("data-v")
        elif tag == "small":
            self._note = True
        self.addresses += [known[name] or "" for name in ("href", "src") if name in known]
        if (tag == "script" and not known.get("src") and known.get("type") is None) or any(
            name.startswith("on") for name in known
        ):
            self.running.append(self.get_starttag_text() or tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self.tables[self._table][-1].append(("".join(self._cell).strip(), self._value))
            self._cell = None
        elif tag == "small":
            self._note = False

    def handle_data(self, data: str) -> None:
        if self._cell is not None and not self._note:
            self._cell.append(data)


def page(name: str) -> Reader:
    return Reader((SITE / name).read_text(encoding="utf-8"))


def cell(backend: str, *, workload: str = "recommender", precision: str = "float32") -> str:
    return f"{workload}/smoke/train/{backend}/{precision}/functional/cpu"


def timed(backend: str, replicate: int, step: float, **changes: Any) -> Run:
    samples = replace(SAMPLES, steady=tuple(Block(10, 10 * step) for _ in range(6)))
    run = f"{backend}-{replicate}"
    return make_run(cell=cell(backend), replicate=replicate, run=run, samples=samples, **changes)


def replicated() -> list[Run]:
    """jax surely faster than torch, and not told apart from tensorflow."""
    steps = {"jax": 0.010, "tensorflow": 0.0101, "torch": 0.030}
    return [
        timed(backend, place, step * (1 + 0.02 * ((place * 7) % 5)))
        for backend, step in steps.items()
        for place in range(5)
    ]


def made(**changes: Any) -> Built:
    write_session(RESULTS, *replicated(), replicates=5)
    return build(RESULTS, SITE, **changes)


def test_the_matrix_has_the_numbers_that_show_prints() -> None:
    made()
    records = json.loads(show(load_table(RESULTS).frame, output="json"))
    reader = page("index.html")
    for metric in ("step_time_s", "epoch_time_s", "peak_host_memory_bytes", "cost_per_epoch_usd"):
        head, row = reader.tables[f"matrix-{metric}"]
        shown = {title: value for (title, _), (_, value) in zip(head, row, strict=True) if value}
        assert shown == {
            f"{one['backend']} {one['precision']}": repr(one[metric]) for one in records
        }


def test_a_winner_is_told_only_where_compare_is_sure() -> None:
    write_session(RESULTS, *replicated(), replicates=5)
    frame = load_table(RESULTS).frame
    verdicts = {
        other: compare(frame[frame["backend"] == "jax"], frame[frame["backend"] == other]).rows[0]
        for other in ("tensorflow", "torch")
    }
    assert [row.verdict for row in verdicts.values()] == ["no difference found", "slower"]
    from harness.report.source import read_source

    source = read_source(RESULTS)
    (winner,) = winners(source.rows, source.verdicts)
    assert (winner.best, winner.sure) == ("jax", False)
    assert "not told apart from tensorflow" in winner.sentence
    assert verdicts["torch"].difference is not None
    ratio = verdicts["torch"].difference.ratio()
    assert f"surely {ratio:.2f} times as fast as torch" in winner.sentence
    ratios = {row[0].text: row[2].raw for row in winner.table.rows}
    assert ratios["torch"] == pytest.approx(ratio)


def test_a_sure_winner_has_its_badge_and_its_line_in_the_summary() -> None:
    runs = [run for run in replicated() if "tensorflow" not in run.cell]
    write_session(RESULTS, *runs, replicates=5)
    build(RESULTS, SITE, summary=Path("summary.md"))
    assert "fastest: <strong>jax</strong>" in (SITE / "index.html").read_text()
    assert "(not sure)" not in (SITE / "badges/recommender.svg").read_text()
    line = next(one for one in Path("summary.md").read_text().splitlines() if "| recom" in one)
    assert "surely" in line
    assert "| yes |" in line


def test_single_processes_give_no_winner() -> None:
    write_session(RESULTS, timed("jax", 0, 0.01), timed("torch", 0, 0.9))
    build(RESULTS, SITE)
    text = (SITE / "index.html").read_text()
    assert "no sure winner" in text
    assert "no verdict: too few processes" in text
    assert "(not sure)" in (SITE / "badges/recommender.svg").read_text()


def test_every_status_is_shown_for_what_it_is() -> None:
    write_session(
        RESULTS,
        timed("jax", 0, 0.01),
        failed_run("oom", "killed by the kernel", cell=cell("torch"), run="r2"),
    )
    build(RESULTS, SITE)
    reader = page("index.html")
    assert ("oom", None) in reader.tables["matrix-step_time_s"][1]
    assert [("oom", None), ("1", "1.0"), ("killed by the kernel", None)] in reader.tables[
        "statuses"
    ]


def test_verdicts_of_the_compare_page_are_those_of_compare() -> None:
    made()
    frame = load_table(RESULTS).frame
    sides = [frame[frame["backend"] == name] for name in ("tensorflow", "torch")]
    expected = compare(*sides).rows[0]
    assert expected.difference is not None
    files = [taken(path) for path in sorted(SITE.glob("data/contrast-*.js"))]
    (found,) = [one for one in files if one["title"].startswith("backend: torch against tensor")]
    rows = next(one["rows"] for one in found["metrics"] if one["name"] == "step_time_s")
    assert rows[0][0] == expected.cell
    assert rows[0][2] == f"{expected.difference.ratio():.3f}"
    assert rows[0][1] == expected.verdict
    assert found["command"].startswith("epochmark compare --session ")


def taken(path: Path) -> Any:
    """The content of a data file."""
    match = re.fullmatch(r'epochmark\.take\(".*?",(.*)\);\n', path.read_text(), re.DOTALL)
    assert match is not None
    return json.loads(match[1])


def test_results_with_scripts_are_only_text() -> None:
    environment = replace(ENVIRONMENT, machine=f"m{SCRIPT}", cpu=SCRIPT, os=SCRIPT)
    price = replace(PRICE, instance=SCRIPT, source=SCRIPT)
    changes: dict[str, Any] = {
        "environment": environment, "price": price, "log_tail": SCRIPT, "replay": SCRIPT,
        "suite_commit": SCRIPT, "numerics": {SCRIPT: SCRIPT}, "quality_metric": SCRIPT,
    }  # fmt: skip
    write_session(
        RESULTS,
        make_run(**changes),
        failed_run(
            "error", SCRIPT, run="r2", cell=f"{SCRIPT.replace('/', '')}/a/b/c/d/e/f", **changes
        ),
        suite_commit=SCRIPT,
    )
    build(RESULTS, SITE, summary=Path("summary.md"))
    pages = list(SITE.rglob("*.html"))
    assert any("document.title" in path.read_text() for path in pages), "the text itself is shown"
    for path in pages:
        assert Reader(path.read_text()).running == [], path
    for path in (*SITE.rglob("*.svg"), *SITE.glob("data/*.js"), Path("summary.md")):
        assert not re.search(r"<(script|img)|</script", path.read_text()), path
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", path.name) for path in SITE.rglob("*"))


def test_the_search_for_running_tags_sees_them() -> None:
    assert len(Reader(SCRIPT).running) == 2


def test_no_page_asks_another_host_and_all_links_lead_somewhere() -> None:
    made()
    for path in SITE.rglob("*.html"):
        text = path.read_text()
        assert "default-src 'none'; script-src 'self'" in text
        for address in Reader(text).addresses:
            assert "//" not in address
            if address == "data:,":  # the icon, which would be asked for otherwise
                continue
            target = address.partition("#")[0]
            assert (path.parent / target).exists(), (path, address)


def test_a_cells_page_keeps_its_name() -> None:
    """Published links must stay good: these names may not change."""
    assert slug("laptop", "bert/smoke/train/jax/float32/functional/cpu", 16) == (
        "laptop--bert-smoke-train-jax-float32-functional-cpu--16"
    )
    assert slug("a b") == "a-b-c8687a08"
    assert slug("a/../../b c") != slug("a/../../b-c")
    assert "/" not in slug("../../x")


def test_a_cells_page_has_every_sample() -> None:
    made()
    (path,) = [one for one in SITE.glob("cell/*") if "torch" in one.name]
    reader = Reader(path.read_text())
    samples = reader.tables["samples"][1:]
    assert len(samples) == 5 * (len(SAMPLES.warmup) + 6)
    values = [float(row[4][1] or "nan") for row in samples if row[2][0] == "steady"]
    steady = sorted({round(value, 9) for value in values})
    assert steady == pytest.approx([0.030 * (1 + 0.02 * place) for place in range(5)])
    assert "epochmark replay " in path.read_text()


def test_charts_carry_the_numbers_of_their_tables() -> None:
    made()
    text = (SITE / "tradeoffs.html").read_text()
    specs = [json.loads(one) for one in re.findall(r"json\">(.*?)</script>", text)]
    table = next(rows for name, rows in page("tradeoffs.html").tables.items() if rows)
    drawn = {value for trace in specs[0]["traces"][:-1] for value in trace["x"]}
    assert drawn == {float(row[1][1] or "nan") for row in table[1:]}


# Bad input


def test_no_results_give_a_page_that_says_so() -> None:
    with pytest.raises(ResultsError, match="There are no results in 'results'"):
        build(RESULTS, SITE)
    text = (SITE / "index.html").read_text()
    assert "There are no results in" in text
    assert "epochmark run --plan quick" in text


def test_a_session_without_runs_says_so() -> None:
    write_session(RESULTS)
    build(RESULTS, SITE, summary=Path("summary.md"))
    assert "The results hold no runs." in (SITE / "index.html").read_text()
    assert "The results hold no runs." in Path("summary.md").read_text()


def test_one_row_is_a_site() -> None:
    write_session(RESULTS, make_run())
    build(RESULTS, SITE)
    assert "Only jax was measured" in (SITE / "index.html").read_text()
    assert "nothing to choose between" in (SITE / "tradeoffs.html").read_text()
    assert "nothing to compare" in (SITE / "compare.html").read_text()
    assert "No cell was measured in two sessions" in (SITE / "history.html").read_text()


def test_failures_alone_are_a_site() -> None:
    write_session(RESULTS, failed_run("timeout", "more than 300 s", price=None))
    build(RESULTS, SITE)
    assert "more than 300 s" in (SITE / "index.html").read_text()
    assert "No cell has a figure" in (SITE / "index.html").read_text()
    assert "No row has a price" in (SITE / "cost.html").read_text()


def test_a_damaged_file_is_told_and_the_rest_is_shown() -> None:
    write_session(RESULTS, make_run())
    Path("results/runs/laptop/20200101T000000Z-abc.jsonl").write_text("no header\n")
    built = build(RESULTS, SITE)
    assert built.broken == 1
    assert "does not start with a session" in (SITE / "index.html").read_text()
    assert len(list(SITE.glob("cell/*.html"))) == 1


def test_rows_of_older_schemas_stand_beside_newer_ones() -> None:
    """The committed results hold several versions."""
    versions = {
        json.loads(path.read_text().partition("\n")[0])["schema_version"]
        for path in (ROOT / "results/runs").glob("*/*")
    }
    assert len(versions) >= 3
    build(ROOT / "results", SITE)
    runs = load_table(ROOT / "results").frame
    timed = runs[~runs["untimed"]]
    cells = len(timed[["machine", "cell", "batch_size"]].drop_duplicates())
    assert len(list(SITE.glob("cell/*.html"))) == cells
    assert sum(path.stat().st_size for path in SITE.rglob("*.*")) < 60e3 * cells


def test_a_run_that_ended_after_the_gate_is_on_no_page() -> None:
    """Else a session of many of them would be the newest of its panel, and hide all figures."""
    write_session(RESULTS, make_run(), session="timed-one")
    alone = make_run(protocol=Protocol(stop_after="gate"), samples=Samples(first_step_s=1.0))
    other = replace(alone, run="r2", cell=alone.cell.replace("/jax/", "/torch/"))
    write_session(RESULTS, alone, other, session="gate-two", started_at="2026-12-01T00:00:00Z")
    build(RESULTS, SITE)
    (page,) = SITE.glob("cell/*.html")
    assert "timed-one" in page.read_text()
    assert not any("gate-two" in path.read_text() for path in SITE.rglob("*.html"))


def test_a_place_that_cannot_be_written_is_one_sentence() -> None:
    write_session(RESULTS, make_run())
    Path("taken").write_text("a file")
    with pytest.raises(UsageError, match=r"'taken/index.html' cannot be written: "):
        build(RESULTS, Path("taken"))


def test_a_second_build_deletes_nothing() -> None:
    made()
    (SITE / "CNAME").write_text("a name")
    build(RESULTS, SITE)
    assert (SITE / "CNAME").exists()


# The small parts


def test_the_front_by_hand() -> None:
    assert front([(1, 9), (2, 5), (3, 6), (2, 5), (4, 1), (1, 10)]) == [0, 1, 4]
    assert front([]) == []


def test_colours_stand_for_ratios() -> None:
    import pandas as pd

    same = pd.Series([1.0, 10.0, 100.0])
    assert [level(value, same, "lower") for value in same] == [0, 3, 6]
    assert [level(value, same, "higher") for value in same] == [6, 3, 0]
    assert level(5.0, pd.Series([5.0]), "lower") == 0


def test_rows_as_dictionaries_keep_their_values() -> None:
    import pandas as pd

    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, float("nan")], "c": ["x", "y"]})
    assert each(frame)[0] == {"a": 1, "b": 0.5, "c": "x"}
