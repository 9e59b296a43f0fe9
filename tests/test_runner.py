"""Sessions with a stand-in for the worker: order, resuming, rows without a process, the command."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import pytest

from harness import child, cli, data, run_command, runner, tpu, venvs
from harness import support as support_module
from harness.absence import Absence
from harness.cells import Cell, parse_cell
from harness.child import Ended
from harness.errors import DataError, ResultsError, UsageError
from harness.peak import documented
from harness.plans import planned
from harness.probes import CpuReading, contention
from harness.registry import workload, workloads
from harness.runner import Planned, Progress, order
from harness.schema import Block, Contention, Epoch, Gate, Memory, Protocol, Report, Samples
from harness.stages import Job
from harness.store import SessionWriter, read_file
from harness.support import Support
from harness.workload import Workload
from tests.records import ACCELERATOR, ENVIRONMENT, PRICE, make_run, write_session

RESULTS = Path("results")
JAX = "bert/smoke/train/jax/float32/functional/cpu"
TORCH = "bert/smoke/train/torch/float32/functional/cpu"


def cell(text: str) -> Cell:
    return parse_cell(text, list(workloads()))


REPORT = Report(
    status="ok",
    reason="",
    batch_size=32,
    environment=ENVIRONMENT,
    numerics={"execution": "a stand-in"},
    stages={"start": 2.0},
    samples=Samples(
        first_step_s=1.0,
        steady=(Block(10, 0.1),),
        epochs=(Epoch(30, 1.5, 0.25, 0.5, {"accuracy": 0.75}),),
    ),
    memory=Memory(host_peak_bytes=2**30),
    gate=Gate(outcome="passed"),
    data=None,
)


@dataclass
class Worker:
    """In place of `run_worker`: answers for each cell, and Ctrl-C before the run of a number."""

    jobs: list[Job] = field(default_factory=list)
    interrupt_at: int = -1
    answers: dict[str, Ended] = field(default_factory=dict)

    def __call__(
        self,
        job: Job,
        *,
        on_mark: Callable[[str], None] = lambda mark: None,
    ) -> Ended:
        if len(self.jobs) == self.interrupt_at:
            self.interrupt_at = -1
            raise KeyboardInterrupt
        self.jobs.append(job)
        return self.answers.get(job.cell.id, Ended(REPORT, "ok", "", "", 1.0))


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, a machine with all packages and no accelerator, and no data to fetch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_MACHINE", "laptop")
    monkeypatch.setattr(support_module, "absence", lambda: Absence("none", "buy one"))
    monkeypatch.setattr(tpu, "absence", lambda: Absence("none", "buy one"))
    monkeypatch.setattr(support_module, "_installed", lambda module: True)
    monkeypatch.setattr(venvs, "chosen", lambda cell: None)
    monkeypatch.setattr(data, "fetch", lambda workload, scale, **_: None)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    stand_in = Worker()
    monkeypatch.setattr(child, "run_worker", stand_in)
    return stand_in


# The order of runs


def test_each_round_holds_every_cell_once() -> None:
    cells = planned("quick", [])
    runs = order(cells, 5, seed=1)
    assert [run.number for run in runs] == list(range(60))
    for start in range(0, 60, 12):
        turn = runs[start : start + 12]
        assert {run.replicate for run in turn} == {start // 12}
        assert Counter(run.cell for run in turn) == Counter(cells)


def test_rounds_are_shuffled_each_in_its_own_way() -> None:
    cells = planned("quick", [])
    runs = [run.cell for run in order(cells, 5, seed=1)]
    rounds = [tuple(runs[start : start + 12]) for start in range(0, 60, 12)]
    assert len(set(rounds)) == 5
    assert tuple(cells) not in rounds


def test_the_order_follows_from_the_seed_alone() -> None:
    cells = planned("quick", [])
    assert order(cells, 3, seed=7) == order(cells, 3, seed=7)
    assert order(cells, 3, seed=7) != order(cells, 3, seed=8)
    assert order(cells, 3, seed=7)[:24] == order(cells, 2, seed=7), "more replicates come behind"
    assert order([cell(JAX)], 2, seed=1) == [Planned(0, cell(JAX), 0), Planned(1, cell(JAX), 1)]


# Sessions


def new(cells: Sequence[str], replicates: int = 1, seed: int = 1) -> Path:
    """A session of these cells, run; returns its file."""
    session = runner.new_session(
        [cell(text) for text in cells],
        plan="",
        only=(),
        replicates=replicates,
        order_seed=seed,
        protocol=Protocol(),
    )
    return runner.run_session(
        session, RESULTS, extras=runner.Extras(), listener=lambda progress: None
    )


def test_a_run_is_recorded_with_what_its_worker_measured(worker: Worker) -> None:
    (run,) = read_file(new([JAX])).runs
    assert (run.cell, run.status, run.reason, run.batch_size) == (JAX, "ok", "", 32)
    assert (run.samples, run.memory, run.gate) == (REPORT.samples, REPORT.memory, REPORT.gate)
    assert (run.numerics, run.stages) == (REPORT.numerics, REPORT.stages)
    assert (run.environment, run.data) == (ENVIRONMENT, None)
    assert run.metrics["step_time_s"] == pytest.approx(0.01)
    assert run.metrics["throughput_examples_per_s"] == pytest.approx(3200)
    assert run.metrics["quality"] == 0.75
    assert "cost_per_epoch_usd" not in run.metrics
    assert run.replay == f"epochmark run --only {JAX}"
    assert run.workload_version == workload("bert").version
    assert run.quality_metric == "accuracy"


def test_a_baseline_on_the_data_at_hand_becomes_the_target_of_the_record(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPOCHMARK_DATA", "data")
    full = JAX.replace("bert/smoke", "lstm_eta/full")
    epochs = tuple(
        Epoch(30, 1.5, 0.25, 0.5, {"mae_minutes": mae, "distance_mae_minutes": 4.0})
        for mae in (4.5, 3.5)
    )
    report = replace(REPORT, samples=replace(REPORT.samples, epochs=epochs))
    worker.answers[full] = Ended(report, "ok", "", "", 1.0)
    ran, *others = read_file(new([full, JAX, full.replace("train", "infer")])).runs
    by_cell = {run.cell: run for run in (ran, *others)}
    assert by_cell[full].quality_target == 4.0
    assert by_cell[full].metrics["time_to_quality_s"] == 2 * (1.5 + 0.25)
    assert by_cell[JAX].quality_target is None


def test_replicates_have_seeds_of_their_own_and_the_same_ones_in_every_cell(
    worker: Worker,
) -> None:
    runs = read_file(new([JAX, TORCH], replicates=3)).runs
    for replicate in range(3):
        seeds = {run.seed for run in runs if run.replicate == replicate}
        assert seeds == {runner.BASE_SEED + replicate}
    assert [job.seed for job in worker.jobs] == [run.seed for run in runs]


def test_every_run_is_in_the_file_before_the_next_one_starts(worker: Worker) -> None:
    counted = []

    def listen(progress: Progress) -> None:
        (path,) = RESULTS.glob("runs/laptop/*.jsonl")
        counted.append((progress.run is None, len(read_file(path).runs)))

    session = runner.new_session(
        [cell(JAX), cell(TORCH)],
        plan="", only=(), replicates=1, order_seed=1, protocol=Protocol(),
    )  # fmt: skip
    runner.run_session(session, RESULTS, extras=runner.Extras(), listener=listen)
    assert counted == [(True, 0), (False, 1), (True, 1), (False, 2)]


def test_a_failed_worker_is_a_row_and_the_plan_goes_on(worker: Worker) -> None:
    reason = "not done after 3 s, in /some/folder/y.py"
    worker.answers[JAX] = Ended(None, "timeout", reason, "tail", 9.0)
    runs = {run.cell: run for run in read_file(new([JAX, TORCH])).runs}
    failed = runs[JAX]
    assert (failed.status, failed.log_tail) == ("timeout", "tail")
    assert failed.reason == "not done after 3 s, in y.py", "a record names no folder"
    assert (failed.metrics, failed.samples, failed.stages) == ({}, Samples(), {})
    assert failed.batch_size == workload("bert").scales["smoke"].batch_size
    assert runs[TORCH].status == "ok"


def test_a_cell_that_cannot_run_gets_its_row_without_a_process(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EPOCHMARK_DATA", raising=False)
    reasons = {
        "bert/smoke/train/jax/float32/functional/gpu": (
            "unavailable",
            "no CUDA device: none; buy one",
        ),
        "bert/smoke/train/jax/float32/functional/tpu": ("unavailable", "no TPU: none; buy one"),
        "bert/smoke/train/jax/tensorfloat32/functional/cpu": (
            "unsupported",
            "TensorFloat-32, a mode of NVIDIA GPUs",
        ),
        "bert/full/infer/torch/float32/functional/cpu": (
            "unavailable",
            "no EPOCHMARK_DATA, the folder of data that only its owner has",
        ),
    }
    runs = read_file(new(list(reasons))).runs
    assert {run.cell: (run.status, run.reason) for run in runs} == reasons
    assert worker.jobs == []
    for run in runs:
        assert (run.metrics, run.samples, run.stages, run.log_tail) == ({}, Samples(), {}, "")
        declared = workload("bert").scales[run.cell.split("/")[1]]
        assert run.batch_size == declared.batch_size


def test_a_session_says_what_it_was_asked_for_before_anything_runs(worker: Worker) -> None:
    worker.interrupt_at = 0
    with pytest.raises(KeyboardInterrupt):
        new([JAX, TORCH], replicates=2, seed=5)
    (path,) = RESULTS.glob("runs/laptop/*.jsonl")
    stored = read_file(path)
    assert stored.runs == ()
    session = stored.session
    assert (session.cells, session.replicates, session.order_seed) == ((JAX, TORCH), 2, 5)
    assert session.environment.machine == "laptop"
    assert session.protocol == Protocol()


def test_two_sessions_have_two_names() -> None:
    def one() -> str:
        return runner.new_session(
            [], plan="", only=(), replicates=1, order_seed=1, protocol=Protocol()
        ).session

    assert one() != one()


# Data


def test_data_is_fetched_once_for_what_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []
    monkeypatch.setattr(data, "fetch", lambda w, scale, log: fetched.append((w.name, scale)))
    cells = [*planned("quick", []), cell("bert/full/train/jax/float32/functional/cpu")]
    runner.prepare_data([*cells, *cells], lambda text: None)
    assert fetched == [(name, "smoke") for name in ("bert", "lstm_eta", "recommender", "resnet50")]


def test_data_that_cannot_be_had_is_told_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched = []

    def fetch(declared: object, scale: str, log: object) -> None:
        fetched.append(scale)
        raise DataError(f"No source, {len(fetched)}.")

    monkeypatch.setattr(data, "fetch", fetch)
    said: list[str] = []
    runner.prepare_data(planned("quick", ["bert/*", "resnet50/*"]), said.append)
    assert said == ["No source, 1.", "No source, 2."]


# Ctrl-C and resuming


def interrupted(worker: Worker, at: int, cells: Sequence[str], replicates: int = 1) -> Path:
    worker.interrupt_at = at
    with pytest.raises(KeyboardInterrupt):
        new(cells, replicates)
    (path,) = RESULTS.glob("runs/laptop/*.jsonl")
    return path


def resume(name: str | None = None) -> Path:
    return runner.resume(
        RESULTS, name, extras=runner.Extras(), listener=lambda progress: None, say=lambda text: None
    )


@pytest.mark.parametrize("at", range(6))
def test_resuming_does_exactly_the_rest(worker: Worker, at: int) -> None:
    """Two cells three times, interrupted before each of the six runs."""
    path = interrupted(worker, at, [JAX, TORCH], 3)
    first = read_file(path).runs
    assert len(first) == at
    assert resume() == path
    runs = read_file(path).runs
    assert runs[:at] == first, "finished runs are kept as they are"
    session = read_file(path).session
    wanted = order([cell(JAX), cell(TORCH)], 3, session.order_seed)
    assert [(run.run, run.cell, run.replicate) for run in runs] == [
        (f"{session.session}-{p.number:04d}", p.cell.id, p.replicate) for p in wanted
    ]
    assert len(worker.jobs) == 6, "nothing was measured twice"


def test_a_session_can_be_interrupted_again_and_again(worker: Worker) -> None:
    path = interrupted(worker, 1, [JAX, TORCH], 2)
    for at in (2, 3):
        worker.interrupt_at = at
        with pytest.raises(KeyboardInterrupt):
            resume()
    resume()
    assert len({run.run for run in read_file(path).runs}) == len(worker.jobs) == 4


def test_a_run_that_was_cut_off_in_the_file_is_done_again(worker: Worker) -> None:
    path = interrupted(worker, 3, [JAX, TORCH], 2)
    path.write_bytes(path.read_bytes()[:-20])
    said: list[str] = []
    runner.resume(
        RESULTS, None, extras=runner.Extras(), listener=lambda progress: None, say=said.append
    )
    assert len(said) == 1
    assert "the cut-off last line" in said[0]
    assert len({run.run for run in read_file(path).runs}) == 4
    assert read_file(path).notices == ()


def test_the_newest_unfinished_session_of_this_machine_is_resumed(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfinished(session: str, day: int, machine: str = "laptop") -> Path:
        return write_session(
            RESULTS,
            session=session,
            started_at=f"2026-11-{day:02d}T00:00:00Z",
            cells=(JAX,),
            environment=replace(ENVIRONMENT, machine=machine),
        )

    older, newer = unfinished("older", 1), unfinished("newer", 2)
    finished = write_session(
        RESULTS, make_run(cell=JAX), session="full", started_at="2026-11-03T00:00:00Z", cells=(JAX,)
    )
    foreign = unfinished("foreign", 4, machine="another")
    before = [finished.read_bytes(), foreign.read_bytes()]
    assert resume() == newer
    assert resume() == older, "the newer one is finished now"
    with pytest.raises(UsageError) as caught:
        resume()
    assert str(caught.value) == "There is no unfinished session in 'results' to resume."
    assert [finished.read_bytes(), foreign.read_bytes()] == before
    monkeypatch.setenv("EPOCHMARK_MACHINE", "another")
    assert resume("foreign") == foreign


def test_a_session_is_resumed_by_its_name(worker: Worker) -> None:
    wanted = write_session(RESULTS, session="one", cells=(JAX,))
    write_session(RESULTS, session="two", cells=(JAX,))
    assert resume("one") == wanted


def test_a_file_that_cannot_be_read_does_not_keep_others_from_being_resumed(
    worker: Worker,
) -> None:
    path = write_session(RESULTS, session="one", cells=(JAX,))
    path.with_name("20991231T000000Z-torn.jsonl").write_text("no header\n")
    said: list[str] = []
    found = runner.resume(
        RESULTS, None, extras=runner.Extras(), listener=lambda progress: None, say=said.append
    )
    assert found == path
    assert len(said) == 1
    assert said[0].startswith(
        "results/runs/laptop/20991231T000000Z-torn.jsonl does not start with a session's header"
    )


def test_a_session_that_still_runs_is_not_resumed(worker: Worker) -> None:
    path = write_session(RESULTS, session="one", cells=(JAX,))
    with SessionWriter.resume(path), pytest.raises(ResultsError, match="is being written by"):
        resume()


# Contention


def reading(
    busy: float, total: float, *, pressure: int | None = None, load: float = 0.0
) -> CpuReading:
    return CpuReading(busy_s=busy, total_s=total, pressure_us=pressure, load_1m=load)


@pytest.mark.parametrize(
    ("busy", "own", "share", "contended"),
    [
        (25.0, 25.0, 0.0, False),
        (35.0, 25.0, 0.1, False),
        (36.0, 25.0, 0.11, True),
        (100.0, 0.0, 1.0, True),
        (20.0, 25.0, 0.0, False),  # clocks of different grain: never a negative share
    ],
)
def test_others_cpu_time_above_a_tenth_marks_a_run(
    busy: float, own: float, share: float, contended: bool
) -> None:
    found = contention(reading(50, 1000, load=1.5), reading(50 + busy, 1100, load=2.5), own)
    assert found.others_cpu_share == pytest.approx(share)
    assert found.contended == contended
    assert (found.load_1m_before, found.load_1m_after) == (1.5, 2.5)
    assert found.cpu_pressure_share is None


def test_without_time_between_the_readings_nothing_is_known() -> None:
    found = contention(reading(1, 2, pressure=3), reading(1, 2, pressure=3), 0.0)
    assert (found.others_cpu_share, found.cpu_pressure_share) == (None, None)
    assert not found.contended


def test_pressure_is_a_share_of_the_wall_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds of CPU time on two processors are five of wall time, half of them waiting."""
    monkeypatch.setattr("harness.probes.psutil.cpu_count", lambda: 2)
    found = contention(reading(0, 0, pressure=1_000_000), reading(0, 10, pressure=3_500_000), 0.0)
    assert found.cpu_pressure_share == pytest.approx(0.5)


@pytest.mark.parametrize(("busy", "contended"), [(21.0, False), (51.0, True)])
def test_a_contended_run_is_marked_in_its_row_and_line(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, busy: float, contended: bool
) -> None:
    """The readings stand around the worker, and the worker's own time is taken off."""
    readings = iter([reading(0, 0), reading(busy, 100)])
    monkeypatch.setattr(CpuReading, "take", lambda: next(readings))
    worker.answers[JAX] = Ended(REPORT, "ok", "", "", cpu_s=20.0)
    (run,) = read_file(new([JAX])).runs
    assert run.contention.contended == contended
    assert run_command.outcome(run).endswith(" (contended)") == contended


# Lines of progress


def test_the_line_before_a_run_says_what_starts_and_how_long_is_left() -> None:
    assert run_command.line(Progress(1, 12, cell(JAX), None, None)) == f"[  1/12] {JAX} ..."
    assert run_command.line(Progress(2, 12, cell(JAX), None, 61.4)) == (
        f"[  2/12] {JAX} ..., about 61 s left"
    )
    assert run_command.line(Progress(100, 288, cell(JAX), None, 300.0)) == (
        f"[100/288] {JAX} ..., about 5 min left"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (89.4, "89 s"), (90.0, "2 min"), (3600.0, "60 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert run_command.duration(seconds) == text


def test_the_line_after_a_run_has_its_main_figures_or_its_reason(worker: Worker) -> None:
    worker.answers[TORCH] = Ended(None, "oom", "killed", "", 0.0)
    runs = {run.cell: run for run in read_file(new([JAX, TORCH])).runs}

    def line(text: str) -> str:
        run = replace(runs[text], contention=Contention())
        return run_command.line(Progress(1, 2, cell(text), run, None))

    assert line(JAX) == "[  1/2]     ok, step time 10.0 ms, epoch time 1.50 s, quality 75.0 %"
    assert line(TORCH) == "[  1/2]     oom: killed"


def test_time_left_counts_only_runs_that_will_be_measured(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten seconds a run by a stand-in clock; rows without a process take none."""
    monkeypatch.setattr(runner, "now", lambda: 10.0 * len(worker.jobs))
    gpu = "bert/smoke/train/jax/float32/functional/gpu"
    lefts: list[tuple[str, float | None]] = []

    def listen(progress: Progress) -> None:
        if progress.run is None:
            lefts.append((progress.cell.device, progress.left_s))

    session = runner.new_session(
        [cell(JAX), cell(TORCH), cell(gpu)],
        plan="", only=(), replicates=2, order_seed=1, protocol=Protocol(),
    )  # fmt: skip
    runner.run_session(session, RESULTS, extras=runner.Extras(), listener=listen)
    measured, expected = 0, []
    for run in order([cell(JAX), cell(TORCH), cell(gpu)], 2, 1):
        expected.append((run.cell.device, 10.0 * (4 - measured) if measured else None))
        measured += run.cell.device == "cpu"
    assert lefts == expected


# The command


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


@pytest.fixture
def epochmark(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """The command as its entry point runs it, in this process."""

    def call(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["epochmark", *arguments])
        status: object = 0
        try:
            cli.main()
        except SystemExit as ended:
            status = ended.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert isinstance(status, int)
        return Said(status, out, err)

    return call


Epochmark = Callable[..., Said]


def test_a_plan_is_run_and_told_line_by_line(worker: Worker, epochmark: Epochmark) -> None:
    said = epochmark("run", "--only", JAX, "--replicates", "2")
    (path,) = RESULTS.glob("runs/laptop/*.jsonl")
    session = read_file(path).session
    lines = [line.removesuffix(" (contended)") for line in said.out.splitlines()]
    assert (said.status, said.err) == (0, "")
    assert lines[0] == f"[  1/2] {JAX} ..."
    assert lines[1] == "[  1/2]     ok, step time 10.0 ms, epoch time 1.50 s, quality 75.0 %"
    assert lines[2].startswith(f"[  2/2] {JAX} ..., about ")
    assert "examples/s" in said.out
    assert lines[-2:] == [
        f"2 runs: 2 ok. Results: {path}",
        f"See the table again with `epochmark show {session.session}`.",
    ]
    assert (session.plan, session.only, session.replicates) == ("", (JAX,), 2)


def test_the_arguments_reach_the_session(worker: Worker, epochmark: Epochmark) -> None:
    said = epochmark(
        "run", "--plan", "quick", "--only", "*/jax/*", "--only", "*/torch/*",
        "--order-seed", "9", "--timeout", "77", "--results", "elsewhere/mine",
    )  # fmt: skip
    assert said.status == 0
    (path,) = Path("elsewhere/mine").glob("runs/laptop/*.jsonl")
    session = read_file(path).session
    assert (session.plan, session.only, session.order_seed) == (
        "quick",
        ("*/jax/*", "*/torch/*"),
        9,
    )
    assert session.protocol == replace(Protocol(), timeout_s=77.0)
    assert len(session.cells) == len(worker.jobs) == 8
    assert {job.protocol.timeout_s for job in worker.jobs} == {77.0}


@pytest.mark.parametrize(("given", "limit_s"), [((), 21_600.0), (("--timeout", "3600"), 3600.0)])
def test_the_standard_cells_have_time_enough_unless_a_limit_is_given(
    worker: Worker, epochmark: Epochmark, given: Sequence[str], limit_s: float
) -> None:
    """They take up to 970 s for eight steps on two cores; each record says its own limit."""
    said = epochmark(
        "run", "--only", "*/standard/train/*/float32/functional/cpu", "--only", JAX,
        "--steps", "4", *given,
    )  # fmt: skip
    assert said.status == 0
    (path,) = Path("results").glob("runs/laptop/*.jsonl")
    stored = read_file(path)
    assert stored.session.protocol.timeout_s == (limit_s if given else 0.0)
    assert len(stored.runs) == 13
    for run, job in zip(stored.runs, worker.jobs, strict=True):
        expected = limit_s if given or "/standard/" in run.cell else 300.0
        assert run.protocol.timeout_s == job.protocol.timeout_s == expected


def test_failures_are_counted_and_only_strict_minds(worker: Worker, epochmark: Epochmark) -> None:
    worker.answers[TORCH] = Ended(None, "oom", "killed", "", 0.0)
    arguments = ("run", "--only", JAX, "--only", TORCH)
    said = epochmark(*arguments)
    assert (said.status, said.out.splitlines()[-2].split(". ")[0]) == (0, "2 runs: 1 ok, 1 oom")
    assert epochmark(*arguments, "--strict").status == 1
    assert epochmark("run", "--only", JAX, "--strict").status == 0


def test_a_row_without_a_process_is_told_like_any_other(
    worker: Worker, epochmark: Epochmark
) -> None:
    gpu = "bert/smoke/train/jax/float32/functional/gpu"
    said = epochmark("run", "--only", gpu)
    assert said.status == 0
    assert said.out.splitlines()[:2] == [
        f"[  1/1] {gpu} ...",
        "[  1/1]     unavailable: no CUDA device: none; buy one",
    ]
    assert "1 runs: 1 unavailable. Results: " in said.out


def test_ctrl_c_and_resume(worker: Worker, epochmark: Epochmark) -> None:
    worker.interrupt_at = 1
    said = epochmark("run", "--only", JAX, "--only", TORCH)
    assert (said.status, said.err) == (1, "")
    assert said.out.splitlines()[-1] == (
        "Interrupted. Finished runs are kept; go on with `epochmark run --resume`."
    )
    again = epochmark("run", "--resume")
    assert again.status == 0
    assert [line[:8] for line in again.out.splitlines()[:2]] == ["[  2/2] ", "[  2/2] "]
    assert "1 runs: 1 ok. Results: " in again.out
    assert len(worker.jobs) == 2
    third = epochmark("run", "--resume")
    assert (third.status, third.out) == (2, "")
    assert third.err == "Error: There is no unfinished session in 'results' to resume.\n"


def test_a_price_is_recorded_with_each_run(
    worker: Worker, epochmark: Epochmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_command, "find_price", lambda name, book: PRICE)
    assert epochmark("run", "--only", JAX, "--price", PRICE.id).status == 0
    (path,) = RESULTS.glob("runs/laptop/*.jsonl")
    (run,) = read_file(path).runs
    assert run.price == PRICE
    assert run.metrics["cost_per_epoch_usd"] == pytest.approx(1.5 * PRICE.usd_per_hour / 3600)


# A step budget and published weights


def test_a_step_budget_is_the_protocols_and_stands_in_the_replay_command(
    worker: Worker, epochmark: Epochmark
) -> None:
    assert epochmark("run", "--only", JAX, "--steps", "5").status == 0
    (path,) = RESULTS.glob("runs/laptop/*.jsonl")
    (run,) = read_file(path).runs
    assert run.protocol.train_steps == worker.jobs[0].protocol.train_steps == 5
    assert run.replay == f"epochmark run --only {JAX} --steps 5"


def test_a_run_may_end_after_the_gate_and_then_says_what_that_found(
    worker: Worker, epochmark: Epochmark
) -> None:
    judged = Gate("passed", deviation={"gradient_norm": 2e-4}, tolerance={"gradient_norm": 1e-3})
    report = replace(REPORT, samples=Samples(first_step_s=1.0), gate=judged)
    worker.answers[JAX] = Ended(report, "ok", "", "", 0.0)
    said = epochmark("run", "--only", JAX, "--gate-only")
    (path,) = RESULTS.glob("runs/laptop/*.jsonl")
    (run,) = read_file(path).runs
    assert run.protocol == worker.jobs[0].protocol
    assert replace(run.protocol, timeout_s=0.0) == Protocol(stop_after="gate")
    assert run.replay == f"epochmark run --only {JAX} --gate-only"
    line = said.out.splitlines()[1].removesuffix(" (contended)")
    assert line == "[  1/1]     ok, off the reference by gradient norm 2.0e-04 of 1.0e-03"
    assert "= The run was to end after the equality gate (`--gate-only`)" in said.out


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of weights that every workload with a checkpoint module accepts."""
    monkeypatch.setattr(Workload, "published", lambda self, path, scale: {})
    Path("w.safetensors").write_bytes(b"weights")
    return Path("w.safetensors")


WEIGHTS_DIGEST = sha256(b"weights").hexdigest()[:16]


def test_weights_go_to_the_worker_and_only_their_digest_into_the_record(
    worker: Worker, epochmark: Epochmark, weights: Path
) -> None:
    assert epochmark("run", "--only", JAX, "--weights", str(weights)).status == 0
    (path,) = RESULTS.glob("runs/laptop/*.jsonl")
    (run,) = read_file(path).runs
    assert worker.jobs[0].weights == str(weights.absolute())
    assert run.protocol.weights_digest == WEIGHTS_DIGEST
    assert run.replay == f"epochmark run --only {JAX} --weights FILE"
    assert "w.safetensors" not in path.read_text()


def test_a_session_is_resumed_with_the_weights_it_began_with(
    worker: Worker, epochmark: Epochmark, weights: Path
) -> None:
    worker.interrupt_at = 0
    assert epochmark("run", "--only", JAX, "--weights", str(weights)).status == 1
    (path,) = RESULTS.glob("runs/laptop/*.jsonl")
    session = read_file(path).session.session
    said = epochmark("run", "--resume")
    assert (said.status, worker.jobs) == (2, [])
    assert said.err == (
        f"Error: Session {session!r} began with the --weights file with SHA-256 {WEIGHTS_DIGEST}. "
        "Resume it with that.\n"
    )
    assert epochmark("run", "--resume", "--weights", str(weights)).status == 0
    assert worker.jobs[0].weights == str(weights.absolute())


MISTAKES = [
    (
        ["run", "--only", JAX, "--weights", "nowhere"],
        "There is no file 'nowhere' to read weights from.",
    ),
    (
        ["run", "--only", "lstm_eta/smoke/train/*/cpu", "--weights", "taken"],
        "Workload 'lstm_eta' reads no published weights; these do: bert.",
    ),
    (
        ["run", "--resume", "--steps", "3"],
        "--resume goes on with its session's own protocol; leave out --steps.",
    ),
    (
        ["run", "--resume", "--gate-only"],
        "--resume goes on with its session's own protocol; leave out --gate-only.",
    ),
    (
        ["run", "--only", JAX, "--gate-only", "--steps", "3"],
        "--gate-only trains nothing; leave out --steps.",
    ),
    (
        ["run", "--only", JAX, "--gate-only", "--weights", "taken"],
        "--gate-only trains nothing; leave out --weights.",
    ),
    (["run"], "Nothing to run. Name a plan with --plan quick, or cells with --only GLOB."),
    (
        ["run", "--plan", "fast"],
        "Unknown plan 'fast'. Known plans: quick, smoke, standard, nightly.",
    ),
    (
        ["run", "--only", JAX.replace("jax", "jaxx")],
        "Unknown backend 'jaxx' in 'bert/smoke/train/jaxx/float32/functional/cpu'. "
        "Known backends: jax, tensorflow, torch.",
    ),
    (
        ["run", "--plan", "quick", "--only", "*/jaxx/*"],
        "Unknown name 'jaxx' in '*/jaxx/*'. `epochmark list` shows every cell id.",
    ),
    (
        ["run", "--plan", "quick", "--price", "nowhere:big"],
        "Unknown price 'nowhere:big'. `epochmark prices` lists the known ids.",
    ),
    (
        ["run", "--plan", "quick", "--results", "taken/results"],
        "The results folder 'taken/results' cannot be written: Not a directory. "
        "Name another with --results.",
    ),
    (
        ["run", "--resume"],
        "There are no results in 'results'. Measure some with `epochmark run --plan quick`.",
    ),
    (
        ["run", "--resume", "--session", "x"],
        "Unknown results file or session 'x' in 'results'.",
    ),
    (
        ["run", "--resume", "--plan", "quick"],
        "--resume goes on with its session's own cells; leave out --plan, --only.",
    ),
    (
        ["run", "--resume", "--only", "*"],
        "--resume goes on with its session's own cells; leave out --plan, --only.",
    ),
    (
        ["run", "--plan", "quick", "--session", "x"],
        "--session names what to go on with; add --resume.",
    ),
    (
        ["list", "--plan", "fast"],
        "Unknown plan 'fast'. Known plans: quick, smoke, standard, nightly.",
    ),
    (
        ["reference", "bart"],
        "Unknown workload 'bart'. Known workloads: bert, lstm_eta, recommender, resnet50.",
    ),
    (
        ["data", "fetch", "bart"],
        "Unknown workload 'bart'. Known workloads: bert, lstm_eta, recommender, resnet50.",
    ),
]


@pytest.mark.parametrize(("arguments", "sentence"), MISTAKES, ids=lambda value: str(value)[:60])
def test_a_mistake_in_the_call_is_one_sentence(
    worker: Worker, epochmark: Epochmark, arguments: list[str], sentence: str
) -> None:
    """Status 2, nothing measured, no results file."""
    Path("taken").write_text("a file, not a folder")
    said = epochmark(*arguments)
    assert (said.status, said.out, said.err) == (2, "", f"Error: {sentence}\n")
    assert worker.jobs == []
    assert list(RESULTS.rglob("*.jsonl")) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--plan", "quick", "--replicates", "0"],
        ["run", "--plan", "quick", "--timeout", "0"],
        ["run", "--plan", "quick", "--steps", "0"],
        ["run", "--plan", "quick", "--nonsense"],
        ["measure"],
    ],
)
def test_a_wrong_option_has_status_2(
    worker: Worker, epochmark: Epochmark, arguments: list[str]
) -> None:
    said = epochmark(*arguments)
    assert said.status == 2
    assert said.err
    assert worker.jobs == []


def test_a_mistake_leaves_no_folder_behind(worker: Worker, epochmark: Epochmark) -> None:
    assert epochmark("run", "--plan", "fast").status == 2
    assert epochmark("run", "--resume").status == 2
    assert not RESULTS.exists()


def test_in_a_process_of_its_own_a_mistake_ends_with_status_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "run", "--plan", "fast"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: Unknown plan 'fast'. Known plans: quick, smoke, standard, nightly.\n"
    )


# What a record may say of this machine


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("in /a/b/c.py, line 3", "in c.py, line 3"),
        ('File "/usr/lib/python3.11/x.py"', 'File "x.py"'),
        ("bert/smoke/train", "bert/smoke/train"),
        ("1/2 and 3 / 4", "1/2 and 3 / 4"),
        ("no path", "no path"),
        ("/a/b/", ""),
    ],
)
def test_absolute_paths_are_cut_to_the_files_name(text: str, kept: str) -> None:
    assert child.without_paths(text) == kept


def test_the_home_folder_is_cut_whatever_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/people/ann")
    assert child.without_paths("see /people/ann/project/x.py and /people/ann/y") == "see x.py and y"


def test_a_machine_without_a_home_folder_keeps_the_slashes_of_a_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Containers often set HOME to the root folder."""
    monkeypatch.setenv("HOME", "/")
    assert child.without_paths("bert/smoke in /a/b/c.py") == "bert/smoke in c.py"


@pytest.mark.parametrize(
    ("kind", "name"), [("TPU v5 lite", "TPU v5 lite"), ("TPU v9", None), (None, None)]
)
def test_the_peak_of_a_tpu_is_that_of_the_one_that_the_worker_held(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, kind: str | None, name: str | None
) -> None:
    """Only it can say which; one that nobody has documented has none."""
    monkeypatch.setattr(runner, "support", lambda cell: Support("supported"))
    chosen = replace(cell(JAX), device="tpu", precision="mixed_bfloat16")
    numerics = {"device_kind": kind} if kind else {}
    report = replace(REPORT, numerics=numerics, accelerators=(ACCELERATOR,))
    worker.answers[chosen.id] = Ended(report, "ok", "", "", 1.0)
    session = runner.new_session(
        [chosen], plan="", only=(), replicates=1, order_seed=1, protocol=Protocol()
    )
    run = runner.execute(session, Planned(0, chosen, 0), runner.Extras())
    assert run.peak == (documented(name, "mixed_bfloat16") if name else None)
    assert ("mfu" in run.metrics) == bool(name)
    assert run.accelerators == (ACCELERATOR,)
