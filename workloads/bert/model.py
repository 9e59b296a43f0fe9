"""BERT encoder and classifier in the three Keras API styles: same variables, order and outputs.

The one input holds token ids; 0 is padding, whose positions no token attends to. The mask travels
with the hidden states as a Keras mask, which a stack of layers passes on in every style.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from harness.workload import Scale

EPSILON = 1e-12


def loss(scale: Scale) -> keras.losses.Loss:
    """Mean cross-entropy of the logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def norm(name: str) -> layers.Layer:
    return layers.LayerNormalization(epsilon=EPSILON, name=name)


def gelu(x: Any) -> Any:
    """The exact form with the error function, as BERT has it."""
    return ops.gelu(x, approximate=False)


class Embeddings(layers.Layer):
    """Token ids (batch, length) to hidden states: token + position + segment 0, normalised."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(name="embeddings")
        a = scale.architecture
        self.a = a
        self.token = layers.Embedding(a.vocabulary, a.hidden, name="token")
        self.norm = norm("embeddings_norm")
        self.dropout = layers.Dropout(a.dropout)

    def build(self, input_shape: Any) -> None:
        a = self.a
        self.position = self.add_weight(shape=(a.positions, a.hidden), name="position_embedding")
        self.segment = self.add_weight(shape=(2, a.hidden), name="type_embedding")
        self.token.build(input_shape)
        self.norm.build((*input_shape, a.hidden))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return ops.not_equal(inputs, 0)

    def call(self, ids: Any, training: bool = False) -> Any:
        constant = self.position[: ids.shape[1]] + self.segment[0]
        hidden = self.token(ids) + ops.cast(constant, self.compute_dtype)
        return self.dropout(self.norm(hidden), training=training)


def attend(query: Any, key: Any, value: Any, mask: Any) -> Any:
    """Scaled dot-product attention of (batch, length, heads, size) under a boolean mask.

    The backend's own, which is fused where it can be. JAX's refuses float16 on a CPU ("the
    precision F16_F16_F32 is not supported by dot_general"), so it is written out there.
    """
    if keras.config.backend() != "jax" or keras.backend.standardize_dtype(query.dtype) != "float16":
        return ops.dot_product_attention(query, key, value, mask=mask)
    return written_out(query, key, value, mask, lambda weights: weights)


def written_out(query: Any, key: Any, value: Any, mask: Any, dropout: Callable[[Any], Any]) -> Any:
    """The same, with a dropout of the attention's weights (batch, heads, length, length).

    Keras's fused operation has none (Keras's own MultiHeadAttention leaves it for the same reason).
    """
    scores = ops.einsum("bqhd,bkhd->bhqk", query * query.shape[-1] ** -0.5, key)
    # Added, as in BERT's code, to float32 scores: after the softmax it is a weight of exactly 0.
    scores = ops.cast(scores, "float32") + ops.where(mask, 0.0, -1e9)
    weights = dropout(ops.cast(ops.softmax(scores, axis=-1), query.dtype))
    return ops.einsum("bhqk,bkhd->bqhd", weights, value)


class SelfAttention(layers.Layer):
    """Multi-head attention of the hidden states (batch, length, hidden) to themselves."""

    def __init__(self, scale: Scale, prefix: str) -> None:
        super().__init__(name=f"{prefix}_attention")
        self.supports_masking = True
        a = scale.architecture
        self.heads = a.heads
        self.query = layers.Dense(a.hidden, name=f"{prefix}_query")
        self.key = layers.Dense(a.hidden, name=f"{prefix}_key")
        self.value = layers.Dense(a.hidden, name=f"{prefix}_value")
        self.dropout = layers.Dropout(a.dropout)
        self.output_dense = layers.Dense(a.hidden, name=f"{prefix}_attention_output")

    def build(self, input_shape: Any) -> None:
        for dense in (self.query, self.key, self.value, self.output_dense):
            dense.build(input_shape)

    def call(self, x: Any, mask: Any = None, training: bool = False) -> Any:
        split = (-1, x.shape[1], self.heads, x.shape[2] // self.heads)
        query, key, value = (
            ops.reshape(dense(x), split) for dense in (self.query, self.key, self.value)
        )
        mask = mask[:, None, None, :]
        if training and self.dropout.rate > 0:
            attended = written_out(
                query, key, value, mask, lambda weights: self.dropout(weights, training=True)
            )
        else:
            attended = attend(query, key, value, mask)
        return self.output_dense(ops.reshape(attended, (-1, x.shape[1], x.shape[2])))


class EncoderLayer(layers.Layer):
    """Attention and feed-forward, each added to its input and then normalised."""

    def __init__(self, scale: Scale, index: int) -> None:
        super().__init__(name=f"layer{index}")
        self.supports_masking = True
        a, prefix = scale.architecture, f"layer{index}"
        self.attention = SelfAttention(scale, prefix)
        self.attention_norm = norm(f"{prefix}_attention_norm")
        self.intermediate = layers.Dense(a.feed_forward, gelu, name=f"{prefix}_intermediate")
        self.output_dense = layers.Dense(a.hidden, name=f"{prefix}_output")
        self.output_norm = norm(f"{prefix}_output_norm")
        self.dropout1 = layers.Dropout(a.dropout)
        self.dropout2 = layers.Dropout(a.dropout)

    def build(self, input_shape: Any) -> None:
        for layer in (self.attention, self.attention_norm, self.intermediate, self.output_norm):
            layer.build(input_shape)
        self.output_dense.build((*input_shape[:-1], self.intermediate.units))

    def call(self, x: Any, mask: Any = None, training: bool = False) -> Any:
        y = self.attention(x, mask=mask, training=training)
        x = self.attention_norm(x + self.dropout1(y, training=training))
        y = self.output_dense(self.intermediate(x))
        return self.output_norm(x + self.dropout2(y, training=training))


class FirstToken(layers.Layer):
    """The hidden state of [CLS]."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.supports_masking = True

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """The mask ends here: there is no sequence any more."""

    def call(self, x: Any) -> Any:
        return x[:, 0]


def head(scale: Scale) -> list[layers.Layer]:
    a = scale.architecture
    return [
        FirstToken(name="first_token"),
        layers.Dense(a.hidden, "tanh", name="pooler"),
        layers.Dropout(a.dropout, name="pooled_dropout"),
        layers.Dense(a.classes, dtype="float32", name="classifier"),
    ]


def ids_input(scale: Scale) -> Any:
    return keras.Input(scale.input_shape, dtype=scale.input_dtype)


def sequential(scale: Scale) -> keras.Model:
    encoder = [EncoderLayer(scale, index) for index in range(scale.architecture.layers)]
    return keras.Sequential([ids_input(scale), Embeddings(scale), *encoder, *head(scale)])


def functional(scale: Scale) -> keras.Model:
    a = scale.architecture
    inputs = ids_input(scale)
    x = Embeddings(scale)(inputs)
    for index in range(a.layers):
        prefix = f"layer{index}"
        y = SelfAttention(scale, prefix)(x)
        y = layers.Dropout(a.dropout, name=f"{prefix}_dropout1")(y)
        x = norm(f"{prefix}_attention_norm")(layers.Add(name=f"{prefix}_add1")([x, y]))
        y = layers.Dense(a.feed_forward, gelu, name=f"{prefix}_intermediate")(x)
        y = layers.Dense(a.hidden, name=f"{prefix}_output")(y)
        y = layers.Dropout(a.dropout, name=f"{prefix}_dropout2")(y)
        x = norm(f"{prefix}_output_norm")(layers.Add(name=f"{prefix}_add2")([x, y]))
    for layer in head(scale):
        x = layer(x)
    return keras.Model(inputs, x)


class Bert(keras.Model):
    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.embeddings = Embeddings(scale)
        self.encoder = [EncoderLayer(scale, i) for i in range(scale.architecture.layers)]
        self.first_token, self.pooler, self.dropout, self.classifier = head(scale)

    def hidden_states(self, ids: Any, training: bool = False) -> Any:
        """The last encoder layer's output (batch, length, hidden) for ids (batch, length)."""
        x = self.embeddings(ids, training=training)
        mask = self.embeddings.compute_mask(ids)
        for layer in self.encoder:
            x = layer(x, mask=mask, training=training)
        return x

    def call(self, ids: Any, training: bool = False) -> Any:
        first = self.first_token(self.hidden_states(ids, training=training))
        pooled = self.dropout(self.pooler(first), training=training)
        return self.classifier(pooled)


def subclassing(scale: Scale) -> keras.Model:
    model = Bert(scale)
    model(ids_input(scale))
    return model
