"""The further processes of a run, where each device needs its own, told what to do over pipes.

The run's worker leads: it alone reads data, keeps time and evaluates. The others hold copies of
its model and do what it says with their share of each batch. Knows no framework.
"""

from __future__ import annotations

import socket
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from harness import probes
from harness.backends import LOOPBACK, Devices, Trainer
from harness.workload import Array, Batch

Follow = Callable[[Connection, Any, Devices], None]
"""What a process does: it answers over the connection until that is closed."""

GRACE_S = 5.0


@dataclass(frozen=True)
class Failure:
    """The last word of a process that could not go on: the run's status and reason."""

    status: str
    reason: str


class Ranks:
    """All processes but the leader's; they end with it, however it ends, for their pipes close."""

    def __init__(self, follow: Follow, job: Any, devices: Devices) -> None:
        listener = socket.create_server((LOOPBACK, 0))
        self.devices = replace(devices, port=listener.getsockname()[1], listener=listener.detach())
        context = get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(1, devices.count):
            ours, theirs = context.Pipe()
            arguments = (theirs, job, replace(self.devices, rank=rank, listener=-1))
            process = context.Process(target=follow, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def tell(self, what: str, *arguments: Any) -> None:
        """Say it to all of them, without waiting."""
        for pipe in self._pipes:
            pipe.send((what, arguments))

    def tell_each(self, what: str, shares: list[Batch], *arguments: Any) -> None:
        """Say it to each with its share of a batch; the first share is the leader's."""
        for pipe, share in zip(self._pipes, shares[1:], strict=True):
            pipe.send((what, (share, *arguments)))

    def ask(self, what: str) -> list[Any]:
        """Say it to all and wait for their answers."""
        self.tell(what)
        return [pipe.recv() for pipe in self._pipes]

    def led_by(self, trainer: Trainer) -> Trainer:
        """The leader's trainer, whose steps are everybody's."""
        return Leader(trainer, self)

    def watched(self) -> probes.Moment | None:
        """The counters of the machine and of all of the run's processes."""
        moment = probes.watched()
        if moment is None:
            return None
        times = [psutil.Process(process.pid).cpu_times() for process in self._processes]
        return replace(moment, cpu_s=moment.cpu_s + sum(t.user + t.system for t in times))

    def failure(self) -> tuple[str, str] | None:
        """Status and reason of the first process that failed; None when none did."""
        for rank, (pipe, process) in enumerate(zip(self._pipes, self._processes, strict=True), 1):
            process.join(0.5)  # one that failed is about to end
            said = _last_word(pipe)
            if said is not None:
                return said.status, f"on device {rank}: {said.reason}"
            if process.exitcode:
                return "error", f"the process of device {rank} ended with code {process.exitcode}"
        return None

    def close(self) -> None:
        """End them; they hold nothing that is worth saving."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()
            process.kill()
            process.join(GRACE_S)


def _last_word(pipe: Connection) -> Failure | None:
    try:
        while pipe.poll():
            said = pipe.recv()
            if isinstance(said, Failure):
                return said
    except (EOFError, OSError):
        pass
    return None


class _Placed:
    """A batch of which every process has its share: the leader's, and the others' number for it."""

    def __init__(self, number: int, own: Any) -> None:
        self.number = number
        self.own = own


class Leader:
    """Has every process step; infers alone."""

    def __init__(self, own: Trainer, ranks: Ranks) -> None:
        self._own = own
        self._ranks = ranks
        self._count = ranks.devices.count
        self._numbers = iter(range(2**62))

    def place(self, batch: Batch) -> Any:
        shares = self._shares(batch)
        placed = _Placed(next(self._numbers), self._own.place(shares[0]))
        self._ranks.tell_each("place", shares, placed.number)
        weakref.finalize(placed, self._ranks.tell, "drop", placed.number).atexit = False
        return placed

    def _shares(self, batch: Batch) -> list[Batch]:
        inputs, targets = (np.split(array, self._count) for array in batch)
        return list(zip(inputs, targets, strict=True))

    def step(self, placed: Any) -> Any:
        self._ranks.tell("step", placed.number)
        return self._own.step(placed.own)

    def synchronise(self, result: Any) -> None:
        self._own.synchronise(result)
        self._ranks.ask("synchronise")

    def loss(self, result: Any) -> float:
        return float(np.mean([self._own.loss(result), *self._ranks.ask("loss")]))

    def fit_epoch(self, dataset: Any) -> float:
        self._ranks.tell("fit_epoch")
        return float(np.mean([self._own.fit_epoch(self._shared(dataset)), *self._answers()]))

    def _shared(self, dataset: Any) -> Iterator[Batch]:
        from harness.backends import pipelines  # it imports Keras

        for batch in pipelines.arrays(dataset):
            shares = self._shares(batch)
            self._ranks.tell_each("batch", shares)
            yield shares[0]
        self._ranks.tell("end")

    def _answers(self) -> list[Any]:
        return self._ranks.ask("mean")

    def place_inputs(self, inputs: Array) -> Any:
        return self._own.place_inputs(inputs)

    def infer(self, placed: Any) -> Any:
        return self._own.infer(placed)

    def outputs(self, result: Any) -> NDArray[np.float32]:
        return self._own.outputs(result)

    def operations(self, placed: Any, *, training: bool) -> frozenset[str]:
        if not training:
            return self._own.operations(placed, training=False)
        self._ranks.tell("step", placed.number)
        return self._own.operations(placed.own, training=True)

    def push(self) -> None:
        self._ranks.tell("push")
        self._own.push()

    def pull(self) -> None:
        self._own.pull()


class Follower:
    """What the leader says, done to one's own trainer; `build` makes it."""

    def __init__(self, connection: Connection, build: Callable[[Any], Trainer]) -> None:
        self._connection = connection
        self._build = build
        self._placed: dict[int, Any] = {}
        self._result: Any = None
        self._mean = 0.0
        self._trainer: Trainer

    def obey(self) -> None:
        """Until the leader hangs up."""
        while True:
            try:
                what, arguments = self._connection.recv()
            except EOFError:
                return
            getattr(self, what)(*arguments)

    def build(self, scale: Any) -> None:
        self._trainer = self._build(scale)

    def place(self, batch: Batch, number: int) -> None:
        self._placed[number] = self._trainer.place(batch)

    def drop(self, number: int) -> None:
        del self._placed[number]

    def step(self, number: int) -> None:
        self._result = self._trainer.step(self._placed[number])

    def synchronise(self) -> None:
        self._trainer.synchronise(self._result)
        self._connection.send(None)

    def loss(self) -> None:
        self._connection.send(self._trainer.loss(self._result))

    def fit_epoch(self) -> None:
        self._mean = self._trainer.fit_epoch(self._batches())

    def _batches(self) -> Iterator[Batch]:
        while True:
            what, arguments = self._connection.recv()
            if what == "end":
                return
            yield arguments[0]

    def mean(self) -> None:
        self._connection.send(self._mean)

    def push(self) -> None:
        self._trainer.push()
