"""How asv measures: a suite is one workload and phase, its metrics are benchmarks.

asv starts a process for each metric and parameter combination. The first one that asks for a cell
measures it, through the same runner and into the same record as `epochmark run`; the others read
that record. asv itself is not imported here; `harness.report.asvpages` makes its pages.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import runner
from harness.cells import Cell, all_cells
from harness.limits import BY_SCALE_S
from harness.metrics import METRICS, Metric, counted_epochs, step_times
from harness.peak import peaks_of
from harness.prices import configured_price, find_price
from harness.probes import machine_name
from harness.registry import workload
from harness.schema import Price, Protocol, Run
from harness.store import SessionWriter, check_writable, read_file
from harness.support import support
from harness.workload import Workload

TRACKED = {
    "train": (
        "step_time_s",
        "compile_time_s",
        "epoch_time_s",
        "peak_host_memory_bytes",
        "quality_error",
        "cost_per_epoch_usd",
        "throughput_examples_per_s",
    ),
    "infer": (
        "infer_latency_s",
        "compile_time_s",
        "peak_host_memory_bytes",
        "infer_throughput_examples_per_s",
    ),
}
"""What asv sees of each phase. It takes lower as better; `regressions_first_commits` in
asv.conf.json keeps throughput, which is higher-is-better, out of its alarms."""

SAMPLES: dict[str, Callable[[Run], list[float]]] = {
    "step_time_s": lambda run: step_times(run.samples.steady),
    "epoch_time_s": lambda run: [epoch.train_s for epoch in counted_epochs(run)],
    "infer_latency_s": lambda run: list(run.samples.infer_latency_s),
}
"""The raw samples whose median the metric is: asv makes its own statistics from them."""

UNITS = {"s": "seconds", "B": "bytes"}  # the two words by which asv scales what it prints

Value = float | dict[str, Any]


class Suite:
    """A workload's phase on the axes backend, precision and API style.

    A subclass names `workload` and `phase`, and defines `setup_cache` to return `open_session()`:
    asv tells caches apart by file and line, so suites that inherited one would share it.
    """

    workload: str
    phase: str
    scale = "smoke"
    device = "cpu"

    # What asv reads.
    param_names = ("backend", "precision", "api_style")
    params: list[list[str]]
    version: str
    # The worker's own limit ends it first, and then asv gets its status. The rest is for imports.
    timeout = BY_SCALE_S[scale] + 60.0
    setup_cache_timeout = 1800.0  # data may have to be fetched

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "setup_cache" not in vars(cls):
            raise TypeError(
                f"{cls.__name__} defines no setup_cache of its own. Let it return open_session()."
            )
        vars(cls)["setup_cache"].timeout = cls.setup_cache_timeout
        cells = cls.cells()
        cls.params = [
            list(dict.fromkeys(getattr(cell, axis) for cell in cells)) for axis in cls.param_names
        ]
        declared = workload(cls.workload)
        cls.version = f"{declared.version} {cls.scale}/{cls.phase}/{cls.device}"
        for name in TRACKED[cls.phase]:
            setattr(cls, f"track_{name}", _benchmark(cls, METRICS[name], declared))

    @classmethod
    def cell(cls, backend: str, precision: str, api_style: str) -> Cell:
        """The cell of one parameter combination."""
        return Cell(cls.workload, cls.scale, cls.phase, backend, precision, api_style, cls.device)

    @classmethod
    def cells(cls) -> list[Cell]:
        """Every cell of a plan, not unsupported by nature: the same list on every machine."""
        return [
            cell
            for cell in all_cells([cls.workload])
            if cell == cls.cell(cell.backend, cell.precision, cell.api_style)
            and not cell.on_request
            and support(cell).status != "unsupported"
        ]

    def open_session(self) -> str:
        """Fetch the data if need be, and start a results file for this asv run; returns its path.

        The header lists no cells: which ones come is known to asv alone, and a session that
        promised more would be taken for an unfinished one.
        """
        runner.prepare_data(self.cells(), log=print)
        session = runner.new_session(
            (),
            plan="asv",
            only=(f"{self.workload}/{self.scale}/{self.phase}/*/{self.device}",),
            replicates=1,
            order_seed=0,
            protocol=Protocol(),
        )
        check_writable(self._results())
        with SessionWriter(self._results(), session) as writer:
            return str(writer.path)

    def setup(self, session: str, backend: str, precision: str, api_style: str) -> None:
        """Skip what cannot run here: asv takes NotImplementedError in `setup` for a skip."""
        possible = support(self.cell(backend, precision, api_style))
        if not possible.runs:
            raise NotImplementedError(possible.reason)

    def record(self, session: str, cell: Cell) -> Run:
        """The cell's run in the session: measured and written if it is not there yet."""
        path = Path(session)
        with SessionWriter.resume(path) as writer:
            stored = read_file(path)
            for run in stored.runs:
                if run.cell == cell.id:
                    return run
            turn = runner.Planned(self.cells().index(cell), cell, replicate=0)
            peaks = peaks_of(self._repository() / "results", machine_name())
            extras = runner.Extras(price=self._price(), peaks=peaks)
            with runner.terminated_as_interrupted():
                run = runner.execute(stored.session, turn, extras)
            writer.append(run)
            if run.contention.contended:  # `asv run --show-stderr` shows what is printed
                print(f"{cell.id}: other processes used the machine meanwhile.")
            return run

    def _repository(self) -> Path:
        # asv runs benchmarks in a temporary folder.
        return Path(inspect.getfile(type(self))).resolve().parents[1]

    def _results(self) -> Path:
        chosen = os.environ.get("EPOCHMARK_RESULTS") or "results"
        return self._repository() / Path(chosen).expanduser()

    def _price(self) -> Price | None:
        name = configured_price(self._repository())
        return find_price(name, self._repository() / "results") if name else None


def value(metric: str, run: Run) -> Value:
    """What asv stores: raw samples where there are any, NaN for what was not measured.

    Raises RuntimeError for a run that is not ok, which asv shows as failed, with the reason.
    """
    if run.status != "ok":
        raise RuntimeError(f"{run.cell} ended with status {run.status!r}: {run.reason}.")
    if metric not in run.metrics:
        return math.nan
    if metric in SAMPLES:
        return {"samples": SAMPLES[metric](run), "number": 1}
    return run.metrics[metric]


def _benchmark(suite: type[Suite], metric: Metric, declared: Workload) -> Callable[..., Value]:
    def track(self: Suite, session: str, backend: str, precision: str, api_style: str) -> Value:
        return value(metric.name, self.record(session, self.cell(backend, precision, api_style)))

    track.__name__ = f"track_{metric.name}"
    track.__qualname__ = f"{suite.__name__}.{track.__name__}"
    track.__doc__ = metric.definition
    vars(track).update(
        unit=_unit(metric, declared),
        pretty_name=f"{declared.name} {suite.phase}: {metric.title}",
        # What asv's pages show as the benchmark's code.
        pretty_source=f'def {track.__name__}():\n    """{metric.definition}"""',
    )
    return track


def _unit(metric: Metric, declared: Workload) -> str:
    if metric.name == "quality_error" and not declared.higher_is_better:
        return declared.quality_unit
    return UNITS.get(metric.unit, metric.unit)
