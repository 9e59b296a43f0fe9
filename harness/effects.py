"""What the options of a training loop do to the cost of a quality: real trainings, taken in turns.

The quality is what plain `fit` has after its declared epochs, with the same seed on the same
backend. Kept as ordinary runs in results/options, each with its own protocol.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from harness import runner
from harness.cells import Cell, parse_cell
from harness.cost import cost_usd
from harness.errors import UsageError
from harness.metrics import derive, time_to
from harness.registry import workload, workloads
from harness.schema import Protocol, Run, Session
from harness.stopping import tenth_of_a_point

PLAN = "options"
"""In the header of such a session: no plan of `epochmark run` has this name."""

FOLDER = "options"
"""In the results folder, a results folder of its own: these runs are not ranked with others."""

PLAIN = "plain fit"
LONGER = 2
"""Times the declared epochs: so long a variant has to reach the quality."""

PROTOCOL = Protocol(warmup_ceiling_blocks=4, min_blocks=3, steady_budget_s=0.5)
"""Timed blocks only tell compilation from a step here; what counts is the training."""

PARTS = 4
BATCH_MEMORY_BYTES = 5 * 2**28
PLATEAU = 0.3
DEARER = 2.0
"""Training stops when a tenth of a point takes this many times what plain `fit` took on average."""

Adapt = Callable[[Protocol, Run], Protocol]


@dataclass(frozen=True)
class Variant:
    """A way of training a cell: its API style, and its options, which may follow plain `fit`'s."""

    name: str
    api_style: str
    adapt: Adapt


VARIANTS = (
    Variant(PLAIN, "functional", lambda protocol, plain: protocol),
    Variant("custom loop", "custom_loop", lambda protocol, plain: protocol),
    Variant(
        "accumulate",
        "custom_loop",
        lambda protocol, plain: replace(protocol, accumulate=PARTS),
    ),
    Variant(
        "batch from memory",
        "custom_loop",
        lambda protocol, plain: replace(protocol, batch_memory_bytes=BATCH_MEMORY_BYTES),
    ),
    Variant(
        "plateau",
        "custom_loop",
        lambda protocol, plain: replace(protocol, plateau_factor=PLATEAU),
    ),
    Variant(
        "stop at cost",
        "custom_loop",
        lambda protocol, plain: replace(protocol, stop_s_per_tenth=DEARER * _tenth_s(plain)),
    ),
)


def trainable(cells: Sequence[Cell]) -> list[Cell]:
    """Those that plain `fit` trains and that every option is for; UsageError if there is none."""
    found = [
        cell
        for cell in cells
        if (cell.phase, cell.api_style) == ("train", "functional")
        and cell.precision != "mixed_float16"
        and workload(cell.workload).scales[cell.scale].optimizer.schedule is None
    ]
    if not found:
        raise UsageError(
            "Options are measured beside the functional style in training, without loss scaling "
            "or a schedule of learning rates; none of these cells is of that kind."
        )
    return found


def measure(
    cells: Sequence[Cell],
    seeds: int,
    results: Path,
    *,
    extras: runner.Extras,
    listener: Callable[[str, Run], None],
) -> Path:
    """Train each cell in every variant, seed by seed, the variants in an order that is drawn.

    Plain `fit` goes first, since the bound on cost is made from it. Returns the session's file.
    """
    session = runner.new_session(
        # Without cells there is nothing to resume: the header does not know each run's protocol.
        [], plan=PLAN, only=[cell.id for cell in cells], replicates=seeds, order_seed=1,
        protocol=PROTOCOL,
    )  # fmt: skip

    def runs() -> Iterator[Run]:
        numbers = count()
        for planned in runner.order(cells, seeds, session.order_seed):
            for name, run in _in_turns(session, planned, numbers, extras):
                yield run
                listener(name, run)

    return runner.write_each(session, runs(), results)


def _in_turns(
    session: Session, planned: runner.Planned, numbers: Iterator[int], extras: runner.Extras
) -> Iterator[tuple[str, Run]]:
    """Every variant of one cell with one seed; only the first where that one fails."""
    declared = workload(planned.cell.workload).scales[planned.cell.scale]
    protocol = replace(session.protocol, epochs=LONGER * declared.epochs)

    def trained(variant: Variant, protocol: Protocol) -> tuple[str, Run]:
        cell = replace(planned.cell, api_style=variant.api_style)
        turn = replace(planned, number=next(numbers), cell=cell)
        return variant.name, runner.execute(replace(session, protocol=protocol), turn, extras)

    plain, *others = VARIANTS
    random.Random(planned.number).shuffle(others)
    name, base = trained(plain, protocol)
    yield name, base
    if base.status == "ok":
        yield from (trained(variant, variant.adapt(protocol, base)) for variant in others)


def _tenth_s(plain: Run) -> float:
    """Seconds that plain `fit` trained for a tenth of a point, over its declared epochs."""
    cell = parse_cell(plain.cell, list(workloads()))
    found = workload(cell.workload)
    scale = found.scales[cell.scale]
    epochs = plain.samples.epochs[: scale.epochs]
    start = scale.baseline[1]
    if start is None:  # data of one's own has no trivial baseline: the first epoch stands for it
        start = epochs[0].quality[plain.quality_metric]
        epochs = epochs[1:] or epochs
    gained = epochs[-1].quality[plain.quality_metric] - start
    gained *= 1 if found.higher_is_better else -1
    # One that gained nothing says nothing of what a gain costs.
    tenths = max(1.0, gained / tenth_of_a_point(found.quality_unit))
    return sum(epoch.train_s for epoch in epochs) / tenths


@dataclass(frozen=True)
class Effect:
    """A variant beside plain `fit` with the same seed.

    `cost_ratio` is of what is paid until the quality of plain `fit` is reached: start-up, compile,
    the search of a batch, training and evaluation; None where it was not reached. `spent_ratio` is
    of what was paid in all, beside plain `fit` until that quality. `setting` are the scale, the
    precision and the device. `quality` is at the end of the
    training, after `epochs`. `plain_usd` is what plain `fit` paid; None without a price.
    """

    workload: str
    backend: str
    setting: str
    variant: str
    seed: int
    target: float
    quality: float
    epochs: int
    batch_size: int
    cost_ratio: float | None
    spent_ratio: float
    plain_usd: float | None
    contended: bool


def effects(runs: Iterable[Run]) -> list[Effect]:
    """Of every run that is ok and has a plain `fit` of its cell and seed before it."""
    found: list[Effect] = []
    plain: dict[tuple[str, str, str, int], Run] = {}
    for run in runs:
        cell = parse_cell(run.cell, list(workloads()))
        key = (cell.workload, cell.backend, _setting(cell), run.seed)
        name = variant_of(run)
        if name == PLAIN:
            plain[key] = run
        if run.status == "ok" and key in plain and plain[key].status == "ok":
            found.append(_effect(cell, name, run, plain[key]))
    return found


def _setting(cell: Cell) -> str:
    return f"{cell.scale} {cell.precision} {cell.device}"


def variant_of(run: Run) -> str:
    """The name of the variant that its protocol shows."""
    protocol = run.protocol
    if protocol.accumulate > 1:
        return "accumulate"
    if protocol.batch_memory_bytes:
        return "batch from memory"
    if protocol.plateau_factor:
        return "plateau"
    if protocol.stop_s_per_tenth:
        return "stop at cost"
    return "custom loop" if "/custom_loop/" in run.cell else PLAIN


def _effect(cell: Cell, name: str, run: Run, plain: Run) -> Effect:
    declared = workload(cell.workload).scales[cell.scale].epochs
    target = plain.samples.epochs[declared - 1].quality[run.quality_metric]
    paid, base = _paid_s(run, target), _paid_s(plain, target)
    assert base is not None  # it reaches its own quality
    trained = sum(epoch.train_s + (epoch.evaluation_s or 0.0) for epoch in run.samples.epochs)
    return Effect(
        workload=cell.workload,
        backend=cell.backend,
        setting=_setting(cell),
        variant=name,
        seed=run.seed,
        target=target,
        quality=run.samples.epochs[-1].quality[run.quality_metric],
        epochs=len(run.samples.epochs),
        batch_size=run.batch_size,
        cost_ratio=None if paid is None else paid / base,
        spent_ratio=(_fixed_s(run) + trained) / base,
        plain_usd=float(cost_usd(base, plain.price.usd_per_hour)) if plain.price else None,
        contended=run.contention.contended or plain.contention.contended,
    )


def _paid_s(run: Run, target: float) -> float | None:
    trained = time_to(run, target)
    return None if trained is None else _fixed_s(run) + trained


def _fixed_s(run: Run) -> float:
    """What is paid before the first epoch, the search of a batch included."""
    figures = derive(run)
    searched = run.stages.get("batch", 0.0)
    return figures["startup_time_s"] + figures["compile_time_s"] + searched
