"""One process of the proof that `bert` trains as the reference implementation trains.

Started by test_bert_dynamics.py as `python -m tests.dynamics_child WHAT WORK`. WHAT is `reference`
(transformers and torch's own optimiser) or a backend, on which the harness builds the step from a
declaration as it does for a run. The folder WORK holds weights and batches. Prints JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import cycle, islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from harness.backends import backend
from harness.cells import Cell
from harness.workload import Array, Optimizer, Scale, Schedule
from tests.stepped import Stepped
from workloads.bert import TINY, WORKLOAD, Architecture, checkpoint

SMALL = Architecture(50, 16, 2, 32, 4, 64, 0.0, 2)
LENGTH = 10
WARM_UP, TOTAL = 6, 30
STEPS = TOTAL + 2
"""The last two are at a rate of zero."""

# The declared recipe, with a rate and a decay that a small network shows within thirty steps, and a
# bound on the gradient's norm that some of its steps are above and some below.
RATE, DECAY, NORM = 2e-3, 1.0, 4.0
DECLARED = WORKLOAD.scales["standard"].optimizer
OPTIMIZER = replace(
    DECLARED,
    arguments={
        **DECLARED.arguments,
        "learning_rate": RATE,
        "weight_decay": DECAY,
        "global_clipnorm": NORM,
    },
    schedule=Schedule(warmup_steps=WARM_UP, total_steps=TOTAL),
)

DROPOUT = 0.1
COPIES = 2000
"""Of each sentence, in one batch: every copy draws for itself."""

Batches = tuple[Array, Array]


def main() -> None:
    what, work = sys.argv[1], Path(sys.argv[2])
    print(json.dumps(reference(work) if what == "reference" else ours(what, work)))


def small_batches(work: Path) -> Batches:
    """Token ids (batch, sentence, piece) with padding, and labels (batch, sentence)."""
    stored = np.load(work / "batches.npz")
    return stored["ids"], stored["labels"]


def copied(work: Path) -> Batches:
    """The first batch, every sentence many times over."""
    ids, labels = small_batches(work)
    return np.repeat(ids[0], COPIES, axis=0), np.repeat(labels[0], COPIES, axis=0)


# The reference


def reference(work: Path) -> dict[str, Any]:
    losses, norms = trained(work)
    mean, error = dropped(work)
    return {
        "losses": losses,
        "norms": norms,
        "dropout_mean": mean,
        "dropout_error": error,
        "tiny_loss": tiny_loss(work),
    }


def network(path: Path, a: Architecture, classifier: Mapping[str, Array], dropout: float) -> Any:
    """transformers' classifier in training mode, with the weights of the file."""
    import torch
    from safetensors.torch import load_file
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=a.vocabulary,
        max_position_embeddings=a.positions,
        num_hidden_layers=a.layers,
        hidden_size=a.hidden,
        num_attention_heads=a.heads,
        intermediate_size=a.feed_forward,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=a.classes,
        attn_implementation="eager",
    )
    model = BertForSequenceClassification(config)
    model.bert.load_state_dict(load_file(path))
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(classifier["kernel"].T.copy()))
        model.classifier.bias.copy_(torch.from_numpy(classifier["bias"]))
    return model.train()


def logits(model: Any, ids: Array) -> Any:
    import torch

    mask = torch.from_numpy(ids != 0).long()
    return model(input_ids=torch.from_numpy(ids).long(), attention_mask=mask).logits


def trained(work: Path) -> tuple[list[float], list[float]]:
    """Loss and norm of the gradient of each step, as transformers' examples train.

    Two documented differences are taken out: our warm-up is a step ahead, as its first step is not
    idle; and Keras adds epsilon before it corrects the moments' bias, torch after.
    """
    import torch
    from transformers import get_linear_schedule_with_warmup

    model = network(work / "small.safetensors", SMALL, np.load(work / "classifier.npz"), 0.0)
    plain: list[Any] = []
    decayed: list[Any] = []
    for name, parameter in model.named_parameters():
        (plain if "bias" in name or "LayerNorm" in name else decayed).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}],
        lr=RATE,
    )
    share = get_linear_schedule_with_warmup(optimizer, WARM_UP, TOTAL).lr_lambdas[0]
    losses, norms = [], []
    batches = cycle(zip(*small_batches(work), strict=True))
    for step, (ids, labels) in enumerate(islice(batches, STEPS)):
        for group in optimizer.param_groups:
            group["lr"] = RATE * share(step + 1 if step < WARM_UP else step)
            group["eps"] = DECLARED.arguments["epsilon"] / (1 - 0.999 ** (step + 1)) ** 0.5
        optimizer.zero_grad()
        loss: Any = torch.nn.functional.cross_entropy(logits(model, ids), torch.from_numpy(labels))
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), NORM)))
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, norms


def dropped(work: Path) -> tuple[float, float]:
    """The mean loss with dropout, and its standard error over what is drawn."""
    import torch

    torch.manual_seed(0)
    model = network(work / "small.safetensors", SMALL, np.load(work / "classifier.npz"), DROPOUT)
    ids, labels = copied(work)
    with torch.no_grad():
        found = torch.nn.functional.cross_entropy(
            logits(model, ids), torch.from_numpy(labels), reduction="none"
        ).reshape(-1, COPIES)
    return float(found.mean()), float(np.sqrt(found.var(dim=1).mean() / found.numel()))


def tiny_loss(work: Path) -> float:
    """The loss of the published file on the first batch of the run."""
    import torch

    stored = np.load(work / "tiny_batch.npz")
    model = network(work / "tiny.safetensors", TINY, stored, 0.0)
    labels = torch.from_numpy(stored["labels"]).long()
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(logits(model, stored["ids"]), labels))


# Ours

FAULTS: dict[str, Optimizer] = {
    "no decay": replace(OPTIMIZER, arguments={**OPTIMIZER.arguments, "weight_decay": 0.0}),
    "everything decayed": replace(OPTIMIZER, undecayed=()),
    "biases decayed": replace(OPTIMIZER, undecayed=("gamma", "beta")),
    "not clipped": replace(
        OPTIMIZER,
        arguments={k: v for k, v in OPTIMIZER.arguments.items() if k != "global_clipnorm"},
    ),
    "no fall": replace(OPTIMIZER, schedule=Schedule(WARM_UP, 100 * TOTAL)),
    "a step longer": replace(OPTIMIZER, schedule=Schedule(WARM_UP, TOTAL + 1)),
}


def ours(backend_name: str, work: Path) -> dict[str, Any]:
    # One thread: for so small a network more would wait for each other.
    pinned = backend(backend_name).configure("float32", 1)

    def built(style: str, architecture: Architecture, optimizer: Optimizer) -> Stepped:
        cell = Cell("bert", "standard", "train", backend_name, "float32", style, "cpu")
        scale = scale_of(architecture, optimizer)
        values = dict(checkpoint.read(work / "small.safetensors", scale))
        classifier = np.load(work / "classifier.npz")
        values |= {f"classifier/{name}": classifier[name] for name in classifier.files}
        return Stepped(cell, scale, pinned, lambda key, shape: values[key])

    def losses(style: str, optimizer: Optimizer = OPTIMIZER) -> list[float]:
        step = built(style, SMALL, optimizer)
        placed = [step.place(batch) for batch in zip(*small_batches(work), strict=True)]
        return step.losses(islice(cycle(placed), STEPS))

    def with_dropout(style: str, rate: float = DROPOUT) -> float:
        step = built(style, replace(SMALL, dropout=rate), OPTIMIZER)
        return step.losses([step.place(copied(work))])[0]

    torch = backend_name == "torch"  # what is the same on every backend is looked at on one
    styles = ("functional", "custom_loop") if torch else ("functional",)
    return {
        "losses": {style: losses(style) for style in styles},
        "faults": {name: losses("functional", o) for name, o in FAULTS.items()} if torch else {},
        "dropout": with_dropout("functional"),
        "wrong_dropout": [with_dropout("functional", rate) for rate in (0.0, 0.2)] if torch else [],
    }


def scale_of(architecture: Architecture, optimizer: Optimizer) -> Scale:
    published = sum(prod(tensor.shape) for tensor in checkpoint.tensors(architecture))
    return replace(
        WORKLOAD.scales["standard"],
        architecture=architecture,
        optimizer=optimizer,
        input_shape=(LENGTH,),
        parameters=published + (architecture.hidden + 1) * architecture.classes,
    )


if __name__ == "__main__":
    main()
