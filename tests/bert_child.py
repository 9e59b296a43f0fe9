"""One process of the proof that `bert` computes what the reference implementation computes.

Started by test_bert_parity.py as `python -m tests.bert_child WHAT PUBLISHED WORK`. WHAT is
`reference`, which runs transformers on torch and leaves its hidden states in the folder WORK, or a
backend, on which the workload's own styles are compared with them. PUBLISHED is the folder of the
published model. Prints what it saw as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from harness import weights
from harness.backends import backend
from harness.environment import cpu_count
from harness.workload import Array, Scale
from workloads.bert import WORKLOAD, Architecture, checkpoint

STYLES = ("sequential", "functional", "subclassing")
STANDARD = WORKLOAD.scales["standard"]
SMALL = Architecture(50, 16, 2, 32, 4, 64, 0.1, 2)

Published = Mapping[str, Array]


def main() -> None:
    what, published, work = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    found = reference(published, work) if what == "reference" else ours(what, published, work)
    print(json.dumps(found))


def reference(published: Path, work: Path) -> dict[str, Any]:
    """Leaves the reference's hidden states (batch, length, hidden); returns its token ids."""
    import torch
    from transformers import AutoTokenizer, BertModel

    ids = np.load(work / "ids.npy")
    model = BertModel.from_pretrained(published, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        states = model.eval()(
            input_ids=torch.from_numpy(ids).long(),
            attention_mask=torch.from_numpy(ids != 0).long(),
        ).last_hidden_state
    np.save(work / "states.npy", states.numpy())
    tokens = AutoTokenizer.from_pretrained(published)(
        json.loads((work / "texts.json").read_text(encoding="utf-8")),
        padding="max_length",
        truncation=True,
        max_length=ids.shape[1],
    )
    return {"ids": tokens["input_ids"]}


def ours(backend_name: str, folder: Path, work: Path) -> dict[str, Any]:
    backend(backend_name).configure("float32", cpu_count())
    ids, expected = np.load(work / "ids.npy"), np.load(work / "states.npy")
    scale = replace(
        STANDARD,
        architecture=checkpoint.architecture_of(folder / "config.json"),
        input_shape=ids.shape[1:],
    )
    published = checkpoint.read(folder / "model.safetensors", scale)

    def apart(
        style: str, scale: Scale = scale, published: Published = published
    ) -> tuple[float, list[str]]:
        """The largest difference at positions that hold a token; keys that are not published."""
        model, unread = built(style, scale, published)
        states = hidden_states(model, style, scale, ids)
        return float(np.abs(states - expected)[ids != 0].max()), unread

    # What is the same mathematics or the same network on every backend is looked at on one.
    return {
        "largest": float(np.abs(expected)[ids != 0].max()),
        "styles": {style: apart(style) for style in STYLES},
        "wrong": wrong(apart, scale, published) if backend_name == "tensorflow" else {},
        "dropout": {style: dropout(style) for style in STYLES},
        "draws": {style: draws(style) for style in STYLES},
        "parameters": {s: parameters(s) for s in STYLES} if backend_name == "torch" else {},
    }


def built(style: str, scale: Scale, published: Published) -> tuple[Any, list[str]]:
    """The model with the published weights, and the keys that got an initial value instead."""
    model = getattr(WORKLOAD.model(), style)(scale)
    unread = []

    def value(key: str, shape: tuple[int, ...]) -> Array:
        if key in published:
            return published[key]
        unread.append(key)
        return weights.initial(key, shape, seed=0, rules=WORKLOAD.initializers)

    weights.assign(weights.of(model), value)
    return model, unread


def hidden_states(
    model: Any, style: str, scale: Scale, ids: NDArray[np.int32]
) -> NDArray[np.float32]:
    """The output of the last encoder layer in inference."""
    import keras

    if style == "subclassing":
        return numpy(model.hidden_states(ids))
    last = f"layer{scale.architecture.layers - 1}"
    name = f"{last}_output_norm" if style == "functional" else last
    return numpy(keras.Model(model.inputs, model.get_layer(name).output)(ids, training=False))


def numpy(tensor: Any) -> NDArray[np.float32]:
    from keras import ops

    return np.asarray(ops.convert_to_numpy(tensor), dtype=np.float32)


# Mistakes that the comparison has to see


def wrong(
    apart: Callable[..., tuple[float, list[str]]], scale: Scale, published: Published
) -> dict[str, float]:
    """The deviation of the functional model under each of these mistakes."""
    from keras import ops

    module = WORKLOAD.model()
    in_the_network: dict[str, tuple[Any, str, Any]] = {
        "gelu by tanh": (module, "gelu", lambda x: ops.gelu(x, approximate=True)),
        "padding attended to": (
            module.Embeddings,
            "compute_mask",
            lambda layer, ids, previous_mask=None: ops.ones_like(ids, dtype="bool"),
        ),
    }
    found = {}
    for name, change in in_the_network.items():
        with patch.object(*change):
            found[name] = apart("functional")[0]
    heads = scale.architecture.heads
    half = replace(scale, architecture=replace(scale.architecture, heads=heads // 2))
    found["half as many heads"] = apart("functional", half)[0]
    found["two heads swapped"] = apart("functional", scale, swapped(published, heads))[0]
    return found


def swapped(published: Published, heads: int) -> Published:
    """The first two heads of the first layer's queries in each other's place."""
    found = dict(published)
    for key in ("layer0_query/kernel", "layer0_query/bias"):
        parts = np.split(published[key], heads, axis=-1)
        found[key] = np.concatenate([parts[1], parts[0], *parts[2:]], axis=-1)
    return found


# Dropout


def small(style: str) -> tuple[Any, NDArray[np.int32]]:
    """A small model with dropout, and ids (3, 10) with padding."""
    ids = np.random.default_rng(0).integers(1, SMALL.vocabulary, (3, 10)).astype(np.int32)
    ids[0, 7:], ids[2, 4:] = 0, 0
    return built(style, replace(STANDARD, architecture=SMALL, input_shape=(10,)), {})[0], ids


def dropout(style: str) -> dict[str, Any]:
    """What is dropped in training; and, dropping nothing, how far training is from inference.

    Attention is computed in another way in training: with nothing dropped it has to be equal.
    """
    import keras

    noted: list[tuple[float, list[int]]] = []

    def noting(layer: Any, inputs: Any, training: bool = False) -> Any:
        if training:
            noted.append((layer.rate, list(inputs.shape)))
        return inputs

    with patch.object(keras.layers.Dropout, "call", noting):
        model, ids = small(style)
        noted.clear()
        outputs = [numpy(model(ids, training=training)) for training in (True, False)]
    return {"noted": noted, "apart": float(np.abs(outputs[0] - outputs[1]).max())}


def draws(style: str) -> dict[str, float]:
    """How far two calls with the same inputs are from each other, in either mode."""
    model, ids = small(style)
    found = {}
    for mode, training in (("training", True), ("infer", False)):
        one, other = (numpy(model(ids, training=training)) for _ in range(2))
        found[mode] = float(np.abs(one - other).max())
    return found


def parameters(style: str) -> dict[str, int]:
    """The trained numbers of the model at standard scale, of BERT and of the classifier."""
    model = getattr(WORKLOAD.model(), style)(STANDARD)
    found = {"bert": 0, "classifier": 0}
    variables = model.trainable_variables
    for key, variable in zip(weights.keys(variables), variables, strict=True):
        found["classifier" if key.startswith("classifier/") else "bert"] += variable.value.numel()
    return found


if __name__ == "__main__":
    main()
