"""What people and programs are shown: nothing failed looks like a number, and money says whose."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness import show as showing
from harness import units
from harness.errors import UsageError
from harness.export import export
from harness.metrics import METRICS
from harness.paths import LOST
from harness.ranking import rankable
from harness.run_command import outcome
from harness.schema import Block, Contention, Epoch, Protocol, Run, Samples
from harness.show import markdown, show
from harness.summary import NO_PRICE, summary
from harness.table import load_table
from harness.units import digits
from tests.records import PRICE, SAMPLES, failed_run, make_run, write_session

RESULTS = Path("results")


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_CACHE", "cache")


def cell(workload: str = "recommender", backend: str = "jax", precision: str = "float32") -> str:
    return f"{workload}/smoke/train/{backend}/{precision}/functional/cpu"


def timed(step_s: float) -> Samples:
    return replace(SAMPLES, steady=(Block(10, 10 * step_s),))


def frame(*runs: Run, **session: Any) -> pd.DataFrame:
    """The table of all results so far, with these runs in one more session."""
    numbered = [replace(run, run=f"r{number}") for number, run in enumerate(runs)]
    write_session(RESULTS, *numbered, **session)
    return load_table(RESULTS).frame


COST = (
    "Costs are seconds times the reference price gcp c3-standard-8, us-central1, "
    "on-demand, 0.403216 USD/h (2026-08-03, source a price list). It is not the price of the "
    "machine that was measured."
)


def test_a_row_that_lost_an_expected_fast_path_says_so_wherever_it_is_read() -> None:
    lost = make_run(cell=cell(backend="torch"), numerics={LOST: "lstm"})
    found = frame(lost, make_run(cell=cell()))
    assert [row["slow_path"] for row in json.loads(show(found, output="json"))] == [False, True]
    text = show(found, output="table")
    assert " ok ? " in text
    assert (
        "? A fast path that this backend is expected to take on such a device was not taken" in text
    )
    assert outcome(lost).endswith(" (without its fast path: lstm)")
    assert "fast path" not in outcome(make_run(cell=cell()))


def test_the_table_in_full() -> None:
    runs = frame(
        make_run(cell=cell(backend="torch")),
        make_run(cell=cell(backend="jax"), contention=Contention(contended=True)),
        failed_run("oom", "needs 14.2 GiB, 7.9 GiB available", cell=cell(backend="tensorflow")),
    )
    assert show(runs, output="table", width=200).splitlines() == [
        "Machine laptop, scale smoke, phase train, precision float32, style functional, device cpu",
        "",
        "workload     backend     status      step  examples/s   epoch  compile  peak host memory"
        "      quality     cost/epoch",
        "─" * 116,
        "recommender  tensorflow  oom [1]        -           -       -        -                 -"
        "            -              -",
        "recommender  jax         ok *     11.0 ms    23.3 k/s  440 ms   1.24 s          1.50 GiB"
        "  HR@10 0.520  0.0000493 USD",
        "recommender  torch       ok       11.0 ms    23.3 k/s  440 ms   1.24 s          1.50 GiB"
        "  HR@10 0.520  0.0000493 USD",
        "",
        "[1] needs 14.2 GiB, 7.9 GiB available",
        "Each row is one process; how processes differ was not measured.",
        "* Other processes used the machine meanwhile; these rows are not ranked.",
        COST,
    ]


def test_an_extrapolated_epoch_is_marked_with_the_share_that_was_measured() -> None:
    """Five of twenty steps in 0.1 s: an epoch of 0.4 s, priced as such."""
    part = replace(SAMPLES, epochs=(Epoch(5, 0.1, None, 0.6, {}, epoch_steps=20),))
    runs = frame(make_run(samples=part), make_run(cell=cell(backend="torch")))
    lines = show(runs, output="table", width=200).splitlines()
    (row,) = (line for line in lines if " jax " in line)
    assert " ok ~ " in row
    assert " 400 ms " in row
    assert f"{digits(0.4 * PRICE.usd_per_hour / 3600)} USD" in row
    assert not any("~" in line for line in lines if " torch " in line)
    assert (
        "~ Time and cost of an epoch are extrapolated from its first steps: 25 % of them." in lines
    )


def test_eighty_columns_hold_every_number_whole() -> None:
    runs = frame(
        make_run(cell=cell(backend="tensorflow", precision="mixed_bfloat16")),
        make_run(cell=cell("resnet50")),
        failed_run("unavailable", "no CUDA device", cell=cell("bert", "torch")),
    )
    text = show(runs, output="table", width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for whole in ("11.0 ms", "23.3 k/s", "440 ms", "1.24 s", "1.50 GiB", "0.0000493"):
        assert text.count(whole) == 2
    for word in ("tensorflow", "mixed_bfloat16", "recommender", "unavailable", "[1]"):
        assert word in text.split()


def test_a_pipe_gets_one_line_per_row_and_no_colour() -> None:
    text = show(
        frame(make_run(), make_run(cell=cell(backend="torch"))), output="table", view="wide"
    )
    assert "\x1b" not in text
    assert sum(line.startswith("recommender") for line in text.splitlines()) == 2
    assert "10.2 ms to 11.8 ms" in text


def test_without_a_price_there_is_no_cost_and_a_way_to_one() -> None:
    lines = show(frame(make_run(price=None)), output="table").splitlines()
    assert " ".join(lines).endswith(NO_PRICE)
    assert not any("cost/epoch" in line for line in lines)
    assert NO_PRICE == (
        "No price was chosen, so there is no cost. Choose one with --price ID (`epochmark prices` "
        "lists them) or [tool.epochmark] price in pyproject.toml."
    )


def test_two_prices_are_both_named() -> None:
    spot = replace(PRICE, id="gcp:x:here:spot", instance="x", kind="spot", usd_per_hour=0.1)
    text = show(
        frame(make_run(), make_run(cell=cell(backend="torch"), price=spot)),
        output="table",
        width=2000,
    )
    assert "not the same for all rows: gcp c3-standard-8, " in text
    assert "; gcp x, us-central1, spot, 0.1 USD/h (2026-08-03, source a price list)." in text


def test_replicates_are_medians_and_failures_keep_their_row() -> None:
    steps = [0.010, 0.030, 0.020]
    runs = [make_run(replicate=n, samples=timed(step)) for n, step in enumerate(steps)]
    rows = summary(frame(*runs, failed_run("timeout", "took over 300 s", replicate=3)))
    assert list(zip(rows["status"], rows["n"], strict=True)) == [("ok", 3), ("timeout", 1)]
    assert rows["step_time_s"][0] == pytest.approx(0.020)
    assert pd.isna(rows["step_time_s"][1])
    text = show(load_table(RESULTS).frame, output="table", width=200)
    assert "ok n=3" in text
    assert "timeout [1] n=1" in text
    assert "n counts the processes of a row; its numbers are their medians." in text


CONTENDED = Contention(contended=True)


def test_a_process_beside_other_work_counts_in_no_figure_where_others_can() -> None:
    """As in `compare` and on the report's pages: the same row has the same figures everywhere."""
    steps = [0.010, 0.030, 0.900]
    runs = [make_run(replicate=n, samples=timed(step)) for n, step in enumerate(steps)]
    found = frame(*runs[:2], replace(runs[2], contention=CONTENDED))
    (row,) = summary(found).to_dict("records")
    assert (row["n"], row["left_out"], row["contended"]) == (2, 1, False)
    assert row["step_time_s"] == pytest.approx(0.020)
    text = show(found, output="table", width=200)
    assert "ok n=2 of 3" in text
    assert "'of' counts them all: the rest ran beside other work, " in text
    assert json.loads(show(found, output="json"))[0]["left_out"] == 1


def test_where_all_ran_beside_other_work_the_row_is_theirs_and_says_so() -> None:
    runs = [make_run(replicate=n, samples=timed(0.01), contention=CONTENDED) for n in range(2)]
    (row,) = summary(frame(*runs)).to_dict("records")
    assert (row["n"], row["left_out"], row["contended"]) == (2, 0, True)
    assert "ok n=2 *" in show(load_table(RESULTS).frame, output="table", width=200)


def inferred(step_s: float) -> Samples:
    """Of a cell of inference."""
    return Samples(first_step_s=1.0, infer=(Block(10, 10 * step_s),), infer_latency_s=(step_s,) * 3)


@pytest.mark.parametrize(
    ("phase", "samples", "title"), [("train", timed, "step"), ("infer", inferred, "inference")]
)
def test_the_processes_interval_stands_beside_each_phases_speed(
    phase: str, samples: Callable[[float], Samples], title: str
) -> None:
    """Whoever reads a speed sees how sure it is: three processes that differ by a tenth."""
    runs = [
        make_run(
            cell=cell().replace("train", phase), replicate=n, samples=samples(0.02 * 1.1 ** (n - 1))
        )
        for n in range(3)
    ]
    lines = show(frame(*runs), output="table", width=1000).splitlines()
    heads, row = (re.split(r"  +", line) for line in (lines[2], lines[4]))
    place = next(n for n, head in enumerate(heads) if head == "95 % interval")
    assert heads[place - 1] == title
    low, high = (float(end.split()[0].replace(",", "")) for end in row[place].split(" to "))
    middle = float(row[place - 1].split()[0].replace(",", ""))
    # Student's t of two degrees: 4.303 standard errors of a spread of ln(1.1).
    assert high / middle == pytest.approx(middle / low, rel=0.02)
    assert math.log(high / low) == pytest.approx(2 * 4.303 * math.log(1.1) / 3**0.5, rel=0.02)


def test_the_latest_session_of_each_cell_counts() -> None:
    frame(make_run(samples=timed(0.5)), make_run(cell=cell(backend="torch"), samples=timed(0.4)))
    later = {"session": "later", "started_at": "2026-11-23T00:00:00Z"}
    rows = summary(frame(make_run(samples=timed(0.1)), **later))
    assert dict(zip(rows["backend"], rows["step_time_s"], strict=True)) == pytest.approx(
        {"jax": 0.1, "torch": 0.4}
    )


def test_the_last_try_of_a_replicate_counts() -> None:
    rows = summary(frame(failed_run("error", "lost"), make_run()))
    assert list(rows["status"]) == ["ok"]


def test_machines_are_never_mixed() -> None:
    other = replace(make_run().environment, machine="server")
    runs = frame(make_run(), make_run(environment=other, samples=timed(0.1)))
    assert list(summary(runs)["machine"]) == ["laptop", "server"]
    assert "server" in show(runs, output="table")


def test_altered_rows_and_mixed_protocols_are_told() -> None:
    protocol = replace(make_run().protocol, min_blocks=9)
    frame(make_run(), make_run(cell=cell(backend="torch"), protocol=protocol))
    (path,) = RESULTS.glob("runs/*/*.jsonl")
    path.write_text(path.read_text().replace('"seed":42', '"seed":7', 1))
    text = show(load_table(RESULTS).frame, output="table", width=200)
    assert "  ok !  " in text
    assert "! The row was changed after it was written." in text
    assert "Rows were measured under different protocols and cannot be ranked together." in text


def test_the_unit_of_quality_is_the_declared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "quality_form", lambda workload, metric: ("%", "HR@10"))
    assert "HR@10 52.0 %" in show(frame(make_run()), output="table", width=200)


def test_json_is_strict_and_says_null_for_what_is_absent() -> None:
    runs = frame(make_run(), failed_run("oom", "killed", cell=cell("bert"), price=None))
    failed, good = json.loads(show(runs, output="json"), parse_constant=pytest.fail)
    assert set(METRICS) <= set(good)
    assert good["step_time_s"] == 0.011
    assert (good["infer_latency_s"], good["torch"], good["contended"]) == (None, None, False)
    assert (failed["status"], failed["reason"], failed["price"]) == ("oom", "killed", None)
    assert all(failed[name] is None for name in METRICS)


def test_csv_leaves_absent_metrics_empty() -> None:
    runs = frame(failed_run("oom", 'killed, "why"'))
    (row,) = csv.DictReader(StringIO(show(runs, output="csv")))
    assert (row["reason"], row["step_time_s"]) == ('killed, "why"', "")


def test_markdown_has_the_same_rows() -> None:
    text = markdown(frame(make_run(), failed_run("oom", "a|b", cell=cell("bert"))))
    assert "| recommender | ok | 11.0 ms | 23.3 k/s |" in text.replace(" jax |", "")
    assert "| bert | jax | oom [1] | - |" in text
    assert "[1] a\\|b" in text
    assert COST in text


def test_no_runs_at_all() -> None:
    runs = frame()
    assert show(runs, output="table") == "The results hold no runs."
    assert markdown(runs) == "The results hold no runs."
    assert json.loads(show(runs, output="json")) == []


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("step_time_s", 0.0000123, "12.3 µs"),
        ("step_time_s", 0.0123, "12.3 ms"),
        ("step_time_s", 1234.5, "1234 s"),
        ("compile_time_s", -0.0012, "0 s"),
        ("compile_time_s", 0.12, "120 ms"),
        ("throughput_examples_per_s", 12.34, "12.3 /s"),
        ("throughput_examples_per_s", 12345.0, "12.3 k/s"),
        ("peak_host_memory_bytes", 1.5 * 2**30, "1.50 GiB"),
        ("peak_host_memory_bytes", 2.0**20, "1.00 MiB"),
        ("input_wait_fraction", 0.123, "12.3 %"),
        ("cost_per_epoch_usd", 0.00042, "0.000420 USD"),
        ("cost_per_epoch_usd", 12.3456, "12.3 USD"),
        ("energy_per_epoch_j", 1500.0, "1.50 kJ"),
        ("model_flops_per_example", 2.5e9, "2.50 GFLOP"),
        ("quality", 6.413, "6.41"),
        ("mfu", float("nan"), "-"),
    ],
)
def test_numbers_are_scaled_when_printed(name: str, value: float, text: str) -> None:
    assert units.formatted(name, value) == text


def test_every_metric_can_be_printed() -> None:
    for name in METRICS:
        assert units.formatted(name, 0.5) not in ("", units.ABSENT)


@pytest.mark.parametrize("to", ["csv", "parquet"])
def test_an_export_holds_every_run_and_column(to: str) -> None:
    runs = frame(make_run(), make_run(replicate=1))
    target = Path(f"out.{to}")
    export(runs, to, target)
    found = pd.read_csv(target) if to == "csv" else pd.read_parquet(target)
    assert list(found.columns) == list(runs.columns)
    assert list(found["step_time_s"]) == list(runs["step_time_s"])
    with pytest.raises(UsageError) as caught:
        export(runs, to, target)
    assert str(caught.value) == (
        f"'out.{to}' exists already. Name another file, or replace it with --force."
    )
    export(runs, to, target, force=True)


def test_an_export_that_cannot_be_written_is_told() -> None:
    with pytest.raises(UsageError) as caught:
        export(frame(make_run()), "csv", Path("missing/out.csv"))
    assert str(caught.value) == (
        "'missing/out.csv' cannot be written: No such file or directory. Name another file."
    )
    with pytest.raises(UsageError, match=r"Unknown format 'xls'. Known formats: csv, parquet"):
        export(frame(make_run()), "xls", Path("out.xls"))


UNTIMED = Protocol(stop_after="gate")


@pytest.mark.parametrize(("plan", "protocol"), [("replay", Protocol()), ("", UNTIMED)])
def test_a_replay_or_a_gate_alone_takes_no_measured_rows_place(
    plan: str, protocol: Protocol
) -> None:
    """Unless nothing else was measured of the cell."""
    write_session(RESULTS, *(make_run(run=f"r{n}", replicate=n) for n in range(3)), session="one")
    other = make_run(run="t", cell=make_run().cell.replace("/jax/", "/torch/"), protocol=protocol)
    again = make_run(run="r", protocol=protocol)
    later = {"session": "two", "started_at": "2026-12-01T00:00:00Z", "plan": plan}
    write_session(RESULTS, again, other, **later)
    rows = summary(load_table(RESULTS).frame).set_index("backend")
    assert rows["n"].to_dict() == {"jax": 3, "torch": 1}
    assert rows["session"].to_dict() == {"jax": "one", "torch": "two"}


def test_a_run_that_ended_after_the_gate_says_so_and_is_not_ranked() -> None:
    found = frame(make_run(protocol=UNTIMED, samples=Samples(first_step_s=1.0)))
    assert not rankable(found).any()
    text = show(found, output="table")
    assert " ok = " in text
    assert "= The run was to end after the equality gate" in text
