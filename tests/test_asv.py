"""asv sees the whole registry, and a cell is measured once however many metrics ask for it."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import pytest

from harness import asv, runner
from harness.cells import PHASES, Cell, all_cells
from harness.errors import ResultsError
from harness.metrics import METRICS
from harness.registry import workloads
from harness.schema import Contention, Price, Run, Session
from harness.store import SessionWriter, read_file
from harness.support import Support, support
from suites.train_lstm_eta import TrainLstmEta
from tests.records import SAMPLES, failed_run, make_run

ROOT = Path(__file__).parents[1]
SUITES = ROOT / "suites"
OWN = {name: w for name, w in workloads().items() if w.module.startswith("workloads.")}
FRAMEWORKS = ("tensorflow", "jax", "torch", "keras")

DISCOVER = """
import json, sys
from asv_runner.discovery import disc_benchmarks, list_benchmarks
with open(sys.argv[2], "w") as file:
    list_benchmarks(sys.argv[1], file)
callable_ = all(benchmark.check(sys.argv[1]) for benchmark in disc_benchmarks(sys.argv[1]))
print(json.dumps([callable_, sorted(set(sys.argv[3:]) & set(sys.modules))]))
"""


@pytest.fixture(scope="module")
def discovery(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], bool, list[str]]:
    """What asv finds, by name; are the calls well-formed; which frameworks were imported.

    As asv does it: in a process of its own, in an empty folder.
    """
    folder = tmp_path_factory.mktemp("discovery")
    done = subprocess.run(
        [sys.executable, "-c", DISCOVER, SUITES, "found.json", *FRAMEWORKS],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    well_formed, imported = json.loads(done.stdout)
    found = json.loads((folder / "found.json").read_text())
    return {benchmark["name"]: benchmark for benchmark in found}, well_formed, imported


@pytest.fixture
def found(discovery: tuple[dict[str, Any], bool, list[str]]) -> dict[str, Any]:
    return discovery[0]


@cache
def first_commits() -> dict[str, None]:
    """asv.conf.json's `regressions_first_commits`: the patterns without alarms."""
    configuration: dict[str, Any] = json.loads((ROOT / "asv.conf.json").read_text())
    found: dict[str, None] = configuration["regressions_first_commits"]
    return found


def of(found: dict[str, Any], name: str, phase: str) -> dict[str, Any]:
    """The benchmarks of a workload's phase, by metric."""
    kind = f"{phase}_{name}."
    chosen = {key: benchmark for key, benchmark in found.items() if key.startswith(kind)}
    return {key.rpartition(".track_")[2]: benchmark for key, benchmark in chosen.items()}


def cells_of(name: str, phase: str) -> set[Cell]:
    """The smoke cells on the CPU that a plan holds and that are not unsupported by nature."""
    wanted = (name, "smoke", phase, "cpu")
    return {
        cell
        for cell in all_cells([name])
        if (cell.workload, cell.scale, cell.phase, cell.device) == wanted
        and not cell.on_request
        and support(cell).status != "unsupported"
    }


class TestDiscovery:
    """Contract of every workload and phase, as asv sees them."""

    def test_calls_are_well_formed_and_no_framework_is_imported(
        self, discovery: tuple[dict[str, Any], bool, list[str]]
    ) -> None:
        _, well_formed, imported = discovery
        assert well_formed
        assert imported == []

    @pytest.mark.parametrize("phase", PHASES)
    @pytest.mark.parametrize("name", OWN)
    def test_every_metric_is_there(self, found: dict[str, Any], name: str, phase: str) -> None:
        assert set(of(found, name, phase)) == set(asv.TRACKED[phase])

    def test_nothing_else_is_there(self, found: dict[str, Any]) -> None:
        assert len(found) == len(OWN) * sum(len(asv.TRACKED[phase]) for phase in PHASES)

    def test_no_class_is_passed_over(self, found: dict[str, Any]) -> None:
        written = {
            f"{path.stem}.{node.name}"
            for path in SUITES.glob("*.py")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ClassDef)
        }
        assert {key.rpartition(".")[0] for key in found} == written

    @pytest.mark.parametrize("phase", PHASES)
    @pytest.mark.parametrize("name", OWN)
    def test_parameters_are_the_supported_cells(
        self, found: dict[str, Any], name: str, phase: str
    ) -> None:
        for benchmark in of(found, name, phase).values():
            assert benchmark["param_names"] == ["backend", "precision", "api_style"]
            labels = [[ast.literal_eval(label) for label in axis] for axis in benchmark["params"]]
            cells = [
                Cell(name, "smoke", phase, backend, precision, api_style, "cpu")
                for backend, precision, api_style in product(*labels)
            ]
            assert len(set(cells)) == len(cells)
            assert set(cells) == cells_of(name, phase)

    @pytest.mark.parametrize("phase", PHASES)
    @pytest.mark.parametrize("name", OWN)
    def test_version_unit_and_timeout(self, found: dict[str, Any], name: str, phase: str) -> None:
        for metric, benchmark in of(found, name, phase).items():
            assert benchmark["version"] == f"{OWN[name].version} smoke/{phase}/cpu"
            assert benchmark["timeout"] > TrainLstmEta.timeout - 60.0
            assert benchmark["setup_cache_timeout"] >= benchmark["timeout"]
            assert METRICS[metric].definition in benchmark["code"]
        units = {metric: benchmark["unit"] for metric, benchmark in of(found, name, phase).items()}
        assert units["peak_host_memory_bytes"] == "bytes"
        assert units["compile_time_s"] == "seconds"
        if phase == "train":
            assert units["throughput_examples_per_s"] == "examples/s"
            assert units["quality_error"] == ("min" if name == "lstm_eta" else "1")

    def test_labels_are_unique(self, found: dict[str, Any]) -> None:
        assert len({benchmark["pretty_name"] for benchmark in found.values()}) == len(found)

    def test_no_suite_shares_a_session_with_another(self, found: dict[str, Any]) -> None:
        keys = {(b["setup_cache_key"], key.rpartition(".")[0]) for key, b in found.items()}
        assert len({key for key, _ in keys}) == len(keys) == len(OWN) * len(PHASES)

    def test_only_throughput_raises_no_alarm(self, found: dict[str, Any]) -> None:
        for name, benchmark in found.items():
            point = ", ".join(axis[0] for axis in benchmark["params"])
            entry = f"{name}({point})@main"  # as asv's regression detection spells it
            silent = any(re.match(pattern, entry) for pattern in first_commits())
            direction = METRICS[name.rpartition(".track_")[2]].direction
            assert silent == (direction == "higher"), name

    def test_silent_means_null(self) -> None:
        assert set(first_commits().values()) == {None}


class TestSuite:
    def test_a_suite_without_a_setup_cache_of_its_own_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"^Gpu defines no setup_cache of its own\."):
            type("Gpu", (TrainLstmEta,), {"device": "gpu"})

    def test_scale_and_device_are_attributes(self) -> None:
        class Gpu(TrainLstmEta):
            device = "gpu"

            def setup_cache(self) -> str:
                return ""

        assert "tensorfloat32" in Gpu.params[1]
        assert Gpu.version.endswith(" smoke/train/gpu")
        assert {cell.device for cell in Gpu.cells()} == {"gpu"}
        assert TrainLstmEta.version.endswith(" smoke/train/cpu")

    def test_what_cannot_run_here_is_skipped_with_its_reason(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        missing = Support("unavailable", "no package torch in this environment")
        monkeypatch.setattr(asv, "support", lambda cell: missing)
        with pytest.raises(NotImplementedError, match=r"^no package torch in this environment$"):
            TrainLstmEta().setup("", "torch", "float32", "functional")


class StandIn:
    """Takes the place of `runner.execute`; gives the same outcome for every cell."""

    outcome: ClassVar[Run] = make_run()

    def __init__(self) -> None:
        self.calls: list[tuple[Cell, int, Price | None]] = []
        self.before: Callable[[], None] = lambda: None

    def __call__(self, session: Session, planned: runner.Planned, extras: runner.Extras) -> Run:
        self.calls.append((planned.cell, planned.number, extras.price))
        self.before()
        run = runner.run_id(session, planned)
        return replace(self.outcome, session=session.session, run=run, cell=planned.cell.id)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EPOCHMARK_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(runner, "prepare_data", lambda cells, log: None)
    # asv works in a temporary folder.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "results"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    execute = StandIn()
    monkeypatch.setattr(runner, "execute", execute)
    return execute


def track(metric: str, session: str, *point: str) -> Any:
    """A metric's value, on a new object as in a new process."""
    return getattr(TrainLstmEta(), f"track_{metric}")(session, *point)


TORCH = ("torch", "float32", "functional")
JAX = ("jax", "float32", "custom_loop")


@pytest.mark.usefixtures("results")
class TestMeasuring:
    def test_a_session_is_a_results_file_that_promises_no_cells(self, results: Path) -> None:
        path = Path(TrainLstmEta().open_session())
        stored = read_file(path)
        assert path.is_relative_to(results / "runs")
        assert stored.runs == ()
        assert (stored.session.plan, stored.session.cells) == ("asv", ())
        assert stored.session.only == ("lstm_eta/smoke/train/*/cpu",)

    def test_every_asv_run_has_a_session_of_its_own(self) -> None:
        paths = {TrainLstmEta().open_session() for _ in range(3)}
        assert len({read_file(Path(path)).session.session for path in paths}) == 3

    def test_a_cell_is_measured_once(self, stand_in: StandIn) -> None:
        session = TrainLstmEta().open_session()
        for point in (TORCH, JAX):
            for metric in asv.TRACKED["train"]:
                track(metric, session, *point)
        cells = [TrainLstmEta.cell(*point) for point in (TORCH, JAX)]
        assert [call[0] for call in stand_in.calls] == cells
        stored = read_file(Path(session))
        assert [run.cell for run in stored.runs] == [cell.id for cell in cells]
        assert len({run.run for run in stored.runs}) == 2
        assert stored.notices == ()

    def test_another_session_measures_again(self, stand_in: StandIn) -> None:
        for _ in range(2):
            track("step_time_s", TrainLstmEta().open_session(), *TORCH)
        assert len(stand_in.calls) == 2

    def test_the_projects_price_is_used(self, stand_in: StandIn) -> None:
        track("cost_per_epoch_usd", TrainLstmEta().open_session(), *TORCH)
        price = stand_in.calls[0][2]
        assert price is not None
        assert price.id == "gcp:c3-standard-8:us-central1:on-demand"

    def test_a_contended_run_is_said_to_be_one(
        self, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        contended = make_run(contention=Contention(contended=True))
        monkeypatch.setattr(StandIn, "outcome", contended)
        track("step_time_s", TrainLstmEta().open_session(), *TORCH)
        said = "lstm_eta/smoke/train/torch/float32/functional/cpu: other processes used the machine"
        assert said in capsys.readouterr().out

    def test_a_failed_cell_fails_every_metric_and_is_not_tried_again(
        self, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(StandIn, "outcome", failed_run("timeout", "not done after 300 s"))
        session = TrainLstmEta().open_session()
        expected = (
            "^lstm_eta/smoke/train/torch/float32/functional/cpu ended with status 'timeout': "
            "not done after 300 s.$"
        )
        for metric in ("step_time_s", "compile_time_s"):
            with pytest.raises(RuntimeError, match=expected):
                track(metric, session, *TORCH)
        assert len(stand_in.calls) == 1

    def test_a_session_that_is_being_written_is_left_alone(self, stand_in: StandIn) -> None:
        session = TrainLstmEta().open_session()
        with (
            SessionWriter.resume(Path(session)),
            pytest.raises(ResultsError, match="is being written by another Epochmark"),
        ):
            track("step_time_s", session, *TORCH)
        assert stand_in.calls == []

    def test_asv_ending_the_benchmark_reaches_the_runner_as_an_exception(
        self, stand_in: StandIn
    ) -> None:
        handler = signal.getsignal(signal.SIGTERM)
        session = TrainLstmEta().open_session()
        stand_in.before = lambda: os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            track("step_time_s", session, *TORCH)
        assert signal.getsignal(signal.SIGTERM) is handler
        assert read_file(Path(session)).runs == ()


class TestValue:
    RUN = make_run(
        cell=TrainLstmEta.cell(*TORCH).id,
        samples=replace(SAMPLES, infer_latency_s=(0.003, 0.001, 0.002)),
    )

    @pytest.mark.parametrize("metric", asv.SAMPLES)
    def test_samples_have_the_metric_as_their_median(self, metric: str) -> None:
        found = asv.value(metric, self.RUN)
        assert isinstance(found, dict)
        assert found["number"] == 1
        assert median(found["samples"]) == pytest.approx(self.RUN.metrics[metric])

    def test_the_first_epoch_is_a_sample_only_when_it_is_alone(self) -> None:
        samples = replace(SAMPLES, epochs=SAMPLES.epochs[:1])
        found = asv.value("epoch_time_s", make_run(samples=samples))
        assert found == {"samples": [1.5], "number": 1}

    def test_a_single_figure_is_a_number(self) -> None:
        assert asv.value("compile_time_s", self.RUN) == self.RUN.metrics["compile_time_s"]

    @pytest.mark.parametrize("metric", ["cost_per_epoch_usd", "quality_error"])
    def test_what_was_not_measured_is_nan(self, metric: str) -> None:
        found = asv.value(metric, make_run(price=None, quality_metric="none"))
        assert isinstance(found, float)
        assert math.isnan(found)
