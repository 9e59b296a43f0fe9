"""ResNet v1.5 in the three Keras API styles: the same variables, order and outputs in each.

Strided convolutions pad by hand and equally on both sides, as the v1.5 reference does: Keras's
"same" padding would be lopsided at stride 2.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from harness.workload import Scale

# Batch statistics of short trainings: Keras's default momentum 0.99 leaves them at their start.
MOMENTUM = 0.9
# TensorFlow's fused kernel raises anything smaller to this, cuDNN's least.
EPSILON = 1.001e-5


class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy with each class given an equal share of `smoothing` (Szegedy et al. 2016).

    Keras has it for one-hot targets only.
    """

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        targets = keras.ops.one_hot(
            keras.ops.cast(y_true, "int32"), y_pred.shape[-1], dtype=y_pred.dtype
        )
        return keras.losses.categorical_crossentropy(
            targets, y_pred, from_logits=True, label_smoothing=self.smoothing
        )


def loss(scale: Scale) -> keras.losses.Loss:
    """Mean cross-entropy of the logits; targets are class numbers."""
    smoothing = scale.architecture.label_smoothing
    if smoothing:
        return SmoothedCrossentropy(smoothing)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def conv(filters: int, kernel: int, name: str, *, stride: int = 1) -> layers.Layer:
    padding = "valid" if stride > 1 or kernel == 1 else "same"
    return layers.Conv2D(
        filters, kernel, strides=stride, padding=padding, use_bias=False, name=name
    )


def pad(kernel: int, stride: int, name: str) -> list[layers.Layer]:
    """Padding before a strided convolution; no layer otherwise, which on torch would copy."""
    return [layers.ZeroPadding2D((kernel - 1) // 2, name=name)] if stride > 1 else []


def norm(name: str) -> layers.Layer:
    return layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=name)


def relu(name: str) -> layers.Layer:
    return layers.Activation("relu", name=name)


class Bottleneck(layers.Layer):
    """1x1, 3x3 (carrying the stride), 1x1 with four times the width, plus the shortcut."""

    def __init__(self, width: int, stride: int, project: bool, name: str) -> None:
        super().__init__(name=name)
        self.conv1, self.bn1 = conv(width, 1, f"{name}_conv1"), norm(f"{name}_bn1")
        self.pad2 = pad(3, stride, f"{name}_pad2")
        self.conv2, self.bn2 = conv(width, 3, f"{name}_conv2", stride=stride), norm(f"{name}_bn2")
        # Created in the order in which a functional graph sorts them, by depth.
        self.conv3 = conv(4 * width, 1, f"{name}_conv3")
        self.conv0 = conv(4 * width, 1, f"{name}_conv0", stride=stride) if project else None
        self.bn3 = norm(f"{name}_bn3")
        self.bn0 = norm(f"{name}_bn0") if project else None

    def call(self, x: Any, training: bool = False) -> Any:
        relu = keras.ops.relu
        y = relu(self.bn1(self.conv1(x), training=training))
        for layer in self.pad2:
            y = layer(y)
        y = relu(self.bn2(self.conv2(y), training=training))
        y = self.bn3(self.conv3(y), training=training)
        if self.conv0 is not None and self.bn0 is not None:
            x = self.bn0(self.conv0(x), training=training)
        return relu(y + x)


def block_plan(scale: Scale) -> list[tuple[int, int, bool, str]]:
    """Width, stride, whether the shortcut is projected, and name, of every block."""
    a = scale.architecture
    return [
        (
            a.width * 2**stage,
            2 if stage and not block else 1,
            not block,
            f"s{stage + 1}b{block + 1}",
        )
        for stage, count in enumerate(a.blocks)
        for block in range(count)
    ]


def stem(scale: Scale) -> list[layers.Layer]:
    a = scale.architecture
    first = [
        *pad(a.stem_kernel, a.stem_stride, "stem_pad"),
        conv(a.stem_filters, a.stem_kernel, "stem_conv", stride=a.stem_stride),
        norm("stem_bn"),
        relu("stem_relu"),
    ]
    pool = [*pad(3, 2, "stem_pool_pad"), layers.MaxPooling2D(3, strides=2, name="stem_pool")]
    return first + (pool if a.stem_pool else [])


def head(scale: Scale) -> list[layers.Layer]:
    full = keras.config.floatx()  # float32, also under a mixed policy
    return [
        layers.GlobalAveragePooling2D(name="pool"),
        layers.Dense(scale.architecture.classes, dtype=full, name="classifier"),
    ]


def sequential(scale: Scale) -> keras.Model:
    blocks = [Bottleneck(*block) for block in block_plan(scale)]
    return keras.Sequential([keras.Input(scale.input_shape), *stem(scale), *blocks, *head(scale)])


def functional(scale: Scale) -> keras.Model:
    inputs = x = keras.Input(scale.input_shape)
    for layer in stem(scale):
        x = layer(x)
    for width, stride, project, name in block_plan(scale):
        y = norm(f"{name}_bn1")(conv(width, 1, f"{name}_conv1")(x))
        for layer in [relu(f"{name}_relu1"), *pad(3, stride, f"{name}_pad2")]:
            y = layer(y)
        y = norm(f"{name}_bn2")(conv(width, 3, f"{name}_conv2", stride=stride)(y))
        y = conv(4 * width, 1, f"{name}_conv3")(relu(f"{name}_relu2")(y))
        y = norm(f"{name}_bn3")(y)
        if project:
            x = norm(f"{name}_bn0")(conv(4 * width, 1, f"{name}_conv0", stride=stride)(x))
        x = relu(f"{name}_relu3")(layers.Add(name=f"{name}_add")([y, x]))
    for layer in head(scale):
        x = layer(x)
    return keras.Model(inputs, x)


class ResNet(keras.Model):
    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.stem = stem(scale)
        self.blocks = [Bottleneck(*block) for block in block_plan(scale)]
        self.head = head(scale)

    def call(self, x: Any, training: bool = False) -> Any:
        for layer in self.stem:
            x = layer(x, training=training) if "bn" in layer.name else layer(x)
        for block in self.blocks:
            x = block(x, training=training)
        for layer in self.head:
            x = layer(x)
        return x


def subclassing(scale: Scale) -> keras.Model:
    model = ResNet(scale)
    model(keras.Input(scale.input_shape))
    return model
