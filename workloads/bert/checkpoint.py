"""Published BERT weights, as Hugging Face's files hold them, by the keys of this network's weights.

Knows names and shapes, no framework. Their dense kernels are (out, in), Keras's are (in, out).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import DataError
from harness.workload import Array, Scale
from workloads.bert import Architecture

TYPES = ("F32", "F16")  # numpy has no bfloat16
LAYER = re.compile(r"encoder\.layer\.(\d+)\.")


@dataclass(frozen=True)
class Tensor:
    """A weight's key here, its name and shape there, and whether it is transposed there."""

    key: str
    name: str
    shape: tuple[int, ...]
    transposed: bool = False


def tensors(a: Architecture) -> list[Tensor]:
    """Every weight but the classifier's, which belongs to the task and not to BERT."""
    h, f = a.hidden, a.feed_forward
    found = [
        Tensor("token/embeddings", "embeddings.word_embeddings.weight", (a.vocabulary, h)),
        Tensor(
            "embeddings/position_embedding", "embeddings.position_embeddings.weight",
            (a.positions, h),
        ),
        Tensor("embeddings/type_embedding", "embeddings.token_type_embeddings.weight", (2, h)),
        *_norm("embeddings_norm", "embeddings.LayerNorm", h),
    ]  # fmt: skip
    for number in range(a.layers):
        ours, theirs = f"layer{number}", f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            found += _dense(f"{ours}_{part}", f"{theirs}.attention.self.{part}", h, h)
        found += _dense(f"{ours}_attention_output", f"{theirs}.attention.output.dense", h, h)
        found += _norm(f"{ours}_attention_norm", f"{theirs}.attention.output.LayerNorm", h)
        found += _dense(f"{ours}_intermediate", f"{theirs}.intermediate.dense", h, f)
        found += _dense(f"{ours}_output", f"{theirs}.output.dense", f, h)
        found += _norm(f"{ours}_output_norm", f"{theirs}.output.LayerNorm", h)
    return [*found, *_dense("pooler", "pooler.dense", h, h)]


def _dense(ours: str, theirs: str, inputs: int, outputs: int) -> list[Tensor]:
    return [
        Tensor(f"{ours}/kernel", f"{theirs}.weight", (outputs, inputs), transposed=True),
        Tensor(f"{ours}/bias", f"{theirs}.bias", (outputs,)),
    ]


def _norm(ours: str, theirs: str, size: int) -> list[Tensor]:
    return [
        Tensor(f"{ours}/gamma", f"{theirs}.weight", (size,)),
        Tensor(f"{ours}/beta", f"{theirs}.bias", (size,)),
    ]


def read(path: Path, scale: Scale) -> dict[str, Array]:
    """The weights of a safetensors file by key, float32; raises DataError if it is not this BERT.

    The classifier is never among them, the pooler only where the file has one. A `config.json`
    beside the file is checked too: the number of heads, for one, stands in no tensor.
    """
    from safetensors import SafetensorError, safe_open

    _check_config(path.with_name("config.json"), scale.architecture)
    try:
        # Numpy, so that this works under every backend.
        with safe_open(path, framework="numpy") as file:
            return _weights(file, path.name, scale.architecture)
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path.name!r} is not a safetensors file, as published weights are expected to be."
        ) from error


def _weights(file: Any, where: str, a: Architecture) -> dict[str, Array]:
    # Published names vary: with "bert." before them, and gamma and beta in the oldest files, as in
    # bert-base-uncased's (huggingface/candle#1887).
    names = {_plain(name): name for name in list(file.keys())}
    _check_layers(names, where, a)
    wanted = tensors(a)
    if not any(name.startswith("pooler.") for name in names):
        wanted = [tensor for tensor in wanted if not tensor.name.startswith("pooler.")]
    for tensor in wanted:
        if tensor.name not in names:
            raise DataError(f"{where!r} has no tensor {tensor.name!r}, expected in a BERT.")
        _check(tensor, file.get_slice(names[tensor.name]), where)
    return {tensor.key: _value(file.get_tensor(names[tensor.name]), tensor) for tensor in wanted}


def _plain(name: str) -> str:
    name = name.removeprefix("bert.")
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    return name.replace("LayerNorm.beta", "LayerNorm.bias")


def _check_layers(names: Mapping[str, str], where: str, a: Architecture) -> None:
    numbers = {int(found[1]) for found in map(LAYER.match, names) if found}
    if numbers and max(numbers) + 1 != a.layers:
        raise DataError(
            f"{where!r} has {max(numbers) + 1} encoder layers, expected {a.layers}: "
            "the scale's architecture."
        )


def _check(tensor: Tensor, found: Any, where: str) -> None:
    shape, kind = tuple(found.get_shape()), found.get_dtype()
    if shape != tensor.shape:
        if tensor.key == "token/embeddings" and shape[1:] == tensor.shape[1:]:
            raise DataError(
                f"{where!r} has a vocabulary of {shape[0]:,} pieces, expected "
                f"{tensor.shape[0]:,}: the data is cut into the pieces of bert-base-uncased."
            )
        raise DataError(
            f"{tensor.name!r} in {where!r} has shape {shape}, expected {tensor.shape}: "
            "the scale's architecture."
        )
    if kind not in TYPES:
        raise DataError(
            f"{tensor.name!r} in {where!r} is of type {kind}, expected {' or '.join(TYPES)}."
        )


def _value(value: Array, tensor: Tensor) -> Array:
    return np.ascontiguousarray(value.T if tensor.transposed else value, dtype=np.float32)


# The published configuration

# What this network computes; a relative of BERT with another value has other mathematics.
SAME = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
}


def architecture_of(config: Path, *, classes: int = 2) -> Architecture:
    """The sizes in a published `config.json`; raises DataError when it is no BERT's."""
    try:
        fields: Mapping[str, Any] = json.loads(config.read_text(encoding="utf-8"))
        for name, expected in SAME.items():
            if fields.get(name, expected) != expected:
                found = fields[name]
                raise DataError(f"{config.name!r} says {name} {found!r}, expected {expected!r}.")
        return Architecture(
            vocabulary=fields["vocab_size"],
            positions=fields["max_position_embeddings"],
            layers=fields["num_hidden_layers"],
            hidden=fields["hidden_size"],
            heads=fields["num_attention_heads"],
            feed_forward=fields["intermediate_size"],
            dropout=fields["hidden_dropout_prob"],
            classes=classes,
        )
    except KeyError as error:
        raise DataError(f"{config.name!r} has no {error.args[0]!r}, expected of a BERT.") from None
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{config.name!r} cannot be read as the JSON of a BERT's sizes.") from error


def _check_config(config: Path, a: Architecture) -> None:
    if not config.is_file():
        return
    heads = architecture_of(config).heads
    if heads != a.heads:
        raise DataError(
            f"{config.name!r} says {heads} attention heads, expected {a.heads}: "
            "the scale's architecture."
        )
