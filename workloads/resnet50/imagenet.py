"""ImageNet-1k (ILSVRC 2012; Russakovsky et al. 2015): 1,281,167 photographs of 1,000 kinds.

Pictures stay where they lie, in a folder per kind or in the records that TFDS writes. The cache
holds their names and labels; they are decoded, cropped, mirrored and normalised batch by batch.
image-net.org gives the data to who registers, for non-commercial research and education.
Target: top-1 75.9 % on the 50,000 validation pictures (MLPerf training, v0.6 and later).
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.batches import Batches, Rows, shuffled
from harness.data import Source
from harness.errors import DataError
from harness.localdata import LocalFolder, data_folder
from harness.workload import Array, Batch
from workloads.resnet50 import tfrecords
from workloads.resnet50.data import quality as quality

SIDE = 224
RESIZED = 256  # the short side in evaluation, before the middle is cut out
# Random crops as Szegedy et al. 2015 (arXiv:1409.4842) draw them.
CROP_AREA = (0.08, 1.0)  # of the picture's
CROP_RATIO = (3 / 4, 4 / 3)  # width to height
CROP_TRIES = 10
AUGMENTATION = 1  # a stream of its own beside the shuffle's

# Of the training pictures, scaled to 0..1; the values that published ResNets were trained with.
PIXEL_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
PIXEL_STD = np.array([0.229, 0.224, 0.225], np.float32) * 255

SPAN = "#"  # in a name: behind it first byte and size of a picture within a file of records

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Split:
    """Pictures by their names from EPOCHMARK_DATA on, with their labels."""

    names: tuple[str, ...]
    labels: NDArray[np.int32]


@dataclass(frozen=True)
class Index:
    """Both sides of the data set in the folder `name`."""

    name: str
    train: Split
    test: Split


FOLDER = LocalFolder(
    "imagenet",
    ("train/*/*.JPEG", "val/*/*.JPEG"),
    origin="image-net.org, ILSVRC 2012",
    licence="non-commercial research and education",
)
RECORDS = LocalFolder(
    "imagenet2012",
    ("*/*-train.tfrecord-*", "*/*-validation.tfrecord-*"),
    origin="TFDS",
    licence="as image-net.org",
)


def decode_folder(folder: Path) -> Index:
    """The pictures of `train` and `val`; labels are the places of the sorted folder names."""
    kinds = [_subfolders(folder / side) for side in ("train", "val")]
    if kinds[0] != kinds[1]:
        only = sorted(set(kinds[0]) ^ set(kinds[1]))[0]
        raise ValueError(
            f"{only!r} is a folder in only one of {folder.name}/train and {folder.name}/val, "
            "expected the same ones in both"
        )
    return Index(folder.name, *(_listed(folder / side, kinds[0]) for side in ("train", "val")))


def _subfolders(side: Path) -> list[str]:
    found = sorted(entry.name for entry in os.scandir(side) if entry.is_dir())
    if not found:
        where = f"{side.parent.name}/{side.name}"
        raise ValueError(f"{where} holds no folders, expected one of *.JPEG files for each kind")
    return found


def _listed(side: Path, kinds: Sequence[str]) -> Split:
    names: list[str] = []
    counts = []
    for kind in kinds:
        where = f"{side.parent.name}/{side.name}/{kind}"
        files = sorted(e.name for e in os.scandir(side / kind) if e.name.endswith(".JPEG"))
        if not files:
            raise ValueError(f"{where} holds no pictures, expected *.JPEG files")
        names += [f"{where}/{file}" for file in files]
        counts.append(len(files))
    return Split(tuple(names), np.repeat(np.arange(len(kinds), dtype=np.int32), counts))


def decode_records(folder: Path) -> Index:
    """The pictures in the files of the newest version; labels are TFDS's, by the same order."""
    versions = {path.parent for path in folder.glob(RECORDS.layout[0])}
    version = max(versions, key=lambda path: [*map(int, re.findall(r"\d+", path.name))])
    return Index(folder.name, _indexed(version, "train"), _indexed(version, "validation"))


def _indexed(version: Path, side: str) -> Split:
    names: list[str] = []
    labels: list[int] = []
    for path in sorted(version.glob(f"*-{side}.tfrecord-*")):
        where = f"{version.parent.name}/{version.name}/{path.name}"
        for picture in tfrecords.pictures(path, where):
            names.append(f"{where}{SPAN}{picture.begin}+{picture.size}")
            labels.append(min(picture.label, np.iinfo(np.int32).max))
    return Split(tuple(names), np.array(labels, np.int32))


SOURCES = (
    Source("ImageNet-1k in a local folder", (FOLDER,), lambda _: decode_folder(FOLDER.path())),
    Source("ImageNet-1k as TFDS records", (RECORDS,), lambda _: decode_records(RECORDS.path())),
)


def prepare(raw: Index, sizes: Mapping[str, int]) -> dict[str, Array]:
    """The names end to end as bytes, where each begins, and the labels.

    Raises ValueError unless both sides have all `classes`, `train_examples` and `test_examples`.
    """
    _check(raw.train, f"{raw.name} for training", sizes["classes"], sizes["train_examples"])
    _check(raw.test, f"{raw.name} for validation", sizes["classes"], sizes["test_examples"])
    return {
        **_packed("train", raw.train.names),
        "train_labels": raw.train.labels,
        **_packed("test", raw.test.names),
        "test_targets": raw.test.labels,
    }


def _check(split: Split, where: str, classes: int, examples: int) -> None:
    if len(split.labels) != examples:
        raise ValueError(f"{where} has {len(split.labels)} pictures, expected {examples}")
    found = np.unique(split.labels)
    if len(found) != classes:
        raise ValueError(f"{where} has pictures of {len(found)} kinds, expected {classes}")
    if found[-1] >= classes:
        raise ValueError(f"{where} has the label {found[-1]}, expected 0 to {classes - 1}")


def _packed(side: str, names: Sequence[str]) -> dict[str, Array]:
    encoded = [name.encode() for name in names]
    return {
        f"{side}_names": np.frombuffer(b"".join(encoded), np.uint8),
        f"{side}_offsets": np.cumsum([0, *map(len, encoded)], dtype=np.int64),
    }


def name_of(arrays: Mapping[str, Array], side: str, row: int) -> str:
    """A picture's name, from EPOCHMARK_DATA on."""
    begin, end = arrays[f"{side}_offsets"][row : row + 2]
    return str(arrays[f"{side}_names"][begin:end].tobytes(), "utf-8")


def picture(root: Path, name: str) -> Image.Image:
    """The decoded picture in red, green and blue; raises DataError when it is damaged."""
    # Any layer of the decoder can fail. A few of the training files hold PNG, or CMYK colours.
    try:
        content = _content(root, name)
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            return image.convert("RGB")
    except Exception as error:
        raise DataError(f"{name} cannot be read, expected a whole JPEG picture") from error


def _content(root: Path, name: str) -> bytes:
    file, _, span = name.partition(SPAN)
    if not span:
        return (root / file).read_bytes()
    begin, size = map(int, span.split("+"))
    with (root / file).open("rb") as records:
        records.seek(begin)
        return records.read(size)


def crop_box(width: int, height: int, random: np.random.Generator) -> Box:
    """Left, top, right and bottom of a random part of the picture.

    When no draw fits, as in a narrow strip, the middle of the nearest shape that is allowed.
    """
    areas = random.uniform(*CROP_AREA, CROP_TRIES) * (width * height)
    narrowest, widest = map(math.log, CROP_RATIO)
    ratios = np.exp(random.uniform(narrowest, widest, CROP_TRIES))
    corners = random.random((CROP_TRIES, 2))
    wide, high = np.rint(np.sqrt(areas * ratios)), np.rint(np.sqrt(areas / ratios))
    fits = np.flatnonzero((wide >= 1) & (wide <= width) & (high >= 1) & (high <= height))
    if len(fits):
        w, h = int(wide[fits[0]]), int(high[fits[0]])
        across, down = corners[fits[0]]
    else:
        w = min(width, round(height * CROP_RATIO[1]))
        h = min(height, round(width / CROP_RATIO[0]))
        across = down = 0.5
    left, top = int(across * (width - w + 1)), int(down * (height - h + 1))
    return left, top, left + w, top + h


def augmented(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """A random part at 224x224, mirrored half of the time."""
    box = crop_box(*image.size, random)
    cut = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.integers(2) else cut


def middle(image: Image.Image) -> Image.Image:
    """The middle 224x224 of the picture at a short side of 256."""
    short = min(image.size)
    width, height = (round(side * RESIZED / short) for side in image.size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    whole = image.resize((width, height), Image.Resampling.BILINEAR)
    return whole.crop((left, top, left + SIDE, top + SIDE))


def normalise(image: Image.Image) -> NDArray[np.float32]:
    """Mean 0 and standard deviation 1 in each colour: (224, 224, 3)."""
    pixels: NDArray[np.float32] = np.asarray(image, np.float32)
    return (pixels - PIXEL_MEAN) / PIXEL_STD


def batches(arrays: Mapping[str, Array], *, batch_size: int, seed: int, epoch: int) -> Batches:
    """Inputs (batch, 224, 224, 3), cropped and mirrored at random, and labels (batch,)."""
    root = data_folder()
    labels = arrays["train_labels"]

    def make(number: int, rows: Rows) -> Batch:
        inputs = np.empty((batch_size, SIDE, SIDE, 3), np.float32)
        for place, row in zip(inputs, rows, strict=True):
            # By row, so that a picture's crop does not depend on the batch it is in.
            random = np.random.default_rng([seed, epoch, AUGMENTATION, row])
            image = picture(root, name_of(arrays, "train", row))
            place[...] = normalise(augmented(image, random))
        return inputs, labels[rows]

    return shuffled(len(labels), make, batch_size=batch_size, seed=seed, epoch=epoch)


def test_inputs(arrays: Mapping[str, Array], start: int, stop: int) -> Array:
    """The middles of the validation pictures, (stop - start, 224, 224, 3)."""
    root = data_folder()
    rows = range(len(arrays["test_targets"]))[start:stop]
    inputs = np.empty((len(rows), SIDE, SIDE, 3), np.float32)
    for place, row in zip(inputs, rows, strict=True):
        place[...] = normalise(middle(picture(root, name_of(arrays, "test", row))))
    return inputs
