"""Times our step at scale standard against an implementation that is not ours, in one process.

Blocks of one step alternate. `python -m tests.benchmarks.peers BACKEND WORKLOAD` prints figures.
Both sides take the same batch, one that two cores and their memory can bear, and the same kind of
optimiser without schedule, clipping or dropout.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from harness.backends import backend
from harness.environment import cpu_count
from harness.measure import time_block
from harness.registry import workload
from harness.workload import Batch, Optimizer, Scale
from tests.benchmarks.paired import in_turns

PAIRS = 12
Seconds = Callable[[], float]


@dataclass(frozen=True)
class Peer:
    """What a workload is held against, and where.

    `flops` is the peer's training FLOPs as a share of ours, where it is another network. A peer
    with another optimiser than ours has `step` in place of `build`.
    """

    workload: str
    title: str
    backends: tuple[str, ...]
    batch_size: int
    build: Callable[[Scale], Any] = lambda scale: None
    step: Callable[[Batch], Seconds] | None = None
    flops: float = 1.0


def keras_resnet50(scale: Scale) -> Any:
    import keras

    return keras.applications.ResNet50(
        weights=None, classes=scale.architecture.classes, classifier_activation=None
    )


def plain_lstm(scale: Scale) -> Any:
    """Keras's layers in a row on the packed input, as its guides write them."""
    import keras
    from keras import layers

    a = scale.architecture
    packed = keras.Input(scale.input_shape)
    split = a.sequence_length * a.sequence_features
    x = layers.Reshape((a.sequence_length, a.sequence_features))(packed[:, :split])
    x = layers.LSTM(a.units[0], return_sequences=True)(x)
    x = layers.LSTM(a.units[1])(x)
    x = layers.Concatenate()([x, packed[:, split:]])
    return keras.Model(packed, layers.Dense(1)(layers.Dense(a.dense, "relu")(x)))


def plain_neumf(scale: Scale) -> Any:
    """The paper's figure in Keras, as its examples write it; the rating's head on the MLP tower."""
    import keras
    from keras import layers

    a = scale.architecture
    pair = keras.Input(scale.input_shape, dtype=scale.input_dtype)
    user, item = pair[:, 0], pair[:, 1]
    half = a.mlp[0] // 2
    x = layers.concatenate(
        [layers.Embedding(a.users, half)(user), layers.Embedding(a.items, half)(item)]
    )
    for width in a.mlp[1:]:
        x = layers.Dense(width, "relu")(x)
    product = layers.multiply(
        [layers.Embedding(a.users, a.factors)(user), layers.Embedding(a.items, a.factors)(item)]
    )
    interaction = layers.Dense(1)(layers.concatenate([product, x]))
    return keras.Model(pair, layers.concatenate([interaction, layers.Dense(1)(x)]))


def transformers_bert() -> Any:
    """transformers' classifier as a torch module, from token ids (batch, length) to logits."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = BertForSequenceClassification(
                BertConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=2)
            )

        def forward(self, ids: Any) -> Any:
            ids = ids.long()
            return self.network(input_ids=ids, attention_mask=(ids != 0).long()).logits

    return Logits()


def wrapped_bert(scale: Scale) -> Any:
    """The same as a Keras model, by Keras's own wrapper of torch modules."""
    import keras

    model = keras.Sequential([keras.layers.TorchModuleWrapper(transformers_bert())])
    model(np.ones((1, *scale.input_shape), scale.input_dtype))
    return model


def torch_bert_seconds(data: Batch) -> Seconds:
    """One step of it without Keras: torch's own loss and AdamW."""
    import torch

    network = transformers_bert().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-5)
    criterion = torch.nn.CrossEntropyLoss()
    ids, labels = (torch.from_numpy(array.astype("i8")) for array in data)

    def step() -> Any:
        optimizer.zero_grad()
        criterion(network(ids), labels).backward()
        optimizer.step()

    return lambda: time_block(1, step, lambda result: None).seconds


ALL = ("tensorflow", "jax", "torch")
PEERS: Mapping[str, Peer] = {
    # Its stride sits in the first 1x1 convolution of a stage (v1): 22.91 GFLOP against 24.30.
    "resnet50": Peer(
        "resnet50", "keras.applications.ResNet50 (v1)", ALL, 8, keras_resnet50, flops=0.9429
    ),
    "lstm_eta": Peer("lstm_eta", "keras.layers.LSTM used plainly", ALL, 400, plain_lstm),
    "recommender": Peer("recommender", "a plain NeuMF", ALL, 2048, plain_neumf),
    "bert": Peer(
        "bert", "transformers' BERT under the same optimiser", ("torch",), 16, wrapped_bert
    ),
    "bert_without_keras": Peer(
        "bert", "transformers' BERT under torch's AdamW", ("torch",), 16, step=torch_bert_seconds
    ),
}


def undropped(scale: Scale) -> Scale:
    """Without dropout, clipping and schedule, of which a peer may have another form."""
    kept = {k: v for k, v in scale.optimizer.arguments.items() if k != "global_clipnorm"}
    return replace(
        scale,
        architecture=scale.gate_architecture or scale.architecture,
        optimizer=Optimizer(scale.optimizer.name, kept),
    )


def batch(name: str, scale: Scale, size: int) -> Batch:
    """Made-up numbers of the right form: a step's time does not depend on them."""
    random = np.random.default_rng(1)
    shape = (size, *scale.input_shape)
    if name == "resnet50":
        return random.normal(size=shape).astype("f4"), random.integers(0, 1000, size, dtype="i4")
    if name == "bert":
        ids = random.integers(1000, 30_000, shape, dtype="i4")
        return ids, random.integers(0, 2, size, dtype="i4")
    if name == "lstm_eta":
        return random.normal(size=shape).astype("f4"), random.normal(size=size).astype("f4")
    pairs = np.stack([random.integers(0, 138_493, size), random.integers(0, 26_744, size)], axis=1)
    return pairs.astype("i4"), random.integers(0, 2, (size, 2)).astype("f4")


def keras_seconds(name: str, backend_name: str, scale: Scale, model: Any, data: Batch) -> Seconds:
    """One synchronised step of a Keras model, by the trainer that cells are timed with."""
    import keras

    framework = backend(backend_name)
    optimizer = framework.optimizer_class(getattr(keras.optimizers, scale.optimizer.name))(
        **scale.optimizer.arguments
    )
    optimizer.build(model.trainable_variables)
    jit = backend_name == "jax"
    model.compile(optimizer, workload(name).model().loss(scale), jit_compile=jit)
    trainer = framework.fit_trainer(model)
    placed = trainer.place(data)
    return lambda: time_block(1, lambda: trainer.step(placed), trainer.synchronise).seconds


def figures(backend_name: str, name: str) -> dict[str, Any]:
    """Paired ratios of our step's seconds to the peer's."""
    backend(backend_name).configure("float32", cpu_count())
    peer = PEERS[name]
    declared = workload(peer.workload)
    scale = undropped(declared.scales["standard"])
    data = batch(peer.workload, scale, peer.batch_size)

    def stepped(model: Any) -> Seconds:
        return keras_seconds(peer.workload, backend_name, scale, model, data)

    ours = stepped(declared.model().functional(scale))
    theirs = peer.step(data) if peer.step else stepped(peer.build(scale))
    for side in (ours, theirs, ours, theirs):
        side()  # compiles, then warms up
    one, other = in_turns(ours, theirs, PAIRS)
    ratios = sorted(a / b for a, b in zip(one, other, strict=True))
    return {
        "peer": peer.title,
        "batch_size": peer.batch_size,
        "ratio_median": median(ratios),
        # Order statistics: the third smallest and largest of twelve hold the median in 96 %.
        "ratio_ci96_low": ratios[2],
        "ratio_ci96_high": ratios[-3],
        "ratio_per_flop": median(ratios) * peer.flops,
        "pairs": PAIRS,
        "step_s": median(one),
    }


def main() -> None:
    print(json.dumps(figures(*sys.argv[1:])))


if __name__ == "__main__":
    main()
