"""The suite's own workloads with wrong mathematics: what the equality gate must see.

Each plant changes the real model module inside its worker, and nothing else: data, weights,
optimiser, reference and tolerances are the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from harness.workload import Workload
from workloads.bert import WORKLOAD as BERT
from workloads.lstm_eta import WORKLOAD as LSTM_ETA
from workloads.recommender import WORKLOAD as RECOMMENDER
from workloads.resnet50 import WORKLOAD as RESNET50

Plant = Callable[[Any], None]


@dataclass(frozen=True)
class Planted(Workload):
    """A real workload with a plant in its model module; `module` stays the real one's."""

    plant: Plant = lambda model: None

    def model(self) -> ModuleType:
        module = super().model()
        self.plant(module)
        return module


def planted(name: str, real: Workload, plant: Plant) -> Planted:
    return Planted(**{**vars(real), "name": name}, plant=plant)


def epsilon(model: Any) -> None:
    """Keras's default in batch normalisation, where the paper's code has 1e-5."""
    model.EPSILON = 1e-3


def bias_missing(model: Any) -> None:
    """A Dense without bias: one variable fewer."""
    head = model.head

    def without(scale: Any) -> list[Any]:
        dense, minutes = head(scale)
        return [type(dense).from_config({**dense.get_config(), "use_bias": False}), minutes]

    model.head = without


def bias_ignored(model: Any) -> None:
    """A Dense whose bias exists and is not added: the variables are right."""
    head = model.head

    def ignoring(scale: Any) -> list[Any]:
        from keras import ops

        dense, minutes = head(scale)

        def call(inputs: Any, training: bool = False) -> Any:
            return dense.activation(ops.matmul(inputs, dense.kernel))

        dense.call = call
        return [dense, minutes]

    model.head = ignoring


def loss_summed(model: Any) -> None:
    """The batch's sum where the mean is meant."""
    model.loss = lambda scale: model.MultiTaskLoss(reduction="sum")


def attention_written_out(model: Any) -> None:
    """The right mathematics without the backend's own kernel."""
    ops = model.ops

    def attention(query: Any, key: Any, value: Any, mask: Any) -> Any:
        scores = ops.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5
        weights = ops.softmax(ops.where(mask, ops.cast(scores, "float32"), -1e9), axis=-1)
        return ops.einsum("bhqk,bkhd->bqhd", ops.cast(weights, query.dtype), value)

    ops.dot_product_attention = attention


def eager(model: Any) -> None:
    """The right mathematics, step by step in Python: what `run_eagerly` does."""
    functional = model.functional

    def eagerly(scale: Any) -> Any:
        built = functional(scale)
        compile_ = built.compile
        built.compile = lambda **named: compile_(
            **{**named, "jit_compile": False}, run_eagerly=True
        )
        return built

    model.functional = eagerly


def copied(model: Any) -> None:
    """The right mathematics on images that are brought into torch's own layout first."""
    import torch

    convolve = torch.nn.functional.conv2d

    def copying(images: Any, *arguments: Any, **named: Any) -> Any:
        return convolve(images.contiguous(), *arguments, **named)

    torch.nn.functional.conv2d = copying  # type: ignore[assignment]


ATTENTION = planted("planted_attention", BERT, attention_written_out)
COPIED = planted("planted_copied", RESNET50, copied)
EPSILON = planted("planted_epsilon", RESNET50, epsilon)
BIAS_MISSING = planted("planted_bias_missing", LSTM_ETA, bias_missing)
BIAS_IGNORED = planted("planted_bias_ignored", LSTM_ETA, bias_ignored)
EAGER = planted("planted_eager", LSTM_ETA, eager)
LOSS_SUMMED = planted("planted_loss_summed", RECOMMENDER, loss_summed)
