"""Options of a training loop: gathered gradients, a batch that fits, a rate that falls."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from pathlib import Path

import pytest

from harness import data, effects_command, options
from harness.cells import BACKENDS, Cell
from harness.columns import rows
from harness.effects import PLAIN, VARIANTS, effects, trainable, variant_of
from harness.errors import ResultsError, UsageError
from harness.registry import workload
from harness.runner import replay_command
from harness.schema import Block, Epoch, Memory, Protocol, Run, Samples
from harness.store import ResultsFile
from harness.workload import Optimizer, Schedule
from tests.records import PRICE, make_run, make_session
from tests.workers import run

CELL = Cell("recommender", "smoke", "train", "jax", "float32", "functional", "cpu")
GIB = 2**30


# A batch from memory


def test_the_largest_doubling_that_fits() -> None:
    assert options.largest(32, 100_000, 1000, lambda size: 300 + size) == (
        512,
        {32: 332, 64: 364, 128: 428, 256: 556, 512: 812},
    )


def test_a_size_is_not_tried_where_growth_says_that_it_will_not_fit() -> None:
    asked: list[int] = []

    def peak(size: int) -> int:
        asked.append(size)
        return 10 * size

    assert options.largest(1, 10_000, 100, peak)[0] == 8
    assert asked == [1, 2, 4, 8]


def test_an_epoch_keeps_its_least_steps() -> None:
    assert options.largest(16, 16 * 2 * options.LEAST_STEPS, GIB, lambda size: size)[0] == 32
    # The declared batch stands, however few steps it makes.
    assert options.largest(16, 40, GIB, lambda size: size)[0] == 16


def test_memory_that_runs_out_ends_the_search() -> None:
    assert options.largest(8, 10_000, GIB, lambda size: None if size > 8 else 100) == (8, {8: 100})
    assert options.largest(8, 10_000, GIB, lambda size: None) == (0, {})
    assert options.largest(8, 10_000, 50, lambda size: 100) == (0, {8: 100})


def test_the_rate_goes_with_the_batch() -> None:
    scale = workload("resnet50").scales["standard"]
    assert scale.optimizer.name == "SGD"
    rate = scale.optimizer.arguments["learning_rate"]
    four = options.rebatched(scale, 4 * scale.batch_size)
    assert four.batch_size == 4 * scale.batch_size
    assert four.optimizer.arguments["learning_rate"] == pytest.approx(4 * rate)
    scheduled = replace(
        scale,
        optimizer=Optimizer("AdamW", {"learning_rate": 0.1, "epsilon": 1e-6}, Schedule(100, 1001)),
    )
    eight = options.rebatched(scheduled, 8 * scale.batch_size).optimizer
    assert eight.arguments == {"learning_rate": pytest.approx(0.1 * sqrt(8)), "epsilon": 1e-6}
    assert eight.schedule == Schedule(warmup_steps=12, total_steps=126)


# Bad input, and how it is told


@pytest.mark.parametrize(
    ("protocol", "changes", "said"),
    [
        (Protocol(accumulate=2, batch_memory_bytes=GIB), {}, "choose one"),
        (Protocol(accumulate=3), {}, "its batch of 2048 has no 3 equal parts for --accumulate"),
        (Protocol(accumulate=2), {"precision": "mixed_float16"}, "is not for mixed_float16"),
        (Protocol(accumulate=2), {"device": "cpu-x2"}, "are for one device"),
        (Protocol(accumulate=2), {"phase": "infer"}, "are options of training"),
        (Protocol(plateau_factor=0.1), {"phase": "infer"}, "are options of training"),
        (
            Protocol(plateau_factor=0.1),
            {"workload": "bert", "scale": "standard"},
            "this one follows a schedule",
        ),
    ],
)
def test_options_that_a_cell_cannot_take(
    protocol: Protocol, changes: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        options.check(protocol, [replace(CELL, **changes)])


def test_options_that_a_cell_can_take() -> None:
    options.check(Protocol(accumulate=4, plateau_factor=0.1), [CELL])
    options.check(Protocol(), [replace(CELL, phase="infer", precision="mixed_float16")])


def test_a_replay_names_the_options() -> None:
    protocol = Protocol(accumulate=4, plateau_factor=0.3, epochs=6)
    assert replay_command(CELL, protocol) == (
        f"epochmark run --only {CELL.id} --epochs 6 --accumulate 4 --plateau 0.3"
    )
    memory = Protocol(batch_memory_bytes=5 * 2**28)
    assert replay_command(CELL, memory) == f"epochmark run --only {CELL.id} --batch-memory 1.25"


def test_the_table_of_runs_tells_the_options() -> None:
    found = [make_run(), make_run(run="r2", protocol=Protocol(accumulate=4))]
    table = rows(ResultsFile(Path("a"), make_session(), tuple(found), ({}, {}), (), frozenset(), 0))
    assert table.column("options").to_pylist() == ["", "--accumulate 4"]


# Effects


STEP = Block(steps=10, seconds=0.1)


def trained(name: str, *qualities: float, seed: int = 1, searched_s: float = 0.0) -> Run:
    """A run of that variant: 3 s start-up, 1 s compile, and 2 s for each epoch."""
    variant = next(one for one in VARIANTS if one.name == name)
    plain = make_run(
        cell=replace(CELL, api_style=variant.api_style).id,
        seed=seed,
        quality_metric="hit_rate_at_10",
        stages={"start": 3.0, "batch": searched_s},
        samples=Samples(
            first_step_s=1.01,
            steady=(STEP,) * 6,
            epochs=tuple(Epoch(10, 1.5, 0.5, 0.3, {"hit_rate_at_10": q}) for q in qualities),
        ),
    )
    return replace(plain, protocol=variant.adapt(Protocol(epochs=4), plain))


def test_what_was_paid_until_the_quality_of_plain_fit() -> None:
    """Worked by hand: plain fit pays 3 + 1 + 2 x 2 s until 60 %, its second epoch's quality."""
    found = effects(
        [
            trained(PLAIN, 0.5, 0.6, 0.65, 0.66),
            trained("custom loop", 0.61, 0.62, 0.63, 0.64),
            trained("accumulate", 0.5, 0.55, 0.6, 0.64),
            trained("batch from memory", 0.3, 0.4, 0.5, 0.55, searched_s=2.0),
            trained("stop at cost", 0.5, 0.55),
        ]
    )
    assert [one.variant for one in found] == [
        PLAIN, "custom loop", "accumulate", "batch from memory", "stop at cost"
    ]  # fmt: skip
    assert {one.target for one in found} == {0.6}
    ratios = [one.cost_ratio for one in found]
    assert ratios[:3] == [pytest.approx(1.0), pytest.approx(6 / 8), pytest.approx(10 / 8)]
    assert ratios[3:] == [None, None]
    assert [one.spent_ratio for one in found[3:]] == [pytest.approx(14 / 8), pytest.approx(1.0)]
    assert found[0].plain_usd == pytest.approx(8 * PRICE.usd_per_hour / 3600)
    row = effects_command.rows(found)[0]
    assert row[:4] == ("recommender", "jax", "1", "60.0 %")
    assert row[5:] == (
        "0.750 x",
        "1.25 x",
        "0 of 1 reach it, ends at 55.0 % (batch 256)",
        "-",
        "1.00 x, ends at 55.0 %",
    )


def test_the_bound_on_cost_follows_plain_fit() -> None:
    """From 39.4 % (popularity) to 60 % in 3 s of training: 206 tenths; twice that is allowed."""
    run = trained("stop at cost", 0.5, 0.6)
    assert run.protocol.stop_s_per_tenth == pytest.approx(2 * 3.0 / 206)


def test_two_precisions_are_two_rows_and_each_beside_its_own_plain_fit() -> None:
    mixed = [
        replace(run, cell=run.cell.replace("/float32/", "/mixed_bfloat16/"))
        for run in (trained(PLAIN, 0.5, 0.7), trained("custom loop", 0.6, 0.7))
    ]
    found = effects([trained(PLAIN, 0.5, 0.6), trained("custom loop", 0.6, 0.6), *mixed])
    assert [one.cost_ratio for one in found if one.variant == "custom loop"] == [
        pytest.approx(6 / 8), pytest.approx(1.0)
    ]  # fmt: skip
    rows = effects_command.rows(found)
    assert [row[0] for row in rows] == [
        f"recommender smoke {precision} cpu" for precision in ("float32", "mixed_bfloat16")
    ]


def test_a_machine_that_tells_no_peak_of_memory_has_effects() -> None:
    runs = [replace(trained(name, 0.5, 0.6), memory=Memory()) for name in (PLAIN, "custom loop")]
    assert len(effects(runs)) == 2


def test_a_variant_is_known_by_its_protocol() -> None:
    for variant in VARIANTS:
        assert variant_of(trained(variant.name, 0.5, 0.6)) == variant.name


def test_a_run_without_plain_fit_beside_it_is_no_effect() -> None:
    others = [
        trained("accumulate", 0.5, 0.6),
        trained(PLAIN, 0.5, 0.6, seed=2),
        trained("plateau", 0.5, 0.6, seed=3),
    ]
    assert [one.variant for one in effects(others)] == [PLAIN]


def test_only_functional_trainings_are_held_against_plain_fit(tmp_path: Path) -> None:
    assert trainable([CELL, replace(CELL, api_style="custom_loop")]) == [CELL]
    with pytest.raises(UsageError, match="beside the functional style in training"):
        trainable([replace(CELL, phase="infer"), replace(CELL, precision="mixed_float16")])
    with pytest.raises(ResultsError, match="nothing of options"):
        effects_command.stored(tmp_path)


# Real trainings

SHORT = Protocol(min_blocks=3, steady_budget_s=0.1, train_steps=6)
LSTM = Cell("lstm_eta", "smoke", "train", "jax", "float32", "custom_loop", "cpu")


@pytest.mark.frameworks
@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_of_a_batch_train_as_the_whole(backend: str) -> None:
    """The same updates: the mean loss of the first steps, whose weights each step has moved."""
    data.fetch(workload("lstm_eta"), "smoke")
    style = "functional" if backend == "torch" else "custom_loop"
    cell = replace(LSTM, backend=backend, api_style=style)
    losses = []
    for parts in (1, 4):
        ended = run(cell, replace(SHORT, accumulate=parts))
        assert ended.report is not None, ended.log_tail
        assert ended.status == "ok", ended.reason
        (epoch,) = ended.report.samples.epochs
        assert (ended.report.batch_size, epoch.steps, epoch.epoch_steps) == (256, 6, 80)
        losses.append(epoch.loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.frameworks
def test_a_batch_that_fits_and_a_rate_that_falls() -> None:
    data.fetch(workload("bert"), "smoke")
    cell = replace(LSTM, workload="bert")
    # Far above any peak here, which differs from process to process: both must take one batch.
    bound = 4 * GIB
    memory = Protocol(min_blocks=3, steady_budget_s=0.1, epochs=4, batch_memory_bytes=bound)
    left = run(cell, memory).report
    fallen = run(cell, replace(memory, plateau_factor=1e-3)).report
    assert left is not None
    assert fallen is not None
    tried = {int(size): peak for size, peak in fallen.memory.tried_batches.items()}
    fitting = [size for size, peak in tried.items() if peak <= bound]
    assert left.batch_size == fallen.batch_size == max(fitting) > 16
    epochs = fallen.samples.epochs
    assert {epoch.steps for epoch in epochs} == {1024 // fallen.batch_size}
    # The second epoch is no better than the first, so hardly anything is learned after it.
    assert [epoch.learning_rate_factor for epoch in epochs] == [1.0, 1.0, 1e-3, pytest.approx(1e-6)]
    before, after = epochs[2:]
    assert after.loss == pytest.approx(before.loss, rel=1e-3)
    free = left.samples.epochs
    assert [epoch.loss for epoch in free[:2]] == [epoch.loss for epoch in epochs[:2]]
    assert free[3].loss < 0.9 * free[2].loss


@pytest.mark.frameworks
def test_a_bound_below_the_declared_batch_is_out_of_memory() -> None:
    data.fetch(workload("recommender"), "smoke")
    ended = run(replace(CELL, backend="torch"), replace(SHORT, batch_memory_bytes=2**20))
    assert ended.status == "oom"
    assert ended.reason.startswith("a step on the declared batch of 2048 takes ")
    assert ended.reason.endswith(" bytes, 1,048,576 are allowed")
