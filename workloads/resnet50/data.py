"""Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): grey 28x28 pictures of ten kinds of clothes.

Training pictures are cached as bytes and normalised batch by batch, as a real pipeline would.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.batches import Batches, Rows, shuffled
from harness.data import Source, check_size
from harness.downloads import DebianPackage, KerasDataset
from harness.workload import Array, Batch

CLASSES = 10
# Over the pixels of the 60,000 training pictures, scaled to 0..1.
PIXEL_MEAN = 0.2860405969887955
PIXEL_STD = 0.3530242445149226
SPLIT_SEED = 20261122

Raw = dict[str, NDArray[np.uint8]]

# Normalised values of the 256 pixel values: a look-up is faster than arithmetic and gives the same
# bits on every machine.
_NORMALISED = ((np.arange(256) / 255.0 - PIXEL_MEAN) / PIXEL_STD).astype(np.float32)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Bytes of a gzipped IDX file, in the shape its header gives."""
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path.name} is not an IDX file of bytes")
    header = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(header.tolist())


def decode_idx(folder: Path) -> Raw:
    """The four IDX files of the original publication."""
    return {
        "x_train": read_idx(folder / "train-images-idx3-ubyte.gz"),
        "y_train": read_idx(folder / "train-labels-idx1-ubyte.gz"),
        "x_test": read_idx(folder / "t10k-images-idx3-ubyte.gz"),
        "y_test": read_idx(folder / "t10k-labels-idx1-ubyte.gz"),
    }


def decode_npz(folder: Path) -> Raw:
    """The arrays that keras.datasets returned."""
    with np.load(folder / "fashion_mnist.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


_FOLDER = "usr/share/datasets/fashion-mnist"
SOURCES = (
    Source("keras.datasets.fashion_mnist", (KerasDataset("fashion_mnist"),), decode_npz),
    Source(
        "Debian dataset-fashion-mnist 0.0~git20200523.55506a9-1",
        (
            DebianPackage(
                name="dataset-fashion-mnist",
                version="0.0~git20200523.55506a9-1",
                sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
                members=(
                    f"{_FOLDER}/train-images-idx3-ubyte.gz",
                    f"{_FOLDER}/train-labels-idx1-ubyte.gz",
                    f"{_FOLDER}/t10k-images-idx3-ubyte.gz",
                    f"{_FOLDER}/t10k-labels-idx1-ubyte.gz",
                ),
            ),
        ),
        decode_idx,
    ),
)


def prepare(raw: Raw, sizes: Mapping[str, int]) -> dict[str, Array]:
    """The first examples of each official split after a fixed shuffle."""
    train = _sample(len(raw["x_train"]), sizes, "train_examples")
    test = _sample(len(raw["x_test"]), sizes, "test_examples")
    return {
        "train_images": raw["x_train"][train],
        "train_labels": raw["y_train"][train].astype(np.int32),
        "test_inputs": normalise(raw["x_test"][test]),
        "test_targets": raw["y_test"][test].astype(np.int32),
    }


def normalise(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean 0, standard deviation 1, and a last axis for the one channel."""
    return _NORMALISED[images][..., np.newaxis]


def batches(arrays: Mapping[str, Array], *, batch_size: int, seed: int, epoch: int) -> Batches:
    """Inputs (batch, 28, 28, 1) and labels (batch,)."""
    images, labels = arrays["train_images"], arrays["train_labels"]

    def make(number: int, rows: Rows) -> Batch:
        return normalise(images[rows]), labels[rows]

    return shuffled(len(labels), make, batch_size=batch_size, seed=seed, epoch=epoch)


def test_inputs(arrays: Mapping[str, Array], start: int, stop: int) -> Array:
    """Test pictures (stop - start, 28, 28, 1)."""
    return arrays["test_inputs"][start:stop]


def quality(arrays: Mapping[str, Array], outputs: NDArray[np.float32]) -> dict[str, float]:
    """Share of test pictures whose largest logit, of (N, classes), is the label's."""
    correct = outputs.argmax(axis=1) == arrays["test_targets"]
    return {"top1_accuracy": float(correct.mean())}


def _sample(count: int, sizes: Mapping[str, int], key: str) -> NDArray[np.int64]:
    # RandomState's stream is frozen by numpy's policy, a Generator's is not: the digest is pinned.
    return np.random.RandomState(SPLIT_SEED).permutation(count)[: check_size(sizes, key, count)]
