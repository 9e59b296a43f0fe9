"""What a training step will need on an accelerator, found without one.

A module per backend that has a way: JAX compiles the step with the accelerator's own compiler,
PyTorch runs it on tensors that have shapes and no values. TensorFlow has none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from harness import tpu
from harness.backends import Trainer
from harness.targets import Target

COMPILERS = {
    ("jax", "tpu"): (tpu.DRIVER,),
    ("jax", "gpu"): ("jax-cuda13-plugin", "jax-cuda13-pjrt", "nvidia-cuda-nvcc", "nvidia-nvvm"),
}
"""Packages that a backend's steps are compiled with for a kind of device."""

_LIBRARIES = {"jax": ("keras", "jax", "jaxlib"), "torch": ("keras", "torch")}


def decisive(backend: str, device: str) -> tuple[str, ...]:
    """The packages whose versions decide what is planned of a backend's step."""
    return (*_LIBRARIES.get(backend, ()), *COMPILERS.get((backend, device), ()))


def program_digest(
    text: str, target: Target, packages: Mapping[str, str], *, backend: str, optimised: bool
) -> str:
    """Of a program and of all that decides what its compiler makes of it.

    `packages` are the versions of what is installed here.
    """
    compilers = [packages.get(name, "") for name in decisive(backend, target.device)]
    made_of = [target.name, str(optimised), *compilers, text]
    return hashlib.sha256("\n".join(made_of).encode()).hexdigest()


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
