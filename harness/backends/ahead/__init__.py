"""What a training step will need on an accelerator, found without one.

A module per backend that has a way: JAX compiles the step with the accelerator's own compiler,
PyTorch runs it on tensors that have shapes and no values. TensorFlow has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from harness.backends import Trainer
from harness.targets import Target


@dataclass(frozen=True)
class Spec:
    """Shape and type of an array, as numpy names types."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Built:
    """A model under one way of stepping, and what a training batch of it looks like."""

    model: Any
    optimizer: Any
    trainer: Trainer
    inputs: Spec
    targets: Spec


@dataclass(frozen=True)
class Figures:
    """What was found; the sizes are None where the compiler refused, which `refusal` tells.

    `peak_bytes` live at once. `moved_bytes` are read and written by all operations or fused groups
    of them; XLA counts a loop's body once. `crossing_bytes` are read before or written after every
    step by any means: the state, and the batch. `program` is the digest of what was compiled.
    """

    program: str
    peak_bytes: int | None = None
    moved_bytes: int | None = None
    crossing_bytes: int | None = None
    refusal: str = ""


class Ahead(Protocol):
    """A module's functions."""

    def plan(self, built: Built, target: Target, *, optimised: bool) -> Figures:
        """The figures of one training step on the target.

        `optimised` asks for the compiler's full effort, where it has levels.
        """


def has_way(backend: str) -> bool:
    """Whether that backend's step can be planned; imports nothing."""
    return find_spec(f"{__name__}.{backend}") is not None


def ahead(backend: str) -> Ahead:
    """The module of that backend; importing it imports the framework."""
    module: Any = import_module(f"{__name__}.{backend}")
    return module  # type: ignore[no-any-return]
