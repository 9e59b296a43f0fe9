"""Planning steps for accelerators that are not here.

What cannot be compared with an accelerator is compared with the processor: the traced bytes of a
step on PyTorch with what its allocator gives out in a real one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness import data, preflight, preflight_command, probes
from harness.backends.ahead import Figures, decisive, program_digest
from harness.cache import cache_folder
from harness.cells import PRECISIONS, Cell
from harness.cli import app
from harness.errors import EpochmarkError, ResultsError, UsageError
from harness.planned import where_peaks_come_from
from harness.preflight import (
    ERROR,
    FITS,
    TOO_LARGE,
    UNAVAILABLE,
    UNSUPPORTED,
    Forecast,
    Stamp,
    barred,
    cells_of,
    forecast,
    judged,
    largest_batch,
    name_of,
    planner,
    read_forecasts,
    write_forecasts,
)
from harness.registry import workload, workloads
from harness.targets import TARGETS, Target, target
from tests.workers import answer, finished

ROOT = Path(__file__).parents[1]
MADE = Forecast(as_of="2026-11-23", suite_commit="", batch_size=32, outcome=ERROR)
STAMP = Stamp(as_of="2026-11-23", suite_commit="", packages={})
needs_ptxas = pytest.mark.skipif(
    find_spec("jax_cuda13_plugin") is None,
    reason="no CUDA plugin of JAX here: install requirements/preflight.txt",
)
needs_libtpu = pytest.mark.skipif(
    find_spec("libtpu") is None, reason="no libtpu here: install requirements/preflight.txt"
)


def cell(name: str, backend: str, precision: str = "float32", style: str = "functional") -> Cell:
    return Cell(name, "smoke", "train", backend, precision, style, "gpu")


@pytest.fixture
def all_data() -> None:
    for declared in workloads().values():
        data.fetch(declared, next(iter(declared.scales)))


# Against the processor's own allocator


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("name", "style"),
    [*((name, "functional") for name in workloads()), ("recommender", "custom_loop")],
)
def test_traced_bytes_are_what_a_real_step_allocates(name: str, style: str, all_data: None) -> None:
    """Seen were 0.0 to 0.7 % more: a few small tensors that real kernels make in place."""
    chosen = cell(name, "torch", style=style)
    declared = workload(name).scales["smoke"].batch_size
    with planner(target("cuda-h100"), STAMP, optimised=False) as plan:
        traced = plan.figures(chosen, declared)
    assert isinstance(traced, Figures), traced
    done = finished("preflight_child", chosen.id, backend="torch")
    real = answer(done)["peak_bytes"]
    assert traced.peak_bytes == pytest.approx(real, rel=0.02)


@pytest.mark.frameworks
def test_half_the_precision_takes_less_and_twice_the_batch_more(all_data: None) -> None:
    """float16 too, whose loss scaling asks for values that the traced tensors do not have."""
    with planner(target("cuda-h100"), STAMP, optimised=False) as plan:
        peaks = {
            (precision, batch): plan.figures(cell("lstm_eta", "torch", precision), batch)
            for precision in ("float32", "mixed_float16", "mixed_bfloat16")
            for batch in (256, 512)
        }
    found = {key: one.peak_bytes for key, one in peaks.items() if isinstance(one, Figures)}
    sizes = {key: size for key, size in found.items() if size is not None}
    assert len(sizes) == len(peaks), peaks
    for half in ("mixed_float16", "mixed_bfloat16"):
        assert 0.4 < sizes[half, 256] / sizes["float32", 256] < 0.7
    for precision in ("float32", "mixed_float16", "mixed_bfloat16"):
        assert 1.8 < sizes[precision, 512] / sizes[precision, 256] < 2.0


# With the TPU's own compiler


@needs_libtpu
@pytest.mark.frameworks
def test_the_tpus_compiler_plans_a_step_and_a_second_time_it_is_not_asked(
    all_data: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Cell("lstm_eta", "smoke", "train", "jax", "mixed_bfloat16", "functional", "tpu")
    folder = tmp_path / "cache"
    folder.mkdir()
    for file in cache_folder().iterdir():
        if file.name != "preflight":
            (folder / file.name).symlink_to(file)
    monkeypatch.setenv("EPOCHMARK_CACHE", str(folder))
    with planner(target("tpu-v5e"), STAMP, optimised=False) as plan:
        found = plan.figures(chosen, 256)
    assert isinstance(found, Figures), found
    assert found.peak_bytes is not None
    assert found.crossing_bytes is not None
    assert found.crossing_bytes > 0
    state = 3 * 4 * workload("lstm_eta").scales["smoke"].parameters
    assert state < found.peak_bytes < 100 * state
    # Where another peak is kept under the program's digest, that one is told.
    (kept,) = (folder / "preflight").glob("*.json")
    assert kept.stem == found.program
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "peak_bytes": 12345}))
    with planner(target("tpu-v5e"), STAMP, optimised=False) as plan:
        again = plan.figures(chosen, 256)
        other = plan.figures(chosen, 128)
    assert again == replace(found, peak_bytes=12345)
    assert isinstance(other, Figures)
    assert other.program != found.program


@needs_libtpu
@pytest.mark.frameworks
def test_the_tpus_compiler_says_why_a_batch_is_too_large(all_data: None, tmp_path: Path) -> None:
    """A million examples of eight flights take 20 GB and more of the 16 that a v5e has."""
    chosen = Cell("lstm_eta", "smoke", "train", "jax", "float32", "functional", "tpu")
    with planner(target("tpu-v5e"), STAMP, optimised=False) as plan:
        figures = plan.figures(chosen, 1 << 21)
    assert isinstance(figures, Figures), figures
    assert "hbm" in figures.refusal.lower()
    one = judged(MADE, figures, chosen, target("tpu-v5e"), optimised=False)
    assert (one.outcome, one.reason) == (TOO_LARGE, figures.refusal)
    assert one.peak_bytes is None


# Verdicts


# With XLA's compiler for GPUs


@needs_ptxas
@pytest.mark.frameworks
def test_the_gpus_compiler_plans_a_step(all_data: None) -> None:
    """At least the state, which Adam has three times; less in half the precision."""
    state = 3 * 4 * workload("lstm_eta").scales["smoke"].parameters
    with planner(target("cuda-l4"), STAMP, optimised=False) as plan:
        peaks = []
        for precision, batch in (("float32", 256), ("float32", 512), ("mixed_float16", 256)):
            figures = plan.figures(cell("lstm_eta", "jax", precision), batch)
            assert isinstance(figures, Figures), figures
            assert figures.peak_bytes is not None
            assert figures.crossing_bytes is not None
            assert state < figures.crossing_bytes < 3 * state
            peaks.append(figures.peak_bytes)
    whole, twice, half = peaks
    assert state < whole < 100 * state
    assert 1.5 < twice / whole < 2.1
    assert 0.4 < half / whole < 0.8


def test_every_target_has_a_documented_peak_and_a_source() -> None:
    assert {name.split("-")[0] for name in TARGETS} == {"tpu", "cuda"}
    for one in TARGETS.values():
        assert one.documented.source.startswith("https://")
        assert one.device == ("tpu" if one.name.startswith("tpu") else "gpu")
        assert one.memory_bytes >= 16 * 10**9
        # The slowest of these memories feeds 300 GB in a second, the fastest 3.35 TB.
        assert 300e9 <= one.bandwidth_bytes_per_s <= 3350e9


def test_an_unknown_accelerator_is_told_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"accelerator 'tpu-v9'. Known .*: tpu-v4, tpu-v5e"):
        target("tpu-v9")


@pytest.mark.parametrize(
    ("peak_bytes", "outcome"), [(24 * 10**9, FITS), (24 * 10**9 + 1, TOO_LARGE)]
)
def test_traced_bytes_are_held_against_the_documented_memory(peak_bytes: int, outcome: str) -> None:
    figures = Figures("p", peak_bytes=peak_bytes, moved_bytes=1, crossing_bytes=1)
    one = judged(MADE, figures, cell("bert", "torch"), target("cuda-l4"), optimised=True)
    assert (one.outcome, one.method, one.optimised) == (outcome, "traced", False)


def test_the_bound_is_the_longer_of_computing_and_reading() -> None:
    """An L4: 30.3 TFLOP/s in float32, 300 GB/s."""
    chosen, device = cell("bert", "torch"), target("cuda-l4")
    flops = 32 * workload("bert").scales["smoke"].training_flops
    computing = flops / 30.3e12
    for crossing_bytes in (1, int(2 * computing * 300e9)):
        figures = Figures("p", peak_bytes=10, moved_bytes=1, crossing_bytes=crossing_bytes)
        one = judged(MADE, figures, chosen, device, optimised=False)
        assert one.flops == flops
        assert one.bound_s == pytest.approx(max(computing, crossing_bytes / 300e9))


def test_a_precision_without_a_documented_peak_is_bounded_by_the_fastest_one() -> None:
    assert target("tpu-v5e").flops_per_s("float32") == 197e12
    assert target("cuda-h100").flops_per_s("float32") == 67e12


@pytest.mark.parametrize(
    ("chosen", "device", "found"),
    [
        (cell("bert", "torch", "mixed_bfloat16"), "cuda-t4",
         (UNSUPPORTED, "no units for mixed_bfloat16 on Tesla T4")),
        (cell("bert", "tensorflow"), "cuda-h100",
         (UNSUPPORTED, "no way to plan a step of tensorflow without the accelerator")),
        (replace(cell("bert", "jax", "mixed_float16"), device="tpu"), "tpu-v5e",
         (UNSUPPORTED, "float16, without units on a TPU")),
        (cell("bert", "jax", "mixed_bfloat16"), "cuda-t4",
         (UNSUPPORTED, "no units for mixed_bfloat16 on Tesla T4")),
        (cell("bert", "torch", "mixed_float16"), "cuda-t4", None),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_says_why(
    chosen: Cell, device: str, found: tuple[str, str] | None
) -> None:
    assert barred(chosen, target(device)) == found


def versions(installed: dict[str, str]) -> Callable[[str], str]:
    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    return version


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        ({}, "no package jax in this environment; `pip install"),
        ({"jax": "0.10.2"}, "no package libtpu in this environment; `pip install"),
        ({"jax": "0.10.2", "libtpu": "0.0.1"}, "libtpu 0.0.1 does not match jax, which asks for"),
        ({"jax": "0.10.2", "libtpu": "0.0.42.1"}, ""),
    ],
)
def test_a_compiler_that_is_missing_or_does_not_match_is_unavailable(
    installed: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "version", versions(installed))
    preflight._missing.cache_clear()
    found = barred(replace(cell("bert", "jax"), device="tpu"), target("tpu-v5e"))
    preflight._missing.cache_clear()
    if not said:
        assert found is None
    else:
        assert found is not None
        assert found[0] == UNAVAILABLE
        assert found[1].startswith(said)


def test_the_compiler_for_gpus_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "version", versions({"jax": "0.10.2"}))
    preflight._missing.cache_clear()
    found = barred(cell("bert", "jax"), target("cuda-h100"))
    preflight._missing.cache_clear()
    assert found is not None
    assert found[1].startswith("no package jax-cuda13-plugin in this environment; `pip install")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("cuda-t4", "abc", 8, "torch"), ("cuda-h100", "abc", 8, "torch"), True),
        (("tpu-v4", "abc", 8, "jax"), ("tpu-v5e", "abc", 8, "jax"), False),
        (("cuda-t4", "abc", 8, "jax"), ("cuda-h100", "abc", 8, "jax"), False),
        (("cuda-t4", "abc", 8, "torch"), ("cuda-t4", "abd", 8, "torch"), False),
        (("cuda-t4", "abc", 8, "torch"), ("cuda-t4", "abc", 9, "torch"), False),
        (("cuda-t4", "abc+", 8, "torch"), ("cuda-t4", "abc+", 8, "torch"), False),
        (("cuda-t4", "", 8, "torch"), ("cuda-t4", "", 8, "torch"), False),
    ],
)
def test_a_commit_finds_a_figure_once(
    one: tuple[str, str, int, str],
    other: tuple[str, str, int, str],
    same: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A trace once for all GPUs; a changed source tree keeps nothing."""
    monkeypatch.setenv("EPOCHMARK_CACHE", str(tmp_path))
    asked = []

    def answer(self: preflight.Planner, chosen: Cell, batch_size: int) -> Figures:
        asked.append(batch_size)
        return Figures("p", peak_bytes=batch_size)

    monkeypatch.setattr(preflight.Planner, "_asked", answer)
    for name, commit, batch_size, backend in (one, other):
        with planner(target(name), replace(STAMP, suite_commit=commit), optimised=False) as plan:
            found = plan.figures(cell("lstm_eta", backend), batch_size)
        assert found == Figures("p", peak_bytes=batch_size)
    assert len(asked) == (1 if same else 2)


DECISIVE = [
    pytest.param(backend, device, package, id=f"{backend}-{device}-{package}")
    for backend, device in (("jax", "cuda-a100"), ("jax", "tpu-v4"), ("torch", "cuda-a100"))
    for package in decisive(backend, target(device).device)
]


@pytest.mark.parametrize(("backend", "device", "package"), DECISIVE)
def test_a_change_of_a_package_that_decides_changes_every_key_and_is_recorded(
    backend: str, device: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one compiler planned is not told as what another one would; both are known by name."""
    monkeypatch.setenv("EPOCHMARK_CACHE", str(tmp_path))
    monkeypatch.setattr(preflight, "_missing", lambda *_: "")
    asked = iter("abc")
    monkeypatch.setattr(preflight.Planner, "_asked", lambda *_: Figures(next(asked), 1, 1, 1))
    chosen, of = cell("lstm_eta", backend), target(device)
    chosen = replace(chosen, device=of.device)
    programs, digests = [], set()
    for version in ("1", "2"):
        monkeypatch.setattr(
            probes, "installed", lambda name, of=version: of if name == package else "1"
        )
        stamp = replace(STAMP, suite_commit="abc", packages=probes.package_versions())
        digests.add(program_digest("step", of, stamp.packages, backend=backend, optimised=False))
        with planner(of, stamp, optimised=False) as plan:
            one = forecast(chosen, of, 8, plan, stamp, optimised=False)
        programs.append(one.program)
        assert one.packages is not None
        assert one.packages[package] == version
        assert one.packages.keys() == set(decisive(backend, of.device))
    assert programs == ["a", "b"], "asked anew"
    assert len(digests) == 2


def test_the_compiler_for_gpus_is_the_plugin_and_what_it_calls() -> None:
    """XLA, its runtime, the assembler ptxas and the library of device functions."""
    assert set(decisive("jax", "gpu")) == {
        "keras", "jax", "jaxlib",
        "jax-cuda13-plugin", "jax-cuda13-pjrt", "nvidia-cuda-nvcc", "nvidia-nvvm",
    }  # fmt: skip


# The largest batch


@pytest.mark.parametrize("limit", [1, 2, 3, 31, 32, 33, 100, 1000, 4097])
@pytest.mark.parametrize("declared", [1, 32, 500])
def test_the_largest_batch_lies_between_what_fits_and_what_does_not(
    limit: int, declared: int
) -> None:
    asked: list[int] = []

    def fits(batch_size: int) -> bool:
        asked.append(batch_size)
        return batch_size <= limit

    low, high = largest_batch(declared, fits)
    assert low is not None
    assert high is not None
    assert low <= limit < high
    assert high - low <= max(1, low / 32)
    assert len(asked) == len(set(asked)) < 30


def test_a_batch_of_one_that_does_not_fit_and_one_without_end() -> None:
    assert largest_batch(64, lambda batch_size: False) == (None, 1)
    assert largest_batch(64, lambda batch_size: True, limit=1000) == (1000, None)


def test_a_search_that_cannot_be_finished_names_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a batch fits is not known where its compiler crashed."""

    def forecast(cell: Cell, target: Target, batch_size: int, *rest: object, **more: object) -> Any:
        if batch_size < 100:
            return replace(MADE, outcome=FITS, batch_size=batch_size)
        return replace(MADE, outcome=ERROR, batch_size=batch_size, reason="it crashed")

    monkeypatch.setattr(preflight_command, "forecast", forecast)
    one = preflight_command._with_largest(
        replace(MADE, outcome=FITS, batch_size=64), cell("bert", "jax"), target("cuda-l4"),
        None, STAMP,  # type: ignore[arg-type]
    )  # fmt: skip
    assert (one.outcome, one.largest_batch, one.refused_batch) == (ERROR, None, None)
    assert one.reason == "in the search of the largest batch, at 128: it crashed"


def test_the_effort_that_is_told_is_of_what_was_planned() -> None:
    full = replace(MADE, outcome=FITS, optimised=True, peak_bytes=1)
    failed = replace(MADE, outcome=ERROR, optimised=False, peak_bytes=None)
    assert "lowest effort" not in where_peaks_come_from("tpu", [full, failed])
    assert "lowest effort" in where_peaks_come_from("tpu", [replace(full, optimised=False)])


# The command and its file


def test_a_planning_process_that_dies_is_told_and_the_next_cell_has_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The child asks for a module that ends the process."""
    monkeypatch.setattr(preflight, "_CHILD", "tests.planted.ends_at_once")
    with planner(target("cuda-t4"), STAMP, optimised=False) as plan:
        for _ in range(2):
            found = plan.figures(cell("lstm_eta", "torch"), 8)
            assert found == "the planning process ended: exit code 3"


def invoke(*arguments: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, ["preflight", *arguments])
    if isinstance(found.exception, EpochmarkError):
        return found.exception.exit_status, found.stdout, str(found.exception)
    return found.exit_code, found.stdout, found.stderr


def test_the_command_without_the_compiler_says_what_to_install_and_writes_nothing_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"bert/smoke/preflight/jax/float32/functional/tpu-v5e": replace(MADE, outcome=FITS)}
    write_forecasts(tmp_path, "tpu-v5e", kept)
    monkeypatch.setattr(preflight, "version", versions({"jax": "0.10.2"}))
    preflight._missing.cache_clear()
    status, out, _ = invoke(
        "--device", "tpu-v5e", "--only", "bert/*/float32/*", "--results", str(tmp_path)
    )
    preflight._missing.cache_clear()
    assert status == 1
    assert "unavailable: no package libtpu in this environment" in " ".join(out.split())
    assert "requirements/preflight.txt" in out
    assert read_forecasts(tmp_path, "tpu-v5e") == kept


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "cuda-v100"], "Unknown accelerator 'cuda-v100'"),
        (["--device", "tpu-v5e", "--scale", "huge"], "Unknown scale 'huge'"),
        (["--device", "tpu-v5e", "--only", "nothing/*"], "No cell matches 'nothing/*'"),
    ],
)
def test_mistakes_in_the_call(arguments: list[str], said: str, tmp_path: Path) -> None:
    status, _, error = invoke(*arguments, "--results", str(tmp_path))
    assert status == 2
    assert said in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"peak_bytes": -1}, {"batch_size": 0}, {"colour": "red"}])
def test_a_damaged_file_is_told(change: dict[str, object], tmp_path: Path) -> None:
    path = write_forecasts(tmp_path, "tpu-v5e", {"a": replace(MADE, peak_bytes=5)})
    fields = json.loads(path.read_text())
    fields["cells"]["a"] |= change
    path.write_text(json.dumps(fields))
    with pytest.raises(ResultsError, match="not a file of forecasts"):
        read_forecasts(tmp_path, "tpu-v5e")


def test_names_tell_that_these_are_no_measurements() -> None:
    names = [name_of(one, target("cuda-l4")) for one in cells_of(target("cuda-l4"), "smoke", [])]
    assert len(names) == len(set(names)) == len(workloads()) * 3 * len(PRECISIONS) * 4
    assert all("/preflight/" in name and name.endswith("/cuda-l4") for name in names)


def test_the_table_says_what_its_figures_are() -> None:
    name = "bert/standard/preflight/torch/float32/functional/cuda-l4"
    one = replace(
        MADE, outcome=FITS, method="traced", peak_bytes=6 * 2**30, bound_s=0.012,
        largest_batch=128, refused_batch=132,
    )  # fmt: skip
    said = preflight_command.text({name: one}, target("cuda-l4"))
    row = next(line for line in said.splitlines() if line.startswith("bert"))
    told = "32 fits 6.00 GiB 27 % 12.0 ms 128 (not 132)"
    assert row.split()[4:] == told.split()
    assert "no measurements" in said
    assert "https://www.nvidia.com/en-us/data-center/l4/" in said
    assert preflight_command.as_csv({name: one}, target("cuda-l4")).splitlines()[1].startswith(name)
    fields = json.loads(preflight_command.as_json({name: one}, target("cuda-l4")))
    assert fields["forecasts"][0]["peak_bytes"] == 6 * 2**30


# What is committed


@pytest.mark.parametrize("name", TARGETS)
def test_committed_forecasts_are_of_the_declared_batches(name: str) -> None:
    found = read_forecasts(ROOT / "results", name)
    tried = {key: one for key, one in found.items() if one.outcome in (FITS, TOO_LARGE)}
    for scale in ("smoke", "standard"):
        seen = {key.split("/")[0] for key in tried if key.split("/")[1] == scale}
        assert seen == set(workloads()), f"{scale} on {name}"
    for key, one in tried.items():
        workload_name, scale = key.split("/")[:2]
        assert one.batch_size == workload(workload_name).scales[scale].batch_size
        assert key.endswith(f"/{name}")


@pytest.mark.parametrize("name", TARGETS)
def test_what_the_readme_shows_was_planned(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At standard scale, the functional model in every precision that the device has units for."""
    monkeypatch.setattr(preflight, "_missing", lambda *_: "")
    found, of = read_forecasts(ROOT / "results", name), target(name)
    for chosen in cells_of(of, "standard", ["*/functional/*"]):
        # A step in TensorFloat-32 has the tensors of one in float32.
        if chosen.precision != "tensorfloat32" and barred(chosen, of) is None:
            assert found[name_of(chosen, of)].outcome in (FITS, TOO_LARGE), chosen.id
