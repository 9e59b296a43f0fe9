"""Fetches, checks, caches and loads the workloads' data; knows no workload by name.

`fetch` tries a workload's sources in order and caches the prepared arrays; `load` only reads the
cache, so a worker never touches the network.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness.cache import cache_folder
from harness.downloads import Download
from harness.errors import DataError, unknown
from harness.workload import Array, Scale, Workload

SOURCE_KEY = "_source"  # beside the arrays in the cache file; not part of the digest


@dataclass(frozen=True)
class Source:
    """One place the data can come from; `decode` reads the folder of unpacked files."""

    name: str
    files: tuple[Download, ...]
    decode: Callable[[Path], Any]


@dataclass(frozen=True)
class Loaded:
    """Prepared arrays, with the name of the source they came from."""

    arrays: Mapping[str, Array]
    source: str
    digest: str


@dataclass(frozen=True)
class DataStatus:
    """What the cache holds for one workload and scale; unknown fields are None."""

    state: Literal["present", "missing", "damaged"]
    source: str | None = None
    digest: str | None = None
    size_bytes: int | None = None


def fetch(
    workload: Workload, scale: str, *, force: bool = False, log: Callable[[str], None] | None = None
) -> Loaded:
    """The data from the cache, else from the first source that gives the declared arrays."""
    _scale(workload, scale)
    if not force and status(workload, scale).state == "present":
        return load(workload, scale)
    reasons = []
    for source in workload.data(scale).SOURCES:
        if log is not None:
            log(f"Fetching the data of {workload.name!r} from {source.name}.")
        # Other people's files can fail to decode in any way, and the next source may be good.
        try:
            loaded = _from_source(source, workload, scale)
        except Exception as error:
            plain = isinstance(error, DataError | ValueError)
            reason = str(error) if plain else f"{type(error).__name__}: {error}"
            reasons.append(f"{source.name} ({_short(reason)})")
            if log is not None:
                log(f"No data from {reasons[-1]}.")
        else:
            _save(loaded, cache_folder() / _cache_name(workload, scale))
            return loaded
    raise DataError(
        f"No source gave the data of {workload.name!r} at scale {scale!r}: {'; '.join(reasons)}."
    )


def load(workload: Workload, scale: str) -> Loaded:
    """The data from the cache only; raises DataError when it is missing, damaged or different."""
    declared, name = _scale(workload, scale), _cache_name(workload, scale)
    subject = f"The data of {workload.name!r} at scale {scale!r}"
    fetching = f"epochmark data fetch {workload.name}"
    path = cache_folder() / name
    if not path.is_file():
        raise DataError(f"{subject} is not on this machine. Fetch it with `{fetching}`.")
    again = f"Fetch it again with `{fetching} --force`."
    try:
        loaded = _read(path)
    except Exception as error:  # a torn or altered zip can fail in any of its layers
        where = f"{name!r} in the cache folder cannot be read"
        raise DataError(f"{subject} is damaged: {where}. {again}") from error
    if declared.data_digest not in ("", loaded.digest):
        differs = f"has digest {loaded.digest[:16]!r}, not {declared.data_digest[:16]!r}"
        where = f"{name!r} in the cache folder {differs}"
        raise DataError(f"{subject} is damaged: {where}. {again}")
    return loaded


def status(workload: Workload, scale: str) -> DataStatus:
    """What the cache holds; never fetches."""
    _scale(workload, scale)
    path = cache_folder() / _cache_name(workload, scale)
    if not path.is_file():
        return DataStatus("missing")
    size = path.stat().st_size
    try:
        loaded = load(workload, scale)
    except DataError:
        return DataStatus("damaged", size_bytes=size)
    return DataStatus("present", loaded.source, loaded.digest, size)


def digest(arrays: Mapping[str, Array]) -> str:
    """SHA-256 over the sorted names with type, shape and C-order bytes."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes(order="C"))
    return total.hexdigest()


def check_size(sizes: Mapping[str, int], key: str, available: int) -> int:
    """The size under `key`; raises ValueError when the data has fewer examples."""
    if not 0 < sizes[key] <= available:
        raise ValueError(f"{key} is {sizes[key]}, expected 1 to {available}, all that there are")
    return sizes[key]


def _short(reason: str) -> str:
    """A reason on one short line, without this machine's paths or a server's address."""
    line = " ".join(re.sub(r"\(from -r .*?\(line \d+\)\)", "", reason).split())
    line = re.sub(r"\w+://\S+|(?<!\w)(?:/[\w.~+-]+){2,}/?", "...", line)
    return (line if len(line) <= 200 else line[:197] + "...").rstrip(" .")


def _scale(workload: Workload, scale: str) -> Scale:
    if scale not in workload.scales:
        raise unknown("scale", scale, list(workload.scales), where=workload.name)
    return workload.scales[scale]


def _cache_name(workload: Workload, scale: str) -> str:
    declared = workload.scales[scale]
    # Where no digest is pinned, the data of other sizes must not be taken for these.
    sizes = hashlib.sha256(repr(sorted(declared.sizes.items())).encode()).hexdigest()
    return f"data/{workload.name}-{scale}-{(declared.data_digest or sizes)[:16]}.npz"


def _from_source(source: Source, workload: Workload, scale: str) -> Loaded:
    declared = workload.scales[scale]
    with tempfile.TemporaryDirectory() as folder:
        for file in source.files:
            file.into(Path(folder))
        raw = source.decode(Path(folder))
    arrays = workload.data(scale).prepare(raw, declared.sizes)
    actual = digest(arrays)
    if declared.data_digest not in ("", actual):
        expected = declared.data_digest[:16]
        raise DataError(f"its data has digest {actual}, declared is {expected!r}")
    return Loaded(arrays, source.name, actual)


def _save(loaded: Loaded, path: Path) -> None:
    note = {SOURCE_KEY: np.array(json.dumps({"source": loaded.source}))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # On the same disk, so that the rename is atomic: readers see the old file or the new.
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            whole = Path(scratch, path.name)
            np.savez(whole, allow_pickle=False, **loaded.arrays, **note)
            whole.replace(path)
    except OSError as error:
        remedy = "Set EPOCHMARK_CACHE to a folder that can be written"
        raise DataError(f"The cache folder refused a file: {error.strerror}. {remedy}.") from error


def _read(path: Path) -> Loaded:
    # Opened here: numpy leaves a file that is no zip open when it raises.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    source: str = json.loads(str(arrays.pop(SOURCE_KEY)))["source"]
    return Loaded(arrays, source, digest(arrays))
