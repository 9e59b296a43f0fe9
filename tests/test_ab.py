"""A/B runs: pairs, the rule that ends them, sides, and what is printed; then real workers."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from harness import ab, ab_command, accelerators, data, runner, sides
from harness.ab import Failure, Outcome, Pair, duel, measure_pair
from harness.ab_command import Request
from harness.cells import Cell, parse_cell
from harness.child import HERE, Ended, Installation
from harness.cli import app
from harness.errors import UsageError
from harness.noise import Floor, write_floors
from harness.probes import machine_name
from harness.registry import workload
from harness.schema import Block, Gate, Memory, Protocol, Report, Samples
from tests.records import ACCELERATOR, ENVIRONMENT
from tests.slowed import slowed

CELL = parse_cell("bert/smoke/train/jax/float32/functional/cpu", ["bert"])
ALPHA = 0.01
ROOT = Path(__file__).parents[1]
KILLED = Ended(None, "oom", "killed by the system", "", 0.0)


def pair(*ratios: float, marked: int = 0, steps: int = 4) -> Pair:
    """Turns with these ratios, of which the first `marked` were disturbed."""
    one = tuple(Block(steps, 0.1 * (place + 1)) for place in range(len(ratios)))
    other = tuple(
        Block(2 * steps, 2 * block.seconds * ratio, disturbed=place < marked)
        for place, (block, ratio) in enumerate(zip(one, ratios, strict=True))
    )
    return Pair(one, other)


# A pair


def test_a_pair_is_the_median_of_its_turns_ratios() -> None:
    found = pair(1.1, 1.0, 1.2).log_ratio
    assert found == pytest.approx(math.log(1.1))


def test_a_turn_with_a_disturbed_block_does_not_count_on_either_side() -> None:
    found = pair(9.0, 8.0, 1.1, 1.0, 1.2, marked=2)
    assert found.log_ratio == pytest.approx(math.log(1.1))
    swapped = Pair(found.contender, found.baseline)
    assert swapped.log_ratio == pytest.approx(-math.log(1.1))


def test_a_pair_with_too_few_undisturbed_turns_does_not_count() -> None:
    assert pair(9.0, 1.0, 1.0, marked=1).log_ratio is None
    outcome = Outcome(CELL, pairs=(pair(9.0, 1.0, 1.0, marked=1), pair(1.0, 1.0, 1.0)))
    assert len(outcome.logs) == 1
    assert outcome.verdict(ALPHA) == "no verdict: too few undisturbed pairs"


class Stub:
    """A worker whose every block takes a tenth of a second."""

    def __init__(self, *_: object) -> None:
        report = Report("ok", "", 16, ENVIRONMENT, {}, {}, Samples(), Memory(), Gate(), None)
        self._ended = Ended(report, "ok", "", "", 0.0)

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ready(self) -> bool:
        return True

    def turn(self, steps: int) -> Block:
        return Block(max(1, steps), 0.1)

    def wait(self) -> Ended:
        return self._ended


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, True),
        ({"throttled": True}, False),
        ({"other_processes": 1}, False),
        ({"other_processes": 0}, True),
    ],
)
def test_a_pair_on_a_hampered_accelerator_does_not_count(
    changes: dict[str, Any], counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ab, "Worker", Stub)
    monkeypatch.setattr(accelerators, "watched", lambda device: nullcontext(()))
    monkeypatch.setattr(accelerators, "seen", lambda watches: (replace(ACCELERATOR, **changes),))
    found = measure_pair(replace(CELL, device="gpu"), HERE, HERE, number=0)
    assert isinstance(found, Pair)
    assert (found.log_ratio == 0.0) is counts
    assert (found.log_ratio is None) is not counts


@pytest.mark.parametrize("number", [0, 1])
def test_the_sides_take_turns_in_being_started_first(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baseline's figures stay the baseline's."""
    started: list[Installation] = []

    class Noted(Stub):
        def __init__(self, job: object, side: Installation) -> None:
            super().__init__()
            started.append(side)
            self._seconds = 0.1 if side == HERE else 0.3

        def turn(self, steps: int) -> Block:
            return Block(1, self._seconds)

    monkeypatch.setattr(ab, "Worker", Noted)
    other = Installation(variables={"X": "1"})
    found = measure_pair(CELL, HERE, other, number=number)
    assert started == ([HERE, other] if number == 0 else [other, HERE])
    assert isinstance(found, Pair)
    assert found.log_ratio == pytest.approx(math.log(3.0))


# The rule that ends the pairing


class Clock:
    """Each pair takes ten seconds."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def duelled(
    ratios: Callable[[int], float | Failure], *, budget_s: float = 1000.0, threshold: float = 0.0
) -> Outcome:
    clock = Clock()

    def meet(number: int) -> Pair | Failure:
        clock.time += 10.0
        found = ratios(number)
        return found if isinstance(found, Failure) else pair(found, found, found)

    return duel(CELL, meet, alpha=ALPHA, threshold=threshold, budget_s=budget_s, clock=clock)


def around(ratio: float, spread: float = 0.01) -> Callable[[int], float]:
    """Pairs that differ a little, and whose mean is the ratio."""
    return lambda number: ratio * math.exp(spread * (-1) ** number)


def test_a_slowdown_ends_the_pairing_as_soon_as_it_is_sure() -> None:
    found = duelled(around(1.05))
    assert (found.verdict(ALPHA), found.ended) == ("slower", "decided")
    assert 4 <= len(found.pairs) <= 9
    assert found.regressed(ALPHA)
    low, high = found.difference.interval(ALPHA) if found.difference else (0.0, 0.0)
    assert 1.0 < low < 1.05 < high


def test_a_speedup_is_no_regression() -> None:
    found = duelled(around(0.9))
    assert (found.verdict(ALPHA), found.ended) == ("faster", "decided")
    assert not found.regressed(ALPHA)


def test_no_difference_ends_with_the_budget() -> None:
    found = duelled(around(1.0), budget_s=100.0)
    assert (found.verdict(ALPHA), found.ended) == ("no difference found", "budget")
    assert (len(found.pairs), found.seconds) == (10, 100.0), "no pair would end after it"
    assert not found.regressed(ALPHA)


def test_one_pair_is_measured_however_small_the_budget() -> None:
    found = duelled(around(1.0), budget_s=1.0)
    assert len(found.pairs) == 1
    assert found.verdict(ALPHA) == "no verdict: too few pairs"


@pytest.mark.parametrize(("ratio", "regressed"), [(0.8, False), (1.05, False), (1.2, True)])
def test_a_threshold_moves_what_is_to_be_decided(ratio: float, regressed: bool) -> None:
    """A slowdown that is surely below it is no regression, whether it is one at all or not."""
    found = duelled(around(ratio, spread=0.001), threshold=0.1)
    assert found.ended == "decided"
    assert found.regressed(ALPHA) == regressed


def test_identical_pairs_are_no_verdict() -> None:
    found = duelled(lambda number: 1.0, budget_s=60.0)
    assert (found.verdict(ALPHA), found.ended) == ("no verdict: identical samples", "budget")
    assert not found.regressed(ALPHA)


@pytest.mark.parametrize(("side", "regressed"), [("baseline", False), ("contender", True)])
def test_a_side_that_fails_ends_the_cell(side: str, regressed: bool) -> None:
    found = duelled(lambda number: 1.0 if number < 2 else Failure(side, KILLED))
    assert (found.ended, len(found.pairs)) == ("failed", 2)
    assert found.verdict(ALPHA) == f"no verdict: the {side} ended as 'oom'"
    assert found.regressed(ALPHA) == regressed, "a contender that does not run is one"


@pytest.mark.parametrize(("ratio", "low", "high"), [(1.0, 0.0, ALPHA), (1.05, 0.95, 1.0)])
def test_error_rates_hold_although_every_pair_is_looked_at(
    ratio: float, low: float, high: float
) -> None:
    """Pairs that spread by 2 %, twenty at most; a fixed test looked at so often gives 5 %."""
    random = np.random.default_rng(4)
    rounds = 1000
    found = 0
    for _ in range(rounds):
        logs = math.log(ratio) + random.normal(0, 0.02, 20)
        outcome = duelled(lambda number: math.exp(logs[number]), budget_s=200.0)  # noqa: B023
        found += outcome.verdict(ALPHA) in ("slower", "faster")
    assert low <= found / rounds <= high


# Sides


def test_a_dot_is_this_installation() -> None:
    with sides.installation(".", {"XLA_FLAGS": "--a"}) as found:
        assert found == Installation(variables={"XLA_FLAGS": "--a"})


def test_an_environment_is_its_interpreter_with_this_source_tree(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    for name in (tmp_path, tmp_path / "bin" / "python"):
        with sides.installation(str(name), {}) as found:
            assert found == Installation(str(tmp_path / "bin" / "python"), ROOT)


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), "-c", "user.name=n", "-c", "user.email=e", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite with two commits, of which the first knows no turns."""
    root = tmp_path / "suite"
    (root / "harness").mkdir(parents=True)
    git(root.parent, "init", "--quiet", str(root))
    (root / "harness" / "cli.py").touch()
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "old")
    (root / "harness" / "ab.py").write_text("here")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "new")
    monkeypatch.setattr(sides, "SOURCE", root)
    return root


def test_a_commit_is_checked_out_beside_and_removed_again(repository: Path) -> None:
    (repository / "harness" / "ab.py").write_text("changed since")
    with sides.installation("HEAD", {}) as found:
        assert found.root is not None
        assert (found.root / "harness" / "ab.py").read_text() == "here"
    assert not found.root.exists()
    assert git(repository, "worktree", "list").count("\n") == 0
    assert (repository / "harness" / "ab.py").read_text() == "changed since"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("HEAD~1", "Commit 'HEAD~1' is older than `epochmark ab`: it cannot take turns."),
        (
            "nothing",
            "'nothing' is neither '.', nor an environment (a folder with bin/python, or an "
            "interpreter), nor a commit of the suite.",
        ),
    ],
)
@pytest.mark.usefixtures("repository")
def test_a_side_that_cannot_be_run(name: str, said: str) -> None:
    with pytest.raises(UsageError) as raised, sides.installation(name, {}):
        pass
    assert str(raised.value) == said


def test_a_file_that_is_no_program_is_no_interpreter(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("")
    with pytest.raises(UsageError, match="is neither"), sides.installation(f"{tmp_path}/notes", {}):
        pass


def test_a_threshold_of_noise_needs_two_pairs(tmp_path: Path) -> None:
    """From one pair no floor follows: every slowdown would be below it."""
    write_floors(tmp_path, machine_name(), {CELL.id: Floor("", "", (1.0,), (0.01, 0.0101))})
    arguments = ["ab", "--env", "X=1", "--only", CELL.id, "--threshold", "noise"]
    found = CliRunner().invoke(app, [*arguments, "--results", str(tmp_path)])
    assert isinstance(found.exception, UsageError)
    assert "This machine's noise is not known for" in str(found.exception)


# The command


def request(**changes: object) -> Request:
    given = {
        "baseline": ".",
        "contender": ".",
        "baseline_variables": (),
        "contender_variables": (),
        "plan": None,
        "only": (CELL.id,),
        "threshold": 0.0,
        "budget_s": 60.0,
        "timeout_s": 60.0,
    }
    return Request(**(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ratio", "threshold", "status"),
    [
        (1.1, "0", 1),
        (1.1, "20", 0),
        (1.1, "noise", 0),
        (1.4, "noise", 1),
        (0.9, "0", 0),
        (None, "0", 1),
    ],
)
def test_a_regression_beyond_the_threshold_is_exit_status_1(
    ratio: float | None,
    threshold: str,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And so is a contender that does not run. The noise of this cell is a fifth."""
    floor = Floor("2026-11-20", "0" * 12, (0.95, 1.0, 1.05, 0.95, 1.05), (0.01, 0.0101) * 5)
    assert 0.1 < floor.in_turns < 0.4
    write_floors(tmp_path, machine_name(), {CELL.id: floor})

    def met(cell: Cell, *sides: object, number: int, **named: object) -> Pair | Failure:
        if ratio is None:
            return Failure("contender", KILLED)
        return pair(*[ratio * math.exp(0.001 * (-1) ** number)] * 3)

    monkeypatch.setattr(ab_command, "measure_pair", met)
    monkeypatch.setattr(runner, "prepare_data", lambda cells, log: None)
    given = ["--threshold", threshold, "--results", str(tmp_path)]
    arguments = ["ab", "--env", "X=1", "--only", CELL.id, *given]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == status, found.output
    verdict = "the contender ended as 'oom'"
    if ratio is not None:
        verdict = "slower" if ratio > 1 else "faster"
    assert verdict in found.stdout


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"contender_variables": ("XLA",)}, "'XLA' is not a variable: write NAME=VALUE."),
        (
            {"only": ("bert/full/train/jax/float32/functional/tpu",)},
            "None of these cells can run here: ",
        ),
        (
            {"threshold": None, "only": ("bert/smoke/infer/jax/float32/functional/cpu",)},
            "This machine's noise is not known for bert/smoke/infer/jax/float32/functional/cpu. ",
        ),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_starts(
    changes: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError) as raised:
        ab_command.carry_out(request(**changes), say=lambda line: None)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize("threshold", ["a lot", "-1", "nan", "inf"])
def test_what_is_no_threshold_is_said(threshold: str) -> None:
    with pytest.raises(UsageError) as raised:
        ab_command.share(threshold)
    said = f"{threshold!r} is no threshold: give percent, such as 3, or 'noise'."
    assert str(raised.value) == said


OUTCOMES = [
    duelled(around(1.25)),
    duelled(lambda number: Failure("contender", KILLED)),
    Outcome(CELL, pairs=(pair(9.0, 1.0, 1.0, marked=1), pair(1.0, 1.0, 1.0)), ended="budget"),
]


def test_the_table_says_what_is_known_of_each_cell() -> None:
    lines = ab_command.text(OUTCOMES, request()).splitlines()
    assert lines[2].split() == [
        "cell", "pairs", "ratio", "99.67", "%", "interval", "verdict", "finds", "ended", "by",
    ]  # fmt: skip
    assert " 1.25" in lines[4]
    assert " slower " in lines[4]
    assert lines[5].split()[1] == "0"
    assert "no verdict: the contender ended as 'oom'" in lines[5]
    rest = " ".join(lines[7:])
    assert "1 pairs do not count" in rest
    assert f"{CELL.id}, contender: killed by the system" in rest


def test_json_and_csv_hold_the_same_cells() -> None:
    found = json.loads(ab_command.as_json(OUTCOMES, request()))
    assert [cell["verdict"] for cell in found["cells"]] == [
        outcome.verdict(ALPHA / 3) for outcome in OUTCOMES
    ]
    first, failed, short = found["cells"]
    assert first["pair_ratios"][:2] == pytest.approx([1.2626, 1.2376], abs=1e-4)
    assert first["low"] < first["ratio"] < first["high"]
    assert (failed["ratio"], failed["regressed"]) == (None, True)
    assert (short["low"], short["disturbed_pairs"]) == (None, 1)
    lines = ab_command.as_csv(OUTCOMES, request()).splitlines()
    assert len(lines) == 4
    assert "pair_ratios" not in lines[0]


# Real workers

SHORT = Protocol(block_min_s=0.05, warmup_ceiling_blocks=4)
OLDER_KERAS = "3.15.0"
LSTM = Cell("lstm_eta", "smoke", "train", "jax", "float32", "functional", "cpu")


@pytest.fixture(scope="module")
def lstm_data() -> None:
    data.fetch(workload("lstm_eta"), "smoke")


def real(contender: Installation, number: int = 0) -> Pair | Failure:
    return measure_pair(LSTM, HERE, contender, number=number, protocol=SHORT, turns=12)


@pytest.mark.frameworks
@pytest.mark.usefixtures("lstm_data")
def test_a_step_with_several_times_the_work_shows_in_its_pair(tmp_path: Path) -> None:
    """So much more that a busy machine cannot hide it; the gate sees nothing wrong in it."""
    found = real(slowed(tmp_path, "lstm_eta", 300))
    assert isinstance(found, Pair), found
    assert (len(found.baseline), len(found.contender)) == (12, 12)
    assert len({block.steps for block in found.baseline + found.contender}) == 1
    assert found.reports is not None
    assert {report.gate.outcome for report in found.reports} == {"passed"}
    # Other tests may run beside this one: its marks are not what is looked at here.
    one, other = (
        tuple(replace(block, disturbed=False) for block in side)
        for side in (found.baseline, found.contender)
    )
    log = Pair(one, other).log_ratio
    assert log is not None
    assert math.exp(log) > 1.5


@pytest.mark.frameworks
@pytest.mark.usefixtures("lstm_data")
def test_inference_takes_turns_too() -> None:
    found = measure_pair(
        replace(LSTM, phase="infer"), HERE, HERE, number=1, protocol=SHORT, turns=4
    )
    assert isinstance(found, Pair)
    assert len(found.baseline) == len(found.contender) == 4


@pytest.mark.frameworks
@pytest.mark.usefixtures("lstm_data")
@pytest.mark.parametrize(
    ("source", "status", "reason"),
    [
        ("raise SystemExit(3)", "error", "the worker ended with exit code 3 and no report"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "oom",
            "killed by the system (SIGKILL) in stage 'turns'",
        ),
    ],
)
def test_a_contender_that_dies_between_its_turns_is_told(
    tmp_path: Path, source: str, status: str, reason: str
) -> None:
    contender = slowed(tmp_path, "lstm_eta", 0)
    measure = tmp_path / "harness" / "measure.py"
    steady = "    blocks: list[Block] = []\n    outcome"
    text = measure.read_text()
    assert text.count(steady) == 2
    measure.write_text(text.replace(steady, f"    {source}\n{steady}", 1))
    found = real(contender)
    assert isinstance(found, Failure)
    assert (found.side, found.ended.status) == ("contender", status)
    assert found.ended.reason.startswith(reason)


@pytest.mark.frameworks
@pytest.mark.usefixtures("lstm_data")
def test_another_interpreter_runs_this_source_with_its_own_packages(tmp_path: Path) -> None:
    """A new Keras is what a person tries out: here an older one, over this one's other packages."""
    home = tmp_path / "older"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "these.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*pip, str(packages), f"keras=={OLDER_KERAS}"], check=True)
    with sides.installation(str(home), {}) as contender:
        found = real(contender)
    assert isinstance(found, Pair), found
    assert found.reports is not None
    told = dict(line.split(": ") for line in ab.differences(Outcome(LSTM, pairs=(found,))))
    assert told == {"keras": f"{version('keras')}, {OLDER_KERAS}"}
