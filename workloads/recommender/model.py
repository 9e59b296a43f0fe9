"""NeuMF with two heads in the three Keras API styles: same variables, order and outputs in each.

The one input holds (user, item) ids; the one output (logit of an interaction, rating from 0 to 1).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from harness.workload import Scale

RATING_WEIGHT = 0.5


@keras.saving.register_keras_serializable("epochmark")
class MultiTaskLoss(keras.losses.Loss):
    """Cross-entropy of the interaction, plus the rating's squared error where there is a rating.

    Targets are (batch, 2): interaction 0 or 1, and the rating from 0 to 1 or -1 for none.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        label, rating = y_true[:, 0], y_true[:, 1]
        logit, predicted = y_pred[:, 0], y_pred[:, 1]
        cross_entropy = ops.relu(logit) - logit * label + ops.softplus(-ops.abs(logit))
        rated = ops.cast(rating >= 0, y_pred.dtype)
        return cross_entropy + RATING_WEIGHT * rated * ops.square(predicted - rating)


def loss(scale: Scale) -> keras.losses.Loss:
    """The multi-task loss, averaged over the batch."""
    return MultiTaskLoss()


def embeddings(scale: Scale) -> list[layers.Layer]:
    """Tables of the MLP and GMF towers: user and item of each, in a functional graph's order."""
    a = scale.architecture
    half = a.mlp[0] // 2
    return [
        layers.Embedding(a.users, half, name="mlp_user"),
        layers.Embedding(a.items, half, name="mlp_item"),
        layers.Embedding(a.users, a.factors, name="gmf_user"),
        layers.Embedding(a.items, a.factors, name="gmf_item"),
    ]


def tower(scale: Scale) -> list[layers.Layer]:
    widths = scale.architecture.mlp[1:]
    return [layers.Dense(w, "relu", name=f"mlp{i + 1}") for i, w in enumerate(widths)]


def heads() -> list[layers.Layer]:
    return [
        layers.Dense(1, dtype="float32", name="interaction"),
        layers.Dense(1, dtype="float32", name="rating"),
    ]


class Towers(layers.Layer):
    """(user, item) ids to the GMF product and the MLP's last layer, side by side."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(name="towers")
        self.mlp_user, self.mlp_item, self.gmf_user, self.gmf_item = embeddings(scale)
        self.tower = tower(scale)

    def call(self, ids: Any) -> Any:
        user, item = ids[:, 0], ids[:, 1]
        gmf = self.gmf_user(user) * self.gmf_item(item)
        x = ops.concatenate([self.mlp_user(user), self.mlp_item(item)], axis=-1)
        for dense in self.tower:
            x = dense(x)
        return ops.concatenate([gmf, x], axis=-1)


class Heads(layers.Layer):
    """Interaction from both towers, rating from the MLP tower, as two columns."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(name="heads", dtype="float32")
        self.factors = scale.architecture.factors
        self.interaction, self.rating = heads()

    def call(self, x: Any) -> Any:
        both = [self.interaction(x), self.rating(x[:, self.factors :])]
        return ops.concatenate(both, axis=-1)


def ids_input(scale: Scale) -> Any:
    return keras.Input(scale.input_shape, dtype=scale.input_dtype)


def sequential(scale: Scale) -> keras.Model:
    return keras.Sequential([ids_input(scale), Towers(scale), Heads(scale)])


def functional(scale: Scale) -> keras.Model:
    ids = ids_input(scale)
    user, item = ids[:, 0], ids[:, 1]
    mlp_user, mlp_item, gmf_user, gmf_item = embeddings(scale)
    gmf = layers.Multiply(name="gmf")([gmf_user(user), gmf_item(item)])
    x = layers.Concatenate(name="pair")([mlp_user(user), mlp_item(item)])
    for dense in tower(scale):
        x = dense(x)
    interaction, rating = heads()
    both = layers.Concatenate(name="towers")([gmf, x])
    outputs = [interaction(both), rating(x)]
    return keras.Model(ids, layers.Concatenate(dtype="float32", name="outputs")(outputs))


class NeuMF(keras.Model):
    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.towers = Towers(scale)
        self.heads = Heads(scale)

    def call(self, ids: Any, training: bool = False) -> Any:
        return self.heads(self.towers(ids))


def subclassing(scale: Scale) -> keras.Model:
    model = NeuMF(scale)
    model(ids_input(scale))
    return model
