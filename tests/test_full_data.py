"""The full public data sets, from tiny files of exactly their formats: read right, nothing leaks.

And bad files: each ends in one sentence that names the file and what was expected.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from harness import data
from harness.errors import DataError
from harness.localdata import LocalFolder
from harness.workload import Array, Optimizer, Scale, Workload
from tests.workers import answer, finished
from workloads.bert import data as bert
from workloads.bert import sst2
from workloads.lstm_eta import data as lstm_eta
from workloads.lstm_eta import tlc
from workloads.recommender import movielens
from workloads.resnet50 import imagenet, tfrecords

Sizes = dict[str, int]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that EPOCHMARK_DATA names."""
    monkeypatch.setenv("EPOCHMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EPOCHMARK_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


# Files of exactly the formats


def jpeg(pixels: Array) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=95)
    return content.getvalue()


def ramp(width: int, height: int, level: int) -> NDArray[np.uint8]:
    """Brighter from left to right, each picture in its own green."""
    across = np.linspace(0, 255, width).astype(np.uint8)
    red = np.broadcast_to(across, (height, width))
    green = np.full((height, width), level, np.uint8)
    return np.stack([red, green, red], axis=-1)


KINDS = ("n01440764", "n01443537")
TRAIN = ((300, 260), (200, 400), (320, 240), (256, 256), (500, 375))
IMAGENET: Sizes = {"classes": 2, "train_examples": 5, "test_examples": 2}


def photos() -> dict[str, bytes]:
    """Three and two pictures for training, one of each kind for validation, by their paths."""
    found = {}
    for number, size in enumerate(TRAIN):
        kind = KINDS[number // 3]
        found[f"train/{kind}/{kind}_{number}.JPEG"] = jpeg(ramp(*size, 40 * number))
    for number, kind in enumerate(KINDS):
        found[f"val/{kind}/ILSVRC2012_val_0000000{number}.JPEG"] = jpeg(ramp(280, 300, number))
    return found


def imagenet_folder(root: Path) -> Path:
    for name, content in photos().items():
        path = root / "imagenet" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root / "imagenet"


def varint(value: int) -> bytes:
    rest, low = divmod(value, 128)
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(features: Mapping[str, bytes | int]) -> bytes:
    """The message tf.train.Example."""
    entries = b""
    for name, value in features.items():
        is_bytes = isinstance(value, bytes)
        values = field(1, value if isinstance(value, bytes) else varint(value))
        feature = field(1 if is_bytes else 3, values)
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def record(message: bytes) -> bytes:
    return len(message).to_bytes(8, "little") + b"crc1" + message + b"crc2"


def imagenet_records(root: Path) -> Path:
    """The same pictures as `imagenet_folder`, two files for training and one for validation."""
    version = root / "imagenet2012" / "5.1.0"
    version.mkdir(parents=True)
    sides: dict[str, list[bytes]] = {"train": [], "val": []}
    for name, content in photos().items():
        side, kind, file = name.split("/")
        label = KINDS.index(kind)
        message = example({"file_name": file.encode(), "image": content, "label": label})
        sides[side].append(record(message))
    parts = {
        "train.tfrecord-00000-of-00002": sides["train"][:3],
        "train.tfrecord-00001-of-00002": sides["train"][3:],
        "validation.tfrecord-00000-of-00001": sides["val"],
    }
    for name, records in parts.items():
        (version / f"imagenet2012-{name}").write_bytes(b"".join(records))
    return root / "imagenet2012"


PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", '"', "a", "bad", "film", "good", "\u2028"]
SENTENCES = {
    "train.tsv": [('a " good film ', 1), ("bad ", 0), ("good ", 1), ("a bad bad film ", 0)],
    "dev.tsv": [("a bad film", 0), ("good", 1)],
}
SST2: Sizes = {"train_examples": 4, "test_examples": 2, "sequence_length": 6}


def sst2_folder(root: Path) -> Path:
    """The two files, and the vocabulary as its package unpacks it."""
    (root / "sst2").mkdir()
    for name, rows in SENTENCES.items():
        lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in rows)]
        (root / "sst2" / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (root / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return root


MONTHS = ("2019-01", "2019-02")
TLC: Sizes = {"first_month": 201901, "months": 2}


def trip_table(month: str, count: int, seed: int) -> pd.DataFrame:
    """Trips within four days, many under way at once, many ending in the same second.

    From zone 4 to 7 and back, and within zone 5.
    """
    random = np.random.RandomState(seed)
    begin = np.datetime64(f"{month}-01T00:00:00", "us")
    pickup = random.randint(0, 4 * tlc.DAY_S, count)
    end = (pickup + random.randint(60, 7200, count)) // 300 * 300 + 300
    pair = random.randint(0, 3, count)
    return pd.DataFrame(
        {
            "VendorID": 1,
            "tpep_pickup_datetime": begin + pickup.astype("timedelta64[s]"),
            "tpep_dropoff_datetime": begin + end.astype("timedelta64[s]"),
            "passenger_count": 1.0,
            "trip_distance": random.randint(1, 900, count) / 100,
            "PULocationID": np.array([4, 7, 5])[pair],
            "DOLocationID": np.array([7, 4, 5])[pair],
        }
    )


def tlc_folder(root: Path) -> Path:
    (root / "tlc").mkdir()
    for number, month in enumerate(MONTHS):
        table = trip_table(month, 300, number)
        table.to_parquet(root / "tlc" / f"yellow_tripdata_{month}.parquet", index=False)
    return root / "tlc"


def rating_table() -> pd.DataFrame:
    """Six users with 20 of 40 films each, several of them at the user's last second.

    The second user has the films that the first has not, so that none is missing.
    """
    random = np.random.RandomState(0)
    shuffles = [random.permutation(40) for _ in range(5)]
    rows = []
    for user, shuffle in enumerate([shuffles[0][::-1], *shuffles], start=1):
        films = 100 * (shuffle[:20] + 1)
        times = np.minimum(random.randint(0, 1000, 20), 850)
        stars = random.randint(1, 11, 20) / 2
        rows += list(zip([user] * 20, films, stars, times, strict=True))
    return pd.DataFrame(rows, columns=["userId", "movieId", "rating", "timestamp"])


ML20M: Sizes = {"users": 6, "items": 40, "negatives": 3, "test_negatives": 5}


def movielens_folder(root: Path) -> Path:
    (root / "ml-20m").mkdir()
    rating_table().to_csv(root / "ml-20m" / "ratings.csv", index=False)
    return root / "ml-20m"


@pytest.fixture(autouse=True)
def tiny_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bert, "VOCABULARY_SIZE", len(PIECES))


CASES: dict[str, tuple[Any, Callable[[Path], Path], Callable[[Path], Any], Sizes]] = {
    "imagenet": (imagenet, imagenet_folder, imagenet.decode_folder, IMAGENET),
    "imagenet2012": (imagenet, imagenet_records, imagenet.decode_records, IMAGENET),
    "sst2": (sst2, sst2_folder, sst2.decode, SST2),
    "tlc": (tlc, tlc_folder, tlc.decode, TLC),
    "ml-20m": (movielens, movielens_folder, movielens.decode, ML20M),
}


def prepared(root: Path, case: str, **sizes: int) -> dict[str, Array]:
    module, write, decode, usual = CASES[case]
    arrays: dict[str, Array] = module.prepare(decode(write(root)), usual | sizes)
    return arrays


# What holds for all of them


@pytest.mark.parametrize("case", CASES)
def test_preparing_again_gives_the_same_digest(root: Path, case: str) -> None:
    module, write, decode, sizes = CASES[case]
    folder = write(root)
    arrays = module.prepare(decode(folder), sizes)
    assert data.digest(module.prepare(decode(folder), sizes)) == data.digest(arrays)
    assert all(type(array) is np.ndarray for array in arrays.values())


@pytest.mark.parametrize("case", CASES)
def test_batches_are_full_typed_and_shuffled_by_seed_and_epoch(root: Path, case: str) -> None:
    module, arrays = CASES[case][0], prepared(root, case)

    def epoch(seed: int, epoch: int) -> list[tuple[Array, Array]]:
        return list(module.batches(arrays, batch_size=2, seed=seed, epoch=epoch))

    first = epoch(0, 0)
    held_out = module.test_inputs(arrays, 0, 2)
    batches = module.batches(arrays, batch_size=2, seed=0, epoch=0)
    assert len(first) == len(batches) > 0
    # A pipeline reads by number, in any order and more than once.
    for number in reversed(range(len(batches))):
        assert all(map(np.array_equal, batches[number], first[number]))
    for inputs, targets in first:
        assert inputs.shape == held_out.shape
        assert inputs.dtype == held_out.dtype
        assert len(targets) == 2
        assert targets.dtype in (np.int32, np.float32)
    text = [pickle.dumps(epoch(seed, number)) for seed, number in ((0, 0), (0, 1), (1, 0))]
    assert pickle.dumps(first) == text[0]
    assert len(set(text)) == 3


@pytest.mark.parametrize("case", CASES)
def test_held_out_inputs_can_be_read_in_any_pieces(root: Path, case: str) -> None:
    module, arrays = CASES[case][0], prepared(root, case)
    count = len(arrays["test_targets"])
    whole = module.test_inputs(arrays, 0, count)
    assert len(whole) == count
    pieces = [module.test_inputs(arrays, start, start + 7) for start in range(0, count, 7)]
    assert np.concatenate(pieces).tolist() == whole.tolist()
    assert len(module.test_inputs(arrays, count - 1, count + 5)) == 1


def workload(case: str, digest: str) -> Workload:
    """A workload whose one scale names the data module."""
    module, sizes = CASES[case][0], CASES[case][3]
    package, _, name = module.__name__.rpartition(".")
    scale = Scale(
        batch_size=2, eval_batch_size=2, epochs=1, sizes=sizes, architecture=None, input_shape=(1,),
        input_dtype="float32", data_digest=digest, quality_bounds=(0, 1), baseline=("", 0.0),
        optimizer=Optimizer("SGD", {}), tolerances={}, parameters=1, forward_flops=1,
        training_flops=1, data=name,
    )  # fmt: skip
    return Workload(
        name="toy", version="1.0.0", title="", example="", quality_metric="", quality_unit="",
        higher_is_better=True, scales={"full": scale}, module=package,
    )  # fmt: skip


@pytest.mark.parametrize("case", [case for case in CASES if case != "sst2"])
def test_the_harness_caches_the_prepared_arrays_and_leaves_the_folder_alone(
    root: Path, case: str
) -> None:
    arrays = prepared(root, case)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    declared = workload(case, data.digest(arrays))
    assert data.fetch(declared, "full").digest == data.digest(arrays)
    assert data.load(declared, "full").arrays.keys() == arrays.keys()
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


MISSING = [
    ("imagenet", "train/*/*.JPEG and imagenet/val/*/*.JPEG", "non-commercial research"),
    ("sst2", "train.tsv and sst2/dev.tsv", "no licence stated"),
    ("tlc", "yellow_tripdata_*.parquet", "public"),
    ("ml-20m", "ratings.csv", "no commercial use without permission"),
]


@pytest.mark.parametrize(("name", "layout", "licence"), MISSING)
def test_missing_data_is_told_with_layout_origin_and_licence(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, layout: str, licence: str
) -> None:
    module = CASES[name][0]
    folder = module.FOLDER
    assert licence in folder.licence
    wanted = f"expected {name}/{layout} from {folder.origin} ({folder.licence})"

    def reason() -> str:
        with pytest.raises(DataError) as error:
            data.fetch(workload(name, "0" * 64), "full")
        # The harness shortens long reasons and hides this machine's paths: nothing may be lost.
        assert f"({wanted.removeprefix('expected ')}" not in str(error.value)
        found = re.search(r"folder \((.*?)\)(?:; |\.$)", str(error.value))
        assert found is not None
        return found.group(1)

    assert reason() == f"EPOCHMARK_DATA has no folder {name!r}; {wanted}"
    (root / name).mkdir()
    first = folder.layout[0]
    assert reason() == f"{name!r} in EPOCHMARK_DATA has no {first}; {wanted}"
    monkeypatch.setenv("EPOCHMARK_DATA", str(root / "nowhere"))
    assert reason() == f"the folder that EPOCHMARK_DATA names is not there; {wanted}"
    monkeypatch.delenv("EPOCHMARK_DATA")
    assert reason() == f"EPOCHMARK_DATA names no folder; {wanted}"


@pytest.mark.parametrize("folder", [imagenet.FOLDER, imagenet.RECORDS, sst2.FOLDER])
def test_each_part_of_a_layout_is_looked_for(root: Path, folder: LocalFolder) -> None:
    first, second = (root / folder.name / pattern.replace("*", "x") for pattern in folder.layout)
    first.parent.mkdir(parents=True)
    first.touch()
    with pytest.raises(DataError) as error:
        folder.into(root)
    assert f"has no {folder.layout[1]}; expected " in str(error.value)
    assert len(str(error.value)) <= 200  # what the harness keeps of a reason
    second.parent.mkdir(parents=True, exist_ok=True)
    second.touch()
    folder.into(root)


def refused(root: Path, case: str, sentence: str, **sizes: int) -> None:
    """Decoding or preparing ends with exactly this."""
    module, _, decode, usual = CASES[case]
    folder = root if case == "sst2" else root / case
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        module.prepare(decode(folder), usual | sizes)


# ImageNet


def test_pictures_are_labelled_by_their_folders_in_order(root: Path) -> None:
    arrays = prepared(root, "imagenet")
    assert arrays["train_labels"].tolist() == [0, 0, 0, 1, 1]
    assert arrays["test_targets"].tolist() == [0, 1]
    names = [imagenet.name_of(arrays, "train", row) for row in range(5)]
    assert names == [f"imagenet/{name}" for name in photos() if name.startswith("train/")]
    assert {array.dtype.name for array in arrays.values()} == {"uint8", "int64", "int32"}


def test_records_hold_the_same_pictures_as_folders(root: Path) -> None:
    folder, records = prepared(root, "imagenet"), prepared(root, "imagenet2012")
    assert records["train_labels"].tolist() == folder["train_labels"].tolist()
    whole = imagenet.test_inputs(folder, 0, 2)
    assert imagenet.test_inputs(records, 0, 2).tolist() == whole.tolist()
    one, other = (
        imagenet.batches(arrays, batch_size=5, seed=0, epoch=0)[0][0]
        for arrays in (folder, records)
    )
    assert one.tolist() == other.tolist()
    name = imagenet.name_of(records, "train", 3)
    assert name.startswith("imagenet2012/5.1.0/imagenet2012-train.tfrecord-00001-of-00002#")


def test_the_newest_version_of_the_records_is_read(root: Path) -> None:
    folder = imagenet_records(root)
    for other, newest in (("5.0.0", "5.1.0"), ("10.0.0", "10.0.0")):
        (folder / "5.1.0").rename(folder / other)
        imagenet_records(root)
        assert f"/{newest}/" in imagenet.decode_records(folder).train.names[0]


def test_a_grey_pictures_values_are_known(root: Path) -> None:
    folder = imagenet_folder(root)
    grey = jpeg(np.full((300, 400, 3), 128, np.uint8))
    for path in folder.rglob("*.JPEG"):
        path.write_bytes(grey)
    arrays = imagenet.prepare(imagenet.decode_folder(folder), IMAGENET)
    # 128 of 255, less the mean, in standard deviations, of red, green and blue.
    expected = [
        (128 / 255 - mean) / std
        for mean, std in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
    ]
    inputs, _ = imagenet.batches(arrays, batch_size=5, seed=0, epoch=0)[0]
    for found in (inputs, imagenet.test_inputs(arrays, 0, 2)):
        assert found.shape[1:] == (224, 224, 3)
        np.testing.assert_allclose(found.reshape(-1, 3).max(axis=0), expected, rtol=1e-5)
        np.testing.assert_allclose(found.reshape(-1, 3).min(axis=0), expected, rtol=1e-5)


def test_evaluation_cuts_out_the_middle_of_the_short_side_at_256() -> None:
    pixels = np.zeros((256, 448, 3), np.uint8)
    pixels[16:240, 112:336] = 255
    assert np.asarray(imagenet.middle(Image.fromarray(pixels))).min() == 255
    half = Image.fromarray(pixels).resize((224, 128), Image.Resampling.NEAREST)
    cut = np.asarray(imagenet.middle(half))
    assert cut.shape == (224, 224, 3)
    assert cut[4:-4, 4:-4].min() == 255
    tall = imagenet.middle(Image.fromarray(pixels.transpose(1, 0, 2)))
    assert np.asarray(tall).min() == 255


def test_crops_stay_within_the_picture_and_the_allowed_shapes() -> None:
    shares, ratios = [], []
    for seed in range(500):
        left, top, right, bottom = imagenet.crop_box(500, 400, np.random.default_rng(seed))
        assert 0 <= left < right <= 500
        assert 0 <= top < bottom <= 400
        shares.append((right - left) * (bottom - top) / (500 * 400))
        ratios.append((right - left) / (bottom - top))
    assert 0.078 < min(shares) < 0.12
    assert 0.9 < max(shares) <= 1
    assert 0.74 < min(ratios) < 0.77
    assert 1.3 < max(ratios) < 1.35


def test_a_strip_that_no_crop_fits_gives_its_middle() -> None:
    random = np.random.default_rng(0)
    # 10 high allows 13 wide, from 494 of the 988 places to the right of the first one.
    assert imagenet.crop_box(1000, 10, random) == (494, 0, 507, 10)
    assert imagenet.crop_box(10, 1000, random) == (0, 494, 10, 507)
    assert imagenet.crop_box(1, 1, random) == (0, 0, 1, 1)


def test_about_half_of_the_pictures_are_mirrored() -> None:
    image = Image.fromarray(ramp(300, 300, 0))
    rising = 0
    for seed in range(40):
        row = np.asarray(imagenet.augmented(image, np.random.default_rng(seed)))[100, :, 0]
        steps = np.diff(row.astype(int))
        assert (steps >= 0).all() or (steps <= 0).all()
        rising += bool(row[-1] > row[0])
    assert 10 < rising < 30


def test_a_crop_does_not_depend_on_the_batch(root: Path) -> None:
    arrays = prepared(root, "imagenet")

    def pictures(batch_size: int) -> list[bytes]:
        found = imagenet.batches(arrays, batch_size=batch_size, seed=3, epoch=1)
        return [picture.tobytes() for inputs, _ in found for picture in inputs]

    assert pictures(1) == pictures(5)


def test_every_picture_is_cropped_anew_in_every_epoch(root: Path) -> None:
    folder = imagenet_folder(root)
    for path in folder.rglob("*.JPEG"):
        path.write_bytes(photos()["val/n01440764/ILSVRC2012_val_00000000.JPEG"])
    arrays = imagenet.prepare(imagenet.decode_folder(folder), IMAGENET)
    crops = {
        picture.tobytes()
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
        for inputs, _ in imagenet.batches(arrays, batch_size=5, seed=seed, epoch=epoch)
        for picture in inputs
    }
    assert len(crops) == 15


def test_a_png_or_cmyk_file_under_the_jpeg_name_is_read(root: Path) -> None:
    """ImageNet has one of the former and 22 of the latter."""
    folder = imagenet_folder(root)
    files = sorted(folder.glob("val/*/*.JPEG"))
    Image.new("RGB", (300, 300), (10, 20, 30)).save(files[0], "PNG")
    Image.new("CMYK", (300, 300), (0, 0, 0, 0)).save(files[1], "JPEG")
    arrays = imagenet.prepare(imagenet.decode_folder(folder), IMAGENET)
    pixels = imagenet.test_inputs(arrays, 0, 2) * imagenet.PIXEL_STD + imagenet.PIXEL_MEAN
    np.testing.assert_allclose(pixels[0, 0, 0], [10, 20, 30], atol=1e-3)
    np.testing.assert_allclose(pixels[1, 0, 0], [255, 255, 255], atol=1e-3)


@pytest.mark.parametrize("content", [b"", b"<html>", jpeg(ramp(300, 300, 0))[:2000], None])
def test_a_damaged_picture_is_named_when_its_batch_is_made(
    root: Path, content: bytes | None
) -> None:
    arrays = prepared(root, "imagenet")
    for side, name in (("train", "n01443537/n01443537_4"), ("val", f"{KINDS[0]}/ILSVRC2012_val_")):
        (path,) = (root / "imagenet" / side).glob(f"{name[:9]}/{name[10:]}*.JPEG")
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)

    def read(pictures: Iterable[Any]) -> str:
        with pytest.raises(DataError) as error:
            list(pictures)
        return str(error.value)

    expected = "cannot be read, expected a whole JPEG picture"
    training = imagenet.batches(arrays, batch_size=1, seed=0, epoch=0)
    assert read(training) == f"imagenet/train/n01443537/n01443537_4.JPEG {expected}"
    held_out = (imagenet.test_inputs(arrays, at, at + 1) for at in range(2))
    assert read(held_out) == f"imagenet/val/{KINDS[0]}/ILSVRC2012_val_00000000.JPEG {expected}"


def test_a_data_folder_that_is_gone_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = prepared(root, "imagenet")
    monkeypatch.delenv("EPOCHMARK_DATA")
    with pytest.raises(DataError, match=r"^EPOCHMARK_DATA names no folder$"):
        imagenet.test_inputs(arrays, 0, 1)


def test_a_picture_folder_of_the_wrong_layout_is_refused(root: Path) -> None:
    folder = imagenet_folder(root)
    refused(root, "imagenet", "imagenet for training has 5 pictures, expected 9", train_examples=9)
    refused(
        root, "imagenet", "imagenet for training has pictures of 2 kinds, expected 1000",
        classes=1000,
    )  # fmt: skip
    (folder / "val" / KINDS[1]).rename(folder / "val" / "n09999999")
    refused(
        root, "imagenet",
        "'n01443537' is a folder in only one of imagenet/train and imagenet/val, "
        "expected the same ones in both",
    )  # fmt: skip
    for kind in (KINDS[0], "n09999999"):  # the pictures right in the folder, as they are unpacked
        for path in (folder / "val" / kind).iterdir():
            path.rename(folder / "val" / path.name)
        (folder / "val" / kind).rmdir()
    refused(
        root, "imagenet",
        "imagenet/val holds no folders, expected one of *.JPEG files for each kind",
    )  # fmt: skip


def test_a_kind_without_pictures_is_refused(root: Path) -> None:
    for path in (imagenet_folder(root) / "val" / KINDS[1]).iterdir():
        path.rename(path.with_suffix(".txt"))
    refused(root, "imagenet", f"imagenet/val/{KINDS[1]} holds no pictures, expected *.JPEG files")


def test_damaged_records_are_refused(root: Path) -> None:
    folder = imagenet_records(root)
    path = folder / "5.1.0" / "imagenet2012-validation.tfrecord-00000-of-00001"
    name = f"imagenet2012/5.1.0/{path.name}"
    whole = path.read_bytes()
    second = whole.index(b"crc2") + 4
    path.write_bytes(whole[:-10])
    refused(
        root, "imagenet2012", f"{name} breaks off at byte {second}, expected a whole TFRecord file"
    )
    path.write_bytes(b"<html>an error page instead of a file</html>")
    refused(root, "imagenet2012", f"{name} breaks off at byte 0, expected a whole TFRecord file")
    no_label = record(example({"image": b"x"}))
    for message in (no_label, record(b"\xff" * 9), record(b""), record(b"\x0a\x7f")):
        path.write_bytes(message)
        refused(
            root, "imagenet2012",
            f"the record at byte 12 of {name} is another, expected an image with its label",
        )  # fmt: skip
    path.write_bytes(b"")
    refused(root, "imagenet2012", "imagenet2012 for validation has 0 pictures, expected 2")


def test_a_label_outside_the_range_is_refused(root: Path) -> None:
    folder = imagenet_records(root)
    path = folder / "5.1.0" / "imagenet2012-validation.tfrecord-00000-of-00001"
    for label, told in ((2, 2), (2**64 - 1, 2**31 - 1)):  # -1 is kept as the latter
        messages = [example({"label": number, "image": b"x"}) for number in (0, label)]
        path.write_bytes(b"".join(map(record, messages)))
        refused(
            root, "imagenet2012",
            f"imagenet2012 for validation has the label {told}, expected 0 to 1",
        )  # fmt: skip


def test_numbers_of_records_are_read_to_the_last_bit(tmp_path: Path) -> None:
    content = b"x" * 300
    messages = [example({"label": label, "image": content}) for label in (0, 127, 128, 999)]
    path = tmp_path / "some.tfrecord"
    path.write_bytes(b"".join(map(record, messages)))
    found = tfrecords.pictures(path, path.name)
    assert [picture.label for picture in found] == [0, 127, 128, 999]
    for picture in found:
        assert path.read_bytes()[picture.begin : picture.begin + picture.size] == content


@pytest.mark.frameworks
def test_records_of_tensorflows_own_writer_are_read_as_tensorflow_reads_them(root: Path) -> None:
    folder, version = imagenet_folder(root), root / "imagenet2012" / "5.1.0"
    done = finished("tfrecord_child", str(folder), str(version), backend="tensorflow")
    read = answer(done)
    assert sorted(len(pictures) for pictures in read.values()) == [2, 2, 3]
    for name, pictures in read.items():
        content = (version / name).read_bytes()
        assert pictures == [
            [picture.label, sha256(content[picture.begin :][: picture.size]).hexdigest()]
            for picture in tfrecords.pictures(version / name, name)
        ]
    arrays = imagenet.prepare(imagenet.decode_records(root / "imagenet2012"), IMAGENET)
    whole = imagenet.prepare(imagenet.decode_folder(folder), IMAGENET)
    assert arrays["train_labels"].tolist() == whole["train_labels"].tolist()
    assert imagenet.test_inputs(arrays, 0, 2).tolist() == imagenet.test_inputs(whole, 0, 2).tolist()


# SST-2


def test_sentences_become_known_pieces(root: Path) -> None:
    arrays = prepared(root, "sst2")
    # [CLS] is 2, [SEP] 3, the quote 5, then a, bad, film and good.
    assert arrays["train_inputs"].tolist() == [
        [2, 6, 5, 9, 8, 3],
        [2, 7, 3, 0, 0, 0],
        [2, 9, 3, 0, 0, 0],
        [2, 6, 7, 7, 8, 3],
    ]
    assert arrays["test_inputs"].tolist() == [[2, 6, 7, 8, 3, 0], [2, 9, 3, 0, 0, 0]]
    assert arrays["train_targets"].tolist() == [1, 0, 1, 0]
    assert arrays["test_targets"].tolist() == [0, 1]


def test_the_vocabulary_is_that_of_the_other_scales() -> None:
    assert sst2.VOCABULARY in bert.SOURCES[0].files
    assert sst2.VOCABULARY.members[0].endswith("/vocab.txt")


def test_bad_sentences_are_refused(root: Path) -> None:
    sst2_folder(root)
    train, dev = root / "sst2" / "train.tsv", root / "sst2" / "dev.tsv"
    whole = train.read_text()
    dev.write_text("sentence\tlabel\n")
    refused(root, "sst2", "sst2/dev.tsv has 0 sentences, expected 2")
    train.write_text(whole.replace("bad \t0", "bad \t2"))
    refused(root, "sst2", "line 3 of sst2/train.tsv has the label '2', expected 0 or 1")
    train.write_text(whole.replace("bad \t0", "bad "))
    refused(root, "sst2", "line 3 of sst2/train.tsv has 1 columns, expected 2")
    train.write_text(whole.replace("\tlabel", "\tscore"))
    refused(root, "sst2", "sst2/train.tsv has no column 'label', expected sentence and label")
    train.write_text("")
    refused(root, "sst2", "sst2/train.tsv has no column 'sentence', expected sentence and label")
    train.write_bytes("sentence\tlabel\ncaf\xe9\t1\n".encode("latin-1"))
    refused(root, "sst2", "sst2/train.tsv cannot be read, expected tab-separated text in UTF-8")


def test_a_vocabulary_of_another_size_is_refused(root: Path) -> None:
    (sst2_folder(root) / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    refused(root, "sst2", f"vocab.txt has 2 pieces, expected {len(PIECES)}")


# Taxi trips


def all_trips() -> pd.DataFrame:
    """The trips of all months, with their ends in seconds, as the files have them."""
    table = pd.concat([trip_table(month, 300, n) for n, month in enumerate(MONTHS)])
    times = {"pickup": "tpep_pickup_datetime", "end": "tpep_dropoff_datetime"}
    for name, column in times.items():
        table[name] = (table[column].to_numpy("datetime64[s]") - tlc.EPOCH).astype(np.int64)
    table["seconds"] = table["end"] - table["pickup"]
    table["hundredths"] = np.rint(table["trip_distance"] * 100).astype(np.int64)
    return table.reset_index(drop=True)


def test_the_shapes_are_those_of_the_network() -> None:
    assert tlc.SEQUENCE_FEATURES == lstm_eta.SEQUENCE_FEATURES
    assert tlc.STATIC_FEATURES == lstm_eta.STATIC_FEATURES


def test_a_trips_sequence_is_its_pairs_last_48_that_had_ended(root: Path) -> None:
    """Against a slow reference that goes through all trips for each one."""
    arrays, table = prepared(root, "tlc"), all_trips()
    mean, std, far, wide = arrays["moments"]
    assert len(arrays["pickup"]) == len(table)
    rows = np.arange(0, len(table), 3)
    packed = tlc.inputs(arrays, rows)
    split = tlc.SEQUENCE_LENGTH * tlc.SEQUENCE_FEATURES
    lengths = set()
    for row, found in zip(rows, packed, strict=True):
        pickup, seconds = int(arrays["pickup"][row]), int(arrays["seconds"][row])
        (trip,) = table[
            (table["pickup"] == pickup)
            & (table["end"] == pickup + seconds)
            & (table["hundredths"] == arrays["distance"][row])
        ].itertuples()
        known = table[
            (table["PULocationID"] == trip.PULocationID)
            & (table["DOLocationID"] == trip.DOLocationID)
            & (table["end"] < trip.pickup)
        ].sort_values(["end", "seconds", "hundredths"])
        last = known[-tlc.SEQUENCE_LENGTH :]
        lengths.add(len(last))
        angle = last["pickup"].to_numpy() % tlc.DAY_S * (2 * np.pi / tlc.DAY_S)
        expected = np.zeros((tlc.SEQUENCE_LENGTH, tlc.SEQUENCE_FEATURES))
        expected[tlc.SEQUENCE_LENGTH - len(last) :] = np.stack(
            [
                np.ones(len(last)),
                (last["seconds"].to_numpy() - mean) / std,
                (last["hundredths"].to_numpy() - far) / wide,
                np.minimum((trip.pickup - last["pickup"].to_numpy()) / tlc.DAY_S, 1),
                np.sin(angle),
                np.cos(angle),
            ],
            axis=-1,
        )
        np.testing.assert_allclose(found[:split].reshape(expected.shape), expected, atol=1e-5)
        means = [0.0, 0.0]
        if len(known):
            means = [(known["seconds"].mean() - mean) / std]
            means.append((known["hundredths"].mean() - far) / wide)
        static = [(trip.hundredths - far) / wide, float(len(known) > 0), *means]
        np.testing.assert_allclose(found[split : split + 4], static, atol=1e-5)
    assert {0, tlc.SEQUENCE_LENGTH} < lengths


def test_a_trip_that_ends_at_the_pickup_is_not_known_yet(root: Path) -> None:
    folder = tlc_folder(root)
    times = [("10:00:00", "10:10:00"), ("10:10:00", "10:30:00"), ("10:10:01", "10:40:00")]
    day = "2019-01-05"
    table = pd.DataFrame(
        {
            "tpep_pickup_datetime": pd.to_datetime([f"{day} {begin}" for begin, _ in times]),
            "tpep_dropoff_datetime": pd.to_datetime([f"{day} {end}" for _, end in times]),
            "PULocationID": 100, "DOLocationID": 200, "trip_distance": [1.0, 2.0, 3.0],
        }
    )  # fmt: skip
    table.to_parquet(folder / "yellow_tripdata_2019-01.parquet", index=False)
    arrays = tlc.prepare(tlc.decode(folder), TLC)
    rows = arrays["train_rows"]
    assert arrays["distance"][rows].tolist() == [100, 200, 300]
    assert (arrays["known"] - arrays["first"])[rows].tolist() == [0, 0, 1]
    assert arrays["mean_seconds"][rows].tolist() == [0, 0, 600]
    assert arrays["mean_distance"][rows].tolist() == [0, 0, 100]


def test_time_of_day_and_of_week_lie_on_a_circle(root: Path) -> None:
    arrays = prepared(root, "tlc")
    # Thursday 1 January 2009, the epoch, at 6:00; and the Monday after it at noon.
    pickup = np.array([6 * 3600, 4 * tlc.DAY_S + 12 * 3600])
    day = tlc.inputs(arrays | {"pickup": np.resize(pickup, 600)}, np.array([0, 1]))[:, -4:]
    np.testing.assert_allclose(day[:, :2], [[1, 0], [0, -1]], atol=1e-6)
    angle = 4 / 7 * 2 * np.pi
    np.testing.assert_allclose(day[:, 2:], [[0, 1], [np.sin(angle), np.cos(angle)]], atol=1e-6)


def test_trips_are_split_by_time_and_those_under_way_left_out(root: Path) -> None:
    folder = tlc_folder(root)
    path = folder / "yellow_tripdata_2019-01.parquet"
    table = pd.read_parquet(path)
    late = table.tpep_pickup_datetime.index[0]
    table.loc[late, "tpep_pickup_datetime"] = pd.Timestamp("2019-01-31 23:50:00")
    table.loc[late, "tpep_dropoff_datetime"] = pd.Timestamp("2019-02-01 00:10:00")
    table.to_parquet(path, index=False)
    arrays = tlc.prepare(tlc.decode(folder), TLC)
    pickup, seconds = arrays["pickup"].astype(np.int64), arrays["seconds"].astype(np.int64)
    boundary = int((np.datetime64("2019-02-01T00:00:00", "s") - tlc.EPOCH).astype(np.int64))
    train, test = arrays["train_rows"], arrays["test_rows"]
    assert (pickup + seconds)[train].max() <= boundary <= pickup[test].min()
    assert len(train) == 299
    assert len(test) == 300
    mean, std = arrays["moments"][:2]
    assert mean == pytest.approx(seconds[train].mean())
    assert std == pytest.approx(seconds[train].std())
    np.testing.assert_allclose(arrays["test_targets"], (seconds[test] - mean) / std, rtol=1e-6)
    fewer = tlc.prepare(tlc.decode(folder), TLC | {"train_examples": 20, "test_examples": 10})
    assert len(fewer["train_rows"]) == 20
    assert set(fewer["test_rows"]) < set(test)
    assert len(fewer["test_targets"]) == 10


def test_the_files_order_of_trips_makes_no_difference(root: Path) -> None:
    folder = tlc_folder(root)
    digest = data.digest(tlc.prepare(tlc.decode(folder), TLC))
    for path in folder.iterdir():
        pd.read_parquet(path)[::-1].to_parquet(path, index=False)
    assert data.digest(tlc.prepare(tlc.decode(folder), TLC)) == digest


BEGIN = pd.Timestamp("2019-02-03 10:00:00")
INVALID: list[dict[str, Any]] = [
    {"tpep_dropoff_datetime": BEGIN},
    {"tpep_dropoff_datetime": BEGIN - pd.Timedelta(seconds=1)},
    {"tpep_dropoff_datetime": BEGIN + pd.Timedelta(hours=3, seconds=1)},
    {"tpep_pickup_datetime": pd.Timestamp("2019-01-31 23:59:59")},
    {"tpep_pickup_datetime": pd.Timestamp("2008-12-31 10:00:00")},
    {"tpep_pickup_datetime": pd.NaT},
    {"trip_distance": 0.0},
    {"trip_distance": 0.004},
    {"trip_distance": -1.0},
    {"trip_distance": 100.1},
    {"trip_distance": np.nan},
    {"PULocationID": 264},
    {"DOLocationID": 265},
    {"DOLocationID": 0},
]


def test_what_is_no_trip_is_left_out(root: Path) -> None:
    folder = tlc_folder(root)
    trip: dict[str, Any] = {
        "tpep_pickup_datetime": BEGIN,
        "tpep_dropoff_datetime": BEGIN + pd.Timedelta(hours=3),
        "PULocationID": 263, "DOLocationID": 1, "trip_distance": 100.0,
    }  # fmt: skip
    table = pd.DataFrame([trip, *(trip | change for change in INVALID)])
    table.to_parquet(folder / "yellow_tripdata_2019-02.parquet", index=False)
    arrays = tlc.prepare(tlc.decode(folder), TLC)
    (row,) = arrays["test_rows"]
    assert (arrays["seconds"][row], arrays["distance"][row]) == (10_800, 10_000)


def test_errors_are_in_minutes_and_the_line_is_the_best_one(root: Path) -> None:
    arrays = prepared(root, "tlc")
    train, test = arrays["train_rows"], arrays["test_rows"]
    mean, std = arrays["moments"][:2]
    right = arrays["test_targets"][:, np.newaxis]
    assert tlc.quality(arrays, right)["mae_minutes"] == pytest.approx(0, abs=1e-4)
    found = tlc.quality(arrays, (right + 120 / std).astype(np.float32))
    assert found["mae_minutes"] == pytest.approx(2, abs=1e-4)
    line = np.polyfit(arrays["distance"][train], arrays["seconds"][train].astype(float), 1)
    error = np.polyval(line, arrays["distance"][test]) - arrays["seconds"][test]
    assert found["distance_mae_minutes"] == pytest.approx(np.abs(error).mean() / 60)
    assert mean == pytest.approx(arrays["seconds"][train].mean())


def test_bad_trip_files_are_refused(root: Path) -> None:
    folder = tlc_folder(root)
    january = folder / "yellow_tripdata_2019-01.parquet"
    whole = pd.read_parquet(january)
    refused(
        root,
        "tlc",
        "tlc has no yellow_tripdata_2019-03.parquet, expected a file for each month",
        months=3,
    )
    refused(root, "tlc", "months is 1, expected 2 or more, the last one for tests", months=1)
    sentence = "test_examples is 301, expected 1 to 300, all that there are"
    refused(root, "tlc", sentence, test_examples=301)
    whole.drop(columns="DOLocationID").to_parquet(january)
    refused(
        root, "tlc",
        "tlc/yellow_tripdata_2019-01.parquet has no column 'DOLocationID', expected "
        "tpep_pickup_datetime, tpep_dropoff_datetime, PULocationID, DOLocationID, trip_distance",
    )  # fmt: skip
    whole[:0].to_parquet(january)
    file = "tlc/yellow_tripdata_2019-01.parquet"
    refused(root, "tlc", f"{file} holds no valid trip, expected those of its month")
    for column, value in (("trip_distance", "far"), ("tpep_pickup_datetime", "yesterday")):
        whole.assign(**{column: value}).to_parquet(january)
        refused(
            root, "tlc",
            f"{file} has columns of another type, expected times under tpep_pickup_datetime and "
            "tpep_dropoff_datetime, numbers under PULocationID, DOLocationID, trip_distance",
        )  # fmt: skip
    whole.tail(1).assign(
        tpep_pickup_datetime=pd.Timestamp("2019-01-31 23:59:00"),
        tpep_dropoff_datetime=pd.Timestamp("2019-02-01 00:09:00"),
    ).to_parquet(january)
    refused(root, "tlc", "no trip in tlc ends before the last month, expected some for training")
    january.write_bytes(b"PAR1, but not really")
    refused(
        root, "tlc",
        "tlc/yellow_tripdata_2019-01.parquet cannot be read, expected a whole Parquet file",
    )  # fmt: skip


# MovieLens


def pairs(arrays: Mapping[str, Array]) -> list[tuple[int, int, int]]:
    """User, item and half stars of every training rating."""
    found = []
    for user, (begin, end) in enumerate(
        zip(arrays["train_offsets"], arrays["train_offsets"][1:], strict=False)
    ):
        for row in range(begin, end):
            found.append((user, int(arrays["train_items"][row]), int(arrays["train_halves"][row])))
    return found


def test_each_users_last_rating_is_held_out_and_no_other(root: Path) -> None:
    arrays, table = prepared(root, "ml-20m"), rating_table()
    films = sorted(set(table["movieId"]))
    assert len(films) == ML20M["items"]
    train = pairs(arrays)
    held_out = list(
        zip(range(6), arrays["test_items"][:, 0].tolist(), arrays["test_targets"][::6], strict=True)
    )
    numbers = [films.index(film) for film in table["movieId"]]
    halves = (2 * table["rating"]).astype(int)
    expected = set(zip(table["userId"] - 1, numbers, halves, strict=True))
    assert set(train) | set(held_out) == expected
    assert len(train) + 6 == len(expected)
    tied = 0
    for user, item, _ in held_out:
        own = table[table["userId"] == user + 1]
        last = own[own["timestamp"] == own["timestamp"].max()]
        assert films[item] in set(last["movieId"])
        tied += len(last) > 1
    assert tied  # there are ties to break


def test_ties_are_broken_the_same_way_in_any_order_of_the_file(root: Path) -> None:
    digest = data.digest(prepared(root, "ml-20m"))
    table = rating_table()[::-1]
    assert data.digest(movielens.prepare(table, ML20M)) == digest


def test_held_out_items_are_ranked_against_unrated_ones(root: Path) -> None:
    # All 20 unrated films of each user, so that a rated one could not stay out.
    arrays, table = prepared(root, "ml-20m", test_negatives=20), rating_table()
    films = sorted(set(table["movieId"]))
    for user, items in enumerate(arrays["test_items"].tolist()):
        rated = {films.index(film) for film in table[table["userId"] == user + 1]["movieId"]}
        assert items[0] in rated
        assert sorted(items[1:]) == sorted(set(range(40)) - rated)
    inputs = movielens.test_inputs(arrays, 19, 23)
    flat = arrays["test_items"].reshape(-1)
    assert inputs.tolist() == [[0, flat[19]], [0, flat[20]], [1, flat[21]], [1, flat[22]]]


def test_an_epoch_has_every_rating_with_fresh_unrated_films(root: Path) -> None:
    arrays = prepared(root, "ml-20m")
    train = pairs(arrays)
    observed = {(user, item) for user, item, _ in train}
    negatives = []
    for epoch in (0, 1):
        batches = list(movielens.batches(arrays, batch_size=1, seed=0, epoch=epoch))
        examples = [(*inputs[0].tolist(), *targets[0].tolist()) for inputs, targets in batches]
        positive = [row for row in examples if row[2] == 1]
        assert sorted((user, item, round(9 * r) + 1) for user, item, _, r in positive) == train
        drawn = [row for row in examples if row[2] == 0]
        assert {row[3] for row in drawn} == {-1.0}
        assert not observed & {(user, item) for user, item, *_ in drawn}
        users = np.bincount([user for user, *_ in drawn])
        assert users.tolist() == [3 * 19] * 6
        negatives.append([(user, item) for user, item, *_ in drawn])
    assert sorted(negatives[0]) != sorted(negatives[1])


def test_looking_up_in_sorted_keys_agrees_with_a_set() -> None:
    keys = np.array([2, 3, 7, 11])
    wanted = np.arange(-1, 14)
    assert movielens.contains(keys, wanted).tolist() == [w in {2, 3, 7, 11} for w in wanted]


def test_drawn_films_are_uniform_over_the_unrated_ones() -> None:
    keys = np.array([0, 1, 2, 5 + 4])  # user 0 rated 0, 1 and 2 of five films, user 1 film 4
    users = np.repeat(np.array([0, 1], np.int32), 4000)
    drawn = movielens.unrated(users, keys, 5, np.random.default_rng(0))
    counts = [np.bincount(drawn[users == user], minlength=5) for user in (0, 1)]
    assert counts[0][:3].tolist() == [0, 0, 0]
    assert counts[0][3:] == pytest.approx([2000, 2000], abs=150)
    assert counts[1] == pytest.approx([1000, 1000, 1000, 1000, 0], abs=150)


def test_user_and_item_keys_do_not_overflow() -> None:
    """138,493 users of 26,744 items need more than 32 bits."""
    users = np.full(8, 138_492, np.int32)
    keys = 138_492 * np.int64(26_744) + np.arange(26_000)
    drawn = movielens.unrated(users, keys, 26_744, np.random.default_rng(0))
    assert (drawn >= 26_000).all()


def test_ranking_quality_has_known_answers_and_ties_count_against(root: Path) -> None:
    arrays = prepared(root, "ml-20m", test_negatives=20)
    arrays["test_targets"][::21] = 10  # five stars

    def quality(rank: int) -> dict[str, float]:
        scores = np.zeros((6, 21, 2), np.float32)
        scores[:, 1 : 1 + rank, 0] = 2
        scores[:, 0, 0] = 1
        scores[:, :, 1] = 1 - 2 / 9  # four stars
        return movielens.quality(arrays, scores.reshape(-1, 2))

    assert quality(0) == {
        "hit_rate_at_10": 1, "ndcg_at_10": 1, "rating_rmse": pytest.approx(1, abs=1e-6),
    }  # fmt: skip
    assert quality(1)["ndcg_at_10"] == pytest.approx(1 / np.log2(3))
    assert quality(9)["hit_rate_at_10"] == 1
    assert quality(10)["hit_rate_at_10"] == 0
    same = movielens.quality(arrays, np.ones((126, 2), np.float32))
    assert same["hit_rate_at_10"] == 0


def test_half_a_star_is_0_and_five_are_1() -> None:
    found = movielens.scaled(np.array([1, 2, 10], np.uint8))
    np.testing.assert_allclose(found, [0, 1 / 9, 1])


def test_a_quoted_header_is_read_as_any_other(root: Path) -> None:
    path = movielens_folder(root) / "ratings.csv"
    plain = movielens.decode(path.parent)
    header, rows = path.read_text().split("\n", 1)
    quoted = ",".join(f'"{name}"' for name in header.split(","))
    path.write_text(f"{quoted}\n{rows}")
    pd.testing.assert_frame_equal(movielens.decode(path.parent), plain)


def test_bad_ratings_are_refused(root: Path) -> None:
    path = movielens_folder(root) / "ratings.csv"
    whole = path.read_text()
    file = "ml-20m/ratings.csv"
    refused(root, "ml-20m", f"{file} has 6 users, expected 138493", users=138_493)
    refused(root, "ml-20m", f"{file} has 40 items, expected 26744", items=26_744)
    refused(root, "ml-20m", "negatives is -1, expected 0 or more", negatives=-1)
    sentence = f"a user of {file} left 20 items unrated, expected 21 or more"
    refused(root, "ml-20m", sentence, test_negatives=21)
    wanted = "userId, movieId, rating, timestamp"
    path.write_text(whole.replace("timestamp", "time"))
    refused(root, "ml-20m", f"{file} has no column 'timestamp', expected {wanted}")
    path.write_text("")
    refused(root, "ml-20m", f"{file} has no column 'userId', expected {wanted}")
    path.write_bytes(b"PK\x03\x04\xff\xfe a zip")
    refused(root, "ml-20m", f"{file} cannot be read, expected numbers under {wanted}")
    path.write_text(whole + "7,100,four,1\n")
    refused(root, "ml-20m", f"{file} cannot be read, expected numbers under {wanted}")
    path.write_text(whole + "6,100,5.5,1\n")
    refused(root, "ml-20m", f"{file} has the rating 5.5, expected 0.5 to 5 in halves")
    path.write_text(whole.splitlines()[0] + "\n")
    refused(root, "ml-20m", f"{file} has 0 users, expected 6")
