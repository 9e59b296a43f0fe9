"""`epochmark doctor`: how the peak is searched, what is printed, and one real, small run."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness import doctor, fitness, peak_child
from harness.cells import BACKENDS
from harness.cli import app
from harness.errors import EpochmarkError
from harness.fitness import Check
from harness.peak import Figure, Measured, peaks_of
from harness.probes import machine_name, told_processor
from harness.schema import Block, Contention

MEASURED = Measured(
    machine="laptop",
    as_of="2026-11-23",
    packages={"jax": "0.10.2"},
    contended=False,
    figures=(
        Figure("jax", "float32", 2048, 1.25e11),
        Figure("torch", "float32", 2048, 9e10),
        Figure("jax", "mixed_bfloat16", 512, 2.5e9),
    ),
)


# The search in the child, with made-up times


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes that were multiplied, by products that take no time to make."""
    tried: list[int] = []

    def product(size: int, dtype: str) -> Callable[[], int]:
        tried.append(size)
        return lambda: size

    monkeypatch.setattr(peak_child, "product", product)
    monkeypatch.setattr(peak_child, "wait", lambda result: None)
    return tried


def timed(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float]) -> None:
    def time_block(steps: int, step: Callable[[], int], wait: Callable[[int], None]) -> Block:
        return Block(steps, seconds(step()))

    monkeypatch.setattr(peak_child, "time_block", time_block)


def search(largest: int = 2048, budget_s: float = 3.0) -> Figure:
    return peak_child.fastest("jax", "float32", largest=largest, budget_s=budget_s)


def test_a_fast_precision_reaches_the_largest_size(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int]
) -> None:
    rates = {256: 4e10, 512: 7e10, 1024: 1e11, 2048: 9e10}
    timed(monkeypatch, lambda size: 2 * size**3 / rates[size])
    found = search()
    assert found.size == 1024
    assert found.flops_per_s == pytest.approx(1e11)
    assert sizes == [256, 512, 1024, 2048]


def test_a_slow_precision_stops_in_time(monkeypatch: pytest.MonkeyPatch, sizes: list[int]) -> None:
    """At 1 GFLOP/s 256^3 takes 0.034 s; 512^3 six times 0.27 s, 1024^3 six times 2.1 s."""
    timed(monkeypatch, lambda size: 2 * size**3 / 1e9)
    assert search().flops_per_s == pytest.approx(1e9)
    assert sizes == [256, 512]


def test_the_best_of_the_repetitions_counts(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int]
) -> None:
    times = iter([0.9, 0.7, 0.2, 0.8, 0.9])
    timed(monkeypatch, lambda size: next(times))
    assert search(largest=64).flops_per_s == pytest.approx(2 * 64**3 / 0.2)
    assert sizes == [64]


def test_what_is_left_of_the_budget_goes_to_the_best_size(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int]
) -> None:
    """256: 5 times 0.01 s; 512: 5 times 0.04 s, so half per product; then until 2 s are over."""
    times = iter([0.01] * 5 + [0.04] * 5 + [0.5, 0.02, 1.5])
    timed(monkeypatch, lambda size: next(times))
    found = search(largest=512, budget_s=2.0)
    assert found.size == 512
    assert found.flops_per_s == pytest.approx(2 * 512**3 / 0.02)
    assert sizes == [256, 512]
    assert list(times) == []


# The parent, with made-up children


def child(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], Any]) -> None:
    def run(command: list[str], **_: object) -> Any:
        found = answer(command[3])
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr("harness.asking.subprocess.run", run)
    monkeypatch.setattr(doctor, "find_spec", lambda name: object())


def done(code: int = 0, out: str = "", err: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], code, out, err)


def figures(backend: str) -> str:
    return json.dumps([vars(Figure(backend, "float32", 2048, 1e11))])


def examine() -> tuple[Measured | None, list[str]]:
    said: list[str] = []
    try:
        return doctor.examine(say=said.append), said
    except EpochmarkError as error:
        return None, [*said, str(error)]


def test_what_a_framework_prints_first_is_left_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, lambda backend: done(out=f"a warning\n{figures(backend)}\n"))
    found, said = examine()
    assert found is not None
    assert [figure.backend for figure in found.figures] == list(BACKENDS)
    assert said[:3] == ["tensorflow ...", "jax ...", "torch ..."]
    assert found.machine == machine_name()


def test_a_backend_that_fails_is_told_and_the_others_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = {
        "tensorflow": done(1, err="Traceback\nImportError: libx.so in /home/me/libx.so\n"),
        "jax": subprocess.TimeoutExpired("python", 180),
        "torch": done(out=figures("torch")),
    }
    child(monkeypatch, answers.__getitem__)
    found, said = examine()
    assert found is not None
    assert [figure.backend for figure in found.figures] == ["torch"]
    assert "tensorflow: ImportError: libx.so in libx.so." in said
    assert "jax: not done after 180 s." in said


def test_without_any_backend_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    found, said = examine()
    assert found is None
    assert said[-1] == (
        "No backend could be measured: tensorflow: not installed in this environment. "
        "jax: not installed in this environment. torch: not installed in this environment."
    )


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, lambda backend: done(out=figures(backend)))
    monkeypatch.setattr(
        "harness.doctor.probes.contention",
        lambda before, after, own: Contention(others_cpu_share=0.344, contended=True),
    )
    found, said = examine()
    assert found is not None
    assert found.contended
    assert said[-1] == (
        "Other processes used 34 % of the processors meanwhile, so these peaks are too low. "
        "Measure again on a quiet machine."
    )


# What is printed


def test_the_table() -> None:
    assert doctor.render(MEASURED, "table").splitlines() == [
        "laptop, 2026-11-23",
        "precision       peak          of   jax           torch",
        "float32         125 GFLOP/s   jax  125 GFLOP/s   90.0 GFLOP/s",
        "mixed_bfloat16  2.50 GFLOP/s  jax  2.50 GFLOP/s  -",
    ]


def test_json_and_csv() -> None:
    found = json.loads(doctor.render(MEASURED, "json"))
    assert found["machine"] == "laptop"
    assert len(found["figures"]) == 3
    assert found["peaks"][0] == {
        "flops_per_s": 1.25e11,
        "precision": "float32",
        "method": "measured",
        "source": "jax",
        "as_of": "2026-11-23",
    }
    rows = list(csv.DictReader(doctor.render(MEASURED, "csv").splitlines()))
    assert [(row["backend"], row["precision"], row["best"]) for row in rows] == [
        ("jax", "float32", "True"),
        ("torch", "float32", "False"),
        ("jax", "mixed_bfloat16", "True"),
    ]
    assert rows[1]["flops_per_s"] == "90000000000.0"


def test_the_command_writes_and_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "examine", lambda say: MEASURED)
    monkeypatch.setattr(fitness, "checks", lambda: [Check("swap", "9 MiB", "0 MiB", False, "cure")])
    answer = CliRunner().invoke(app, ["doctor", "--results", "mine", "--format", "json"])
    assert answer.exit_code == 0
    assert json.loads(answer.stdout)["machine"] == "laptop"
    assert answer.stderr == (
        "swap  unfit  9 MiB  0 MiB\nswap: cure.\n"
        "Written to mine/peaks/laptop.json: the MFU of runs on this machine is a share of these "
        "peaks.\n"
    )
    assert peaks_of(Path("mine"), "laptop") == MEASURED.peaks


# For real


@pytest.mark.frameworks
def test_every_backend_multiplies_in_every_precision() -> None:
    said: list[str] = []
    found = doctor.examine(say=said.append, largest=64, budget_s=0.1)
    assert {(figure.backend, figure.precision) for figure in found.figures} == {
        (backend, precision) for backend in BACKENDS for precision in peak_child.PRODUCTS
    }, said
    assert all(figure.size == 64 and figure.flops_per_s > 0 for figure in found.figures)
    assert set(found.peaks) == set(peak_child.PRODUCTS)


CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: {family}
model\t\t: {model}
model name\t: AMD EPYC
flags\t\t: fpu sse2 avx avx2 {units}

processor\t: 1
cpu family\t: 99
"""


def test_processors_that_share_a_name_are_two_machines() -> None:
    old = told_processor(CPUINFO.format(family=25, model=1, units="fma"))
    new = told_processor(CPUINFO.format(family=26, model=2, units="avx512f avx512_bf16"))
    assert old == "AMD EPYC, family 25, model 1, avx2"
    assert new == "AMD EPYC, family 26, model 2, avx512_bf16"


def test_a_processor_on_arm_is_told_by_its_maker_and_part() -> None:
    text = "processor\t: 0\nFeatures\t: fp asimd sve\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"
    assert told_processor(text) == "implementer 0x41, part 0xd40, sve"
    assert told_processor("") == ""
