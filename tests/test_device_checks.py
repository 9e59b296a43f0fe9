"""What a machine with an accelerator tries out first, tried out here on the processor.

The same process, with faults planted in it; what only a GPU has comes from made-up figures.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest

from harness import device_checks, fitness_devices
from harness.cells import BACKENDS, Cell
from harness.device_checks import Tried, judged
from harness.errors import WorkerError
from harness.fitness import Check
from harness.fitness_devices import Examined
from tests.workers import answer, finished

GIB = 2**30
H100 = "NVIDIA H100 80GB HBM3"
GOOD = Tried(
    device_kind=H100,
    product_error=3e-7,
    convolution_error=4e-7,
    given_s=0.01,
    waited_s=0.6,
    read_s=0.001,
    flops=22 * 10**12,
    allocated_bytes=GIB,
    peak_before_bytes=GIB // 8,
    peak_bytes=GIB + GIB // 8,
    refusal="JaxRuntimeError: RESOURCE_EXHAUSTED",
    refusal_known=True,
)


def unfit(found: Tried, *, missed: bool = True) -> set[str]:
    checks = judged("jax", "gpu", found, missed=missed)
    wrong = [check for check in checks if check.fit is False]
    assert all(check.remedy for check in wrong)
    return {check.name.removeprefix("jax: ") for check in wrong}


@pytest.fixture(scope="module")
def planted() -> dict[str, dict[str, Any]]:
    """By the fault's name, what JAX shows with it; its dispatch is asynchronous here too."""
    done = finished("device_faults", "jax", backend="jax")
    found: dict[str, dict[str, Any]] = answer(done)
    return found


@pytest.mark.frameworks
def test_every_planted_fault_is_found_by_its_own_check(planted: dict[str, dict[str, Any]]) -> None:
    """Products in ten bits, a step that nobody waits for, a peak that stands still and so on."""
    # How long things take on this machine, busy as it may be, is no matter of the others.
    timed = {name: planted["none"].pop(name) for name in ("given_s", "waited_s", "read_s")}
    assert all(value >= 0 for value in timed.values())
    assert unfit(Tried(**planted.pop("none"))) == set()
    calm = {"given_s": 0.0, "waited_s": 1.0, "read_s": 0.0}
    found = {
        fault: unfit(Tried(**(fields | ({} if fault == "waiting" else calm))))
        for fault, fields in planted.items()
    }
    assert found == {fault: {fault} for fault in planted}
    assert len(found) == 5


@pytest.mark.frameworks
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_is_right_on_the_processor(backend: str) -> None:
    """But for the waiting, which is a matter of time."""
    found = device_checks._tried(Cell("", "", "train", backend, "float32", "", "cpu"), "float32")
    calm = replace(found, given_s=0.0, waited_s=1.0, read_s=0.0)
    assert unfit(calm) == set(), found
    assert found.flops > 0


@pytest.mark.frameworks
def test_a_backend_without_the_device_says_so() -> None:
    cell = Cell("", "", "train", "jax", "float32", "", "gpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        found = device_checks._tried(cell, "float32")
    assert found.reason.startswith("jax sees no GPU")
    assert unfit(found) == {"device"}
    assert unfit(found, missed=False) == set(), "no environment was made for it"


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, set()),
        ({"device_kind": "a GPU that nobody has documented"}, set()),
        ({"product_error": 3e-4}, {"product"}),
        ({"convolution_error": 3e-4}, {"convolution"}),
        ({"waited_s": 0.0, "read_s": 0.6}, {"waiting"}),
        # 22 TFLOP in a fifth of what the documented 67 TFLOP/s allow.
        ({"waited_s": 0.06}, {"waiting"}),
        ({"waited_s": 0.06, "device_kind": "unknown"}, set()),
        ({"peak_bytes": GIB // 8}, {"allocator's peak"}),
        ({"peak_bytes": 60 * GIB}, {"allocator's peak"}),
        ({"peak_bytes": None}, set()),
        ({"refusal_known": False}, {"out of memory"}),
        ({"refusal_known": False, "refusal": None}, {"out of memory"}),
    ],
)
def test_made_up_figures_are_judged(changes: dict[str, Any], wrong: set[str]) -> None:
    assert unfit(replace(GOOD, **changes)) == wrong


@pytest.mark.parametrize(
    ("kind", "error", "fit"),
    [
        (H100, 3e-4, True),
        (H100, 3e-7, False),  # the switch has no effect
        (H100, 3e-3, False),  # bfloat16
        ("Tesla T4", 3e-7, None),  # has no such units
    ],
)
def test_tensorfloat32_is_off_by_its_ten_bits(kind: str, error: float, fit: bool | None) -> None:
    found = Tried(device_kind=kind, product_error=error, convolution_error=error)
    assert [check.fit for check in device_checks._tf32("torch", found)] == [fit, fit]


def test_a_process_that_ends_badly_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    checks = list(device_checks.shown("tpu"))
    assert [(check.name, check.found, check.fit) for check in checks] == [
        ("jax", "exit status 1", False)
    ]


def test_backends_are_tried_out_only_where_cells_could_run(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Check("jax: product", "off by 3.0e-04", "at most 1e-05", False, "unset it")
    monkeypatch.setattr(device_checks, "shown", lambda device: iter([wrong]))
    lines: list[str] = []
    without = Examined("gpu", (Check("GPU", "none", "one", False, "buy one"),))
    assert fitness_devices.tried_out(without, lines.append) == without
    there = Examined("gpu", (Check("GPU", "one", "one", True),))
    found = fitness_devices.tried_out(there, lines.append)
    assert (found.shown, found.status) == ((wrong,), "unavailable")
    assert lines == ["jax: product: off by 3.0e-04"]


def test_a_check_that_hangs_ends_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def tried(cell: Cell, precision: str) -> Tried:
        asked.append((cell.backend, precision))
        if precision == "tensorfloat32":
            raise WorkerError("timeout", "not done after 300 s")
        return GOOD

    monkeypatch.setattr(device_checks, "_tried", tried)
    checks = list(device_checks.shown("gpu"))
    assert [backend for backend, _ in asked] == [name for name in BACKENDS for _ in range(2)]
    hung = [check.name for check in checks if check.found == "not done after 300 s"]
    assert hung == list(BACKENDS)
