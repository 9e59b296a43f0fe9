"""Results files: nothing that was written is lost, and nothing that was changed goes unseen."""

from __future__ import annotations

import json
import os
import random
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import pytest

from harness import schema_json, store
from harness.errors import ResultsError, UsageError
from harness.schema import SCHEMA_VERSION, Block, Epoch, Gate, Run, Samples
from harness.schema_json import decode, encode
from harness.store import SessionWriter, check_writable, read_file, results_files
from tests.records import SESSION, failed_run, make_run, make_session, write_session

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


RESULTS = Path("results")
NAME = "results/runs/laptop/20261122T101530Z-abc1234.jsonl"


def variety(seed: int) -> Run:
    rng = random.Random(seed)
    texts = [
        "",
        "plain",
        'quote " and \\',
        "line\nbreak\r\n",
        "caf\u00e9 \u2028 \U0001f600",
        "\x00\x1f",
    ]
    blocks = tuple(
        Block(rng.randint(1, 99), rng.expovariate(1) + 1e-9) for _ in range(rng.randint(0, 4))
    )
    epochs = tuple(
        Epoch(
            rng.randint(1, 9), rng.random() + 1e-6, rng.random(), rng.gauss(0, 1e9), {"HR@10": 0.5}
        )
        for _ in range(rng.randint(0, 3))
    )
    samples = Samples(
        rng.choice([None, 1e-12, 3.0]), blocks, rng.choice(texts), blocks, epochs=epochs
    )
    return make_run(
        run=f"r{seed}",
        samples=samples,
        gate=Gate(outcome=rng.choice(texts), loss=(1e300, -1e-300), deviation={"loss": 5e-324}),
        log_tail=rng.choice(texts) * rng.randint(0, 3),
        price=rng.choice([None, make_run().price]),
        data=rng.choice([None, make_run().data]),
        higher_is_better=rng.random() < 0.5,
    )


def test_a_record_comes_back_as_it_was_written() -> None:
    runs = [variety(seed) for seed in range(100)]
    found = read_file(write_session(RESULTS, *runs))
    assert found.runs == tuple(runs)
    assert found.session == make_session()
    assert (found.notices, found.altered, found.broken) == ((), frozenset(), 0)


def test_a_file_is_named_by_time_and_commit_and_never_overwritten() -> None:
    paths = [write_session(RESULTS) for _ in range(3)]
    stem = "20261122T101530Z-abc1234"
    assert [path.name for path in paths] == [f"{stem}.jsonl", f"{stem}-2.jsonl", f"{stem}-3.jsonl"]
    assert paths[0].parent == Path("results/runs/laptop")


def test_a_machine_name_cannot_leave_the_folder() -> None:
    environment = replace(make_session().environment, machine="../../a b")
    assert write_session(RESULTS, environment=environment).parent == Path("results/runs/a-b")


@pytest.mark.parametrize(
    "number", [1e-05, 1.25e-05, 9.9e-05, 0.0001, 1e-07, 1.5e-10, 1e15, 1e16, 1e22, 5e-324, -1e-05]
)
@pytest.mark.parametrize("text", ["", "0.00001 or 1e-7", "Größe \u2028 \x7f"])
def test_the_fast_reading_of_a_line_is_the_exact_one(number: float, text: str) -> None:
    line = encode(make_run(stages={"start": number}, log_tail=text))
    assert decode(line) == schema_json._decoded(line)
    assert decode(line).intact
    assert not decode(line.replace(b'"seed":42', b'"seed":43')).intact
    # Where msgspec writes what Python would not, the exact way is taken.
    quick = "0.00001" not in text and "e+" not in repr(number)
    assert (schema_json._intact(line) is not None) == quick
    run = make_run(stages={"start": number}, log_tail=text)
    assert schema_json._as_written(line.strip()) == (run if quick else None)


def changed(line: bytes, **fields: object) -> bytes:
    """A line with other fields and the digest that it had."""
    return json.dumps(json.loads(line) | fields, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 43},
        {"unknown": 1},
        {"seed": 42.0},
        {"seed": True},
        {"kind": "session"},
        {"schema_version": 7},
        {"digest": "0" * 16},
    ],
)
def test_only_a_line_as_epochmark_wrote_it_is_read_in_the_fast_way(
    fields: dict[str, object],
) -> None:
    line = encode(make_run()).strip()
    assert schema_json._as_written(changed(line)) == make_run()
    assert schema_json._as_written(changed(line, **fields)) is None


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"1", b'"a"', b"null", b"\xff", b"[" * 10_000])
def test_what_is_no_run_is_left_to_the_exact_way(line: bytes) -> None:
    assert schema_json._as_written(line) is None


def test_committed_rows_are_read_alike_in_both_ways() -> None:
    """The fast way builds what pydantic does, and takes nearly every line."""
    fast = 0
    files = sorted((ROOT / "results").glob("**/*.jsonl"))
    runs = [replace(run, schema_version=SCHEMA_VERSION) for f in files for run in read_file(f).runs]
    for run in runs:
        line = encode(run).strip()
        found = schema_json._as_written(line)
        if found is not None:
            fast += 1
            assert found == schema_json._validate(decode(line), Run)
            assert encode(found).strip() == line
    assert fast > 0.9 * len(runs) > 90


def test_every_line_is_strict_json_with_its_digest() -> None:
    path = write_session(RESULTS, make_run())
    for line in path.read_text().splitlines():
        fields = json.loads(line, parse_constant=pytest.fail)
        digest = fields.pop("digest")
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert digest == sha256(canonical.encode()).hexdigest()[:16]


def test_a_number_that_json_cannot_hold_is_refused_and_leaves_no_trace() -> None:
    path = write_session(RESULTS)
    before = path.read_bytes()
    epoch = Epoch(1, 1.0, 1.0, float("nan"), {})
    with SessionWriter.resume(path) as writer, pytest.raises(ResultsError) as caught:
        writer.append(make_run(samples=Samples(epochs=(epoch,))))
    assert str(caught.value) == (
        "Run 'r0001' cannot be written: field 'samples.epochs.0.loss' is not a finite number. "
        "Leave it out of the record."
    )
    assert path.read_bytes() == before


def test_undecodable_output_of_a_worker_does_not_lose_its_run() -> None:
    found = read_file(write_session(RESULTS, make_run(log_tail="bad \udc80 byte")))
    assert found.runs[0].log_tail == "bad ? byte"
    assert not found.altered


def test_a_run_of_another_session_is_refused() -> None:
    path = write_session(RESULTS)
    with SessionWriter.resume(path) as writer, pytest.raises(ResultsError) as caught:
        writer.append(make_run(session="other"))
    assert str(caught.value) == (
        f"Run 'r0001' belongs to session 'other' and cannot be written to {NAME}, "
        f"which holds session '{SESSION}'."
    )


def test_a_last_line_cut_at_any_byte_loses_only_itself() -> None:
    path = write_session(RESULTS, make_run(), failed_run("oom", "\u00e9\U0001f600", run="r0002"))
    whole = path.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for end in range(start, len(whole) + 1):
        path.write_bytes(whole[:end])
        found = read_file(path)
        kept = 2 if end >= len(whole) - 1 else 1
        torn = kept == 1 and end > start
        notice = (
            f"{NAME}: the last line is cut off (a run that did not finish writing); it was skipped."
        )
        assert len(found.runs) == kept
        assert found.notices == ((notice,) if torn else ())
        assert (found.broken, found.altered) == (0, frozenset())


def test_resuming_after_a_cut_at_any_byte_gives_a_whole_file() -> None:
    first, second = make_run(), failed_run("oom", "killed", run="r0002")
    path = write_session(RESULTS, first, second)
    whole = path.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for end in range(start, len(whole) + 1, 7):
        path.write_bytes(whole[:end])
        notice = f"{NAME}: the cut-off last line ({end - start} bytes) was removed."
        with SessionWriter.resume(path) as writer:
            assert writer.notices == ((notice,) if start < end < len(whole) - 1 else ())
            if end < len(whole) - 1:
                writer.append(second)
        assert path.read_bytes() == whole


def test_resuming_adds_the_newline_that_a_whole_line_lacks() -> None:
    path = write_session(RESULTS, make_run())
    path.write_bytes(path.read_bytes()[:-1])
    with SessionWriter.resume(path) as writer:
        writer.append(make_run(run="r0002"))
    assert [run.run for run in read_file(path).runs] == ["r0001", "r0002"]


def test_a_block_of_zero_bytes_at_the_end_is_a_cut_off_line() -> None:
    path = write_session(RESULTS, make_run())
    path.write_bytes(path.read_bytes() + bytes(512))
    assert read_file(path).broken == 0
    with SessionWriter.resume(path) as writer:
        assert writer.notices == (f"{NAME}: the cut-off last line (512 bytes) was removed.",)
    assert read_file(path).notices == ()


def test_a_folder_that_cannot_be_written_is_told_before_measuring() -> None:
    Path("taken").write_text("a file")
    with pytest.raises(ResultsError) as caught:
        check_writable(Path("taken"))
    assert str(caught.value) == (
        "The results folder 'taken' cannot be written: Not a directory. "
        "Name another with --results."
    )
    assert caught.value.exit_status == 2
    with pytest.raises(ResultsError, match="'taken' cannot be written"):
        SessionWriter(Path("taken"), make_session())
    check_writable(Path("new/results"))


def test_a_session_that_still_runs_cannot_be_resumed() -> None:
    with SessionWriter(RESULTS, make_session()) as writer:
        with pytest.raises(ResultsError) as caught:
            SessionWriter.resume(writer.path)
        writer.append(make_run())
    assert str(caught.value) == (
        f"{NAME} is being written by another Epochmark. Wait until it ends."
    )
    SessionWriter.resume(writer.path).close()


def test_a_full_disk_leaves_no_half_line(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_session(RESULTS, make_run())
    before = path.read_bytes()
    write, calls = os.write, iter(range(9))

    def half_then_full(descriptor: int, data: bytes) -> int:
        if next(calls):
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half_then_full)
    with SessionWriter.resume(path) as writer, pytest.raises(ResultsError) as caught:
        writer.append(make_run(run="r0002"))
    assert str(caught.value) == (
        f"The results file '{NAME}' cannot be written: No space left on device. "
        "Name another with --results."
    )
    assert path.read_bytes() == before


def test_files_are_found_oldest_first_and_by_name_or_session() -> None:
    second = write_session(RESULTS, session="s2", started_at="2026-11-23T00:00:00+01:00")
    first = write_session(RESULTS, session="s1", started_at="2026-11-21T00:00:00Z")
    again = write_session(RESULTS, session="s1b", started_at="2026-11-21T00:00:00Z")
    assert second.name == "20261122T230000Z-abc1234.jsonl"
    assert results_files(RESULTS) == [first, again, second]
    for name in ("s2", second.name, second.stem, str(second)):
        assert results_files(RESULTS, [name]) == [second]
    assert results_files(RESULTS, ["s2", "s1", "s1"]) == [first, second]


def test_a_name_that_is_not_there_is_a_mistake_in_the_call() -> None:
    write_session(RESULTS)
    with pytest.raises(UsageError) as caught:
        results_files(RESULTS, ["x"])
    assert str(caught.value) == (
        "Unknown results file or session 'x' in 'results'. The latest is 20261122T101530Z-abc1234."
    )


def test_no_results_at_all() -> None:
    with pytest.raises(ResultsError) as caught:
        results_files(RESULTS)
    assert str(caught.value) == (
        "There are no results in 'results'. Measure some with `epochmark run --plan quick`."
    )


def test_a_path_is_spelled_as_given_or_from_here(tmp_path: Path) -> None:
    assert store.spelled(Path("../x")) == "../x"
    assert store.spelled(tmp_path / "a" / "b") == "a/b"
    assert store.spelled(Path("/elsewhere/x")) == "/elsewhere/x"


def test_the_committed_schema_is_current() -> None:
    committed = (ROOT / "results" / "schema.json").read_text()
    assert committed == schema_json.schema_text(), (
        "run: python -m harness.schema_json > results/schema.json"
    )


def test_the_schema_names_every_field_of_a_line() -> None:
    schema = schema_json.schema_json()
    for record in (make_session(), failed_run("oom", "killed")):
        definition = schema["$defs"][type(record).__name__]
        assert set(definition["properties"]) == set(asdict(record)) | {"digest"}
        assert definition["additionalProperties"] is False
