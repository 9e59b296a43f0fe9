"""`epochmark compare`: what is comparable, which verdict it gives, what it says about the rest."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.compare import Comparison, compare
from harness.compare_command import as_json, side, text
from harness.errors import EpochmarkError, UsageError
from harness.paths import LOST, PLAIN
from harness.schema import Block, Contention, Energy, Protocol, Run, Samples
from tests.records import CELL, SAMPLES, failed_run, make_run, write_session

ONE, OTHER = "20261122T101530Z-abc1234", "20261123T101530Z-def5678"
TORCH = CELL.replace("/jax/", "/torch/")
SLOW = (0.0107, 0.0108, 0.0106, 0.0107)
FAST = (0.0100, 0.0101, 0.0099, 0.0100)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHMARK_CACHE", str(tmp_path / "cache"))


def timed(step_s: float, replicate: int = 0, **changes: Any) -> Run:
    """A run whose step takes so long."""
    cell = changes.get("cell", CELL)
    samples = replace(SAMPLES, steady=(Block(10, 10 * step_s),) * 3)
    named = {"run": f"{cell}-{replicate}", "replicate": replicate, "samples": samples}
    return make_run(**(named | changes))


def session(results: Path, name: str, steps: Sequence[float], **changes: Any) -> None:
    """A session with a process for each step time."""
    runs = [timed(step, place, **changes) for place, step in enumerate(steps)]
    write_session(results, *runs, session=name)


def both(results: Path, one: str = ONE, other: str = OTHER, **options: Any) -> Comparison:
    return compare(side(results, one).frame, side(results, other).frame, **options)


def only_row(found: Comparison) -> Any:
    assert len(found.rows) == 1
    return found.rows[0]


# Verdicts


@pytest.mark.parametrize(
    ("steps", "verdict", "ratio"),
    [(SLOW, "slower", 1.07), (FAST, "no difference found", 1.0), (SLOW[::-1], "slower", 1.07)],
)
def test_a_verdict_is_as_sure_as_its_processes(
    tmp_path: Path, steps: Sequence[float], verdict: str, ratio: float
) -> None:
    session(tmp_path, ONE, FAST)
    session(tmp_path, OTHER, [step * 1.0001 for step in steps])
    row = only_row(both(tmp_path))
    assert row.verdict == verdict
    assert row.processes == (4, 4)
    assert row.difference.ratio() == pytest.approx(ratio, rel=2e-3)
    low, high = row.difference.interval(0.01)
    assert (low > 1.0) == (verdict == "slower")
    assert low < row.difference.ratio() < high
    assert 0.01 < row.difference.detectable(0.01) < 0.05


def test_the_same_times_the_other_way_round_are_faster(tmp_path: Path) -> None:
    session(tmp_path, ONE, SLOW)
    session(tmp_path, OTHER, FAST)
    assert only_row(both(tmp_path)).verdict == "faster"


def test_a_higher_throughput_is_faster_and_less_memory_better(tmp_path: Path) -> None:
    session(tmp_path, ONE, SLOW)
    runs = [timed(step, place) for place, step in enumerate(FAST)]
    runs = [
        replace(run, memory=replace(run.memory, host_peak_bytes=10**8 + place))
        for place, run in enumerate(runs)
    ]
    write_session(tmp_path, *runs, session=OTHER)
    found = both(tmp_path, metric="throughput_examples_per_s")
    assert only_row(found).verdict == "faster"
    # The baseline's peaks are one number, the contender's are not: there is a spread.
    assert only_row(both(tmp_path, metric="peak_host_memory_bytes")).verdict == "better"


def test_more_cells_make_each_verdict_harder(tmp_path: Path) -> None:
    """Bonferroni: what convinces alone does not among many."""
    close = [step * 1.03 for step in FAST]
    session(tmp_path, ONE, FAST)
    session(tmp_path, OTHER, close)
    assert only_row(both(tmp_path)).verdict == "slower"
    styles = [f"{CELL[:-4]}/x{number}" for number in range(40)]
    many = [[timed(s, p, cell=c) for c in styles for p, s in enumerate(x)] for x in (FAST, close)]
    write_session(tmp_path, *many[0], session="20261124T101530Z-abc1234")
    write_session(tmp_path, *many[1], session="20261125T101530Z-abc1234")
    found = both(tmp_path, "20261124T101530Z-abc1234", "20261125T101530Z-abc1234")
    assert found.alpha_per_cell == pytest.approx(0.01 / 40)
    assert {row.verdict for row in found.rows} == {"no difference found"}
    # What moves all cells of a round alike makes their mean no surer than one cell alone.
    assert found.mean is not None
    alone = only_row(both(tmp_path)).difference
    assert found.mean.interval(0.01) == pytest.approx(alone.interval(0.01))


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        (FAST[:1], FAST, "no verdict: one process"),
        (FAST, FAST[:1], "no verdict: one process"),
        ((0.01, 0.01), (0.02, 0.02), "no verdict: identical samples"),
        # So many equal logarithms have a variance of rounding.
        ((0.0123,) * 5, (0.0124,) * 5, "no verdict: identical samples"),
    ],
)
def test_where_nothing_is_known_of_the_spread_there_is_no_verdict(
    tmp_path: Path, one: Sequence[float], other: Sequence[float], verdict: str
) -> None:
    session(tmp_path, ONE, one)
    session(tmp_path, OTHER, other)
    found = both(tmp_path)
    assert only_row(found).verdict == verdict
    assert only_row(found).difference is None
    assert found.mean is None


def test_a_figure_that_is_not_positive_has_no_ratio(tmp_path: Path) -> None:
    """Compiling takes first step minus steady step, which can come out below nothing."""
    quick = replace(SAMPLES, first_step_s=0.001)
    for name in (ONE, OTHER):
        runs = [timed(0.01, place, samples=quick) for place in range(3)]
        write_session(tmp_path, *runs, session=name)
    found = both(tmp_path, metric="compile_time_s")
    assert only_row(found).verdict == "no verdict: not positive"


@pytest.mark.parametrize("lost", [False, True])
def test_one_sessions_replicates_are_compared_in_pairs(tmp_path: Path, lost: bool) -> None:
    """A machine that gets slower and slower hides nothing when both sides were measured in turn.

    Nor where a turn counts on one side only.
    """
    drift = (1.0, 1.3, 1.7, 2.4, 2.0, 1.6, 1.2, 1.1)
    busy = Contention(others_cpu_share=0.5, contended=True)
    odd = [timed(9.0, 8, cell=CELL, contention=busy), timed(0.05, 8, cell=TORCH)] if lost else []
    runs = [
        timed(0.01 * factor * ratio * (1 + 0.0005 * place), place, cell=cell)
        for place, factor in enumerate(drift)
        for cell, ratio in ((CELL, 1.0), (TORCH, 1.05 + 0.001 * place))
    ]
    write_session(tmp_path, *runs, *odd, session=ONE)
    row = only_row(both(tmp_path, "*/jax/*", "*/torch/*"))
    assert row.verdict == "slower"
    assert row.cell == CELL.replace("/jax/", "/jax|torch/")
    assert row.difference.freedom == len(drift) - 1


# What is compared with what


def test_sides_of_different_times_are_told_to_be_so(tmp_path: Path) -> None:
    """What the machine did between two sessions looks like a difference of the sides."""
    cells = (CELL, TORCH)
    runs = [timed(step, place, cell=cell) for cell in cells for place, step in enumerate(FAST)]
    write_session(tmp_path, *runs, session=ONE)
    session(tmp_path, OTHER, FAST)
    assert both(tmp_path).apart
    alone = [side(tmp_path, name, session=ONE).frame for name in ("*/jax/*", "*/torch/*")]
    assert not compare(*alone).apart
    given = ["compare", "--results", str(tmp_path)]
    told = CliRunner().invoke(app, [*given, ONE, OTHER]).output
    assert "The sides were measured at different times" in told
    told = CliRunner().invoke(app, [*given, "--session", ONE, "*/jax/*", "*/torch/*"]).output
    assert "at different times" not in told


def test_disturbed_failed_and_edited_runs_are_left_out_and_counted(tmp_path: Path) -> None:
    busy = Contention(others_cpu_share=0.5, contended=True)
    runs = [timed(step, place) for place, step in enumerate(FAST)]
    bad = [
        timed(9.0, 7, contention=busy, run="busy"),
        failed_run("oom", "no memory", run="oom", replicate=8),
    ]
    path = write_session(tmp_path, *runs, *bad, timed(9.0, 9, run="edited"), session=ONE)
    path.write_text(path.read_text().replace('"run":"edited"', '"run":"Edited"', 1))
    session(tmp_path, OTHER, FAST[:3])
    found = both(tmp_path)
    assert only_row(found).processes == (4, 3)
    assert found.left_out == 3
    assert only_row(found).baseline == pytest.approx(0.01, rel=0.02)


def test_cells_of_one_side_alone_are_named(tmp_path: Path) -> None:
    session(tmp_path, ONE, FAST)
    runs = [timed(s, p, cell=c) for c in (CELL, TORCH) for p, s in enumerate(FAST)]
    write_session(tmp_path, *runs, session=OTHER)
    found = both(tmp_path)
    assert (found.only_baseline, found.only_contender) == ((), (TORCH,))


def test_a_cell_without_a_run_that_counts_is_listed_with_what_is_there(tmp_path: Path) -> None:
    """It is on neither side alone, and it is no cell of which nothing is said."""
    infer = CELL.replace("/train/", "/infer/")
    tensorflow = CELL.replace("/jax/", "/tensorflow/")
    lost = [timed(step, place, cell=TORCH) for place, step in enumerate(FAST)]
    other = timed(1.0, 0, cell=infer, samples=Samples())
    session_of = {
        ONE: [*lost, other, failed_run("timeout", "slow", cell=tensorflow)],
        OTHER: [other, failed_run("oom", "no memory", cell=TORCH)],
    }
    for name, runs in session_of.items():
        write_session(tmp_path, *(timed(s, p) for p, s in enumerate(FAST)), *runs, session=name)
    found = both(tmp_path)
    assert [(cell.cell, cell.baseline, cell.contender) for cell in found.uncompared] == [
        (tensorflow, "timeout", "absent"),
        (TORCH, "ok", "oom"),
    ]
    assert found.only_contender == ()
    printed = " ".join(run_command(tmp_path, ONE, OTHER).stdout.split())
    assert f"{TORCH} (baseline: ok; contender: oom)." in printed
    answer = json.loads(run_command(tmp_path, ONE, OTHER, "--format", "json").stdout)
    assert answer["uncompared"][1] == {"cell": TORCH, "baseline": "ok", "contender": "oom"}


def test_precisions_are_compared_when_that_is_asked_for(tmp_path: Path) -> None:
    mixed = CELL.replace("float32", "mixed_bfloat16")
    runs = [timed(s, p, cell=c) for c, x in ((CELL, FAST), (mixed, SLOW)) for p, s in enumerate(x)]
    write_session(tmp_path, *runs, session=ONE)
    with pytest.raises(UsageError, match=r"add --across precision\.$"):
        both(tmp_path, "*/float32/*", "*/mixed_bfloat16/*")
    found = both(tmp_path, "*/float32/*", "*/mixed_bfloat16/*", across=["precision"])
    assert only_row(found).verdict == "slower"


def test_a_commit_names_every_session_measured_at_it(tmp_path: Path) -> None:
    session(tmp_path, ONE, FAST, suite_commit="1" * 40)
    session(tmp_path, OTHER, FAST, suite_commit="2" * 40)
    assert len(side(tmp_path, "1111111").frame) == 4
    with pytest.raises(UsageError, match=r"^No result was measured at commit '3333333'\.$"):
        side(tmp_path, "3333333")


def test_a_glob_takes_the_latest_session_of_each_cell(tmp_path: Path) -> None:
    session(tmp_path, ONE, SLOW)
    session(tmp_path, OTHER, FAST[:2])
    assert len(side(tmp_path, "*/jax/*").frame) == 2


def test_a_session_can_be_named_for_globs_and_commits(tmp_path: Path) -> None:
    session(tmp_path, ONE, SLOW)
    session(tmp_path, OTHER, FAST[:2])
    assert len(side(tmp_path, "*/jax/*", session=ONE).frame) == 4
    assert len(side(tmp_path, "abc1234", session=OTHER).frame) == 2


# What is not comparable


@pytest.mark.parametrize(
    ("change", "told", "key"),
    [
        ({"workload_version": "1.1.0"}, f"version ('1.0' and '1.1' in {CELL})", "version"),
        ({"batch_size": 128}, f"batch ('128' and '256' in {CELL})", "batch"),
        (
            {"numerics": {"jit": "off", "matmul_precision": "tf32"}},
            "numerics (jit is 'on' and 'off' and 1 more)",
            "numerics",
        ),
    ],
)
def test_what_is_not_comparable_is_refused_by_name_unless_allowed(
    tmp_path: Path, change: dict[str, Any], told: str, key: str
) -> None:
    session(tmp_path, ONE, FAST)
    session(tmp_path, OTHER, SLOW, **change)
    with pytest.raises(UsageError) as caught:
        both(tmp_path)
    assert str(caught.value) == (
        f"Not comparable: {told}. To compare nevertheless, add --across {key}."
    )
    assert only_row(both(tmp_path, across=[key])).verdict == "slower"


def test_energies_of_different_counters_are_not_compared(tmp_path: Path) -> None:
    """Which counters were read tells nothing of the step time, whose comparison stands."""
    for name, method in ((ONE, "rapl+nvml"), (OTHER, "nvml")):
        session(tmp_path, name, FAST, energy=Energy(method, ("gpu 0",), 1.0, (9.0, 8.0)))
    assert only_row(both(tmp_path)).verdict == "no difference found"
    with pytest.raises(UsageError) as caught:
        both(tmp_path, metric="energy_per_epoch_j")
    assert str(caught.value) == (
        f"Not comparable: energy ('nvml' and 'rapl+nvml' in {CELL}). "
        "To compare nevertheless, add --across energy."
    )


def test_another_kernel_is_told_and_not_refused(tmp_path: Path) -> None:
    """As when a framework falls back to a slow form: the very thing that a comparison is for."""
    fused = "fused: aten::_cudnn_rnn"
    session(tmp_path, ONE, FAST, numerics={"jit": "on", "lstm": fused})
    loop = {"lstm": PLAIN["lstm"], LOST: "lstm", "convolution": "NHWC"}
    session(tmp_path, OTHER, SLOW, numerics={"jit": "on", **loop})
    found = both(tmp_path)
    assert only_row(found).verdict == "slower"
    told = f"lstm of {CELL} is {fused!r} in the baseline, 'a loop over the steps' in the contender"
    assert found.kernels == (told,)
    assert f"Other kernels were taken: {told}." in " ".join(text(found).split())
    assert json.loads(as_json(found))["kernels"] == [told]
    assert both(tmp_path, ONE, ONE).kernels == ()


def test_every_key_that_differs_is_named(tmp_path: Path) -> None:
    session(tmp_path, ONE, FAST)
    session(tmp_path, OTHER, SLOW, batch_size=8, protocol=replace(Protocol(), train_steps=3))
    with pytest.raises(UsageError) as caught:
        both(tmp_path)
    assert str(caught.value).endswith("add --across batch --across protocol.")


def test_what_a_backend_says_of_itself_does_not_keep_backends_apart(tmp_path: Path) -> None:
    common = {"matmul_precision": "ieee", "input_pipeline": "pydataset"}
    jax = [timed(s, p, numerics=common | {"execution": "xla"}) for p, s in enumerate(FAST)]
    torch = [
        timed(s, p, cell=TORCH, numerics=common | {"execution": "eager", "mkldnn": "True"})
        for p, s in enumerate(SLOW)
    ]
    write_session(tmp_path, *jax, *torch, session=ONE)
    assert only_row(both(tmp_path, "*/jax/*", "*/torch/*")).verdict == "slower"
    other = [replace(run, numerics=run.numerics | {"matmul_precision": "tf32"}) for run in torch]
    write_session(tmp_path, *jax, *other, session=OTHER)
    with pytest.raises(UsageError, match=r"matmul_precision is 'ieee' and 'tf32'"):
        both(tmp_path, "*/jax/*", "*/torch/*")


# The command


def run_command(results: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["compare", *arguments, "--results", str(results)])


def test_the_command_prints_a_table_json_and_csv_of_the_same_figures(tmp_path: Path) -> None:
    session(tmp_path, ONE, FAST)
    session(tmp_path, OTHER, SLOW)
    printed = run_command(tmp_path, ONE, OTHER)
    assert printed.exit_code == 0
    line = next(line for line in printed.stdout.splitlines() if line.startswith(CELL))
    assert line.split()[1:] == (
        ["10.0", "ms", "10.7", "ms", "1.070", "1.048", "to", "1.092", "slower", "3.9", "%"]
    )
    assert "Geometric mean over 1 cell: 1.070 (99 % interval 1.048 to 1.092)." in printed.stdout
    found = json.loads(run_command(tmp_path, ONE, OTHER, "--format", "json").stdout)
    cell = found["cells"][0]
    assert (cell["cell"], cell["verdict"]) == (CELL, "slower")
    assert (found["alpha"], cell["baseline_processes"]) == (0.01, 4)
    table = run_command(tmp_path, ONE, OTHER, "--format", "csv").stdout
    row = next(csv.DictReader(io.StringIO(table)))
    assert float(row["ratio"]) == pytest.approx(cell["ratio"])
    assert float(row["low"]) == pytest.approx(1.048, abs=1e-3)


def test_the_command_says_what_one_process_is_worth(tmp_path: Path) -> None:
    session(tmp_path, ONE, FAST[:1])
    session(tmp_path, OTHER, SLOW[:1])
    printed = run_command(tmp_path, ONE, OTHER)
    assert "no verdict: one process" in printed.stdout
    assert "measure with --replicates 5 or more" in printed.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            [ONE, OTHER, "--metric", "speed"],
            "Unknown metric 'speed'. Known metrics: step_time_s, throughput_examples_per_s,",
        ),
        (
            [ONE, OTHER, "--across", "colour"],
            "Unknown key 'colour' in '--across'. Known keys: version, precision, batch, machine, "
            "protocol, numerics, energy.",
        ),
        (["*/jax/*", "*/torch/*"], "No result matches '*/torch/*'."),
        ([ONE, "20200101T000000Z-abc1234"], "20200101T000000Z-abc1234"),
        ([ONE, OTHER, "--metric", "infer_latency_s"], "The baseline has 4 runs, but none that is "),
        ([ONE, "20261126T101530Z-abc1234"], "The two sides have no cell in common."),
    ],
)
def test_a_mistake_in_the_call_is_one_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    session(tmp_path, ONE, FAST)
    session(tmp_path, OTHER, SLOW)
    session(tmp_path, "20261126T101530Z-abc1234", SLOW, cell=CELL.replace("smoke", "standard"))
    found = run_command(tmp_path, *arguments)
    assert isinstance(found.exception, EpochmarkError)
    assert found.exception.exit_status == 2
    assert sentence in str(found.exception)
    assert "\n" not in str(found.exception)


@pytest.mark.parametrize(("higher", "verdict"), [(True, "worse"), (False, "better")])
def test_a_quality_is_better_as_the_workload_has_it(
    tmp_path: Path, higher: bool, verdict: str
) -> None:
    """The contender's is the smaller one: of an accuracy that is worse, of an error better."""
    for name, level in ((ONE, 6.9), (OTHER, 5.5)):
        runs = [trained(place, level * (1 + 0.001 * place), higher) for place in range(4)]
        write_session(tmp_path, *runs, session=name)
    found = both(tmp_path, metric="quality")
    assert only_row(found).verdict == verdict
    assert found.mean is not None


def test_accuracies_and_errors_have_no_mean_together(tmp_path: Path) -> None:
    other = CELL.replace("recommender", "lstm_eta")
    for name, level in ((ONE, 0.6), (OTHER, 0.5)):
        figures = [level * (1 + 0.001 * place) for place in range(4)]
        runs = [trained(place, figure, True) for place, figure in enumerate(figures)]
        runs += [trained(place, figure, False, cell=other) for place, figure in enumerate(figures)]
        write_session(tmp_path, *runs, session=name)
    found = both(tmp_path, metric="quality")
    assert {row.verdict for row in found.rows} == {"better", "worse"}
    assert found.mean is None


def trained(replicate: int, quality: float, higher: bool, cell: str = CELL) -> Run:
    run = timed(0.01, replicate, cell=cell)
    epochs = tuple(
        replace(epoch, quality={run.quality_metric: quality}) for epoch in run.samples.epochs
    )
    samples = replace(run.samples, epochs=epochs)
    return replace(run, samples=samples, higher_is_better=higher)


def test_a_commit_is_that_of_an_unchanged_tree(tmp_path: Path) -> None:
    session(tmp_path, ONE, FAST, suite_commit="abc1234def56")
    session(tmp_path, OTHER, SLOW, suite_commit="abc1234def56+")
    assert set(side(tmp_path, "abc1234").frame["session"]) == {ONE}
    session(tmp_path, "20261124T101530Z-abc1234", SLOW, suite_commit="fff1234def56+")
    with pytest.raises(UsageError) as raised:
        side(tmp_path, "fff1234")
    assert str(raised.value) == (
        "No result was measured at commit 'fff1234'. The results have 'fff1234def56+', with "
        "changes."
    )
