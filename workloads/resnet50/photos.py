"""Photographs of solar cells (Buerhop-Lutz et al. 2018), 300x300 grey, of two kinds of modules.

The cache holds the bytes of the PNG files: pictures are decoded, cropped, mirrored and normalised
batch by batch, as a real pipeline would.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.batches import Batches, Rows, shuffled
from harness.data import Source, check_size
from harness.downloads import PypiPackage
from harness.workload import Array, Batch
from workloads.resnet50.data import quality as quality

KINDS = ("mono", "poly")  # crystalline; their places are the labels
PHOTO_SIDE = 300
SIDE = 224
CHANNELS = 3  # all the same
# Over the pixels of the 2,000 training photos, scaled to 0..1.
PIXEL_MEAN = 0.5965923782570806
PIXEL_STD = 0.16161011617537588
SPLIT_SEED = 20261122
AUGMENTATION = 1  # a stream of its own beside the shuffle's

# Normalised values of the 256 pixel values.
_NORMALISED = ((np.arange(256) / 255.0 - PIXEL_MEAN) / PIXEL_STD).astype(np.float32)


@dataclass(frozen=True)
class Photos:
    """PNG files and their labels, in the order of the publication's list."""

    files: tuple[bytes, ...]
    labels: NDArray[np.int32]


def pixels(content: bytes, name: str) -> NDArray[np.uint8]:
    """The grey pixels (300, 300) of a PNG file; raises ValueError for anything else."""
    expected = f"{name} is not a PNG photo of {PHOTO_SIDE}x{PHOTO_SIDE} grey pixels"
    # A damaged file can fail in any layer of the decoder.
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            found = np.asarray(image)
    except Exception as error:
        raise ValueError(expected) from error
    if found.shape != (PHOTO_SIDE, PHOTO_SIDE) or found.dtype != np.uint8:
        raise ValueError(expected)
    return found


def decode(folder: Path) -> Photos:
    """The photos that `labels.csv` lists, each a line of path, defect probability and kind."""
    rows = [line.split() for line in (folder / "labels.csv").read_text("utf-8").splitlines()]
    files = []
    for number, row in enumerate(rows, start=1):
        if len(row) != 3 or row[2] not in KINDS:
            raise ValueError(
                f"line {number} of labels.csv is {' '.join(row)!r}, "
                f"expected a path, a probability and one of {', '.join(KINDS)}"
            )
        path = folder / Path(row[0]).name
        if not path.is_file():
            raise ValueError(f"{path.name}, which labels.csv lists, is not in the package")
        files.append(path.read_bytes())
        pixels(files[-1], path.name)
    return Photos(tuple(files), np.array([KINDS.index(row[2]) for row in rows], np.int32))


_FOLDER = "elpv_dataset/data"
SOURCES = (
    Source(
        "PyPI elpv-dataset 1.0.0.post1",
        (
            PypiPackage(
                name="elpv-dataset",
                version="1.0.0.post1",
                sha256="85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c",
                members=(f"{_FOLDER}/labels.csv", f"{_FOLDER}/images/"),
            ),
        ),
        decode,
    ),
)


def prepare(raw: Photos, sizes: Mapping[str, int]) -> dict[str, Array]:
    """A fixed shuffle's first photos for training, the next ones for testing."""
    count = len(raw.files)
    # RandomState's stream is frozen by numpy's policy, a Generator's is not: the digest is pinned.
    order = np.random.RandomState(SPLIT_SEED).permutation(count)
    first = check_size(sizes, "train_examples", count)
    last = first + check_size(sizes, "test_examples", count - first)
    return {
        **_packed("train", [raw.files[row] for row in order[:first]]),
        "train_labels": raw.labels[order[:first]],
        **_packed("test", [raw.files[row] for row in order[first:last]]),
        "test_targets": raw.labels[order[first:last]],
    }


def _packed(side: str, files: Sequence[bytes]) -> dict[str, Array]:
    """The files end to end as bytes, and where each begins; the last place is the end."""
    return {
        f"{side}_files": np.frombuffer(b"".join(files), np.uint8),
        f"{side}_offsets": np.cumsum([0, *map(len, files)], dtype=np.int64),
    }


def _photo(arrays: Mapping[str, Array], side: str, row: int) -> NDArray[np.uint8]:
    begin, end = arrays[f"{side}_offsets"][row : row + 2]
    return pixels(arrays[f"{side}_files"][begin:end].tobytes(), f"{side} photo {row}")


def _inputs(photos: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Normalised and repeated over the channels: (len(photos), 224, 224, 3)."""
    inputs = np.empty((len(photos), SIDE, SIDE, CHANNELS), np.float32)
    for place, photo in zip(inputs, photos, strict=True):
        place[...] = _NORMALISED[photo][..., np.newaxis]
    return inputs


def batches(arrays: Mapping[str, Array], *, batch_size: int, seed: int, epoch: int) -> Batches:
    """Inputs (batch, 224, 224, 3), cropped and mirrored at random, and labels (batch,)."""
    labels = arrays["train_labels"]

    def make(number: int, rows: Rows) -> Batch:
        draw = np.random.default_rng([seed, epoch, AUGMENTATION, number])
        corners = draw.integers(0, PHOTO_SIDE - SIDE, size=(batch_size, 2), endpoint=True)
        mirrored = draw.integers(2, size=batch_size)
        photos = [
            _crop(_photo(arrays, "train", row), top, left)[:, :: -1 if mirror else 1]
            for row, (top, left), mirror in zip(rows, corners, mirrored, strict=True)
        ]
        return _inputs(photos), labels[rows]

    return shuffled(len(labels), make, batch_size=batch_size, seed=seed, epoch=epoch)


def test_inputs(arrays: Mapping[str, Array], start: int, stop: int) -> Array:
    """The middles of the test photos, (stop - start, 224, 224, 3)."""
    rows = range(len(arrays["test_targets"]))[start:stop]
    edge = (PHOTO_SIDE - SIDE) // 2
    return _inputs([_crop(_photo(arrays, "test", row), edge, edge) for row in rows])


def _crop(photo: NDArray[np.uint8], top: int, left: int) -> NDArray[np.uint8]:
    return photo[top : top + SIDE, left : left + SIDE]
