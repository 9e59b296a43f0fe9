"""The noise floor, its file, its calibration, and replaying a row within it."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harness import calibrate, child, cli, replay, runner
from harness.ab import Failure, Pair
from harness.cells import Cell
from harness.child import Ended
from harness.drift import write_sessions
from harness.errors import ResultsError, UsageError
from harness.noise import Floor, floor_of, read_floors, write_floors
from harness.probes import CpuReading
from harness.schema import Block, Contention, Protocol, Report, Run, Samples
from harness.stages import Job
from harness.units import formatted
from tests.benchmarks.calibration import GROUP, alarmed
from tests.records import ACCELERATOR, ENVIRONMENT, make_run, write_session
from tests.test_drift import made


def in_pairs(*levels: float) -> tuple[float, ...]:
    """Of two workers each, who share what the machine did."""
    return tuple(level for level in levels for _ in range(2))


FLOOR = Floor("2026-11-23", "abc", (1.0, 1.01, 0.99, 1.02), in_pairs(0.1, 0.11, 0.1, 0.09))


def blocks(*seconds: float, marked: int = 0) -> tuple[Block, ...]:
    return tuple(Block(10, time, disturbed=place < marked) for place, time in enumerate(seconds))


# The calibration


def test_a_real_comparison_has_enough_pairs_to_be_decided() -> None:
    pairs = [0.05, 0.0501, 0.0499, 0.05, 0.0502, 0.0498, 0.05, 0.0501]
    assert alarmed(pairs[:GROUP])
    assert not alarmed(pairs[: GROUP - 1])


# The floor


@pytest.mark.parametrize("shared", [0.0, 0.03, 0.3])
@pytest.mark.parametrize("count", [4, 8, 30])
def test_so_many_further_pairs_stay_below_the_floor(count: int, shared: float) -> None:
    """Pairs that spread by 1 %, processes by 3 %: 99 of 100 further ones differ by less.

    Whatever the two workers of a pair have in common, since they run at the same time.
    """
    random = np.random.default_rng(count)

    def drawn(pairs: int, workers: int) -> NDArray[np.float64]:
        return random.normal(0, shared, (pairs, 1)) + random.normal(0, 0.03, (pairs, workers))

    turns, apart, rounds = 0, 0, 2000
    for _ in range(rounds):
        logs, times = random.normal(0, 0.01, count), drawn(count, 2).ravel()
        floor = Floor("", "", tuple(np.exp(logs)), tuple(np.exp(times)))
        turns += bool(abs(random.normal(0, 0.01)) < math.log1p(floor.in_turns))
        one, other = drawn(2, 1).ravel()
        apart += bool(abs(one - other) < math.log1p(floor.apart))
    assert turns / rounds == pytest.approx(0.99, abs=0.01)
    assert apart / rounds == pytest.approx(0.99, abs=0.01)


def test_a_floor_is_made_of_undisturbed_pairs() -> None:
    good = Pair(blocks(1.0, 2.0, 3.0), blocks(1.1, 2.2, 3.3))
    bad = Pair(blocks(9.0, 9.0, 9.0), blocks(1.0, 1.0, 1.0, marked=1))
    floor = floor_of([good, bad, good], as_of="2026-11-23", suite_commit="abc")
    assert floor.pair_ratios == pytest.approx((1.1, 1.1))
    assert floor.step_times_s == pytest.approx((0.2, 0.22, 0.2, 0.22))


def test_one_pair_or_none_has_no_floor() -> None:
    assert floor_of([], as_of="", suite_commit="").in_turns == math.inf
    one = Pair(blocks(1.0, 2.0, 3.0), blocks(1.1, 2.2, 3.3))
    floor = floor_of([one], as_of="", suite_commit="")
    assert (floor.in_turns, floor.apart, floor.known) == (math.inf, math.inf, False)


# The file


def test_floors_are_kept_by_cell_and_the_newest_counts(tmp_path: Path) -> None:
    newer = replace(FLOOR, as_of="2026-12-01")
    write_floors(tmp_path, "m", {"one": FLOOR, "other": FLOOR})
    path = write_floors(tmp_path, "m", {"one": newer})
    assert path == tmp_path / "noise" / "m.json"
    assert read_floors(tmp_path, "m") == {"one": newer, "other": FLOOR}
    assert read_floors(tmp_path, "another") == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:40],
        lambda text: "[]",
        lambda text: text.replace("1.01", '"fast"'),
        lambda text: text.replace("1.01", "-1.01"),
        lambda text: text.replace("1.01", "NaN"),
        lambda text: text.replace("pair_ratios", "pairs"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, change: Callable[[str], str]) -> None:
    path = write_floors(tmp_path, "m", {"one": FLOOR})
    path.write_text(change(path.read_text()))
    with pytest.raises(ResultsError) as raised:
        read_floors(tmp_path, "m")
    assert str(raised.value) == (
        f"{path} is not a file of noise floors. Delete it, and calibrate again with "
        "`epochmark doctor --calibrate`."
    )


# Calibration


def test_rounds_go_over_all_cells_and_each_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cell fails in the second round: it is told, and the others go on."""
    cells = [
        Cell("bert", "smoke", "train", backend, "float32", "functional", "cpu")
        for backend in ("jax", "torch")
    ]
    met: list[tuple[int, Cell]] = []

    def measure_pair(cell: Cell, *sides: object, number: int, **named: object) -> Pair | Failure:
        met.append((number, cell))
        if number == 2 and cell == cells[1]:
            return Failure("contender", Ended(None, "oom", "no memory", "", 0.0))
        return Pair(blocks(1.0, 2.0, 3.0), blocks(1.1 + number, 2.2, 3.3))

    monkeypatch.setattr(calibrate, "measure_pair", measure_pair)
    monkeypatch.setattr(runner, "prepare_data", lambda cells, log: None)
    monkeypatch.setenv("EPOCHMARK_MACHINE", "m")
    said: list[str] = []
    calibrate.calibrate(cells, 4, tmp_path, said.append)
    one, other = cells
    assert met == [(number, cell) for number in range(3) for cell in cells] + [(3, one)]
    assert f"{other.id}: ended as 'oom': no memory" in said
    floors = read_floors(tmp_path, "m")
    assert [len(floor.pair_ratios) for floor in floors.values()] == [4, 2]
    lines = calibrate.render(floors).splitlines()
    assert lines[0].split()[:2] == ["cell", "pairs"]
    assert lines[1].split()[:2] == [one.id, "4"]


def test_pairs_that_were_all_disturbed_replace_no_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell("bert", "smoke", "train", "jax", "float32", "functional", "cpu")
    disturbed = Pair(blocks(1.0, 2.0, 3.0, marked=3), blocks(1.0, 2.0, 3.0))
    monkeypatch.setattr(calibrate, "measure_pair", lambda *sides, **named: disturbed)
    monkeypatch.setattr(runner, "prepare_data", lambda cells, log: None)
    monkeypatch.setenv("EPOCHMARK_MACHINE", "m")
    write_floors(tmp_path, "m", {cell.id: FLOOR})
    calibrate.calibrate([cell], 2, tmp_path, lambda line: None)
    assert read_floors(tmp_path, "m") == {cell.id: FLOOR}


def test_a_calibration_that_is_ended_ends_as_by_ctrl_c_and_keeps_its_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers go with the pair that they are of, as they do then."""
    cell = Cell("bert", "smoke", "train", "jax", "float32", "functional", "cpu")

    def measure_pair(cell: Cell, *sides: object, number: int, **named: object) -> Pair:
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return Pair(blocks(1.0, 2.0, 3.0), blocks(1.1 + number, 2.2, 3.3))

    monkeypatch.setattr(calibrate, "measure_pair", measure_pair)
    monkeypatch.setattr(runner, "prepare_data", lambda cells, log: None)
    monkeypatch.setenv("EPOCHMARK_MACHINE", "m")
    with pytest.raises(KeyboardInterrupt):
        calibrate.calibrate([cell], 3, tmp_path, lambda line: None)
    assert [len(floor.pair_ratios) for floor in read_floors(tmp_path, "m").values()] == [2]


def test_a_file_of_floors_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends in the middle leaves the older one."""
    path = write_floors(tmp_path, "m", {"a": FLOOR})

    def full(*given: object, **named: object) -> int:
        raise OSError("no space")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space"):
        write_floors(tmp_path, "m", {"b": FLOOR})
    assert list(read_floors(tmp_path, "m")) == ["a"]
    assert path.is_file()


def test_a_floor_of_more_pairs_stays_until_the_last_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is ended early takes nothing away."""
    cell = Cell("bert", "smoke", "train", "jax", "float32", "functional", "cpu")
    seen: list[int] = []

    def measure_pair(cell: Cell, *sides: object, number: int, **named: object) -> Pair:
        seen.append(len(read_floors(tmp_path, "m")[cell.id].pair_ratios))
        return Pair(blocks(1.0, 2.0, 3.0), blocks(1.1 + number, 2.2, 3.3))

    monkeypatch.setattr(calibrate, "measure_pair", measure_pair)
    monkeypatch.setattr(runner, "prepare_data", lambda cells, log: None)
    monkeypatch.setenv("EPOCHMARK_MACHINE", "m")
    write_floors(tmp_path, "m", {cell.id: FLOOR})
    calibrate.calibrate([cell], 3, tmp_path, lambda line: None)
    assert seen == [4, 4, 4]
    assert len(read_floors(tmp_path, "m")[cell.id].pair_ratios) == 3


# Replaying


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Job]]:
    """A stand-in that answers with these step times in turn; returns the jobs it was given.

    The last is that of all later jobs too.
    """
    monkeypatch.setenv("EPOCHMARK_MACHINE", "m")
    monkeypatch.setattr(runner, "prepare_data", lambda cells, log: None)
    monkeypatch.setattr(CpuReading, "take", lambda: CpuReading(0.0, 0.0, None, 0.0))

    def install(*times_s: float, status: str = "ok", **environment: object) -> list[Job]:
        jobs: list[Job] = []

        def run_worker(job: Job, *, on_mark: Callable[[str], None]) -> Ended:
            step_s = times_s[min(len(jobs), len(times_s) - 1)]
            jobs.append(job)
            report = Report(
                status=status,
                reason="" if status == "ok" else "why",
                batch_size=256,
                environment=replace(ENVIRONMENT, machine="m", **environment),  # type: ignore[arg-type]
                numerics={"jit": "on"},
                stages={},
                samples=Samples(steady=(Block(10, 10 * step_s),) * 3) if step_s else Samples(),
                memory=make_run().memory,
                gate=make_run().gate,
                data=make_run().data,
            )
            return Ended(report, status, report.reason, "", 0.0)

        monkeypatch.setattr(child, "run_worker", run_worker)
        return jobs

    return install


def published(results: Path, **changes: object) -> Run:
    given: dict[str, object] = {"protocol": Protocol(timeout_s=300.0), "seed": 2016, **changes}
    run = make_run(samples=Samples(steady=(Block(10, 0.1),) * 3), **given)
    write_session(results, run, session="old")
    return run


TIMES = in_pairs(0.1, 0.102, 0.098, 0.101)


def published_with_floor(results: Path) -> Run:
    """On a machine whose processes of the cell differ by some two percent."""
    run = published(results)
    write_floors(results, "m", {run.cell: replace(FLOOR, step_times_s=TIMES)})
    return run


def replayed(results: Path, name: str = "old:r0001") -> replay.Replay:
    return replay.replay(name, results, weights=None, say=lambda line: None)


@pytest.mark.parametrize(
    ("step_s", "reproduced"), [(0.0100, True), (0.0108, True), (0.0135, False), (0.0070, False)]
)
def test_within_the_floor_is_reproduced(
    tmp_path: Path, worker: Callable[..., list[Job]], step_s: float, reproduced: bool
) -> None:
    run = published_with_floor(tmp_path)
    jobs = worker(step_s)
    found = replayed(tmp_path)
    assert found.reproduced == reproduced
    assert (jobs[0].seed, jobs[0].protocol, jobs[0].cell.id) == (2016, run.protocol, run.cell)
    said = replay.text(found)
    word = "Reproduced" if reproduced else "Not reproduced in 3 attempts; the closest"
    assert f"\n{word}: step_time_s is {formatted('step_time_s', step_s)}, " in said
    assert len(jobs) == (1 if reproduced else 3)


def test_a_machine_that_was_slow_for_a_while_is_tried_again(
    tmp_path: Path, worker: Callable[..., list[Job]]
) -> None:
    """Nothing of the record tells such a while; two failed attempts are told, not believed."""
    published_with_floor(tmp_path)
    jobs = worker(0.0165, 0.0163, 0.0101, 0.0165)
    found = replayed(tmp_path)
    assert [attempt.metrics["step_time_s"] for attempt in found.attempts] == [
        pytest.approx(step_s) for step_s in (0.0165, 0.0163, 0.0101)
    ]
    assert {job.seed for job in jobs} == {2016}
    assert found.reproduced is True
    said = replay.text(found)
    assert "\nReproduced by attempt 3: step_time_s is 10.1 ms, 1.010 times" in said
    assert said.count("\nnow        ") == 3


def test_an_attempt_beside_other_work_is_tried_again_and_does_not_count() -> None:
    times = (0.0100, 0.0100, 0.0112)
    then, loud, quiet = (
        make_run(samples=Samples(steady=(Block(1, step_s),) * 3)) for step_s in times
    )
    loud = replace(loud, contention=Contention(others_cpu_share=0.5, contended=True))
    assert not replay.Replay(then, (loud,), 0.05).settled
    found = replay.Replay(then, (loud, quiet), 0.05)
    assert found.again is quiet
    assert found.reproduced is False


def test_a_throttled_accelerator_gives_no_verdict() -> None:
    then = make_run(samples=Samples(steady=(Block(1, 0.01),) * 3))
    hot = replace(then, accelerators=(replace(ACCELERATOR, throttled=True),))
    for published, new, side in ((then, hot, "new"), (hot, then, "published")):
        found = replay.Replay(published, (new,), 0.05)
        assert found.reproduced is None
        said = replay.text(found)
        assert said.endswith(f", but the {side} run had its accelerator slowed down.")


def test_a_cell_that_could_not_be_tried_gives_no_verdict() -> None:
    then = make_run(samples=Samples(steady=(Block(1, 0.01),) * 3))
    absent = make_run(status="unavailable", reason="the GPU is busy.", samples=Samples())
    found = replay.Replay(then, (absent,), 0.05)
    assert (found.reproduced, found.settled) == (None, True)
    assert replay.text(found).endswith("No verdict: 'ok' then, 'unavailable' now. the GPU is busy.")


def test_an_attempt_that_fails_after_one_that_missed_is_what_is_told() -> None:
    then, slow = (make_run(samples=Samples(steady=(Block(1, s),) * 3)) for s in (0.01, 0.02))
    killed = make_run(status="oom", reason="no memory", samples=Samples())
    found = replay.Replay(then, (slow, killed), 0.05)
    assert (found.reproduced, found.settled) == (False, True)
    assert replay.text(found).endswith("Not reproduced: 'ok' then, 'oom' now.")


def test_the_closest_of_attempts_that_all_missed_is_told(
    tmp_path: Path, worker: Callable[..., list[Job]]
) -> None:
    published_with_floor(tmp_path)
    worker(0.0165, 0.0140, 0.0151)
    found = replayed(tmp_path)
    assert found.reproduced is False
    assert "in 3 attempts; the closest: step_time_s is 14.0 ms, 1.400 times" in replay.text(found)


def test_the_floor_has_what_the_machine_does_between_sessions(
    tmp_path: Path, worker: Callable[..., list[Job]]
) -> None:
    published_with_floor(tmp_path)
    worker(0.0118)
    assert replayed(tmp_path).reproduced is False
    levels = (1.0, 1.06, 0.95, 1.03, 0.96, 1.05, 0.99, 0.94)
    figures = tuple(tuple(level * time for time in TIMES) for level in levels)
    write_sessions(tmp_path, "m", {"another cell": made(figures)})
    assert replayed(tmp_path).reproduced is True


def test_without_a_floor_there_is_no_verdict(
    tmp_path: Path, worker: Callable[..., list[Job]]
) -> None:
    run = published(tmp_path)
    worker(0.02)
    found = replayed(tmp_path)
    assert found.reproduced is None
    assert replay.text(found).endswith(
        f"Measure it with `epochmark doctor --calibrate --only '{run.cell}'`."
    )


def test_a_floor_of_nothing_is_none(tmp_path: Path, worker: Callable[..., list[Job]]) -> None:
    run = published(tmp_path)
    write_floors(tmp_path, "m", {run.cell: replace(FLOOR, pair_ratios=(), step_times_s=())})
    worker(10.0)
    found = replayed(tmp_path)
    assert found.reproduced is None
    assert "this machine's noise is not known for the cell" in replay.text(found)


def test_a_floor_that_half_the_figure_stays_within_gives_no_verdict(
    tmp_path: Path, worker: Callable[..., list[Job]]
) -> None:
    run = published(tmp_path)
    write_floors(
        tmp_path, "m", {run.cell: replace(FLOOR, step_times_s=in_pairs(0.1, 0.12, 0.08, 0.15))}
    )
    worker(0.012)
    found = replayed(tmp_path)
    assert found.reproduced is None
    assert "No verdict: step_time_s is 12.0 ms, 1.200 times the published one, and runs " in (
        replay.text(found)
    )


def test_a_published_figure_that_other_work_disturbed_has_no_verdict(
    tmp_path: Path, worker: Callable[..., list[Job]]
) -> None:
    run = published(tmp_path, contention=Contention(others_cpu_share=0.5, contended=True))
    write_floors(tmp_path, "m", {run.cell: FLOOR})
    worker(0.01)
    found = replayed(tmp_path)
    assert found.reproduced is None
    assert replay.text(found).endswith("but the published run was beside other work.")


def test_a_run_that_was_changed_by_hand_is_not_replayed(tmp_path: Path) -> None:
    published(tmp_path)
    (path,) = (tmp_path / "runs").glob("*/*.jsonl")
    path.write_text(path.read_text().replace('"step_time_s":0.01', '"step_time_s":0.02'))
    with pytest.raises(UsageError) as raised:
        replayed(tmp_path)
    assert str(raised.value) == (
        f"Run 'r0001' in {path.name} was changed by hand: its metrics are not those of its "
        "samples. There is nothing to replay."
    )


def test_every_difference_of_the_environments_is_told(
    tmp_path: Path, worker: Callable[..., list[Job]]
) -> None:
    published(tmp_path)
    packages = ENVIRONMENT.packages | {"keras": "9.9"}
    worker(0.01, packages=packages, variables={"XLA_FLAGS": "--x"})
    found = replayed(tmp_path)
    told = dict(line.split(": ", 1) for line in replay.differences(found.published, found.again))
    assert told["keras"] == f"{ENVIRONMENT.packages['keras']}, 9.9"
    assert told["XLA_FLAGS"] == "absent, --x"
    assert told["machine"] == f"{ENVIRONMENT.machine}, m"
    assert "os" not in told


@pytest.mark.parametrize(
    ("then", "now", "reproduced", "said"),
    [
        ("ok", "oom", False, "Not reproduced: 'ok' then, 'oom' now."),
        ("oom", "oom", None, "It ended as it did then: 'oom' then, 'oom' now."),
        (
            "unavailable",
            "unavailable",
            None,
            "It ended as it did then: 'unavailable' then, 'unavailable' now.",
        ),
    ],
)
def test_a_status_is_part_of_what_is_reproduced(
    tmp_path: Path,
    worker: Callable[..., list[Job]],
    then: str,
    now: str,
    reproduced: bool | None,
    said: str,
) -> None:
    run = make_run(seed=2016, status=then)
    if then != "ok":
        run = make_run(seed=2016, status=then, reason="why", samples=Samples())
    write_session(tmp_path, run, session="old")
    jobs = worker(0.0, status=now)
    found = replayed(tmp_path)
    assert found.reproduced is reproduced
    assert len(jobs) == 1
    assert replay.text(found).endswith(said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("old", "'old' names no run: write FILE:RUN, a results file and a run's id."),
        (
            "old:r7",
            "There is no run 'r7' in 20261122T101530Z-abc1234.jsonl. It has r0001 to r0001.",
        ),
        ("new:r1", "Unknown results file or session 'new' in "),
    ],
)
def test_a_run_that_does_not_exist(tmp_path: Path, name: str, said: str) -> None:
    published(tmp_path)
    with pytest.raises(UsageError) as raised:
        replayed(tmp_path, name)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize("wanted", ["20261122T101530Z-abc123-0012", "0012", "12"])
def test_a_run_is_named_by_its_id_or_its_number(tmp_path: Path, wanted: str) -> None:
    ids = [f"20261122T101530Z-abc123-{number:04d}" for number in (2, 12, 120)]
    write_session(tmp_path, *(make_run(run=name) for name in ids), session="old")
    assert replay.find(f"old:{wanted}", tmp_path).run == ids[1]


def test_a_run_from_weights_asks_for_them(tmp_path: Path) -> None:
    protocol = replace(make_run().protocol, weights_digest="0123456789abcdef")
    published(tmp_path, protocol=protocol)
    with pytest.raises(UsageError) as raised:
        replayed(tmp_path)
    assert str(raised.value) == (
        "Run 'r0001' was trained from the file with SHA-256 0123456789abcdef. Replay it with that."
    )


def test_not_reproduced_is_exit_status_1(
    tmp_path: Path, worker: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = published(tmp_path)
    write_floors(tmp_path, "m", {run.cell: FLOOR})
    worker(0.1)
    monkeypatch.setattr(
        "sys.argv", ["epochmark", "replay", "old:r0001", "--results", str(tmp_path)]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert len(json.loads((tmp_path / "noise" / "m.json").read_text())["cells"]) == 1
