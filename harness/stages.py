"""What a worker does with its cell, stage by stage. Runs inside the worker process only.

The gate's first step is also the compile stage: the step that is checked, compiled and timed is
one and the same function. A model with dropout is the exception: no two backends draw the same, so
the gate checks a twin of it without dropout before the model itself is built.
"""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import cycle, groupby, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import checkpoint, data, gate, options, paths, stopping, weights
from harness.backends import Backend, Trainer, backend
from harness.batches import Batches, Rows
from harness.cells import Cell
from harness.clock import Stopwatch, now
from harness.errors import EpochmarkError, WorkerError
from harness.measure import Steady, WarmUp, measure_steady, moved, time_block, warm_up
from harness.metrics import reaches
from harness.probes import Watch, peak_resident_bytes, reset_peak, watched
from harness.ranks import Ranks
from harness.schema import (
    Block,
    DataOrigin,
    Epoch,
    Exchange,
    Gate,
    LossScaling,
    Memory,
    Protocol,
    Samples,
)
from harness.workload import Array, Batch, Optimizer, Scale, Schedule, Workload

RESIDENT_BATCHES = 4

EXCHANGES = 20
"""Steps in which the exchange between several devices is timed."""

TURNS = "turns"
"""The stage in which a worker times single blocks as it is told to."""

WARM_UP = 0
"""In place of a block's steps: warm up by rule."""

BEGIN, END = "begin", "end"
"""Marks that a worker sends at both ends of an epoch's training."""

RESUMABLE = "resumable"
"""The stage in which a worker trains as many steps as it is told to, and writes a checkpoint."""

AFTER_GATE, WHOLE_PROCESS = "the equality gate", "the start of the process"
"""Since when an accelerator's peak is counted."""


@dataclass(frozen=True)
class Segment:
    """Consecutive training steps from the `first_step` on (counted from 0), then a checkpoint.

    `loss` is what the API style's own loop shows at their end: the mean over them with `fit`, the
    last step's in a custom loop. `first_s` is the first step's part of `train_s`, `save_s` the time
    from the last step to a checkpoint on disk.
    """

    first_step: int
    steps: int
    loss: float
    first_s: float
    train_s: float
    save_s: float
    checkpoint_bytes: int


@dataclass(frozen=True)
class Job:
    """One run as the parent asks for it.

    With `turns`, it ends in blocks that the parent orders one by one, in place of a run's own.
    With `checkpoint`, the path of a file, it only trains: from that state if the file is there, as
    many steps as the parent orders, and leaves out the gate.
    """

    cell: Cell
    seed: int
    protocol: Protocol
    weights: str = ""
    turns: bool = False
    checkpoint: str = ""


class Finished(Exception):  # noqa: N818 - not an error: the protocol asked to stop here
    """The stage that the protocol names as the last one has ended."""


class Measurement:
    """The state of one run: what was built, and what has been measured so far."""

    def __init__(
        self,
        job: Job,
        workload: Workload,
        enter: Callable[[str], None],
        *,
        orders: Iterable[int] = (),
        answer: Callable[[Block | Segment], None] = lambda part: None,
        mark: Callable[[str], None] = lambda mark: None,
    ) -> None:
        self.job = job
        self.workload = workload
        self.scale = workload.scales[job.cell.scale]
        training = job.cell.phase == "train"
        self.batch_size = self.scale.batch_size if training else self.scale.eval_batch_size
        declared = self.scale.pipeline
        self.pipeline = replace(declared, kind=job.protocol.pipeline or declared.kind)
        self.watch = Stopwatch()
        self.samples = Samples()
        self.memory = Memory()
        self.gate = Gate()
        self.loss_scaling: LossScaling | None = None
        self.numerics: dict[str, str] = {}
        self.origin: DataOrigin | None = None
        self.published: Mapping[str, Array] = {}
        self.gate_batch: Any = None
        self.ranks: Ranks | None = None
        self._peaks: list[int] = []
        self._configured: dict[str, str] = {}
        self._enter = enter
        self._orders = orders
        self._answer = answer
        self._mark = mark
        self._stage = "start"

    def enter(self, stage: str) -> None:
        """Begin a stage: its clock, and a word to the parent, outside any timed block."""
        if stage == self._stage:
            return
        if self._stage == self.job.protocol.stop_after:
            raise Finished
        self._stage = stage
        self._enter(stage)
        self.watch.start(stage)

    def run(self) -> None:
        """Every stage of the cell's phase, in order."""
        self._load()
        if self.job.checkpoint:
            self._build(self.scale)
            self._train_resumably(Path(self.job.checkpoint))
            self.watch.stop()
            return
        if self._gates_what_it_trains:
            self._build(self.scale)
            self._compile_and_gate("compile")
        else:
            self._gate_a_twin()
            self._choose_batch()
            self._build(self.scale)
            self._compile()
        if self.job.turns:
            self._take_turns()
        elif self.job.cell.phase == "train":
            self._steady()
            self._train()
        else:
            self._infer()
        self.watch.stop()

    @property
    def _gates_what_it_trains(self) -> bool:
        """Not where layers draw at random, the data is its owner's alone or the batch another."""
        protocol = self.job.protocol
        another_batch = protocol.accumulate > 1 or protocol.batch_memory_bytes
        return not (self.scale.gate_architecture or self.scale.gate_scale or another_batch)

    @property
    def _framework(self) -> Backend:
        return backend(self.job.cell.backend)

    def built(self, scale: Scale | None = None) -> Trainer:
        """The declared model with its step, from the declaration alone: no data, nothing run."""
        self._build(scale or self.scale)
        return self.trainer

    # -- data and build ---------------------------------------------------------------------

    def _load(self) -> None:
        self.enter("data")
        loaded = self._open(self.job.cell.scale)
        self.origin = DataOrigin(source=loaded.source, digest=loaded.digest)
        if self.job.weights:
            self.published = self.workload.published(Path(self.job.weights), self.scale)

    def _open(self, scale: str) -> data.Loaded:
        """Make the scale's declaration and data the ones that batches are made of."""
        loaded = data.load(self.workload, scale)
        self.scale = self.workload.scales[scale]
        self.data = self.workload.data(scale)
        self.arrays = loaded.arrays
        return loaded

    def _build(self, scale: Scale, *, stage: str = "build") -> None:
        self.enter(stage)
        if self.ranks is not None:
            self.ranks.tell("build", scale)
        import keras

        # TensorFloat-32 is how a GPU multiplies float32; to Keras it is no policy of its own.
        policy = self.job.cell.precision.replace("tensorfloat32", "float32")
        keras.config.set_dtype_policy(policy)
        # Not keras.utils.set_random_seed: it imports TensorFlow under every backend.
        random.seed(self.job.seed)
        np.random.seed(self.job.seed)
        self._framework.seed(self.job.seed)
        module = self.workload.model()
        style = self.job.cell.api_style
        self.model = getattr(module, "functional" if style == "custom_loop" else style)(scale)
        self.optimizer = self._optimizer(keras, scale.optimizer)
        self.optimizer.build(self.model.trainable_variables)
        self.initial_optimizer = weights.compact(weights.snapshot(self.optimizer.variables))
        trainer = self._trainer(module)
        self.trainer = trainer if self.ranks is None else self.ranks.led_by(trainer)
        self.numerics |= {
            "dtype_policy": policy,
            "variable_dtype": str(self.model.trainable_variables[0].dtype),
            "image_data_format": keras.config.image_data_format(),
        }
        self._count_parameters()

    def _count_parameters(self) -> None:
        found = sum(math.prod(v.shape) for v in self.model.trainable_variables)
        self.numerics["parameters"] = str(found)
        if found != self.scale.parameters:
            raise WorkerError(
                "numerics",
                f"the model trains {found:,} parameters, {self.scale.parameters:,} are declared",
            )

    def _optimizer(self, keras: Any, declared: Optimizer) -> Any:
        kind = self._framework.optimizer_class(getattr(keras.optimizers, declared.name))
        arguments: dict[str, Any] = dict(declared.arguments)
        if declared.schedule is not None:
            from harness.backends.schedules import WarmupThenLinear

            schedule = self._stretched(declared.schedule)
            peak, parts = arguments["learning_rate"], self.job.protocol.accumulate
            arguments["learning_rate"] = WarmupThenLinear(peak, schedule, parts)
        if self.job.protocol.accumulate > 1:
            arguments["gradient_accumulation_steps"] = self.job.protocol.accumulate
        optimizer = kind(**arguments)
        if declared.undecayed:
            optimizer.exclude_from_weight_decay(var_names=list(declared.undecayed))
        if self.job.cell.precision == "mixed_float16":
            # float16 gradients underflow without it; `compile` would add the same one.
            return keras.optimizers.LossScaleOptimizer(optimizer)
        return optimizer

    def _stretched(self, schedule: Schedule) -> Schedule:
        """To another number of epochs; the warm-up, which the gate sees, stays."""
        epochs = self.job.protocol.epochs or self.scale.epochs
        return replace(schedule, total_steps=schedule.total_steps * epochs // self.scale.epochs)

    def _trainer(self, module: Any) -> Trainer:
        framework = self._framework
        if self.job.cell.api_style == "custom_loop":
            return framework.loop_trainer(self.model, module.loss(self.scale), self.optimizer)
        jit = self.numerics["jit_compile"] == "True"
        self.model.compile(
            optimizer=self.optimizer,
            loss=module.loss(self.scale),
            jit_compile=jit,
            auto_scale_loss=False,
        )
        return framework.fit_trainer(self.model)

    # -- compile and gate -------------------------------------------------------------------

    def _gate_a_twin(self) -> None:
        """The gate on the architecture without dropout, in memory that is freed again.

        Nor are gradients clipped: every norm would be the bound, and none would tell a fault.
        """
        borrowed = self.scale.gate_scale
        own = self.scale, self.data, self.arrays
        if borrowed:
            self._open(borrowed)
        declared = self.scale.optimizer
        arguments = {k: v for k, v in declared.arguments.items() if k != "global_clipnorm"}
        twin = replace(
            self.scale,
            architecture=self.scale.gate_architecture or self.scale.architecture,
            optimizer=replace(declared, arguments=arguments),
        )
        self._build(twin, stage="gate")
        self._compile_and_gate("gate")
        del self.placed_inputs
        self.scale, self.data, self.arrays = own
        self._forget()

    def _forget(self) -> None:
        """Free what was built, before something else is."""
        del self.model, self.optimizer, self.trainer, self.initial_optimizer
        gc.collect()
        self._reset_peaks()

    def _choose_batch(self) -> None:
        """The batch of the protocol in place of the declared one, on which the gate was."""
        protocol = self.job.protocol
        if protocol.accumulate > 1:
            part = self.scale.batch_size // protocol.accumulate
            self.scale = replace(self.scale, batch_size=part)
        elif protocol.batch_memory_bytes:
            self.scale = options.rebatched(self.scale, self._largest_batch())
            self.batch_size = self.scale.batch_size

    def _largest_batch(self) -> int:
        self._build(self.scale, stage="batch")
        self._restore_initial_state()
        declared, limit = self.scale.batch_size, self.job.protocol.batch_memory_bytes
        examples = self._batches(0).rows.size
        found, tried = options.largest(declared, examples, limit, self._peak_of_step)
        self.memory = replace(self.memory, tried_batches={str(k): v for k, v in tried.items()})
        self._forget()
        if not found:
            peak = f"takes {tried[declared]:,} bytes" if tried else "finds no memory"
            raise WorkerError(
                "oom", f"a step on the declared batch of {declared} {peak}, {limit:,} are allowed"
            )
        return found

    def _peak_of_step(self, size: int) -> int | None:
        """The peak in bytes of a step on so many examples; None if memory ran out."""
        batches = self.data.batches(self.arrays, batch_size=size, seed=self.job.seed, epoch=0)
        self._reset_peaks()
        try:
            self.trainer.synchronise(self.trainer.step(self.trainer.place(batches[0])))
        except Exception as error:
            if self._framework.is_out_of_memory(error):
                return None
            raise
        if self.job.cell.device_kind != "cpu":
            return self._framework.device_peak_bytes()
        return peak_resident_bytes()

    def _compile(self) -> None:
        """The first step, or inference, of the model that the gate saw as its twin."""
        self.enter("compile")
        self._restore_initial_state()
        if self.job.cell.phase == "infer":
            self._first_inference()
            self._note_paths(self.placed_inputs)
        else:
            placed = self.trainer.place(self._batches(0)[0])
            loss = self.trainer.loss(self._first_step(placed))
            if not math.isfinite(loss):
                raise WorkerError("nan", f"the loss of the first step is {loss}")
            self._note_paths(placed)
        self._restore_initial_state()

    def _compile_and_gate(self, stage: str) -> None:
        self.enter(stage)
        gate.set_weights(self.model, self.workload)
        self._scale_learning_rate(self.scale.gate_rate)
        self.trainer.push()
        training = self.job.cell.phase == "train"
        figures = self._gate_training() if training else self._gate_inference()
        self.gate = self._judged(figures)
        self._note_paths(self.gate_batch if training else self.placed_inputs)
        self.gate_batch = None
        self._restore_initial_state()
        gc.collect()
        self._reset_peaks()

    def _first_step(self, placed: Any) -> Any:
        began = now()
        result = self._update(repeat(placed))
        self.trainer.synchronise(result)
        self.samples = replace(self.samples, first_step_s=now() - began)
        self._note_peak()
        return result

    def _first_inference(self) -> tuple[float, ...]:
        inputs = self.data.test_inputs(self.arrays, 0, self.scale.eval_batch_size)
        self.placed_inputs = self.trainer.place_inputs(inputs)
        began = now()
        output = gate.outputs(self.trainer, self.placed_inputs)
        self.samples = replace(self.samples, first_step_s=now() - began)
        self._note_peak()
        return output

    def _gate_inference(self) -> gate.Figures:
        output = self._first_inference()
        self.enter("gate")
        with self._noting_execution():
            gate.outputs(self.trainer, self.placed_inputs)
        return gate.Figures(output=output)

    def _gate_training(self) -> gate.Figures:
        reader = gate.GradientReader(self.optimizer)
        updates = gate.UpdateReader(self.model.trainable_variables)
        placed = self.gate_batch = self.trainer.place(self._batches(0, seed=gate.SEED)[0])
        steps: list[tuple[float, ...]] = []
        self.skipped = 0
        result = self._first_step(placed)
        self.enter("gate")
        while True:
            loss = self.trainer.loss(result)
            self.trainer.pull()
            if not math.isfinite(loss):
                raise WorkerError("nan", f"the loss of gate step {len(steps) + 1} is {loss}")
            if reader.updates() > len(steps):
                steps.append((loss, *reader.norms(), updates.norm()))
            else:
                self.skipped += 1
            if len(steps) == self.job.protocol.gate_steps:
                break
            if self.skipped > 20:
                raise WorkerError("numerics", "every gate step overflowed at every loss scale")
            self._reset_metrics()
            self.trainer.push()
            with self._noting_execution():
                result = self._update(repeat(placed))
                self.trainer.synchronise(result)
        gate.set_weights(self.model, self.workload)
        self.trainer.push()
        inputs = self.data.test_inputs(self.arrays, 0, self.scale.eval_batch_size)
        self.placed_inputs = self.trainer.place_inputs(inputs)
        output = gate.outputs(self.trainer, self.placed_inputs)
        return gate.Figures(output, *zip(*steps, strict=True))

    def _judged(self, figures: gate.Figures) -> Gate:
        if self.job.protocol.stop_after == "reference":
            self.gate = Gate(outcome="reference", **asdict(figures))
            raise Finished
        for name, values in asdict(figures).items():
            if not all(map(math.isfinite, values)):
                raise WorkerError("nan", f"the gate's {name.replace('_', ' ')} is not finite")
        named = self.workload.scales[self.job.cell.scale].gate_scale or self.job.cell.scale
        expected = gate.reference(self.workload, named)
        tolerance = self.scale.tolerance(self.job.cell.precision)
        judged = gate.judge(figures, expected, tolerance)
        self.gate = replace(judged, skipped_steps=getattr(self, "skipped", 0))
        if self.gate.outcome != "passed":
            raise WorkerError("numerics", gate.failure(self.gate))
        return self.gate

    def _reset_metrics(self) -> None:
        if self.job.cell.api_style != "custom_loop":
            self.model.reset_metrics()

    def _scale_learning_rate(self, factor: float) -> None:
        if factor == 1.0:
            return
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        inner.learning_rate = float(weights.snapshot([inner._learning_rate])[0]) * factor

    def _restore_initial_state(self) -> None:
        """Everything as training starts: weights from the run's seed, a fresh optimiser."""

        def value(key: str, shape: tuple[int, ...]) -> Array:
            if key in self.published:
                return self.published[key]
            return weights.initial(key, shape, seed=self.job.seed, rules=self.workload.initializers)

        self.trainer.pull()
        weights.assign(weights.of(self.model), value)
        weights.restore(self.optimizer.variables, self.initial_optimizer)
        self._applied = 0
        self._reset_metrics()
        self.trainer.push()

    @contextmanager
    def _noting_execution(self) -> Iterator[None]:
        """Compiled or eager, of a step or an inference that is not the first; the last one counts.

        Of one that is not timed: what notes it is a layer of Python.
        """
        self._configured = self._configured or dict(self.numerics)
        with paths.python_calls(self.model) as calls:
            yield
        self.numerics |= paths.execution(self._configured, python_ran=bool(calls))

    def _note_paths(self, placed: Any) -> None:
        """Which kernels the step takes; it may run once more, so the state is restored after."""
        cell, kinds = self.job.cell, self.workload.fast_paths
        training = cell.phase == "train"
        if kinds:
            operations = self.trainer.operations(placed, training=training)
            self.numerics |= paths.taken(kinds, cell.backend, operations)
        if training:
            kinds = tuple(kind for kind in kinds if kind not in self.scale.written_out)
        self.numerics.pop(paths.LOST, None)  # of the gate's twin
        if lost := paths.lost(self.numerics, kinds, cell.backend, cell.device_kind):
            self.numerics[paths.LOST] = ", ".join(lost)

    # -- steady, train, infer ---------------------------------------------------------------

    def _batches(self, epoch: int, *, seed: int | None = None) -> Batches:
        return self.data.batches(
            self.arrays,
            batch_size=self.scale.batch_size,
            seed=self.job.seed if seed is None else seed,
            epoch=epoch,
        )

    def _steady(self) -> None:
        self.enter("steady")

        def warmed(warmup: WarmUp) -> None:
            # A step before the first block is part of the warm-up.
            self._note_skipped("warmup_skipped_steps", 1 + _steps(warmup.blocks))

        stepping = self._stepping()
        steady = measure_steady(*stepping, self.job.protocol, watch=self._watch, warmed=warmed)
        self._note_skipped("steady_skipped_steps", _steps(steady.blocks))
        self._note(steady)
        exchange = self._exchange(*stepping)
        self.samples = replace(self.samples, steady=steady.blocks, exchange=exchange)
        self._restore_initial_state()

    def _exchange(
        self, step: Callable[[], Any], synchronise: Callable[[Any], None]
    ) -> Exchange | None:
        """What several devices spend on exchanging gradients, where that can be told."""
        several = self.job.cell.device_count > 1
        collectives = self._framework.collectives() if several else None
        if collectives is None:
            return None
        # Not in the timed blocks: to time the exchange, the device has to be waited for.
        with collectives as seconds:
            block = time_block(EXCHANGES, step, synchronise, watch=self._watch)
        return Exchange(block.steps, block.seconds, sum(seconds))

    def _take_turns(self) -> None:
        """Answer every order with a block: the parent lets another worker run in between."""
        training = self.job.cell.phase == "train"
        step, synchronise = self._stepping() if training else self._inferring()

        def timed(steps: int) -> Block:
            return time_block(steps, step, synchronise, watch=self._watch)

        synchronise(step())
        self.enter(TURNS)
        for steps in self._orders:
            if steps == WARM_UP:
                self._answer(warm_up(timed, self.job.protocol).blocks[-1])
            else:
                self._answer(moved(timed(steps)))

    def _train_resumably(self, path: Path) -> None:
        """Answer every order with a segment; batches come in the order of a whole training."""
        self._restore_initial_state()
        done = self._resume(path) if path.exists() else 0
        self.enter(RESUMABLE)
        for steps in self._orders:
            self._answer(self._segment(done, steps, path))
            done += steps

    def _resume(self, path: Path) -> int:
        done, arrays = checkpoint.read(path)
        weights.restore(self._state(), arrays)
        self.trainer.push()
        return done

    def _state(self) -> list[Any]:
        """Everything that the next step depends on: random layers' seeds too."""
        return [*self.model.variables, *self.optimizer.variables]

    def _segment(self, first: int, steps: int, path: Path) -> Segment:
        began = first_done = now()
        for step, batch in enumerate(self._consecutive(first, steps), first):
            result = self.trainer.step(self.trainer.place(batch))
            if step == first:
                self.trainer.synchronise(result)
                first_done = now()
        self.trainer.synchronise(result)
        trained = now()
        loss = self.trainer.loss(result)
        if not math.isfinite(loss):
            raise WorkerError("nan", f"the loss is {loss} after {first + steps} steps")
        self.trainer.pull()
        size = checkpoint.write(path, first + steps, weights.snapshot(self._state()))
        saved = now()
        self._reset_metrics()
        self.trainer.push()
        train_s, first_s = trained - began, first_done - began
        return Segment(first, steps, loss, first_s, train_s, saved - trained, size)

    def _consecutive(self, first: int, steps: int) -> Iterator[Batch]:
        """The batches of these steps of a training, counted over its epochs."""
        length = len(self._batches(0))
        for epoch, numbers in groupby(range(first, first + steps), lambda step: step // length):
            batches = self._batches(epoch)
            for number in numbers:
                yield batches[number % length]

    def _stepping(self) -> tuple[Callable[[], Any], Callable[[Any], None]]:
        """The step that is timed, on batches that are on the device, and its synchroniser."""
        placed = cycle([self.trainer.place(b) for b in self._batches(0).first(RESIDENT_BATCHES)])
        return lambda: self._update(placed), self.trainer.synchronise

    def _update(self, placed: Iterator[Any]) -> Any:
        """One optimiser step: as many batches as its gradient is gathered from."""
        for _ in range(self.job.protocol.accumulate - 1):
            self.trainer.step(next(placed))
        return self.trainer.step(next(placed))

    @property
    def _watch(self) -> Watch:
        """What looks at the machine beside a block, and takes no process of the run for another."""
        return watched if self.ranks is None else self.ranks.watched

    def _inferring(self) -> tuple[Callable[[], Any], Callable[[Any], None]]:
        return lambda: self.trainer.infer(self.placed_inputs), self.trainer.synchronise

    def _note(self, steady: Steady) -> None:
        """How the timing went: warm-up, and which rules ended it and the timed blocks."""
        self.samples = replace(
            self.samples,
            warmup=steady.warmup.blocks,
            warmup_outcome=steady.warmup.outcome,
            steady_outcome=steady.outcome,
        )

    def _train(self) -> None:
        self.enter("train")
        from harness.backends import pipelines  # it imports Keras

        pipelines.load(self.pipeline)
        self.numerics["input_pipeline"] = self.pipeline.kind
        self.numerics["input_workers"] = str(self.pipeline.workers)
        if self.job.protocol.train_steps:
            self._train_first_steps(self.job.protocol.train_steps)
            return
        outcome, factor = stopping.DECLARED, 1.0
        parts = self.job.protocol.accumulate
        for epoch in range(self.job.protocol.epochs or self.scale.epochs):
            self._mark(BEGIN)
            began = now()
            batches = self._batches(epoch)
            steps = len(batches) // parts
            batches = batches.first(steps * parts)
            loss = self._fit(batches)
            trained = now()
            self._mark(END)
            if not math.isfinite(loss):
                raise WorkerError("nan", f"the mean loss of epoch {epoch + 1} is {loss}")
            quality = self.data.quality(self.arrays, self._predict())
            for name, value in quality.items():
                if not math.isfinite(value):
                    raise WorkerError("nan", f"{name} is {value} after epoch {epoch + 1}")
            done = Epoch(
                steps=steps,
                train_s=trained - began,
                evaluation_s=now() - trained,
                loss=loss,
                quality=quality,
                learning_rate_factor=factor,
            )
            self.samples = replace(self.samples, epochs=(*self.samples.epochs, done))
            if self._at_target(quality):
                outcome = stopping.TARGET
                break
            if self._too_dear():
                outcome = stopping.COST
                break
            if self._on_a_plateau():
                factor *= self.job.protocol.plateau_factor
                self.trainer.pull()
                self._scale_learning_rate(self.job.protocol.plateau_factor)
                self.trainer.push()
        self.samples = replace(self.samples, train_outcome=outcome)
        self._note_skipped("train_skipped_steps", _steps(self.samples.epochs))
        self._check_quality()

    def _fit(self, batches: Batches) -> float:
        """The mean loss of an epoch; what is wrong with its data is told in its own words.

        Pipelines run in threads of their own and hide where an error came from.
        """
        from harness.backends import pipelines  # it imports Keras

        failed: list[EpochmarkError] = []

        def watched(number: int, rows: Rows) -> Batch:
            try:
                return batches.make(number, rows)
            except EpochmarkError as error:
                failed.append(error)
                raise

        try:
            dataset = pipelines.opened(self.pipeline, replace(batches, make=watched))
            return self.trainer.fit_epoch(dataset)
        except Exception:
            if failed:
                raise failed[0] from None
            raise

    def _at_target(self, quality: Mapping[str, float]) -> bool:
        target = stopping.target(self.scale, quality)
        found, better = quality[self.workload.quality_metric], self.workload.higher_is_better
        return target is not None and reaches(found, target, higher_is_better=better)

    def _too_dear(self) -> bool:
        return stopping.too_dear(
            self.samples.epochs,
            self.workload.quality_metric,
            higher_is_better=self.workload.higher_is_better,
            tenth=stopping.tenth_of_a_point(self.workload.quality_unit),
            limit_s=self.job.protocol.stop_s_per_tenth,
        )

    def _on_a_plateau(self) -> bool:
        if not self.job.protocol.plateau_factor or len(self.samples.epochs) < 2:
            return False
        metric, better = self.workload.quality_metric, self.workload.higher_is_better
        return stopping.gain(self.samples.epochs, metric, higher_is_better=better) <= 0

    def _train_first_steps(self, steps: int) -> None:
        """The first steps of one epoch; so little training has no quality to speak of."""
        self._mark(BEGIN)
        began = now()
        epoch, parts = self._batches(0), self.job.protocol.accumulate
        batches = epoch.first(steps * parts)
        loss = self._fit(batches)
        trained = now()
        self._mark(END)
        if not math.isfinite(loss):
            raise WorkerError("nan", f"the mean loss of the first {len(batches)} steps is {loss}")
        done = Epoch(
            steps=len(batches) // parts,
            train_s=trained - began,
            evaluation_s=None,
            loss=loss,
            quality={},
            epoch_steps=len(epoch) // parts,
        )
        self.samples = replace(self.samples, epochs=(done,), train_outcome=stopping.STEPS)
        self._note_skipped("train_skipped_steps", len(batches))

    def _predict(self) -> NDArray[np.float32]:
        """Outputs for all held-out inputs, in batches of one size; the last one is padded."""
        size = self.scale.eval_batch_size
        found = []
        for start in range(0, len(self.arrays["test_targets"]), size):
            batch = self.data.test_inputs(self.arrays, start, start + size)
            padded = np.concatenate([batch, np.repeat(batch[:1], size - len(batch), axis=0)])
            result = self.trainer.infer(self.trainer.place_inputs(padded))
            found.append(self.trainer.outputs(result)[: len(batch)])
        return np.concatenate(found)

    def _note_skipped(self, part: str, steps: int) -> None:
        """Of the last `steps` steps, those that loss scaling skipped, as that part's.

        It waits for the device, so it stands outside of timed blocks and epochs.
        """
        if not hasattr(self.optimizer, "dynamic_scale"):
            return
        self.trainer.pull()
        read = weights.snapshot([self.optimizer.dynamic_scale, self.optimizer.iterations])
        scale, applied = float(read[0]), int(read[1])
        skipped = {part: steps - (applied - self._applied)}
        self._applied = applied
        noted = self.loss_scaling or LossScaling(scale)
        self.loss_scaling = replace(noted, final_scale=scale, **skipped)

    def _check_quality(self) -> None:
        """The bounds are of the declared number of epochs, batch and learning rate."""
        protocol = self.job.protocol
        if len(self.samples.epochs) != self.scale.epochs:
            return
        if protocol.accumulate > 1 or protocol.batch_memory_bytes or protocol.plateau_factor:
            return
        low, high = self.scale.quality_bounds
        found = self.samples.epochs[-1].quality[self.workload.quality_metric]
        if not low <= found <= high:
            raise WorkerError(
                "numerics",
                f"{self.workload.quality_metric} is {found:.4g} after {len(self.samples.epochs)} "
                f"epochs, {low:g} to {high:g} accepted",
            )

    def _infer(self) -> None:
        self.enter("infer")
        steady = measure_steady(*self._inferring(), self.job.protocol)
        self._note(steady)
        one = self.trainer.place_inputs(self.data.test_inputs(self.arrays, 0, 1))
        latency = [self._call_seconds(one) for _ in range(self.job.protocol.latency_calls + 2)]
        # The first calls compile and warm up.
        self.samples = replace(
            self.samples, infer=steady.blocks, infer_latency_s=tuple(latency[2:])
        )

    def _call_seconds(self, placed: Any) -> float:
        block: Block = time_block(1, lambda: self.trainer.infer(placed), self.trainer.synchronise)
        return block.seconds

    def _reset_peaks(self) -> None:
        reset_peak()
        if self.job.cell.device_kind != "cpu":
            again = self._framework.reset_device_peak()
            self.numerics["device_peak_since"] = AFTER_GATE if again else WHOLE_PROCESS

    def _note_peak(self) -> None:
        peak = peak_resident_bytes()
        if peak is not None:
            self._peaks.append(peak)

    def note_memory(self, baseline: int | None) -> None:
        """The peak outside the equality gate, for the record."""
        self._note_peak()
        # Where the kernel resets no peak, the host's would be the gate's as well.
        peak = max(self._peaks, default=None) if baseline is not None else None
        on_device = self.job.cell.device_kind != "cpu"
        self.memory = replace(
            self.memory,
            host_baseline_bytes=baseline,
            host_peak_bytes=peak,
            device_peak_bytes=self._framework.device_peak_bytes() if on_device else None,
        )


def _steps(parts: Iterable[Block | Epoch]) -> int:
    return sum(part.steps for part in parts)
