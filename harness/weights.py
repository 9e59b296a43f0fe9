"""Weights drawn with numpy, the same on every backend, and snapshots of a model's whole state.

A weight's key is its layer's name and its own (`conv1/kernel`), which all API styles share.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from harness.workload import Array

Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


def keys(variables: Sequence[Any]) -> list[str]:
    """A key per Keras variable: the shortest end of its path, of two parts or more, that is unique.

    Containers stand first in a path and differ between API styles; the end is shared by all.
    """
    paths = [variable.path.split("/") for variable in variables]
    found = []
    for path in paths:
        length = 2
        while length < len(path) and sum(p[-length:] == path[-length:] for p in paths) > 1:
            length += 1
        found.append("/".join(path[-length:]))
    return found


def _fans(shape: tuple[int, ...]) -> tuple[float, float]:
    receptive = float(np.prod(shape[:-2])) if len(shape) > 2 else 1.0
    return shape[-2] * receptive, shape[-1] * receptive


def he_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal with variance 2 / fan-in (He et al. 2015)."""
    return rng.normal(0.0, np.sqrt(2.0 / _fans(shape)[0]), shape)


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uniform with variance 2 / (fan-in + fan-out) (Glorot and Bengio 2010)."""
    limit = np.sqrt(6.0 / sum(_fans(shape)))
    return rng.uniform(-limit, limit, shape)


def normal_002(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal with standard deviation 0.02, as BERT draws its weights."""
    return rng.normal(0.0, 0.02, shape)


def normal_01(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal with standard deviation 0.1."""
    return rng.normal(0.0, 0.1, shape)


def orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Blocks of orthogonal columns, one square block per gate (Saxe et al. 2014)."""
    rows, columns = shape
    blocks = [np.linalg.qr(rng.normal(size=(rows, rows)))[0] for _ in range(columns // rows)]
    return np.concatenate(blocks, axis=1)


def forget_one(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Zeros, with ones for an LSTM's forget gate, the second quarter (Jozefowicz et al. 2015)."""
    bias = np.zeros(shape)
    bias[shape[0] // 4 : shape[0] // 2] = 1.0
    return bias


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """All zeros."""
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """All ones."""
    return np.ones(shape)


DRAWS: dict[str, Draw] = {
    draw.__name__: draw
    for draw in (
        he_normal, glorot_uniform, normal_002, normal_01, orthogonal, forget_one, zeros, ones
    )
}  # fmt: skip

# By the variable's own name; a workload's `initializers` (regular expressions on the key) go first.
DEFAULTS = {
    r"lstm_cell/bias": "forget_one",
    r"/recurrent_kernel$": "orthogonal",
    r"/(kernel|embeddings)$": "glorot_uniform",
    r"/(bias|beta|moving_mean)$": "zeros",
    r"/(gamma|moving_variance)$": "ones",
}


def initial(key: str, shape: tuple[int, ...], *, seed: int, rules: Mapping[str, str]) -> Array:
    """The training run's initial value of the weight with this key, float32."""
    for pattern, name in {**rules, **DEFAULTS}.items():
        if re.search(pattern, key):
            return DRAWS[name](_generator(key, seed), shape).astype(np.float32)
    raise ValueError(f"No initialiser matches the weight {key!r}; add one to the declaration.")


def for_gate(
    key: str,
    shape: tuple[int, ...],
    *,
    seed: int,
    rules: Mapping[str, str],
    factors: Mapping[str, float],
) -> Array:
    """The equality gate's value of the weight: every bias, scale and statistic is a real number.

    With zero biases and unit scales a missing one would change nothing. `factors` multiply the
    weights whose key they match.
    """
    rng = _generator(key, seed)
    name = key.rpartition("/")[2]
    if name in ("bias", "beta"):
        value = rng.normal(0.0, 0.2, shape)
    elif name == "moving_mean":
        value = rng.normal(0.0, 0.1, shape)
    elif name == "gamma":
        value = rng.uniform(0.7, 1.3, shape)
    elif name == "moving_variance":
        value = rng.uniform(0.5, 1.5, shape)
    else:
        value = initial(key, shape, seed=seed, rules=rules)
    for pattern, factor in factors.items():
        value = value * factor if re.search(pattern, key) else value
    return np.asarray(value, dtype=np.float32)


def _generator(key: str, seed: int) -> np.random.Generator:
    # A stream per key: the order in which a style creates its variables does not matter.
    return np.random.default_rng([seed, zlib.crc32(key.encode())])


def of(model: Any) -> list[Any]:
    """The model's weights and statistics, without the seeds of its random layers."""
    return [v for v in model.variables if not v.path.split("/")[-1].startswith("seed_generator")]


def assign(variables: Sequence[Any], values: Callable[[str, tuple[int, ...]], Array]) -> None:
    """Give each Keras variable the value for its key and shape."""
    for key, variable in zip(keys(variables), variables, strict=True):
        variable.assign(values(key, tuple(variable.shape)))


def snapshot(variables: Sequence[Any]) -> list[Array]:
    """Copies of the variables' values as numpy arrays."""
    from keras import ops

    return [np.array(ops.convert_to_numpy(_read(variable.value))) for variable in variables]


def _read(value: Any) -> Any:
    """The tensor: TensorFlow's variables, where several devices hold them, are no arrays."""
    return value.read_value() if hasattr(value, "read_value") else value


def updates(optimizer: Any) -> int:
    """How many updates the optimiser has made; gradients that are gathered for one are none."""
    parts = getattr(optimizer, "gradient_accumulation_steps", None) or 1
    # Keras counts the parts, and has no variable of the updates that they make.
    counted = optimizer.iterations if parts == 1 else optimizer._iterations
    return int(snapshot([counted])[0]) // parts


def compact(values: Sequence[Array]) -> list[Array]:
    """The same values, those that are one number all over held as that number only."""
    return [
        np.broadcast_to(value.flat[0].copy(), value.shape)
        if value.size and np.all(value == value.flat[0])
        else value
        for value in values
    ]


def restore(variables: Sequence[Any], values: Sequence[Array]) -> None:
    """Give the variables the values of a snapshot."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
