"""Which cell is recommended: never one that is better by noise alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import advise_command
from harness.advise import Advice, Floors, Wanted, advise
from harness.drift import Drift, drift_of
from harness.errors import UsageError
from harness.noise import Floor
from harness.schema import Block, Contention, Epoch, Memory, Run, Samples
from harness.table import load_table
from tests.records import PRICE, make_run, write_session
from tests.test_drift import made

RESULTS = Path("results")
GIB = 2**30
DEFAULT = "tensorflow/float32/functional/cpu"
JAX = "jax/float32/functional/cpu"
TORCH = "torch/float32/functional/cpu"
NEARLY = (1.0, 1.02, 0.99, 1.01, 0.98)
"""Processes that differ by one to two percent."""


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_CACHE", "cache")


def runs(
    name: str,
    epoch_s: float,
    *,
    spread: Sequence[float] = NEARLY,
    memory_gib: float = 1.0,
    quality: Sequence[float] = (0.5, 0.51, 0.49, 0.52, 0.5),
    start_s: float = 1.0,
    **fields: Any,
) -> list[Run]:
    """The processes of a cell: an epoch each, at 3.60 USD an hour, a thousandth a second."""
    return [
        make_run(
            run=f"{name} {number}",
            replicate=number,
            cell=f"recommender/smoke/train/{name}",
            stages={"start": start_s},
            memory=Memory(host_peak_bytes=int(memory_gib * GIB * factor)),
            samples=Samples(
                first_step_s=0.1,
                steady=(Block(1, 0.1),),
                epochs=(Epoch(1, epoch_s * factor, 0.0, 0.5, {"HR@10": quality[number]}),),
            ),
            **{"price": replace(PRICE, usd_per_hour=3.6), **fields},
        )
        for number, factor in enumerate(spread)
    ]


def advised(*cells: list[Run], floors: Floors | None = None, **wanted: Any) -> Advice:
    write_session(RESULTS, *(run for cell in cells for run in cell))
    frame = load_table(RESULTS).frame
    return advise(frame, Wanted("recommender", **wanted), floors or {})


def verdicts(found: Advice) -> dict[str, str]:
    return {one.candidate.name: one.verdict for one in found.judged}


def chosen(found: Advice) -> str:
    assert found.chosen is not None
    return found.chosen.name


def test_the_surely_cheapest_is_recommended_with_what_it_saves() -> None:
    """2 s and 5 s an epoch, 1 s of start: 0.003 and 0.006 USD, half of it saved."""
    found = advised(runs(DEFAULT, 5.0), runs(JAX, 2.0), runs(TORCH, 9.0))
    assert verdicts(found) == {JAX: "recommended", DEFAULT: "beaten", TORCH: "beaten"}
    assert found.ties == ()
    said = " ".join(advise_command.sentences(found))
    assert said.startswith(
        f"Recommended for recommender: {JAX}, 0.00300 USD for 1 epoch: it is surely the cheapest "
        f"of the 3 cells that fit. That is 50 % less cost than the default {DEFAULT} (95 % inter"
    )


def test_the_default_stays_where_the_rest_is_noise() -> None:
    """One percent cheaper where processes differ by as much."""
    found = advised(runs(DEFAULT, 5.0), runs(JAX, 4.97), runs(TORCH, 9.0))
    assert chosen(found) == DEFAULT
    assert [one.name for one in found.ties] == [JAX]
    assert f"what Keras gives by default, and {JAX} cannot be told to be cheaper" in " ".join(
        advise_command.sentences(found)
    )


def test_cells_of_one_process_and_unknown_noise_move_nobody() -> None:
    one = (1.0,)
    found = advised(runs(DEFAULT, 5.0, spread=one), runs(JAX, 1.0, spread=one))
    assert (chosen(found), found.noise) == (DEFAULT, "unknown")
    assert "no difference counts" in advise_command.text(found)


def test_cells_of_one_process_are_judged_by_the_noise_floor() -> None:
    one = (1.0,)
    cells = runs(DEFAULT, 5.0, spread=one), runs(JAX, 1.0, spread=one), runs(TORCH, 4.0, spread=one)
    times = tuple(0.1 * factor for factor in (1.0, 1.0, 1.04, 1.04, 0.98, 0.98))
    floor = Floor("2026-11-23", "abc", (1.0, 1.01, 0.99), times)
    assert 0.3 < floor.apart < 1.0
    names = [cell[0].cell for cell in cells]
    found = advised(*cells, floors={("laptop", name): floor for name in names})
    assert (chosen(found), found.noise) == (JAX, "noise floor")
    # 5 s and 4 s are within the floor: where jax is not there, the default stays.
    without = {("laptop", name): floor for name in names}
    only = load_table(RESULTS).frame.query("backend != 'jax'")
    again = advise(only, Wanted("recommender"), without)
    assert chosen(again) == DEFAULT


def drifting() -> Drift:
    """Five sessions of one cell whose levels differ by some ten percent."""
    levels = (1.0, 1.15, 0.9, 1.05, 0.95)
    figures = tuple(tuple(level * factor for factor in NEARLY) for level in levels)
    found = drift_of({"c": made(figures)})
    assert found is not None
    return found


@pytest.mark.parametrize("processes", [5, 1])
def test_cells_of_two_sessions_are_told_apart_beyond_what_the_machine_does_between_them(
    processes: int,
) -> None:
    spread = NEARLY[:processes]
    slow, fast = runs(DEFAULT, 6.5, spread=spread), runs(JAX, 5.0, spread=spread)
    times = tuple(0.1 * factor for factor in NEARLY[:3] for _ in range(2))
    floor = Floor("2026-11-23", "abc", (1.0, 1.01, 0.99), times)
    floors = {("laptop", one[0].cell): floor for one in (slow, fast)}

    def found(drift: bool) -> str:
        drifts = {"laptop": drifting()} if drift else {}
        frame = load_table(RESULTS).frame
        return chosen(advise(frame, Wanted("recommender"), floors, drifts))

    write_session(RESULTS, *slow, *fast)
    assert found(drift=True) == JAX  # both of one hour
    write_session(RESULTS, *fast, session="20261123T101530Z-def5678")
    assert found(drift=False) == JAX
    assert found(drift=True) == DEFAULT


def test_the_interval_of_a_cost_has_the_drift() -> None:
    advised(runs(DEFAULT, 5.0), runs(JAX, 2.0))
    frame = load_table(RESULTS).frame
    plain, wide = (
        advise(frame, Wanted("recommender"), {}, drifts).judged[0].candidate.cost_interval
        for drifts in ({}, {"laptop": drifting()})
    )
    assert plain is not None
    assert wide is not None
    assert wide[0] < 0.9 * plain[0] < 1.1 * plain[1] < wide[1]


def test_cells_of_one_process_are_judged_by_the_others_spread() -> None:
    wide = (1.0, 1.5, 0.7, 1.2, 0.8)
    singles = runs(DEFAULT, 5.0, spread=(1.0,)), runs(JAX, 3.0, spread=(1.0,))
    near = advised(*singles, runs(TORCH, 9.0))
    assert (chosen(near), near.noise) == (JAX, "other cells")
    far = advised(*singles, runs(TORCH, 9.0, spread=wide))
    assert (chosen(far), far.noise) == (DEFAULT, "other cells")


def test_the_front_holds_what_is_better_in_something() -> None:
    """torch: less memory for more money. tensorflow: worse than jax in all."""
    found = advised(
        runs(DEFAULT, 5.0, memory_gib=2.0),
        runs(JAX, 2.0, memory_gib=1.5),
        runs(TORCH, 9.0, memory_gib=0.5),
    )
    assert verdicts(found) == {JAX: "recommended", TORCH: "a trade-off", DEFAULT: "beaten"}
    small = advised(
        runs(DEFAULT, 5.0, memory_gib=2.0),
        runs(JAX, 2.0, memory_gib=1.5),
        runs(TORCH, 9.0, memory_gib=0.5),
        by="memory",
    )
    assert chosen(small) == TORCH


def test_another_seeds_quality_keeps_nothing_on_the_front() -> None:
    """A hundredth better where seeds change two: noise, and thrice as dear."""
    found = advised(
        runs(JAX, 2.0, quality=(0.50, 0.52, 0.48, 0.51, 0.49)),
        runs(TORCH, 9.0, quality=(0.51, 0.53, 0.49, 0.52, 0.50)),
    )
    assert verdicts(found) == {JAX: "recommended", TORCH: "beaten"}
    surely = advised(
        runs(JAX, 2.0, quality=(0.50, 0.52, 0.48, 0.51, 0.49)),
        runs(TORCH, 9.0, quality=(0.81, 0.83, 0.79, 0.82, 0.80)),
    )
    assert verdicts(surely) == {JAX: "recommended", TORCH: "a trade-off"}


@pytest.mark.parametrize(
    ("bounds", "fits", "word"),
    [
        ({"quality": 0.6}, TORCH, "below the quality"),
        ({"memory_bytes": 0.75 * GIB}, TORCH, "over the memory"),
        ({"budget_usd": 0.004}, JAX, "over the budget"),
    ],
)
def test_a_bound_leaves_out_what_misses_it(bounds: dict[str, Any], fits: str, word: str) -> None:
    found = advised(
        runs(JAX, 2.0, memory_gib=1.0),
        runs(TORCH, 9.0, memory_gib=0.5, quality=(0.7, 0.71, 0.69, 0.7, 0.7)),
        **bounds,
    )
    assert chosen(found) == fits
    (other,) = {JAX, TORCH} - {fits}
    assert verdicts(found)[other] == word
    assert "it is the only cell that was measured and fits" in advise_command.sentences(found)[0]


def test_an_error_is_bounded_from_above() -> None:
    cells = [
        replace(run, higher_is_better=False)
        for run in (*runs(JAX, 2.0, quality=(6.0,) * 5), *runs(TORCH, 1.0, quality=(7.0,) * 5))
    ]
    assert chosen(advised(cells, quality=6.5)) == JAX
    assert chosen(advised(cells, quality=7.5)) == TORCH


def test_more_epochs_turn_the_choice() -> None:
    """jax starts in 9 s and steps in 1 s, torch in 1 s and 2 s: even at eight epochs."""
    cells = runs(JAX, 1.0, start_s=9.0), runs(TORCH, 2.0, start_s=1.0)
    assert chosen(advised(*cells)) == TORCH
    found = advised(*cells, epochs=20)
    assert chosen(found) == JAX
    assert found.chosen is not None
    assert found.chosen.typical["cost_usd"] == pytest.approx(0.001 * (9 + 20))


def test_nothing_that_fits_is_told() -> None:
    found = advised(runs(JAX, 2.0), budget_usd=0.0001)
    assert found.chosen is None
    assert advise_command.sentences(found) == ["None of the 1 cells keeps these bounds."]


def test_runs_that_do_not_count_are_left_out_and_told() -> None:
    dearer = "jax/float32/custom_loop/cpu"
    cells = (
        runs(JAX, 5.0),
        runs(dearer, 9.0),
        [replace(run, status="numerics", reason="far off") for run in runs(TORCH, 0.1)],
        runs(DEFAULT, 0.2, contention=Contention(contended=True)),
        runs("jax/float32/sequential/cpu", 0.3, workload_version="9.0.0"),
    )
    found = advised(*cells)
    assert verdicts(found) == {JAX: "recommended", dearer: "beaten"}
    assert found.left_out == {
        "not ok (its status says why)": 1,
        "beside other work on the machine": 1,
        "under another protocol or version of the workload": 1,
    }


def test_another_batch_size_is_said() -> None:
    found = advised(runs(JAX, 2.0), runs(TORCH, 9.0, batch_size=7))
    text = advise_command.text(found)
    assert "The cells do not all train with the same batch size." in text
    assert " batch " in text.splitlines()[2]


def test_what_programs_get() -> None:
    found = advised(runs(DEFAULT, 5.0), runs(JAX, 2.0))
    told = json.loads(advise_command.as_json(found))
    assert told["recommended"] == f"recommender/smoke/train/{JAX}"
    assert told["again"] == (f"epochmark run --only 'recommender/smoke/train/{JAX}' --replicates 5")
    assert f"recommender/smoke/train/{TORCH}" in told["not_measured"]
    first = told["cells"][0]
    assert (first["cost_usd"], first["pareto"]) == (pytest.approx(0.003), True)
    assert first["cost_low_usd"] < first["cost_usd"] < first["cost_high_usd"]
    assert advise_command.as_csv(found).count("\n") == 2


@pytest.mark.parametrize(
    ("text", "unit", "value"), [("67%", "%", 0.67), ("0.67", "%", 0.67), ("6.9", "min", 6.9)]
)
def test_a_quality_as_people_write_it(text: str, unit: str, value: float) -> None:
    assert advise_command.bound(text, unit) == pytest.approx(value)


@pytest.mark.parametrize("text", ["good", "-1", "nan", "67"])
def test_a_quality_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match=f"--quality is '{text}'"):
        advise_command.bound(text, "%")


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (Wanted("poker"), "Unknown workload 'poker'. Known workloads: bert, lstm_eta, "),
        (
            Wanted("recommender", by="luck"),
            "Unknown objective 'luck' in '--by'. Known obj",
        ),
        (Wanted("bert"), "There are no training runs of 'bert' in these results. Measure some"),
        (Wanted("recommender", scale="full"), "There are no training runs of 'recommender' at sc"),
    ],
)
def test_a_wrong_wish_is_one_sentence(wanted: Wanted, text: str) -> None:
    write_session(RESULTS, *runs(JAX, 2.0))
    with pytest.raises(UsageError) as caught:
        advise_command.advice(load_table(RESULTS).frame, wanted, RESULTS)
    assert str(caught.value).startswith(text)


def test_only_unusable_runs_are_told_with_the_reason() -> None:
    with pytest.raises(UsageError) as caught:
        advised(runs(JAX, 2.0, price=None))
    assert str(caught.value) == (
        "No cell of 'recommender' at scale 'smoke' can be chosen from (1 without a price). "
        "Measure again with `epochmark run`, with a price."
    )


def test_a_bound_on_the_quality_that_is_just_reached_is_kept() -> None:
    """1 - (1 - 0.2) is less than 0.2 in binary fractions."""
    for level in (0.1, 0.2, 0.3, 0.7):
        assert chosen(advised(runs(JAX, 2.0, quality=(level,) * 5), quality=level)) == JAX


def test_memory_that_is_not_known_is_said() -> None:
    unknown = [replace(run, memory=Memory()) for run in runs(TORCH, 1.0)]
    found = advised(unknown, runs(JAX, 2.0), memory_bytes=2 * GIB)
    assert verdicts(found)[TORCH] == "memory unknown"


def test_what_was_measured_and_left_out_is_not_told_as_not_measured() -> None:
    found = advised(runs(JAX, 2.0), runs(DEFAULT, 1.0, contention=Contention(contended=True)))
    missing, possible = advise_command.unmeasured(found)
    assert f"recommender/smoke/train/{DEFAULT}" not in missing
    assert len(missing) == possible - 2


def test_nothing_is_saved_of_an_error_of_zero() -> None:
    perfect = runs(DEFAULT, 9.0, quality=(1.0,) * 5)
    found = advised(perfect, runs(JAX, 2.0), by="quality", budget_usd=0.004)
    assert chosen(found) == JAX
    assert "than the default" not in " ".join(advise_command.sentences(found))
