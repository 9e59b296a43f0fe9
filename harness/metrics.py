"""The one table of metrics, and how each is computed from a run's raw samples.

asv names, report columns, help texts and README tables derive from METRICS. A metric that a run
did not measure is absent from its record, never zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from harness.cost import cost_usd
from harness.schema import Accelerator, Block, Epoch, Run

MIN_UNDISTURBED = 3
"""With fewer undisturbed blocks, the disturbed ones count too."""


@dataclass(frozen=True)
class Metric:
    """`direction` says which way is better; `form` names how `harness.show` prints it."""

    name: str
    unit: str
    direction: str
    form: str
    title: str
    definition: str


METRICS = {
    metric.name: metric
    for metric in (
        Metric("step_time_s", "s", "lower", "seconds", "step",
               "Median over undisturbed timed blocks of wall seconds per optimiser step, device "
               "synchronised, on batches already on the device."),
        Metric("throughput_examples_per_s", "examples/s", "higher", "rate", "throughput",
               "Batch size divided by step_time_s; on several devices the batch is what they "
               "share."),
        Metric("scaling_efficiency", "1", "higher", "percent", "scaling",
               "throughput_examples_per_s on N devices over N times that of the same cell on one, "
               "with the same batch shared among them (strong scaling). Of two rows: `epochmark "
               "show` has it where there is a row of one device. Devices simulated on a processor "
               "share it, so that theirs tells nothing about hardware."),
        Metric("collectives_fraction", "1", "lower", "percent", "exchanging",
               "The share of a step on several devices that the first one spends on exchanging "
               "gradients, waiting for the others included: in steps of their own after the timed "
               "blocks. PyTorch alone: under TensorFlow and JAX the exchange is a part of the "
               "compiled step."),
        Metric("compile_time_s", "s", "lower", "excess", "compile",
               "First step minus step_time_s: tracing, compilation, first allocation. Tables show "
               "0 s where the first step was the faster one, as it may be where nothing is "
               "compiled."),
        Metric("startup_time_s", "s", "lower", "seconds", "start-up",
               "From the start of the process until the backend and Keras are imported."),
        Metric("epoch_time_s", "s", "lower", "seconds", "epoch",
               "Wall seconds to train one whole epoch through the input pipeline, evaluation not "
               "included: median of the epochs after the first, or the only one. Under a step "
               "budget it is extrapolated: the seconds of the steps trained, divided by "
               "epoch_fraction; what the start of an epoch takes once is in them, and so is what "
               "slowed the machine down meanwhile."),
        Metric("epoch_fraction", "1", "higher", "percent", "epoch measured",
               "The share of an epoch's steps that was trained; under a step budget it is less "
               "than 1, and what an epoch takes and costs is extrapolated from it."),
        Metric("input_wait_fraction", "1", "lower", "percent", "not stepping",
               "1 - steps x step_time_s / epoch_time_s: the share of an epoch beyond its steady "
               "steps, which is waiting for input plus the loop's own work (the differential "
               "method of Mohan et al., Analyzing and Mitigating Data Stalls, VLDB 2021). Slightly "
               "negative values are noise."),
        Metric("infer_latency_s", "s", "lower", "seconds", "latency",
               "Median wall seconds of one synchronised call on one example."),
        Metric("infer_throughput_examples_per_s", "examples/s", "higher", "rate", "inference",
               "Examples per second in timed blocks at the evaluation batch size."),
        Metric("peak_host_memory_bytes", "B", "lower", "bytes", "peak host memory",
               "Peak resident set of the worker process (VmHWM) from building the model to the "
               "end, imported libraries included."),
        Metric("peak_device_memory_bytes", "B", "lower", "bytes", "peak device memory",
               "Peak of the backend's allocator on the accelerator, after the equality gate; "
               "JAX's, which cannot be reset, is of the whole process."),
        Metric("quality", "1", "higher", "quality", "quality",
               "The workload's quality metric on held-out data after the declared epochs; "
               "quality_metric names it."),
        Metric("quality_error", "1", "lower", "quality", "quality error",
               "The lower-is-better form of quality: 1 - quality for shares, quality itself for "
               "errors."),
        Metric("time_to_quality_s", "s", "lower", "seconds", "time to quality",
               "Wall seconds of training and evaluation, from the first touch of the training data "
               "until held-out quality is at the declared target or better; absent where there is "
               "no target or it was not reached."),
        Metric("skipped_steps", "1", "lower", "count", "skipped steps",
               "Optimiser steps of the epochs that dynamic loss scaling skipped because a gradient "
               "was not finite; under mixed_float16 alone."),
        Metric("cost_per_epoch_usd", "USD", "lower", "usd", "cost/epoch",
               "epoch_time_s times the reference price's rate."),
        Metric("cost_per_million_examples_usd", "USD", "lower", "usd", "cost/10⁶ examples",
               "cost_per_epoch_usd, for a million training examples in place of an epoch's."),
        Metric("fixed_cost_usd", "USD", "lower", "usd", "fixed cost",
               "What every training pays once: startup_time_s and compile_time_s times the "
               "reference price's rate."),
        Metric("cost_to_quality_usd", "USD", "lower", "usd", "cost to quality",
               "time_to_quality_s times the reference price's rate."),
        Metric("cost_per_thousand_inferences_usd", "USD", "lower", "usd", "cost/10³ inferences",
               "Seconds that a thousand examples take at infer_throughput_examples_per_s, times "
               "the reference price's rate."),
        Metric("energy_per_epoch_j", "J", "lower", "joules", "energy/epoch",
               "Joules of one epoch's training by the machine's counters (energy_method says "
               "whose), everything that ran on it included: median of the epochs after the first, "
               "or the only one; divided by epoch_fraction under a step budget."),
        Metric("model_flops_per_example", "FLOP", "lower", "flops", "model FLOPs",
               "Declared FLOPs of one example, in its training step or its inference: 2 per "
               "multiply-add of matrix products and convolutions, nothing else."),
        Metric("mfu", "1", "higher", "percent", "MFU",
               "model_flops_per_example times the throughput, over the device's peak in that "
               "precision as measured by `epochmark doctor` or documented (PaLM, "
               "arXiv:2204.02311, appendix B)."),
    )
}  # fmt: skip


Seconds = Callable[..., Any]

PRICED: Mapping[str, tuple[Seconds, tuple[str, ...]]] = {
    "cost_per_epoch_usd": (lambda epoch: epoch, ("epoch_time_s",)),
    "cost_per_million_examples_usd": (
        lambda epoch, examples: epoch * 1e6 / examples,
        ("epoch_time_s", "examples_per_epoch"),
    ),
    "fixed_cost_usd": (
        lambda startup, compilation: startup + compilation,
        ("startup_time_s", "compile_time_s"),
    ),
    "cost_to_quality_usd": (lambda reached: reached, ("time_to_quality_s",)),
    "cost_per_thousand_inferences_usd": (
        lambda throughput: 1e3 / throughput,
        ("infer_throughput_examples_per_s",),
    ),
}
"""Every cost: the seconds that are paid for, and the figures (numbers or columns) they come from.

`examples_per_epoch` is a fact of a run, `harness.columns` has it.
"""


OF_BLOCKS = {"train": "step_time_s", "infer": "infer_throughput_examples_per_s"}
"""Each phase's figure of its timed blocks."""

OF_TIME = frozenset(
    name
    for name, metric in METRICS.items()
    if metric.unit in ("s", "examples/s", "USD") or name == "mfu"
)
"""Figures that are as good as the machine is fast at that hour."""


def better(metric: str, *, higher_is_better: bool) -> str:
    """`lower` or `higher`: that of `quality` is the workload's, as `higher_is_better` has it."""
    if metric == "quality":
        return "higher" if higher_is_better else "lower"
    return METRICS[metric].direction


def derive(run: Run) -> dict[str, float]:
    """Every metric that the run's raw samples, memory and price allow, in METRICS order."""
    values = {
        **_step_metrics(run),
        **_epoch_metrics(run),
        **_infer_metrics(run),
        **_memory_metrics(run),
        **_energy_metrics(run),
    }
    values |= _cost_metrics(values, run)
    values |= _flops_metrics(values, run)
    return {name: values[name] for name in METRICS if name in values}


def seconds_per_step(blocks: Sequence[Block]) -> float:
    """The median over the blocks that count."""
    return median(step_times(blocks))


def step_times(blocks: Sequence[Block]) -> list[float]:
    """Seconds per step of the blocks that count: the undisturbed ones, or all if those are few."""
    kept = blocks if mostly_disturbed(blocks) else [b for b in blocks if not b.disturbed]
    return [block.seconds / block.steps for block in kept]


def mostly_disturbed(blocks: Sequence[Block]) -> bool:
    """Whether other work left too few blocks to count; such a run is marked as contended."""
    marks = [block.disturbed for block in blocks]
    return any(marks) and marks.count(False) < MIN_UNDISTURBED


def throttled(found: Sequence[Accelerator]) -> bool:
    """Whether any of a run's devices was slowed down."""
    return any(one.throttled for one in found)


def shared(found: Sequence[Accelerator]) -> bool:
    """Whether others computed on any of a run's devices."""
    return any(bool(one.other_processes) for one in found)


def hampered(found: Sequence[Accelerator]) -> bool:
    """Whether times measured on these devices are not what they would be alone and cool."""
    return throttled(found) or shared(found)


def counted_epochs(run: Run) -> tuple[Epoch, ...]:
    """The epochs after the first, which may still compile; the first when it is the only one."""
    return run.samples.epochs[1:] or run.samples.epochs


def _step_metrics(run: Run) -> dict[str, float]:
    values: dict[str, float] = {}
    if "start" in run.stages:
        values["startup_time_s"] = run.stages["start"]
    if run.samples.steady:
        step = seconds_per_step(run.samples.steady)
        values["step_time_s"] = step
        values["throughput_examples_per_s"] = run.batch_size / step
        if run.samples.first_step_s is not None:
            values["compile_time_s"] = run.samples.first_step_s - step
    exchange = run.samples.exchange
    if exchange is not None:
        values["collectives_fraction"] = exchange.exchange_s / exchange.seconds
    return values


def _epoch_metrics(run: Run) -> dict[str, float]:
    epochs = run.samples.epochs
    if not epochs:
        return {}
    later = counted_epochs(run)
    trained = median(epoch.train_s for epoch in later)
    fraction = later[0].steps / (later[0].epoch_steps or later[0].steps)
    values = {"epoch_time_s": trained / fraction, "epoch_fraction": fraction}
    if run.samples.steady:
        stepping = later[0].steps * seconds_per_step(run.samples.steady)
        values["input_wait_fraction"] = 1.0 - stepping / trained
    quality = epochs[-1].quality.get(run.quality_metric)
    if quality is not None:
        values["quality"] = quality
        values["quality_error"] = 1.0 - quality if run.higher_is_better else quality
    if run.loss_scaling is not None and run.loss_scaling.train_skipped_steps is not None:
        values["skipped_steps"] = float(run.loss_scaling.train_skipped_steps)
    reached = None if run.quality_target is None else time_to(run, run.quality_target)
    return values if reached is None else values | {"time_to_quality_s": reached}


def reaches(quality: float, target: float, *, higher_is_better: bool) -> bool:
    """Whether the quality is at the target or better."""
    return quality >= target if higher_is_better else quality <= target


def time_to(run: Run, target: float) -> float | None:
    """Seconds of training and evaluation until the target was reached; None if it never was."""
    seconds = 0.0
    for epoch in run.samples.epochs:
        seconds += epoch.train_s + (epoch.evaluation_s or 0.0)
        quality = epoch.quality.get(run.quality_metric)
        if quality is not None and reaches(quality, target, higher_is_better=run.higher_is_better):
            return seconds
    return None


def _infer_metrics(run: Run) -> dict[str, float]:
    values: dict[str, float] = {}
    if run.samples.infer_latency_s:
        values["infer_latency_s"] = median(run.samples.infer_latency_s)
    if run.samples.infer:
        per_call = seconds_per_step(run.samples.infer)
        values["infer_throughput_examples_per_s"] = run.batch_size / per_call
        if run.samples.first_step_s is not None:
            values["compile_time_s"] = run.samples.first_step_s - per_call
    return values


def _memory_metrics(run: Run) -> dict[str, float]:
    peaks = {
        "peak_host_memory_bytes": run.memory.host_peak_bytes,
        "peak_device_memory_bytes": run.memory.device_peak_bytes,
    }
    return {name: float(peak) for name, peak in peaks.items() if peak is not None}


def _energy_metrics(run: Run) -> dict[str, float]:
    """Absent where no counter was read, or not in every epoch."""
    epochs = run.samples.epochs
    if run.energy is None or not epochs or len(run.energy.epochs_j) != len(epochs):
        return {}
    later = counted_epochs(run)[0]
    fraction = later.steps / (later.epoch_steps or later.steps)
    joules = run.energy.epochs_j[1:] or run.energy.epochs_j
    return {"energy_per_epoch_j": median(joules) / fraction}


def _flops_metrics(values: dict[str, float], run: Run) -> dict[str, float]:
    if run.flops_per_example is None:
        return {}
    phase = "infer_throughput_examples_per_s" if run.samples.infer else "throughput_examples_per_s"
    if phase not in values:
        return {}
    found = {"model_flops_per_example": float(run.flops_per_example)}
    if run.peak is not None:
        found["mfu"] = run.flops_per_example * values[phase] / run.peak.flops_per_s
    return found


def own_cpu_share(run: Run) -> float | None:
    """The share of all processors that the run's own process used while it was timed."""
    blocks = [block for block in run.samples.steady if block.cpu_s is not None]
    seconds = sum(block.seconds for block in blocks) * run.environment.cpu_count
    return sum(block.cpu_s or 0.0 for block in blocks) / seconds if seconds > 0 else None


def examples_per_epoch(run: Run) -> float | None:
    """How many examples a whole epoch trains on; None where no epoch was begun."""
    if not run.samples.epochs:
        return None
    epoch = run.samples.epochs[0]
    return float((epoch.epoch_steps or epoch.steps) * run.batch_size)


def _cost_metrics(values: Mapping[str, float], run: Run) -> dict[str, float]:
    if run.price is None:
        return {}
    known = {**values, "examples_per_epoch": examples_per_epoch(run)}
    return {
        name: float(
            cost_usd(seconds(*(known[figure] for figure in figures)), run.price.usd_per_hour)
        )
        for name, (seconds, figures) in PRICED.items()
        if all(known.get(figure) is not None for figure in figures)
    }
