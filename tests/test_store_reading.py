"""Reading results files that were edited, damaged or written by another version."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from harness import schema_json
from harness.errors import NewerSchemaError, ResultsError
from harness.schema import STATUSES, Protocol
from harness.store import read_file
from tests.records import SESSION, make_run, write_session


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


RESULTS = Path("results")
NAME = "results/runs/laptop/20261122T101530Z-abc1234.jsonl"


def change(path: Path, number: int, **fields: Any) -> None:
    """Edit a line as a person would: fields change, the digest stays."""
    lines = path.read_text().splitlines()
    lines[number - 1] = json.dumps(json.loads(lines[number - 1]) | fields)
    path.write_text("\n".join(lines) + "\n")


def test_an_edited_line_is_kept_and_marked() -> None:
    path = write_session(RESULTS, make_run(), make_run(run="r0002"))
    change(path, 3, batch_size=1)
    found = read_file(path)
    assert found.runs[1].batch_size == 1
    assert found.altered == {"r0002"}
    assert found.broken == 0
    assert found.notices == (
        f"line 3 of {NAME} was changed after it was written; its row is marked.",
    )


def test_an_edited_header_is_told() -> None:
    path = write_session(RESULTS, make_run())
    change(path, 1, plan="smoke")
    assert read_file(path).notices == (
        f"line 1 of {NAME}, the session's header, was changed after it was written.",
    )


def test_a_rewritten_but_equal_line_is_not_altered() -> None:
    path = write_session(RESULTS, make_run())
    change(path, 2)  # other spaces, the same content
    assert read_file(path).notices == ()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"batch_size": "8"}, "field 'batch_size' should be a valid integer, found '8'"),
        ({"batch_size": True}, "field 'batch_size' should be a valid integer, found True"),
        ({"bacth_size": 8}, "field 'bacth_size' is unknown"),
        ({"memory": {"x": 1}}, "field 'memory.x' is unknown"),
        ({"data": {"source": "x"}}, "field 'data.digest' is missing"),
        ({"session": "y"}, f"field 'session' should be '{SESSION}', found 'y'"),
        ({"kind": "walk"}, "field 'kind' should be 'run', found 'walk'"),
        (
            {"samples": {"steady": [{"steps": 0, "seconds": 1.0}]}},
            "field 'samples.steady.0' should hold positive numbers",
        ),
        (
            {"samples": {"steady": [{"steps": 5, "seconds": 1.0}, {"steps": 5, "seconds": 0.0}]}},
            "field 'samples.steady.1' should hold positive numbers",
        ),
        (
            {"samples": {"infer": [{"steps": 5, "seconds": -1.0}]}},
            "field 'samples.infer.0' should hold positive numbers",
        ),
        (
            {"samples": {"infer_latency_s": [0.1, 0.0]}},
            "field 'samples.infer_latency_s.1' should be positive",
        ),
        (
            {"samples": {"steady": [{"steps": 5, "seconds": math.nan}]}},
            "it is not strict JSON",
        ),
        (
            {"samples": {"exchange": {"steps": 20, "seconds": 0.0, "exchange_s": 0.1}}},
            "field 'samples.exchange' should hold positive numbers",
        ),
        (
            {"samples": {"infer_latency_s": [1, "x" * 99]}},
            f"field 'samples.infer_latency_s.1' should be a valid number, found '{'x' * 36}...",
        ),
        (
            {"status": "fine"},
            f"field 'status' should be one of {', '.join(STATUSES)}, found 'fine'",
        ),
        (
            {"schema_version": "1"},
            "field 'schema_version' should be a positive integer, found '1'",
        ),
    ],
)
def test_a_line_that_is_not_a_run_is_named_and_skipped(
    fields: dict[str, Any], problem: str
) -> None:
    path = write_session(RESULTS, make_run(), make_run(run="r0002"))
    change(path, 2, **fields)
    found = read_file(path)
    assert [run.run for run in found.runs] == ["r0002"]
    assert found.broken == 1
    assert found.notices == (f"line 2 of {NAME} was skipped: {problem}.",)


def test_before_version_4_no_rule_but_the_budget_ended_the_timed_blocks() -> None:
    path = write_session(RESULTS, make_run())
    for number in (1, 2):
        line = json.loads(path.read_text().splitlines()[number - 1])
        del line["protocol"]["interval_width"]
        change(path, number, schema_version=3, protocol=line["protocol"])
    found = read_file(path)
    assert found.session.protocol.interval_width == 0.0
    assert found.runs[0].protocol.interval_width == 0.0
    assert Protocol().interval_width > 0


@pytest.mark.parametrize("damage", [b"{", b"[]", b"\xff", b'{"x": NaN}', b"1e999", b"[" * 99999])
def test_damage_in_the_middle_is_named_and_skipped(damage: bytes) -> None:
    path = write_session(RESULTS, make_run(), make_run(run="r0002"))
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], damage, *lines[2:]]))
    found = read_file(path)
    assert [run.run for run in found.runs] == ["r0002"]
    assert found.broken == 1
    assert found.notices == (f"line 2 of {NAME} was skipped: it is not strict JSON.",)


@pytest.mark.parametrize("number", [1, 2])
def test_a_file_from_a_later_version_is_refused(number: int) -> None:
    path = write_session(RESULTS, make_run())
    change(path, number, schema_version=11)
    with pytest.raises(NewerSchemaError) as caught:
        read_file(path)
    assert str(caught.value) == (
        f"{NAME} was written by a later Epochmark (schema 11; this one reads up to 10). "
        "Upgrade Epochmark to read it."
    )
    assert caught.value.exit_status == 2


def test_older_lines_are_upgraded_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_session(RESULTS, make_run())
    monkeypatch.setattr(schema_json, "SCHEMA_VERSION", 12)
    steps = {10: {"replay": "one"}, 11: {"log_tail": "two"}}
    for version, fields in steps.items():
        upgrade = lambda found, extra=fields: found | (extra if found["kind"] == "run" else {})  # noqa: E731
        monkeypatch.setitem(schema_json.UPGRADES, version, upgrade)
    found = read_file(path)
    assert (found.runs[0].replay, found.runs[0].log_tail) == ("one", "two")
    assert not found.altered


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", f"{NAME} is empty. Delete it, or name another file."),
        (
            '{"kind": "run"',
            f"{NAME} does not start with a session's header (line 1: it is not strict JSON). "
            "Restore it from the commit that added it, or move it out of the results folder.",
        ),
        (
            '{"kind": "run", "schema_version": 1}\n',
            f"{NAME} does not start with a session's header (line 1: field 'kind' should be "
            "'session', found 'run'). Restore it from the commit that added it, or move it out of "
            "the results folder.",
        ),
    ],
)
def test_a_file_without_a_header_is_refused(content: str, text: str) -> None:
    path = write_session(RESULTS)
    path.write_text(content)
    with pytest.raises(ResultsError) as caught:
        read_file(path)
    assert str(caught.value) == text
