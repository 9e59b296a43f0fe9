"""The photos of resnet50 at standard scale: unpacking, decoding, splitting, cropping.

Tiny made-up files of the real format; no network, no framework.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from harness import data
from harness.downloads import unpack
from harness.errors import DataError
from harness.workload import Array
from workloads.resnet50 import photos

SIZES = {"train_examples": 12, "test_examples": 5}
COUNT = 20
SIDE = photos.SIDE

# Folders in packages

FILES = {
    "toy/a.csv": b"a",
    "toy/images/b.png": b"b",
    "toy/images/c.png": b"c",
    "toy/images/d/e": b"",
}


def archive(path: Path, files: dict[str, bytes]) -> Path:
    """A wheel, or a tar file by its suffix, with entries for its folders as well."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("toy/images/", b"")
            for name, content in files.items():
                packed.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as tar:
        folder = tarfile.TarInfo("toy/images")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["toy.whl", "toy.tar.gz"])
def test_a_folder_stands_for_the_files_right_in_it(tmp_path: Path, name: str) -> None:
    packed = archive(tmp_path / name, FILES)
    folder = tmp_path / "folder"
    folder.mkdir()
    unpack(packed, ("toy/a.csv", "toy/images/"), folder)
    assert {path.name for path in folder.iterdir()} == {"a.csv", "b.png", "c.png"}
    assert (folder / "c.png").read_bytes() == b"c"


@pytest.mark.parametrize("name", ["toy.whl", "toy.tar.gz"])
def test_a_folder_without_files_or_outside_the_package_is_refused(
    tmp_path: Path, name: str
) -> None:
    packed = archive(tmp_path / name, {**FILES, "../up/f": b"f"})
    with pytest.raises(DataError, match=r"^'toy/photos/' holds no files$"):
        unpack(packed, ("toy/photos/",), tmp_path)
    with pytest.raises(DataError, match="points outside the package"):
        unpack(packed, ("../up/",), tmp_path)
    assert not list(tmp_path.rglob("f"))


# Decoding


def png(pixels: Array, mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "PNG")
    return file.getvalue()


def noise() -> NDArray[np.uint8]:
    """Photos in which every place can be told from its neighbourhood."""
    shape = (COUNT, photos.PHOTO_SIDE, photos.PHOTO_SIDE)
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


@pytest.fixture(scope="module")
def originals() -> NDArray[np.uint8]:
    return noise()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, originals: NDArray[np.uint8]) -> Path:
    """The package's files, unpacked; every third photo is of a mono module."""
    folder = tmp_path_factory.mktemp("photos")
    lines = []
    for number, pixels in enumerate(originals):
        (folder / f"cell{number:04}.png").write_bytes(png(pixels))
        kind = "poly" if number % 3 else "mono"
        lines.append(f"images/cell{number:04}.png  0.3333333333333333    {kind}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def raw(folder: Path) -> photos.Photos:
    return photos.decode(folder)


@pytest.fixture(scope="module")
def arrays(raw: photos.Photos) -> dict[str, Array]:
    return photos.prepare(raw, SIZES)


def test_photos_come_in_the_order_of_the_list(
    raw: photos.Photos, originals: NDArray[np.uint8]
) -> None:
    assert raw.labels.tolist() == [int(bool(number % 3)) for number in range(COUNT)]
    for number, content in enumerate(raw.files):
        assert (photos.pixels(content, "") == originals[number]).all()


@pytest.mark.parametrize("damage", ["cut", "text", "flipped", "small", "colour", "jpeg"])
def test_a_file_that_is_no_such_photo_is_named(damage: str) -> None:
    pixels = noise()[0]
    whole = png(pixels)
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG")
    middle = len(whole) // 2
    content = {
        "cut": whole[:middle],
        "text": b"no photo",
        "flipped": whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :],
        "small": png(pixels[:299]),
        "colour": png(pixels, "RGB"),
        "jpeg": jpeg.getvalue(),
    }[damage]
    with pytest.raises(ValueError, match=r"^cell.png is not a PNG photo of 300x300 grey pixels$"):
        photos.pixels(content, "cell.png")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "images/cell0001.png 0.0 amorphous",
            "line 1 of labels.csv is 'images/cell0001.png 0.0 amorphous', "
            "expected a path, a probability and one of mono, poly",
        ),
        (
            "images/cell0001.png",
            "line 1 of labels.csv is 'images/cell0001.png', "
            "expected a path, a probability and one of mono, poly",
        ),
        (
            "images/cell9.png 0.0 mono",
            "cell9.png, which labels.csv lists, is not in the package",
        ),
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(line + "\n")
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole text is compared
        photos.decode(tmp_path)
    assert str(error.value) == message


# Splitting


def test_preparing_twice_gives_the_same_digest(
    raw: photos.Photos, arrays: dict[str, Array]
) -> None:
    assert data.digest(photos.prepare(raw, SIZES)) == data.digest(arrays)
    assert len(arrays["test_targets"]) == 5
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        "train_files": "uint8", "train_offsets": "int64", "train_labels": "int32",
        "test_files": "uint8", "test_offsets": "int64", "test_targets": "int32",
    }  # fmt: skip


def files(arrays: dict[str, Array], side: str) -> list[bytes]:
    places = arrays[f"{side}_offsets"]
    return [arrays[f"{side}_files"][begin:end].tobytes() for begin, end in pairwise(places)]


def test_no_photo_is_on_both_sides_and_each_has_its_label(
    raw: photos.Photos, arrays: dict[str, Array]
) -> None:
    label_of = dict(zip(raw.files, raw.labels, strict=True))
    train, test = files(arrays, "train"), files(arrays, "test")
    assert len({*train, *test}) == len(train) + len(test) == 17
    assert [label_of[file] for file in train] == arrays["train_labels"].tolist()
    assert [label_of[file] for file in test] == arrays["test_targets"].tolist()


def test_more_photos_than_there_are_is_an_error(raw: photos.Photos) -> None:
    with pytest.raises(ValueError, match="test_examples is 9, expected 1 to 8"):
        photos.prepare(raw, {"train_examples": 12, "test_examples": 9})


# Cropping


def grey(inputs: Array) -> NDArray[np.uint8]:
    """The pixels that were normalised; the three channels are the same."""
    assert inputs.dtype == np.float32
    assert (inputs == inputs[..., :1]).all()
    values = np.rint(
        (inputs[..., 0].astype(np.float64) * photos.PIXEL_STD + photos.PIXEL_MEAN) * 255
    )
    return values.astype(np.uint8)


def found_in(photo: NDArray[np.uint8], crop: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Where the whole crop lies in the photo."""
    beginnings = sliding_window_view(photo, crop.shape)[:, :, 0, :8]
    places = np.argwhere((beginnings == crop[0, :8]).all(axis=-1)).tolist()
    return [(y, x) for y, x in places if (photo[y : y + SIDE, x : x + SIDE] == crop).all()]


def test_training_inputs_are_crops_of_their_photos_at_random_places_mirrored_or_not(
    arrays: dict[str, Array],
) -> None:
    photo_of = [photos.pixels(file, "") for file in files(arrays, "train")]
    seen: set[tuple[int, bool, int, int]] = set()
    for epoch in range(2):
        numbers = []
        for inputs, labels in photos.batches(arrays, batch_size=4, seed=1, epoch=epoch):
            assert inputs.shape == (4, SIDE, SIDE, 3)
            for crop, label in zip(grey(inputs), labels, strict=True):
                matches = [
                    (number, mirrored, y, x)
                    for number, photo in enumerate(photo_of)
                    for mirrored in (False, True)
                    for y, x in found_in(photo, crop[:, ::-1] if mirrored else crop)
                ]
                assert len(matches) == 1
                assert arrays["train_labels"][matches[0][0]] == label
                numbers.append(matches[0][0])
                seen |= set(matches)
        assert sorted(numbers) == list(range(12))
    assert {mirrored for _, mirrored, _, _ in seen} == {False, True}
    assert len({(y, x) for _, _, y, x in seen}) > 20
    assert len(seen) == 24  # no photo twice in the same way


def test_batches_follow_seed_and_epoch(arrays: dict[str, Array]) -> None:
    def epoch(seed: int, epoch: int) -> bytes:
        return pickle.dumps(list(photos.batches(arrays, batch_size=5, seed=seed, epoch=epoch)))

    assert epoch(0, 0) == epoch(0, 0)
    assert len({epoch(0, 0), epoch(0, 1), epoch(1, 0)}) == 3
    batches = photos.batches(arrays, batch_size=5, seed=0, epoch=0)
    assert len(batches) == 2
    assert pickle.dumps([batches[1], batches[0]][::-1]) == epoch(0, 0)


def test_test_inputs_are_the_middles_of_the_photos_asked_for(arrays: dict[str, Array]) -> None:
    middles = [photos.pixels(file, "")[38:262, 38:262] for file in files(arrays, "test")]
    assert (grey(photos.test_inputs(arrays, 0, 5)) == middles).all()
    assert (grey(photos.test_inputs(arrays, 3, 9)) == middles[3:]).all()
    assert photos.test_inputs(arrays, 5, 9).shape == (0, SIDE, SIDE, 3)
