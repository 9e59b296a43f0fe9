"""NeuMF at standard scale beside a plain one in torch that shares nothing with it but the weights.

Started by test_neumf_parity.py as `python -m tests.neumf_child WHAT FOLDER`, in a worker's
environment. `reference` runs the plain network and leaves what it computed in the folder; a
backend's name runs ours and compares. Both print what they found as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from harness import weights
from harness.backends import backend
from harness.environment import cpu_count
from harness.workload import Array
from workloads.recommender import WORKLOAD

SCALE = WORKLOAD.scales["standard"]
SEED = 2017
EXAMPLES = 512
STYLES = ("sequential", "functional", "subclassing")


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    file = folder / "reference.npz"
    print(json.dumps(reference(file) if what == "reference" else ours(what, file)))


@cache
def drawn(key: str, shape: tuple[int, ...]) -> Array:
    """The same for both networks: no bias is zero."""
    return weights.for_gate(key, shape, seed=SEED, rules=WORKLOAD.initializers, factors={})


def batch() -> tuple[Array, Array]:
    """Pairs from all over the tables, users and items several times each; half of them rated."""
    random = np.random.default_rng(SEED)
    tables = (SCALE.architecture.users, SCALE.architecture.items)
    columns = [random.choice(random.integers(0, table, 100), EXAMPLES) for table in tables]
    label = random.integers(0, 2, EXAMPLES)
    rating = np.where(label == 1, random.integers(0, 5, EXAMPLES) / 4, -1.0)
    return np.stack(columns, axis=1).astype(np.int32), np.stack([label, rating], 1).astype("f4")


def apart(found: Array, expected: Array) -> float:
    """The largest difference, as a share of the largest expected value."""
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# The plain network


def plain_network() -> Any:
    """He et al. 2017 with a linear head for the rating on the MLP tower; names are our layers'."""
    import torch
    from torch import nn

    a = SCALE.architecture

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gmf_user, self.gmf_item = nn.Embedding(a.users, 64), nn.Embedding(a.items, 64)
            self.mlp_user, self.mlp_item = nn.Embedding(a.users, 128), nn.Embedding(a.items, 128)
            self.mlp1, self.mlp2 = nn.Linear(256, 256), nn.Linear(256, 128)
            self.mlp3 = nn.Linear(128, 64)
            self.interaction, self.rating = nn.Linear(128, 1), nn.Linear(64, 1)

        def forward(self, user: Any, item: Any) -> tuple[Any, Any]:
            product = self.gmf_user(user) * self.gmf_item(item)
            x = torch.hstack((self.mlp_user(user), self.mlp_item(item)))
            for layer in (self.mlp1, self.mlp2, self.mlp3):
                x = layer(x).clamp(min=0)
            both = torch.hstack((product, x))
            return self.interaction(both).squeeze(1), self.rating(x).squeeze(1)

    return Plain()


def plain_loss(logit: Any, stars: Any, targets: Any) -> Any:
    """Binary cross-entropy, plus half the squared error of the ratings that there are."""
    from torch.nn import functional

    label, rating = targets.T
    rated = label == 1
    cross_entropy = functional.binary_cross_entropy_with_logits(logit, label)
    return cross_entropy + 0.5 * ((stars - rating)[rated] ** 2).sum() / len(label)


def reference(file: Path) -> dict[str, Any]:
    import torch

    torch.set_num_threads(cpu_count())
    network, (pairs, targets) = plain_network(), batch()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            value = as_keras(name, drawn(key_of(name), as_keras(name, weight.numpy()).shape))
            weight.copy_(torch.from_numpy(value))
    user, item = torch.from_numpy(pairs).long().T
    logit, stars = network(user, item)
    loss = plain_loss(logit, stars, torch.from_numpy(targets))
    loss.backward()
    output = torch.stack((logit, stars), dim=1).detach().numpy()
    gradients = {
        f"gradient {key_of(name)}": as_keras(name, weight.grad.numpy())
        for name, weight in network.named_parameters()
    }
    facts = {"output": output, "loss": loss.detach().numpy()}
    np.savez(file, allow_pickle=False, **facts, **gradients)
    heads = {"interaction": network.interaction, "rating": network.rating}
    counted = {name: parameters(head) for name, head in heads.items()}
    mistakes = wrong(network, user, item, output)
    return {"parameters": parameters(network), **counted, "wrong": mistakes}


def parameters(module: Any) -> int:
    return sum(weight.numel() for weight in module.parameters())


def key_of(name: str) -> str:
    """Our key: `mlp1/kernel` for `mlp1.weight`, `gmf_user/embeddings` for `gmf_user.weight`."""
    layer, kind = name.split(".")
    weight = "embeddings" if layer.endswith(("_user", "_item")) else "kernel"
    return f"{layer}/{kind if kind == 'bias' else weight}"


def as_keras(name: str, value: Array) -> Array:
    """Kernels (out, in) as (in, out), and the other way round; all else as it is."""
    return value.T if key_of(name).endswith("/kernel") else value


def wrong(network: Any, user: Any, item: Any, expected: Array) -> dict[str, float]:
    """How far the outputs are off when the network is put together in another way."""
    import torch

    found = {}
    # To turn a kernel by half of its inputs is to join them in the other order.
    for name, layer in (("item before user", "mlp1"), ("MLP before GMF", "interaction")):
        weight = getattr(network, layer).weight
        half = weight.shape[1] // 2
        with torch.no_grad():
            weight.copy_(weight.roll(half, dims=1))
            found[name] = apart(torch.stack(network(user, item), dim=1).numpy(), expected)
            weight.copy_(weight.roll(half, dims=1))
    return found


# Our network


def ours(name: str, file: Path) -> dict[str, Any]:
    """One inference and one training step, through the functions that are measured."""
    framework = backend(name)
    numerics = framework.configure("float32", cpu_count())
    with np.load(file) as stored:
        expected = dict(stored)
    import keras

    module, (pairs, targets) = WORKLOAD.model(), batch()
    model = module.functional(SCALE)
    weights.assign(weights.of(model), drawn)
    optimizer = framework.optimizer_class(keras.optimizers.SGD)(learning_rate=1.0, momentum=0.9)
    optimizer.build(model.trainable_variables)
    model.compile(
        optimizer=optimizer,
        loss=module.loss(SCALE),
        jit_compile=numerics["jit_compile"] == "True",
        auto_scale_loss=False,
    )
    trainer = framework.fit_trainer(model)
    output = trainer.outputs(trainer.infer(trainer.place_inputs(pairs)))
    result = trainer.step(trainer.place((pairs, targets)))
    trainer.synchronise(result)
    loss = trainer.loss(result)
    trainer.pull()
    found = gradients(model, optimizer)
    tensors = {name for name in expected if name.startswith("gradient ")}
    return {
        "output": apart(output, expected["output"]),
        "loss": apart(np.array(loss), expected["loss"]),
        "same_tensors": found.keys() == tensors,
        "tensors": {name: apart(found[name], expected[name]) for name in sorted(tensors)},
        "gradient": whole(found, expected),
        "touched": {
            name: [int(value.any(axis=1).sum()), len(value)]
            for name, value in found.items()
            if name.endswith("/embeddings")
        },
        "styles": dict(styles(pairs, expected["output"])) if name == "torch" else {},
    }


def gradients(model: Any, optimizer: Any) -> dict[str, Array]:
    """What the optimiser received: its momentum after one step at a rate of 1, negated."""
    names = weights.keys(model.trainable_variables)
    slots = weights.snapshot(optimizer.momentums)
    return {f"gradient {name}": -slot for name, slot in zip(names, slots, strict=True)}


def whole(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """The norm of the difference of the whole gradient, as a share of the gradient's."""
    difference = sum(float(np.sum((found[name] - expected[name]) ** 2.0)) for name in found)
    size = sum(float(np.sum(expected[name] ** 2.0)) for name in found)
    return float(np.sqrt(difference / size))


def styles(pairs: Array, expected: Array) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each style's number of weights, and how far its outputs are off."""
    from keras import ops

    for style in STYLES:
        model = getattr(WORKLOAD.model(), style)(SCALE)
        weights.assign(weights.of(model), drawn)
        output = np.asarray(ops.convert_to_numpy(model(pairs, training=False)))
        count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        yield style, {"parameters": count, "output": apart(output, expected)}


if __name__ == "__main__":
    main()
