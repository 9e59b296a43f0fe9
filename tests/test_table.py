"""The table of runs: its metrics come from raw samples, and a cache never changes what is read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from harness import columns, table
from harness.errors import NewerSchemaError, ResultsError
from harness.metrics import METRICS, derive, reaches
from harness.schema import SCHEMA_VERSION, Block, Memory, Peak, Samples
from harness.store import SessionWriter, parse_file
from harness.table import Table, load_table
from tests.records import SAMPLES, failed_run, make_run, write_session

RESULTS = Path("results")
CACHE = Path("cache/tables")


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_CACHE", "cache")


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the results files that were really parsed, not read from the cache."""
    names: list[str] = []

    def counted(path: Path, content: bytes) -> object:
        names.append(path.name)
        return parse_file(path, content)

    monkeypatch.setattr(table, "parse_file", counted)
    return names


def same(one: Table, other: Table) -> bool:
    pd.testing.assert_frame_equal(one.frame, other.frame)
    return (one.notices, one.broken) == (other.notices, other.broken)


def test_a_row_says_everything_about_its_run() -> None:
    path = write_session(RESULTS, make_run())
    found = load_table(RESULTS)
    row = found.frame.iloc[0]
    assert len(found.frame) == 1
    assert row["workload"] == "recommender"
    assert row["device"] == "cpu"
    assert (row["keras"], row["torch"]) == ("3.15.0", "")
    assert (row["price_region"], row["price_usd_per_hour"]) == ("us-central1", 0.403216)
    assert row["step_time_s"] == 0.11 / 10
    assert row["step_time_p10_s"] == pytest.approx(0.0102)
    assert row["step_time_p90_s"] == pytest.approx(0.0118)
    assert row["file"] == path.name
    assert set(METRICS) <= set(found.frame.columns)


def test_absent_metrics_are_not_numbers_and_never_zero() -> None:
    write_session(RESULTS, failed_run("oom", "killed by the kernel", price=None))
    row = load_table(RESULTS).frame.iloc[0]
    assert row[list(columns.NUMBERS)].drop("others_cpu_share").isna().all()
    assert (row["status"], row["reason"], row["price"]) == ("oom", "killed by the kernel", "")


def test_metrics_come_from_samples_not_from_the_file() -> None:
    wrong = make_run(metrics={"step_time_s": 99.0, "mfu": 0.9})
    write_session(RESULTS, wrong)
    row = load_table(RESULTS).frame.iloc[0]
    assert {name: row[name] for name in METRICS if row[name] == row[name]} == derive(wrong)


def test_model_flops_utilisation_by_hand() -> None:
    """256 examples in 11 ms, 3 GFLOP each, are 69.8 TFLOP/s: 23.3 % of a peak of 300."""
    peak = Peak(3e14, "float32", "documented", "a data sheet", "2026-11")
    found = derive(make_run(flops_per_example=3_000_000_000, peak=peak))
    assert found["model_flops_per_example"] == 3e9
    assert found["mfu"] == pytest.approx(256 / 0.011 * 3e9 / 3e14)
    assert "mfu" not in derive(make_run(flops_per_example=3_000_000_000, peak=None))
    assert "mfu" not in derive(make_run(peak=peak)), "without declared FLOPs there is no share"


@pytest.mark.parametrize(
    ("target", "seconds"), [(0.4, 1.7), (0.41, 1.7), (0.5, 2.24), (0.53, None), (None, None)]
)
def test_time_to_quality_ends_with_the_first_epoch_at_the_target(
    target: float | None, seconds: float | None
) -> None:
    """Epochs of 1.5 + 0.2 s to 0.41 and of 0.44 + 0.1 s to 0.52."""
    found = derive(make_run(quality_target=target)).get("time_to_quality_s")
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_an_error_reaches_its_target_from_above() -> None:
    assert reaches(6.0, 6.5, higher_is_better=False)
    assert not reaches(7.0, 6.5, higher_is_better=False)
    assert reaches(6.5, 6.5, higher_is_better=False)


def test_a_cached_table_is_the_same_and_parses_nothing(parsed: list[str]) -> None:
    path = write_session(RESULTS, make_run(), failed_run("oom", "killed", run="r0002"))
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace('"seed":42', '"seed":43')
    path.write_text("\n".join([lines[0], "{}", *lines[1:], "{torn"]))
    first = load_table(RESULTS)
    name = "results/runs/laptop/20261122T101530Z-abc1234.jsonl"
    assert first.broken == 1
    assert first.notices == (
        f"line 2 of {name} was skipped: field 'schema_version' should be a positive integer, "
        "found None.",
        f"line 3 of {name} was changed after it was written; its row is marked.",
        f"{name}: the last line is cut off (a run that did not finish writing); it was skipped.",
    )
    assert list(first.frame["altered"]) == [True, False]
    assert same(load_table(RESULTS), first)
    assert len(parsed) == 1


def test_stored_notices_spell_the_file_as_this_caller_does(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_session(RESULTS, make_run())
    path.write_bytes(path.read_bytes() + b"{torn")
    monkeypatch.setenv("EPOCHMARK_CACHE", str(Path("cache").absolute()))
    load_table(RESULTS)
    monkeypatch.chdir("results")
    assert load_table(Path()).notices[0].startswith("runs/laptop/20261122T101530Z-abc1234.jsonl: ")


def test_a_file_that_grew_is_read_again(parsed: list[str]) -> None:
    path = write_session(RESULTS, make_run())
    load_table(RESULTS)
    with SessionWriter.resume(path) as writer:
        writer.append(make_run(run="r0002"))
    assert len(load_table(RESULTS).frame) == 2
    assert len(parsed) == 2


def test_a_file_that_only_moved_is_not_parsed_again(parsed: list[str]) -> None:
    path = write_session(RESULTS, make_run())
    load_table(RESULTS)
    path.rename(path.with_name("20270101T000000Z-abc1234.jsonl"))
    assert load_table(RESULTS).frame["file"][0] == "20270101T000000Z-abc1234.jsonl"
    assert len(parsed) == 1


def test_the_cache_can_be_deleted_at_any_time() -> None:
    write_session(RESULTS, make_run())
    first = load_table(RESULTS)
    for path in CACHE.iterdir():
        path.unlink()
        assert same(load_table(RESULTS), first)


def test_a_damaged_cache_is_done_without(parsed: list[str]) -> None:
    write_session(RESULTS, make_run(), make_run(run="r0002"))
    first = load_table(RESULTS)
    (cached,) = CACHE.glob("*.arrow")
    whole = cached.read_bytes()
    for place in range(0, len(whole), 997):
        cached.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        assert same(load_table(RESULTS), first)
    for content in (b"", whole[:100], whole[:-1], b"x" * len(whole)):
        cached.write_bytes(content)
        parsed.clear()
        assert same(load_table(RESULTS), first)
        assert len(parsed) == 1
        assert cached.read_bytes() == whole
    for index in (b"", b"[]", b'{"a": 3}', b"\xff"):
        (CACHE / "index.json").write_bytes(index)
        assert same(load_table(RESULTS), first)


def test_a_cache_that_cannot_be_written_is_done_without(parsed: list[str]) -> None:
    write_session(RESULTS, make_run())
    Path("cache").write_text("in the way")
    assert same(load_table(RESULTS), load_table(RESULTS))
    assert len(parsed) == 2


def test_changed_code_makes_new_tables(parsed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_session(RESULTS, make_run())
    load_table(RESULTS)
    monkeypatch.setattr(table, "_format_version", lambda: "other")
    load_table(RESULTS)
    assert len(parsed) == 2


def test_many_files_are_cached_together(parsed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_CHUNK", 3)
    paths = [
        write_session(RESULTS, make_run(run=f"r{n}"), started_at=f"2026-11-2{n}T00:00:00Z")
        for n in range(7)
    ]
    first = load_table(RESULTS)
    assert list(first.frame["run"]) == [f"r{n}" for n in range(7)]
    assert list(first.frame["file"]) == [path.name for path in paths]
    assert len(list(CACHE.glob("*.arrow"))) == 7 + 2
    assert same(load_table(RESULTS), first)
    assert len(parsed) == 7
    paths[4].write_bytes(paths[4].read_bytes() + b"{torn")
    assert len(load_table(RESULTS).notices) == 1
    assert len(load_table(RESULTS).notices) == 1
    assert len(parsed) == 8


def test_much_that_is_new_is_read_by_several_processes_alike(
    parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_MUCH", 1)
    for n in range(2 * table._CHUNK + 1):
        started = f"2026-11-22T00:{n // 60:02}:{n % 60:02}Z"
        write_session(RESULTS, make_run(run=f"r{n}"), started_at=started)
    (RESULTS / "runs" / "laptop" / "20261123T000000Z-bad.jsonl").touch()
    first = load_table(RESULTS)
    assert list(first.frame["run"]) == [f"r{n}" for n in range(2 * table._CHUNK + 1)]
    assert (first.broken, len(first.notices)) == (1, 1)
    assert same(load_table(RESULTS), first)
    assert set(parsed) <= {"20261123T000000Z-bad.jsonl"}


def test_one_unreadable_file_does_not_hide_the_others() -> None:
    write_session(RESULTS, make_run())
    empty = write_session(RESULTS)
    empty.write_bytes(b"")
    found = load_table(RESULTS)
    assert (len(found.frame), found.broken) == (1, 1)
    assert found.notices == (
        "results/runs/laptop/20261122T101530Z-abc1234-2.jsonl is empty. "
        "Delete it, or name another file.",
    )
    with pytest.raises(ResultsError, match="is empty"):
        load_table(RESULTS, [empty.name])


def test_a_file_from_a_later_version_is_refused() -> None:
    write_session(RESULTS, make_run())
    path = write_session(RESULTS)
    path.write_text(json.dumps({"kind": "session", "schema_version": SCHEMA_VERSION + 1}) + "\n")
    with pytest.raises(NewerSchemaError):
        load_table(RESULTS)


def test_a_session_without_runs_has_no_rows() -> None:
    write_session(RESULTS)
    for _ in range(2):
        assert load_table(RESULTS).frame.empty


def test_impossible_samples_end_one_row_not_the_reading() -> None:
    huge = replace(SAMPLES, steady=(Block(1, 5e-324),))
    unreadable = make_run(samples=huge, metrics={})
    write_session(RESULTS, unreadable, make_run(run="r0002", samples=Samples(), memory=Memory()))
    found = load_table(RESULTS)
    assert (list(found.frame["run"]), found.broken) == (["r0002"], 1)
    assert "its samples are beyond what metrics can be computed from" in found.notices[0]
