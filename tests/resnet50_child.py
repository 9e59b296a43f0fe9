"""ResNet-50 v1.5 at standard scale beside the network that transformers has, same weights.

Started by test_resnet50_parity.py as `python -m tests.resnet50_child WHAT FOLDER`, in a worker's
environment. `reference` runs the network of transformers and leaves what it computed in the folder;
a backend's name runs ours and compares. Both print what they found as JSON.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import weights
from harness.backends import backend
from harness.cells import Cell
from harness.environment import cpu_count
from harness.workload import Array, Optimizer, Schedule
from tests.stepped import Stepped
from workloads.resnet50 import WORKLOAD

SCALE = WORKLOAD.scales["standard"]
SEED = 2015
LABELS = np.array([3, 997], np.int32)
STYLES = ("sequential", "functional", "subclassing")

# The recipe of scale full, for a training of five steps: the rate rises over two of them, and the
# decay shows. All are numbers of float32, to which Keras rounds them under TensorFlow.
STEPS, WARM_UP, TOTAL = 5, 2, 6
RATE, MOMENTUM, DECAY = 2.0**-6, float(np.float32(0.9)), 2.0**-3
DECLARED = WORKLOAD.scales["full"].optimizer
RECIPE = replace(
    DECLARED,
    arguments={"learning_rate": RATE, "momentum": MOMENTUM, "weight_decay": DECAY},
    schedule=Schedule(warmup_steps=WARM_UP, total_steps=TOTAL),
)
FAULTS = {
    "everything decayed": replace(RECIPE, undecayed=()),
    "another fall": replace(RECIPE, schedule=Schedule(WARM_UP, TOTAL + 1)),
}


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    file = folder / "reference.npz"
    print(json.dumps(reference(file) if what == "reference" else ours(what, file)))


def drawn(key: str, shape: tuple[int, ...]) -> Array:
    """The same for both networks: every bias, scale and statistic away from 0 and 1."""
    return weights.for_gate(key, shape, seed=SEED, rules=WORKLOAD.initializers, factors={})


def images() -> Array:
    shape = (len(LABELS), *SCALE.input_shape)
    return np.random.default_rng(SEED).normal(size=shape).astype(np.float32)


def apart(found: Array, expected: Array) -> float:
    """The largest difference, as a share of the largest expected value."""
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# The network of transformers

KINDS = {"convolution": "conv", "normalization": "bn"}
WEIGHTS = {
    "convolution.weight": "kernel",
    "normalization.weight": "gamma",
    "normalization.bias": "beta",
    "normalization.running_mean": "moving_mean",
    "normalization.running_var": "moving_variance",
}


def key_of(name: str) -> str:
    """Our key: `s2b1_conv3/kernel` for `...stages.1.layers.0.layer.2.convolution.weight`."""
    if name.startswith("classifier.1."):
        return "classifier/" + {"weight": "kernel", "bias": "bias"}[name.rpartition(".")[2]]
    kind, weight = name.split(".")[-2:]
    own = f"{KINDS[kind]}{{}}/{WEIGHTS[f'{kind}.{weight}']}"
    place = re.search(r"stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d+)|shortcut)\.", name)
    if place is None:
        return "stem_" + own.format("")
    stage, block, layer = (0 if number is None else int(number) + 1 for number in place.groups())
    return f"s{stage}b{block}_" + own.format(layer)


def as_keras(value: Array) -> Array:
    """Kernels (out, in, rows, columns) as (rows, columns, in, out), dense ones as (in, out)."""
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def as_torch(value: Array) -> Array:
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def reference(file: Path) -> dict[str, Any]:
    """Inference in float32; in float64 a training step, and a training of some steps."""
    import torch
    import transformers

    torch.set_num_threads(cpu_count())
    pictures = torch.from_numpy(as_channels_first(images()))
    network = transformers_network(downsample_in_bottleneck=False)
    with torch.no_grad():
        output = network(pictures).logits.numpy()
        older = transformers_network(downsample_in_bottleneck=True)(pictures).logits.numpy()
    network.double().train()
    counts = values_per_channel(network)
    logits = network(pictures.double()).logits
    loss = smoothed(logits)
    loss.backward()
    gradients = {
        f"gradient {key_of(name)}": as_keras(weight.grad.numpy())
        for name, weight in network.named_parameters()
    }
    facts = {"output": output, "logits": logits.detach().numpy(), "loss": loss.detach().numpy()}
    facts |= gradients | statistics(network, counts)
    kept = {name: value.copy() for name, value in facts.items()}  # the training goes on with them
    losses = reference_losses(network, pictures.double())
    np.savez(file, allow_pickle=False, **kept, losses=losses)
    return {
        "transformers": transformers.__version__,
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "older": apart(older, output),
    }


def reference_losses(network: Any, pictures: Any) -> Array:
    """Before each step of the recipe, written out here, from the weights drawn.

    The decay is of kernels, beside the momentum; the momentum holds steps and not gradients.
    """
    import torch

    draw(network)
    moved = {name: torch.zeros_like(weight) for name, weight in network.named_parameters()}
    losses = []
    for step in range(STEPS):
        rate = RATE * min((step + 1) / WARM_UP, (TOTAL - step) / (TOTAL - WARM_UP))
        network.zero_grad()
        loss = smoothed(network(pictures).logits)
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for name, weight in network.named_parameters():
                moved[name].mul_(MOMENTUM).sub_(rate * weight.grad)
                if weight.ndim > 1:
                    weight.mul_(1 - rate * DECAY)
                weight.add_(moved[name])
    return np.array(losses)


def smoothed(logits: Any) -> Any:
    """The loss of the labels, by torch."""
    import torch

    return torch.nn.functional.cross_entropy(
        logits,
        torch.from_numpy(LABELS).long(),
        label_smoothing=SCALE.architecture.label_smoothing,
    )


def as_channels_first(pictures: Array) -> Array:
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))


def transformers_network(*, downsample_in_bottleneck: bool) -> Any:
    """In inference mode, with our epsilon: torch's own is 1e-5. The momentum is the same."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    architecture = SCALE.architecture
    config = ResNetConfig(
        layer_type="bottleneck",
        depths=list(architecture.blocks),
        hidden_sizes=[4 * architecture.width * 2**stage for stage in range(4)],
        embedding_size=architecture.stem_filters,
        num_labels=architecture.classes,
        downsample_in_bottleneck=downsample_in_bottleneck,
    )
    network = ResNetForImageClassification(config).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1.001e-5
            assert module.momentum == 0.1
    draw(network)
    return network


def draw(network: Any) -> None:
    """Give it the weights and statistics that are drawn for both."""
    import torch

    with torch.no_grad():
        for name, value in named_values(network).items():
            shape = as_keras(value.numpy()).shape
            value.copy_(torch.from_numpy(as_torch(drawn(key_of(name), shape)).copy()))


def named_values(network: Any) -> dict[str, Any]:
    """Weights and statistics, without torch's count of batches."""
    found = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: v.detach() for name, v in found.items() if "num_batches" not in name}


def values_per_channel(network: Any) -> dict[str, int]:
    """Filled by the next call: how many values each normalisation takes its statistics over."""
    counts: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            counts[name] = output.numel() // output.shape[1]

        return hook

    for name, module in network.named_modules():
        if name.endswith(".normalization"):
            module.register_forward_hook(note(name))
    return counts


def statistics(network: Any, counts: Mapping[str, int]) -> dict[str, Array]:
    """After the training call. torch keeps the variance over n - 1, Keras the one over n."""
    found = {}
    for name, value in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            key, after = key_of(name), value.numpy()
            if name.endswith("running_var"):
                kept = 0.9 * drawn(key, after.shape).astype(after.dtype)
                count = counts[name.rpartition(".")[0]]
                after = kept + (after - kept) * (count - 1) / count
            found[f"statistic {key}"] = after
    return found


# Our network


def ours(name: str, file: Path) -> dict[str, Any]:
    framework = backend(name)
    numerics = framework.configure("float32", cpu_count())
    with np.load(file) as stored:
        expected = dict(stored)
    module = WORKLOAD.model()
    # In float32 a gradient is known to 2 % only (see the workload's README), and torch's stands for
    # the others: compiling it is what takes long.
    styles, precisions = (
        (STYLES, ("float32", "float64")) if name == "torch" else (("functional",), ("float64",))
    )

    def off(precision: str, recipe: Optimizer = RECIPE) -> list[float]:
        return apart_each(losses(name, numerics, precision, recipe), expected["losses"])

    found: dict[str, Any] = {
        "styles": {style: inference(framework, numerics, style, expected) for style in styles},
        "direct_loss": apart(direct_loss(module, expected["logits"]), expected["loss"]),
        "smoke_loss": type(module.loss(WORKLOAD.scales["smoke"])).__name__,
    }
    for precision in precisions:
        found[precision] = training(framework, numerics, precision, expected)
        found[precision]["losses"] = off(precision)
    if name == "torch":
        found["faults"] = {fault: off("float64", recipe) for fault, recipe in FAULTS.items()}
    return found


def compiled(framework: Any, numerics: Mapping[str, str], style: str) -> tuple[Any, Any]:
    """The model with the weights drawn, and the functions that are measured."""
    import keras

    module = WORKLOAD.model()
    # Every weight is assigned below; to draw it first, jax would compile for each shape.
    keras.initializers.VarianceScaling.__call__ = lambda self, shape, dtype: np.zeros(shape, dtype)
    model = getattr(module, style)(SCALE)
    weights.assign(weights.of(model), drawn)
    optimizer = framework.optimizer_class(keras.optimizers.SGD)(
        learning_rate=1.0, momentum=MOMENTUM
    )
    optimizer.build(model.trainable_variables)
    jit = numerics["jit_compile"] == "True"
    model.compile(
        optimizer=optimizer, loss=module.loss(SCALE), jit_compile=jit, auto_scale_loss=False
    )
    return model, framework.fit_trainer(model)


def inference(
    framework: Any, numerics: Mapping[str, str], style: str, expected: Mapping[str, Array]
) -> dict[str, Any]:
    """The model's variables, and how far its outputs are off."""
    model, trainer = compiled(framework, numerics, style)
    output = trainer.outputs(trainer.infer(trainer.place_inputs(images())))
    return {"variables": variables(model), "output": apart(output, expected["output"])}


def training(
    framework: Any, numerics: Mapping[str, str], precision: str, expected: Mapping[str, Array]
) -> dict[str, Any]:
    """How far one step's loss, gradients and statistics are off."""
    use(precision)
    model, trainer = compiled(framework, numerics, "functional")
    result = trainer.step(trainer.place((images().astype(precision), LABELS)))
    trainer.synchronise(result)
    loss = trainer.loss(result)
    trainer.pull()
    found = {f"gradient {key}": value for key, value in gradients(model).items()} | {
        f"statistic {key}": value for key, value in moving(model).items()
    }
    assert {str(value.dtype) for value in found.values()} == {precision}
    tensors = {name for name in expected if name.startswith(("gradient ", "statistic "))}
    return {
        "loss": apart(np.array(loss), expected["loss"]),
        "same_tensors": found.keys() == tensors,
        "tensors": {name: apart(found[name], expected[name]) for name in sorted(tensors)},
        "gradient": whole(found, expected),
    }


def losses(name: str, numerics: Mapping[str, str], precision: str, recipe: Optimizer) -> Array:
    """Before each step that the harness makes of the recipe, from the weights drawn."""
    cell = Cell("resnet50", "standard", "train", name, precision, "functional", "cpu")
    step = Stepped(cell, replace(SCALE, optimizer=recipe), numerics, drawn)
    placed = step.place((images().astype(precision), LABELS))
    return np.array(step.losses([placed] * STEPS))


def apart_each(found: Array, expected: Array) -> list[float]:
    """Of each value, as a share of the expected one."""
    return [float(value) for value in np.abs(found - expected) / np.abs(expected)]


def use(precision: str) -> None:
    """Models built from now on compute in this precision throughout."""
    import keras
    from keras.src.backend.common import dtypes

    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)
    # On jax and torch Keras makes float32 of every float64 that it infers, asked for or not.
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = precision
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", precision == "float64")


def gradients(model: Any) -> dict[str, Array]:
    """What the optimiser received: its momentum after one step at a rate of 1, negated."""
    keys = dict(zip(paths(weights.of(model)), weights.keys(weights.of(model)), strict=True))
    slots = weights.snapshot(model.optimizer.momentums)
    return {
        keys[path]: -slot
        for path, slot in zip(paths(model.trainable_variables), slots, strict=True)
    }


def paths(variables: list[Any]) -> list[str]:
    return [variable.path for variable in variables]


def moving(model: Any) -> dict[str, Array]:
    kept = weights.of(model)
    values = zip(weights.keys(kept), kept, weights.snapshot(kept), strict=True)
    return {key: value for key, variable, value in values if not variable.trainable}


def whole(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """The norm of the difference of the whole gradient, as a share of the gradient's."""
    names = [name for name in expected if name.startswith("gradient ")]
    difference = sum(float(np.sum((found[n] - expected[n]) ** 2.0)) for n in names)
    size = sum(float(np.sum(expected[n] ** 2.0)) for n in names)
    return float(np.sqrt(difference / size))


def direct_loss(module: Any, logits: Array) -> Array:
    """The loss as a custom loop calls it."""
    from keras import ops

    return array(module.loss(SCALE)(ops.convert_to_tensor(LABELS), ops.convert_to_tensor(logits)))


def array(tensor: Any) -> Array:
    from keras import ops

    return np.asarray(ops.convert_to_numpy(tensor))


def variables(model: Any) -> list[Any]:
    kept = weights.of(model)
    return [
        [key, list(v.shape), bool(v.trainable)]
        for key, v in zip(weights.keys(kept), kept, strict=True)
    ]


if __name__ == "__main__":
    main()
