"""LSTM over earlier trips joined with static features, in the three Keras API styles.

The one input packs a trip's sequence, flattened row by row, and its static features behind it.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from harness.workload import Scale


def loss(scale: Scale) -> keras.losses.Loss:
    """Mean absolute error, in units of the target's standard deviation."""
    return keras.losses.MeanAbsoluteError()


def split_at(scale: Scale) -> int:
    a = scale.architecture
    return int(a.sequence_length * a.sequence_features)


def lstms(scale: Scale) -> list[layers.Layer]:
    units = scale.architecture.units
    return [
        layers.LSTM(
            width,
            return_sequences=i < len(units) - 1,
            # The harness gives every weight its value; Keras's orthogonal one, which would come
            # first, cannot be drawn in bfloat16.
            recurrent_initializer="zeros",
            name=f"lstm{i + 1}",
        )
        for i, width in enumerate(units)
    ]


def unflatten(scale: Scale) -> layers.Layer:
    a = scale.architecture
    return layers.Reshape((a.sequence_length, a.sequence_features), name="sequence")


def head(scale: Scale) -> list[layers.Layer]:
    return [
        layers.Dense(scale.architecture.dense, "relu", name="dense"),
        layers.Dense(1, dtype="float32", name="minutes"),
    ]


class TripEncoder(layers.Layer):
    """The packed input to the LSTM's last output with the static features beside it."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(name="encoder")
        self.split = split_at(scale)
        self.unflatten = unflatten(scale)
        self.lstms = lstms(scale)

    def call(self, packed: Any, training: bool = False) -> Any:
        x = self.unflatten(packed[:, : self.split])
        for lstm in self.lstms:
            x = lstm(x, training=training)
        return ops.concatenate([x, packed[:, self.split :]], axis=-1)


def sequential(scale: Scale) -> keras.Model:
    return keras.Sequential([keras.Input(scale.input_shape), TripEncoder(scale), *head(scale)])


def functional(scale: Scale) -> keras.Model:
    packed = keras.Input(scale.input_shape)
    x = unflatten(scale)(packed[:, : split_at(scale)])
    for lstm in lstms(scale):
        x = lstm(x)
    x = layers.Concatenate(name="join")([x, packed[:, split_at(scale) :]])
    for layer in head(scale):
        x = layer(x)
    return keras.Model(packed, x)


class LstmEta(keras.Model):
    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.encoder = TripEncoder(scale)
        self.dense, self.minutes = head(scale)

    def call(self, packed: Any, training: bool = False) -> Any:
        return self.minutes(self.dense(self.encoder(packed, training=training)))


def subclassing(scale: Scale) -> keras.Model:
    model = LstmEta(scale)
    model(keras.Input(scale.input_shape))
    return model
