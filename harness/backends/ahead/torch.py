"""PyTorch: the step runs on tensors that have shapes and no values, and their bytes are counted.

These are the processor's operations; a GPU's kernels may keep other tensors beside them, and its
driver and libraries take memory of their own.
"""

from __future__ import annotations

import gc
import hashlib
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.backends.ahead import Built, Figures, Spec
from harness.targets import Target

STEPS = 2
"""The first step makes the gradients that are alive when a later one begins."""


def plan(built: Built, target: Target, *, optimised: bool) -> Figures:
    """The figures of a traced step; nothing of the target goes in."""
    fake = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(allow_scalar_outputs=True))
    _without_values(built, fake)
    with fake:
        batch = _zeros(built.inputs), _zeros(built.targets)
    state = [variable.value for variable in _variables(built)]
    traced = Traced([*state, *batch], valueless=True)
    for _ in range(STEPS):
        with traced.step(), fake:
            built.trainer.step(batch)
    state_bytes = sum(map(_size, state))
    return Figures(
        program=traced.digest,
        peak_bytes=traced.peak_bytes,
        moved_bytes=traced.moved_bytes,
        crossing_bytes=2 * state_bytes + sum(map(_size, batch)),
    )


def _variables(built: Built) -> list[Any]:
    """Everything that a step reads and updates, each once."""
    every = [
        *built.model.variables,
        *built.optimizer.variables,
        *built.model.metrics_variables,
    ]
    return list({id(variable): variable for variable in every}.values())


def _without_values(built: Built, fake: Any) -> None:
    """Put tensors of the same shape and no value in place of the state's."""
    made: dict[int, Any] = {}
    for variable in _variables(built):
        value = variable.value
        with fake:
            twin = torch.empty_strided(value.size(), value.stride(), dtype=value.dtype)
        if isinstance(value, torch.nn.Parameter):
            twin = torch.nn.Parameter(twin, requires_grad=value.requires_grad)
        made[id(value)] = twin
        variable._value = twin
    for module in built.model.modules():
        for name, parameter in module._parameters.items():
            module._parameters[name] = made.get(id(parameter), parameter)


def _zeros(spec: Spec) -> Any:
    return torch.zeros(spec.shape, dtype=torch.from_numpy(np.zeros(0, spec.dtype)).dtype)


def _size(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())


class Traced(TorchDispatchMode):
    """Counts the bytes of the tensors that live at once, over the operations inside it.

    With `valueless` tensors, a number that the step asks for is 1, and every check is passed: the
    gradients of a float16 step are finite.
    """

    def __init__(self, alive: Iterable[Any], *, valueless: bool) -> None:
        super().__init__()
        self._valueless = valueless
        self._sizes: dict[int, int] = {}
        self._live = 0
        for tensor in alive:
            self._note(tensor)
        self._begin()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count over one step, which begins with nothing of the last one's but its results.

        Keras leaves activations in reference cycles, so how long they live would depend on when
        Python collects them: it does so between steps, and not inside.
        """
        gc.collect()
        gc.disable()
        self._begin()
        try:
            with self:
                yield
        finally:
            gc.enable()
            self._settle()

    def _begin(self) -> None:
        self.peak_bytes = self._live
        self.moved_bytes = 0
        self._names = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Of the operations and shapes of the last step, in their order."""
        return self._names.hexdigest()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._settle()
        if self._valueless and func is torch.ops.aten._local_scalar_dense.default:
            return _one(args[0].dtype)
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        for tensor in tensors:
            self._note(tensor)
        # Where the mode is off, autograd adds up gradients in place: the sum's own bytes count only
        # if its first summand is still alive when the next operation comes.
        if not (func is torch.ops.aten.add.Tensor and torch._C._current_graph_task_id() != -1):
            self._settle()
        if not func.is_view:
            read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            self.moved_bytes += sum(map(_size, [*read, *tensors]))
        self._names.update(f"{func.name()} {[tuple(t.shape) for t in tensors]}\n".encode())
        return result

    def _note(self, tensor: Any) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self._live += storage.nbytes()
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self._live -= self._sizes.pop(key, 0)

    def _settle(self) -> None:
        self.peak_bytes = max(self.peak_bytes, self._live)


def _one(dtype: Any) -> bool | int | float:
    if dtype == torch.bool:
        return True
    return 1.0 if dtype.is_floating_point else 1
