"""Peaks: every documented one has a source, a measured file is checked, MFU is a share of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

from harness.cells import PRECISIONS
from harness.errors import ResultsError
from harness.metrics import derive
from harness.peak import (
    ACCELERATORS,
    Accelerator,
    Figure,
    Measured,
    documented,
    peak_for,
    peaks_file,
    peaks_of,
    write_peaks,
)
from harness.schema import Block, Peak, Samples
from tests.records import make_run

MEASURED = Measured(
    machine="laptop",
    as_of="2026-11-23",
    packages={"jax": "0.10.2"},
    contended=False,
    figures=(
        Figure("tensorflow", "float32", 2048, 8e10),
        Figure("jax", "float32", 2048, 1e11),
        Figure("torch", "float32", 1024, 9e10),
        Figure("torch", "mixed_bfloat16", 512, 2e9),
    ),
)


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# The documented table


@pytest.mark.parametrize("row", ACCELERATORS, ids=lambda row: row.names[0])
def test_every_row_has_a_source_a_day_and_plausible_figures(row: Accelerator) -> None:
    source = urlparse(row.source)
    assert source.scheme == "https"
    assert source.netloc.endswith((".nvidia.com", ".google.com"))
    assert len(source.path) > 1
    assert date.fromisoformat(row.as_of) <= date(2027, 1, 1)
    assert row.names
    assert row.flops_per_s
    assert row.flops_per_s.keys() <= set(PRECISIONS)
    assert all(1e12 < rate < 1e15 for rate in row.flops_per_s.values())


def test_no_device_is_there_twice() -> None:
    names = [name for row in ACCELERATORS for name in row.names]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("device", "precision", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", "mixed_bfloat16", 989.5),
        ("NVIDIA H100 80GB HBM3", "tensorfloat32", 494.5),
        ("NVIDIA H100 80GB HBM3", "float32", 67),
        ("NVIDIA H100 PCIe", "mixed_float16", 756.5),
        ("NVIDIA A100-SXM4-80GB", "float32", 19.5),
        ("NVIDIA A100-SXM4-40GB", "mixed_float16", 312),
        ("NVIDIA A100 80GB PCIe", "tensorfloat32", 156),
        ("NVIDIA L4", "mixed_bfloat16", 121),
        ("Tesla T4", "mixed_float16", 65),
        ("TPU v4", "mixed_bfloat16", 275),
        ("TPU v5 lite", "mixed_bfloat16", 197),
        ("TPU v5p", "mixed_bfloat16", 459),
        ("TPU v6 lite", "mixed_bfloat16", 918),
    ],
)
def test_dense_peaks(device: str, precision: str, teraflops: float) -> None:
    """Without sparsity, which some datasheets print."""
    found = documented(device, precision)
    assert found is not None
    assert found.flops_per_s == pytest.approx(1e12 * teraflops)
    assert found.precision == precision
    assert found.method == "documented"
    assert found.source.startswith("https://")
    assert found.as_of == "2026-11-23"


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("NVIDIA H100 NVL", "float32"),
        ("NVIDIA H100", "float32"),
        ("A100", "float32"),
        ("Tesla T4", "mixed_bfloat16"),
        ("Tesla T4", "tensorfloat32"),
        ("TPU v4", "float32"),
        ("", "float32"),
    ],
)
def test_what_is_not_documented_is_unknown(device: str, precision: str) -> None:
    assert documented(device, precision) is None


# Measured peaks


def test_the_best_backend_is_the_peak() -> None:
    assert MEASURED.peaks == {
        "float32": Peak(1e11, "float32", "measured", "jax", "2026-11-23"),
        "mixed_bfloat16": Peak(2e9, "mixed_bfloat16", "measured", "torch", "2026-11-23"),
    }


def test_what_is_written_is_read_again() -> None:
    path = write_peaks(Path("results"), MEASURED)
    assert path == Path("results/peaks/laptop.json")
    assert peaks_of(Path("results"), "laptop") == MEASURED.peaks
    assert [found.name for found in path.parent.iterdir()] == ["laptop.json"]
    assert peaks_of(Path("results"), "another") == {}


def test_a_new_measurement_takes_the_place_of_the_old_one() -> None:
    write_peaks(Path("results"), MEASURED)
    later = Measured("laptop", "2026-12-01", {}, False, (Figure("jax", "float32", 2048, 5e10),))
    write_peaks(Path("results"), later)
    assert peaks_of(Path("results"), "laptop") == later.peaks


def test_a_folder_that_cannot_be_written() -> None:
    Path("results").touch()
    with pytest.raises(ResultsError) as caught:
        write_peaks(Path("results"), MEASURED)
    assert str(caught.value) == (
        "The measured peaks cannot be written to results/peaks/laptop.json: Not a directory. "
        "Name another results folder with --results."
    )


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda found: found.pop("figures"), "figures is missing"),
        (lambda found: found.update(peak=1), "peak is unknown"),
        (lambda found: found["figures"][1].update(flops=1), "figures.1.flops is unknown"),
        (lambda found: found.update(machine="server"), "machine is 'server'; expected laptop"),
        (lambda found: found.update(schema_version=2), "schema_version is 2; expected 1"),
        (
            lambda found: found.update(as_of="20261123"),
            "as_of is '20261123'; expected a date such as 2026-11-23",
        ),
        (
            lambda found: found["figures"][0].update(flops_per_s=0.0),
            "figures.0.flops_per_s is 0.0; expected a positive number",
        ),
        (
            lambda found: found["figures"][0].update(flops_per_s="8e10"),
            "figures.0.flops_per_s should be a valid number",
        ),
        (
            lambda found: found["figures"][2].update(backend="numpy"),
            "figures.2.backend is 'numpy'; expected one of tensorflow, jax, torch",
        ),
        (
            lambda found: found["figures"][2].update(precision="float64"),
            "figures.2.precision is 'float64'; expected one of float32, tensorfloat32, "
            "mixed_bfloat16, mixed_float16, bfloat16, float8",
        ),
    ],
)
def test_a_damaged_file_is_told_with_its_field(change: Change, problem: str) -> None:
    path = write_peaks(Path("results"), MEASURED)
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    assert told() == (
        f"The measured peaks in results/peaks/laptop.json cannot be read: {problem}. "
        "Delete the file and run `epochmark doctor`."
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"machine": NaN}', b'{"machine": 1e999}', b"\xff\xfe"],
    ids=["empty", "cut off", "list", "NaN", "infinite", "not text"],
)
def test_what_is_not_strict_json_is_told(content: bytes) -> None:
    path = peaks_file(Path("results"), "laptop")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert told() == (
        "The measured peaks in results/peaks/laptop.json cannot be read: it is not strict JSON. "
        "Delete the file and run `epochmark doctor`."
    )


def test_a_file_that_cannot_be_opened_is_told() -> None:
    peaks_file(Path("results"), "laptop").mkdir(parents=True)
    assert told() == (
        "The measured peaks in results/peaks/laptop.json cannot be read: Is a directory. "
        "Delete the file and run `epochmark doctor`."
    )


def told() -> str:
    with pytest.raises(ResultsError) as caught:
        peaks_of(Path("results"), "laptop")
    return str(caught.value)


# Which peak a run is held against


def test_a_processors_peak_is_the_measured_one() -> None:
    found = peak_for(MEASURED.peaks, device="cpu", precision="float32", accelerators=("NVIDIA L4",))
    assert found == MEASURED.peaks["float32"]
    assert (
        peak_for(MEASURED.peaks, device="cpu", precision="mixed_float16", accelerators=()) is None
    )
    assert peak_for({}, device="cpu", precision="float32", accelerators=()) is None


def test_an_accelerators_peak_is_the_documented_one() -> None:
    def found(*accelerators: str) -> Peak | None:
        return peak_for(
            MEASURED.peaks, device="gpu", precision="float32", accelerators=accelerators
        )

    assert found("NVIDIA L4", "Tesla T4") == documented("NVIDIA L4", "float32")
    assert found("NVIDIA GeForce RTX 4090", "NVIDIA L4") is None
    assert found() is None


# MFU by hand: 2 examples a step of 0.5 s are 4 examples/s; of 5 GFLOP each, 20 GFLOP/s; of a peak
# of 100 GFLOP/s, a fifth.

TRAINED = Samples(steady=(Block(10, 5.0), Block(10, 5.0)))
INFERRED = Samples(infer=(Block(10, 5.0), Block(10, 5.0)))


@pytest.mark.parametrize("samples", [TRAINED, INFERRED], ids=["train", "infer"])
def test_mfu_is_the_share_of_the_peak(samples: Samples) -> None:
    peak = Peak(1e11, "float32", "measured", "jax", "2026-11-23")
    run = make_run(
        samples=samples, batch_size=2, flops_per_example=5_000_000_000, peak=peak, metrics={}
    )
    found = derive(run)
    assert found["model_flops_per_example"] == 5e9
    assert found["mfu"] == pytest.approx(0.2)


def test_without_a_peak_or_a_count_there_is_no_mfu() -> None:
    known = derive(make_run(samples=TRAINED, flops_per_example=5, peak=None, metrics={}))
    assert "mfu" not in known
    assert known["model_flops_per_example"] == 5
    peak = Peak(1e11, "float32", "measured", "jax", "2026-11-23")
    unknown = derive(make_run(samples=TRAINED, flops_per_example=None, peak=peak, metrics={}))
    assert "mfu" not in unknown
    assert "model_flops_per_example" not in unknown


def test_what_was_not_measured_has_no_mfu() -> None:
    peak = Peak(1e11, "float32", "measured", "jax", "2026-11-23")
    assert "mfu" not in derive(
        make_run(samples=Samples(), flops_per_example=5, peak=peak, metrics={})
    )
