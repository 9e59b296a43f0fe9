"""Energy is counted once, across a wrap, and absent where nothing counts it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pynvml
import pytest

from harness import data, energy, energy_command, nvml, runner
from harness.carbon import COLUMNS, MODELS, Intensity, find_intensity, read_intensities
from harness.cells import parse_cell
from harness.energy import Counter, Sampler, counters, rapl
from harness.errors import ResultsError, UsageError
from harness.metrics import derive, own_cpu_share
from harness.registry import workload, workloads
from harness.schema import Block, Energy, Epoch, Protocol
from harness.stages import BEGIN, END
from harness.store import read_file
from harness.table import load_table
from tests.records import CELL, SAMPLES, make_run, write_session

REPOSITORY = Path(__file__).parents[1]
RESULTS = Path("results")
RANGE_UJ = 262_143_328_850


@pytest.fixture
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_CACHE", "cache")


def zone(root: Path, place: str, name: str, uj: int, range_uj: int = RANGE_UJ) -> Path:
    """A zone of the kernel's powercap tree."""
    folder = root / f"intel-rapl{place}"
    folder.mkdir(parents=True)
    for file, text in {"name": name, "energy_uj": uj, "max_energy_range_uj": range_uj}.items():
        (folder / file).write_text(f"{text}\n")
    return folder / "energy_uj"


# Which counters


def test_packages_and_memory_are_counted_and_nothing_twice(tmp_path: Path) -> None:
    """Two sockets; cores and graphics are inside them, psys around them, mmio is the same again."""
    for place, name in (
        (":0", "package-0"), (":0:0", "core"), (":0:1", "uncore"), (":0:2", "dram"),
        (":1", "package-1"), (":1:0", "core"), (":1:1", "dram"), (":2", "psys"),
        ("-mmio:0", "package-0"),
    ):  # fmt: skip
        zone(tmp_path, place, name, 5_000_000)
    found = rapl(tmp_path)
    assert [counter.domain for counter in found] == [
        "package-0 0", "dram 0:2", "package-1 1", "dram 1:1",
    ]  # fmt: skip
    assert {counter.method for counter in found} == {"rapl"}
    assert [counter.read() for counter in found] == [5.0] * 4


def test_a_machine_without_counters_has_none(tmp_path: Path) -> None:
    assert rapl(tmp_path / "missing") == []
    with Sampler([]) as sampler:
        sampler.mark(BEGIN)
        sampler.mark(END)
    assert sampler.energy() is None


@pytest.mark.parametrize("place", [":0", ":1", ":1:0"])
def test_one_socket_or_memory_that_may_not_be_read_leaves_none(tmp_path: Path, place: str) -> None:
    """Half the sockets are not the machine. A folder in place of the file fails for root too."""
    zone(tmp_path, ":0", "package-0", 1)
    zone(tmp_path, ":1", "package-1", 1)
    zone(tmp_path, ":1:0", "dram", 1)
    assert len(rapl(tmp_path)) == 3
    path = tmp_path / f"intel-rapl{place}" / "energy_uj"
    path.unlink()
    path.mkdir()
    assert rapl(tmp_path) == []


@dataclass
class Devices:
    """A stand-in for NVML: millijoules and milliwatts by device, None where it does not tell."""

    mj: list[int | None]
    mw: list[int | None]
    lost: bool = False
    opened: int = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Devices:
        for name, answer in {
            "nvmlInit": lambda: self.count(1),
            "nvmlShutdown": lambda: self.count(-1),
            "nvmlDeviceGetHandleByIndex": self.handle,
            "nvmlDeviceGetTotalEnergyConsumption": lambda number: self.told(self.mj[number]),
            "nvmlDeviceGetPowerUsage": lambda number: self.told(self.mw[number]),
        }.items():
            monkeypatch.setattr(pynvml, name, answer)
        # Asked once in a process, so that a stand-in below it would stay.
        monkeypatch.setattr(nvml, "cuda_devices", lambda: ("NVIDIA",) * len(self.mj))
        return self

    def count(self, more: int) -> None:
        self.opened += more

    def handle(self, number: int) -> int:
        if self.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return number

    def told(self, value: int | None) -> int:
        if value is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return value


def test_devices_count_energy_or_their_power_is_integrated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    zone(tmp_path, ":0", "package-0", 5_000_000)
    devices = Devices(mj=[1500, None], mw=[None, 70_000]).install(monkeypatch)
    found = counters("gpu", tmp_path)
    assert [(counter.method, counter.domain) for counter in found] == [
        ("rapl", "package-0 0"), ("nvml", "gpu 0"), ("nvml-power", "gpu 1"),
    ]  # fmt: skip
    assert found[1].read() == 1.5
    assert devices.opened == 0, "every opening is closed"
    assert [counter.domain for counter in counters("cpu", tmp_path)] == ["package-0 0"]


@pytest.mark.parametrize("mj", [[], [1500, None]])
def test_a_gpu_that_does_not_tell_leaves_no_energy_of_processors_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mj: list[int | None]
) -> None:
    zone(tmp_path, ":0", "package-0", 5_000_000)
    Devices(mj=mj, mw=[None] * len(mj)).install(monkeypatch)
    assert counters("gpu", tmp_path) == []


def test_a_tpu_has_no_energy_of_its_hosts_processors(tmp_path: Path) -> None:
    zone(tmp_path, ":0", "package-0", 5_000_000)
    assert counters("tpu", tmp_path) == []


def test_power_is_integrated_by_the_trapezoidal_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 W, 2 s later 200 W (300 J between), another 0.5 s later 200 W (100 J)."""
    moments, watts = iter([10.0, 12.0, 12.5]), iter([100.0, 200.0, 200.0])
    monkeypatch.setattr(energy, "now", lambda: next(moments))
    read = energy.integrated(lambda: next(watts))
    assert [read(), read(), read()] == [0.0, 300.0, 400.0]


@pytest.mark.parametrize("told", ["mj", "mw"])
def test_a_lost_device_ends_the_counting(monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    """NVML raises already where the device is looked up; the session goes on."""
    devices = Devices(mj=[None], mw=[None])
    setattr(devices, told, [10_000])
    devices.install(monkeypatch)
    (counter,) = energy.devices()
    with Sampler([counter]) as sampler:
        sampler.mark(BEGIN)
        devices.lost = True
        sampler.mark(END)
    assert sampler.energy() is None


# What they count


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    path = zone(tmp_path, ":0", "package-0", 90_000_000, range_uj=100_000_000)
    (counter,) = rapl(tmp_path)
    assert counter.joules() == 0.0
    path.write_text("97000000\n")
    assert counter.joules() == pytest.approx(7.0)
    path.write_text("5000000\n")  # 3 J to the end of the range and 5 J from its beginning
    assert counter.joules() == pytest.approx(15.0)


@pytest.mark.parametrize("range_j", [None, 50.0])
def test_a_counter_that_began_anew_leaves_no_energy(range_j: float | None) -> None:
    """From 110 J to 3 J is no wrap, where there is none or its range is 50 J."""
    values = scripted(100.0, 110.0, 3.0)
    counter = Counter("nvml", "gpu 0", lambda: next(values), range_j)
    with Sampler([counter], hz=1e-3) as sampler:
        sampler.mark(BEGIN)
        sampler.mark(END)
    assert sampler.energy() is None


def scripted(*values: float) -> Iterator[float]:
    yield from values


def test_epochs_get_what_was_counted_between_their_ends() -> None:
    """Opened at 100 J; an epoch from 110 to 150 J, an evaluation to 155, an epoch to 175."""
    values = scripted(100.0, 110.0, 150.0, 155.0, 175.0)
    counter = Counter("rapl", "package-0 0", lambda: next(values))
    with Sampler([counter], hz=1e-3) as sampler:  # no sample in between
        for mark in (BEGIN, END, BEGIN, END):
            sampler.mark(mark)
    assert sampler.energy() == Energy("rapl", ("package-0 0",), 1e-3, (40.0, 20.0))


def test_the_sampler_follows_a_counter_that_wraps_between_marks() -> None:
    """Every reading finds 6 J more on a counter of 10 J: only samples in between can know."""
    readings = threading.Semaphore(0)
    values = (6.0 * number % 10.0 for number in count())

    def read() -> float:
        readings.release()
        return next(values)

    with Sampler([Counter("rapl", "package-0 0", read, range_j=10.0)], hz=200.0) as sampler:
        sampler.mark(BEGIN)
        for _ in range(10):
            assert readings.acquire(timeout=30)
        sampler.mark(END)
    found = sampler.energy()
    assert found is not None
    (joules,) = found.epochs_j
    assert joules >= 6.0 * 8
    assert joules % 6.0 == 0


def test_the_metric_is_the_median_of_the_later_epochs() -> None:
    run = make_run(
        samples=replace(SAMPLES, epochs=tuple(Epoch(5, 1.0, 0.1, 0.5, {}) for _ in range(4))),
        energy=Energy("rapl", ("package-0 0",), 1.0, (90.0, 30.0, 20.0, 40.0)),
    )
    assert derive(run)["energy_per_epoch_j"] == 30.0
    assert "energy_per_epoch_j" not in derive(replace(run, energy=None))
    # An epoch without its energy: the run was ended, or a mark was lost.
    lost = replace(run, energy=Energy("rapl", ("package-0 0",), 1.0, (90.0, 30.0)))
    assert "energy_per_epoch_j" not in derive(lost)


def test_a_part_of_an_epoch_is_extrapolated_as_its_time_is() -> None:
    part = replace(SAMPLES, epochs=(Epoch(5, 0.1, None, 0.6, {}, epoch_steps=20),))
    run = make_run(samples=part, energy=Energy("nvml", ("gpu 0",), 1.0, (3.0,)))
    assert derive(run)["energy_per_epoch_j"] == 12.0


@pytest.mark.usefixtures("_inside")
def test_a_record_keeps_its_energy_and_an_older_one_has_none() -> None:
    kept = make_run(energy=Energy("rapl", ("package-0 0",), 1.0, (9.0, 8.0)))
    path = write_session(RESULTS, kept)
    assert read_file(path).runs == (kept,)
    header, line = path.read_text().splitlines()
    older = []
    for text in (header, line):
        fields = json.loads(text) | {"schema_version": 4}
        fields.pop("energy", None)
        older.append(json.dumps(fields))
    path.write_text("\n".join(older) + "\n")
    (run,) = read_file(path).runs
    assert run.energy is None


@pytest.mark.usefixtures("_inside")
def test_a_record_of_negative_energy_is_refused() -> None:
    path = write_session(RESULTS, make_run(energy=Energy("nvml", ("gpu 0",), 1.0, (9.0, -1.0))))
    found = read_file(path)
    assert found.runs == ()
    assert "'energy.epochs_j' should hold no negative numbers" in " ".join(found.notices)


@pytest.mark.frameworks
@pytest.mark.usefixtures("_inside")
def test_a_real_run_on_a_machine_with_counters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the kernel's counter rises a joule each hundredth of a second."""
    monkeypatch.delenv("EPOCHMARK_CACHE")
    data.fetch(workload("recommender"), "smoke")
    path = zone(tmp_path / "powercap", ":0", "package-0", 0)
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "powercap")
    ended = threading.Event()

    def rise() -> None:
        joules = 0
        while not ended.wait(0.01):
            joules += 1
            new = path.with_suffix(".new")
            new.write_text(f"{joules * 1_000_000}\n")
            new.replace(path)

    thread = threading.Thread(target=rise, daemon=True)
    thread.start()
    cell = parse_cell(CELL, list(workloads()))
    session = runner.new_session(
        [cell], plan="", only=(), replicates=1, order_seed=1, protocol=Protocol()
    )
    run = runner.run_one(session, runner.Planned(0, cell, 0), tmp_path, runner.Extras())
    ended.set()
    thread.join()
    assert run.status == "ok", run.reason
    assert run.energy is not None
    assert run.energy.domains == ("package-0 0",)
    assert len(run.energy.epochs_j) == len(run.samples.epochs)
    assert all(joules > 0 for joules in run.energy.epochs_j)
    assert run.metrics["energy_per_epoch_j"] == pytest.approx(derive(run)["energy_per_epoch_j"])
    # No more than a joule a hundredth of a second, and a reading's distance at both ends.
    for joules, epoch in zip(run.energy.epochs_j, run.samples.epochs, strict=True):
        assert joules <= 100 * epoch.train_s + 5


# Carbon


def test_the_committed_table_is_valid_and_covers_the_clouds_regions() -> None:
    book = read_intensities(REPOSITORY / "results")
    assert len(book) > 240
    assert (book["gcp:us-central1"].g_per_kwh, book["gcp:us-central1"].year) == (430.0, "undated")
    assert (book["DEU"].name, book["DEU"].year) == ("Germany", "2023")
    assert book["gcp:me-central1"].name == "Doha, Qatar", "its source misspells the region"


def test_grams_by_hand() -> None:
    """A kilowatt hour is 3.6 MJ."""
    grid = Intensity("X", "X", 400.0, "2023", "a table", "t.csv")
    assert grid.grams(3.6e6) == 400.0
    assert grid.grams(36.0) == pytest.approx(0.004)


def test_the_power_model_by_hand() -> None:
    """Two processors at half load: 2 x (0.71 + 0.5 x 3.55) x 1.1 = 5.467 W."""
    assert MODELS["gcp"].watts(2, 0.5) == pytest.approx(5.467)
    assert MODELS["gcp"].watts(2, 0.0) == pytest.approx(1.562)
    assert MODELS["azure"].watts(1, 1.0) == pytest.approx(3.76 * 1.185)


ROW = {"region": "X", "name": "Land", "g_per_kwh": "5", "year": "2023", "source": "s"}


def table(*rows: dict[str, str]) -> Path:
    folder = RESULTS / "carbon"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [",".join({**ROW, "source_licence": "MIT", **row}.values()) for row in rows]
    (folder / "2026-11.csv").write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
    return RESULTS


@pytest.mark.usefixtures("_inside")
@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"g_per_kwh": "-1"}, "line 2: g_per_kwh is '-1'; expected a number from 0 to 2000"),
        ({"g_per_kwh": "9000"}, "line 2: g_per_kwh is '9000'; expected a number from 0 to 2000"),
        ({"g_per_kwh": "nan"}, "line 2: g_per_kwh is 'nan'; expected a number from 0 to 2000"),
        ({"year": ""}, "line 2: year is ''; expected a year, or undated"),
        ({"source": ""}, "line 2: source is ''; expected a text"),
        ({"source": "a,b"}, "line 2: expected 6 fields"),
    ],
)
def test_a_wrong_row_is_named(row: dict[str, str], problem: str) -> None:
    with pytest.raises(ResultsError) as caught:
        read_intensities(table(row))
    assert str(caught.value) == f"results/carbon/2026-11.csv, {problem}. Correct the row."


@pytest.mark.usefixtures("_inside")
def test_a_region_twice_or_unknown_is_told() -> None:
    with pytest.raises(ResultsError, match="line 3: region 'X' is there twice"):
        read_intensities(table({}, {}))
    with pytest.raises(UsageError, match="There is no grid intensity for 'Y'"):
        find_intensity("Y", read_intensities(table({})))


# The command


def measured(**fields: Any) -> Any:
    blocks = tuple(Block(10, 0.1, cpu_s=0.1) for _ in range(3))  # one of two processors
    return make_run(**{"samples": replace(SAMPLES, steady=blocks), **fields})


def test_the_share_of_the_processors_is_the_runs_own() -> None:
    assert own_cpu_share(measured()) == pytest.approx(0.5)
    assert own_cpu_share(make_run()) is None


@pytest.mark.usefixtures("_inside")
def test_measured_energy_is_never_estimated_and_an_estimate_says_so() -> None:
    counted = Energy("rapl", ("package-0 0",), 1.0, (9.0, 8.0))
    other = CELL.replace("jax", "torch")
    write_session(RESULTS, measured(run="a", energy=counted), measured(run="b", cell=other))
    frame = load_table(RESULTS).frame
    grid = Intensity("gcp:us-central1", "Iowa", 450.0, "2024", "a table", "t.csv")
    book = {grid.region: grid}
    plain = energy_command.lines(frame, book, region=None, estimate=False)
    assert {line.cell: (line.method, line.joules) for line in plain} == {
        CELL: ("rapl", 8.0),
        other: ("", None),
    }
    found = energy_command.lines(frame, book, region=None, estimate=True)
    by_cell = {line.cell: line for line in found}
    assert by_cell[CELL].method == "rapl"
    assert by_cell[other].method == "estimate"
    # Two processors at half load take 5.467 W (above), for an epoch of 0.44 s.
    assert by_cell[other].joules == pytest.approx(5.467 * 0.44)
    assert by_cell[other].grams == pytest.approx(5.467 * 0.44 / 3.6e6 * 450.0)
    text = energy_command.text(found)
    assert "An estimate is no measurement" in text
    assert "gcp:us-central1 (Iowa): 450 g CO2e a kWh (2024; a table)." in text
    assert "estimate" not in energy_command.text(plain)
    assert '"method": "estimate"' in energy_command.as_json(found)
    assert energy_command.as_csv(found).count("\n") == 2


@pytest.mark.usefixtures("_inside")
def test_no_energy_at_all_is_one_sentence() -> None:
    write_session(RESULTS, measured())
    found = energy_command.lines(load_table(RESULTS).frame, {}, region=None, estimate=False)
    assert energy_command.text(found) == energy_command.UNKNOWN


@pytest.mark.usefixtures("_inside")
def test_an_unknown_load_has_no_estimate() -> None:
    """Records before schema 4 do not say how busy the processors were; full load is no answer."""
    write_session(RESULTS, make_run())
    found = energy_command.lines(load_table(RESULTS).frame, {}, region=None, estimate=True)
    assert [(line.method, line.joules) for line in found] == [("", None)]
    assert energy_command.text(found) == energy_command.UNKNOWN


@pytest.mark.usefixtures("_inside")
def test_accelerators_have_no_estimate() -> None:
    write_session(RESULTS, measured(cell=CELL.replace("/cpu", "/gpu")))
    (line,) = energy_command.lines(load_table(RESULTS).frame, {}, region=None, estimate=True)
    assert (line.joules, line.grams) == (None, None)
