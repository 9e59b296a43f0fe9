"""Results files as one table, a row per run, through a derived columnar cache.

Every metric is computed from the raw samples here, never taken from the file. `harness.columns`
says which columns there are; this module knows where they are cached.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from itertools import repeat
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa

from harness import cells, columns, cost, metrics, options, paths, schema, schema_json, store
from harness.cache import cache_folder
from harness.errors import NewerSchemaError, ResultsError
from harness.store import parse_file, read_content, results_files, spelled

_CHUNK = 64
_MUCH = 32 * 2**20  # bytes: below, starting processes takes longer than they save
_METADATA = b"epochmark"
_SUM = sha256().digest_size
_HERE = "\0"  # stands for the file in stored notices, since how it is spelled is up to the caller


@dataclass(frozen=True)
class Table:
    """One row per run, oldest file first; text columns are categories, absent metrics NaN.

    `notices` tell what was wrong in the files, `broken` counts the lines and files left out.
    """

    frame: pd.DataFrame
    notices: tuple[str, ...]
    broken: int


@dataclass(frozen=True)
class _Part:
    """What one results file contributes."""

    rows: pa.Table
    notices: tuple[str, ...]
    broken: int


@dataclass(frozen=True)
class _Made:
    """What some consecutive files contribute, and what was noted of them in the index."""

    parts: list[_Part]
    failures: list[ResultsError]
    known: dict[str, list[Any]]


def load_table(results: Path, files: Sequence[str] = ()) -> Table:
    """The runs of the wanted results files (names or session ids; none means all).

    Raises ResultsError when no file can be read, NewerSchemaError when one is from a later version.
    """
    paths = results_files(results, files)
    index = _Index(cache_folder() / "tables")
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    failures: list[ResultsError] = []
    parts: list[_Part] = []
    for made in _made(chunks, index):
        parts += made.parts
        failures += made.failures
        index.take(made.known)
    index.save()
    if not parts:
        raise failures[0]
    notices = [notice for part in parts for notice in part.notices]
    return Table(
        _frame([part.rows for part in parts]),
        (*notices, *map(str, failures)),
        sum(part.broken for part in parts) + len(failures),
    )


def _made(chunks: Sequence[Sequence[Path]], index: _Index) -> Iterator[_Made]:
    """Every chunk, in order. Much that is new is read by a process per processor."""
    new = sum(_size(path) for chunk in chunks for path in chunk if not index.digest(path))
    if new < _MUCH or len(chunks) < 2:
        yield from (_chunk(chunk, index) for chunk in chunks)
        return
    # Not forked: Arrow has threads.
    workers = min(len(os.sched_getaffinity(0)), len(chunks))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_chunk, chunks, repeat(index))


def _chunk(paths: Sequence[Path], index: _Index) -> _Made:
    """Consecutive files. When there is nothing to tell about a whole chunk, it is one cached table.

    Opening a table of so many columns takes milliseconds: too long for thousands of small files.
    """
    together = _read_cached(index.folder, index.chunk_key(paths), columns.FILE_SCHEMA)
    if together is not None:
        return _Made([together], [], {})
    parts: list[_Part] = []
    failures: list[ResultsError] = []
    for path in paths:
        try:
            parts.append(_part(path, index))
        except NewerSchemaError:
            raise
        except ResultsError as error:
            failures.append(error)
    if len(parts) == _CHUNK and not any(part.notices for part in parts):
        rows = pa.concat_tables([part.rows for part in parts]).unify_dictionaries()
        parts = [_Part(rows.combine_chunks(), (), 0)]
        _write_cached(index.folder, index.chunk_key(paths), parts[0])
    return _Made(parts, failures, index.noted)


def _part(path: Path, index: _Index) -> _Part:
    part = _read_cached(index.folder, index.digest(path), columns.SCHEMA)
    if part is None:
        stamp = _stamp(path)  # before reading: a file that grows meanwhile is read again next time
        content = read_content(path)
        digest = sha256(content).hexdigest()
        part = _read_cached(index.folder, digest, columns.SCHEMA)
        if part is None:
            part = _parsed(path, content)
            _write_cached(index.folder, digest, part)
        index.note(path, stamp, digest)
    notices = tuple(notice.replace(_HERE, spelled(path)) for notice in part.notices)
    return replace(part, rows=columns.with_file(part.rows, path.name), notices=notices)


def _parsed(path: Path, content: bytes) -> _Part:
    with _without_collection():
        found = parse_file(path, content)
        notices = tuple(notice.replace(spelled(path), _HERE) for notice in found.notices)
        return _Part(columns.rows(found), notices, found.broken)


@contextmanager
def _without_collection() -> Iterator[None]:
    """A file's records are many objects without a cycle: looking for one doubles the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _frame(parts: list[pa.Table]) -> pd.DataFrame:
    # Categories keep a million rows small and quick: each text is stored once.
    joined = pa.concat_tables(parts).unify_dictionaries()
    del parts
    return cast(pd.DataFrame, joined.to_pandas())


class _Index:
    """Remembers the digests of unchanged files: hashing a million runs again takes seconds.

    A file counts as unchanged while its size, modification and status-change times are the same.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "index.json"
        self._known: dict[str, list[Any]] = {}
        self.noted: dict[str, list[Any]] = {}
        with suppress(OSError, ValueError):
            known = json.loads(self._path.read_bytes())
            self._known = known if isinstance(known, dict) else {}

    def digest(self, path: Path) -> str:
        """The digest that a file had when it last looked like this; empty if unknown."""
        known = self._known.get(str(path.absolute()))
        match known:
            case [*stamp, str(digest)] if stamp == _stamp(path):
                return digest
        return ""

    def chunk_key(self, paths: Sequence[Path]) -> str:
        """A digest over the files' names and digests; empty unless all are known."""
        digests = [self.digest(path) for path in paths]
        if len(paths) < _CHUNK or not all(digests):
            return ""
        names = [path.name for path in paths]
        return sha256(json.dumps([names, digests]).encode()).hexdigest()

    def note(self, path: Path, stamp: list[int], digest: str) -> None:
        self.take({str(path.absolute()): [*stamp, digest]})

    def take(self, noted: dict[str, list[Any]]) -> None:
        """What was noted, by this index or a copy of it in another process."""
        self.noted |= noted
        self._known |= noted

    def save(self) -> None:
        if self.noted:
            with suppress(OSError):
                _write_atomically(self._path, json.dumps(self._known).encode())


def _size(path: Path) -> int:
    return next(iter(_stamp(path)), 0)


def _stamp(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


@cache
def _format_version() -> str:
    """A digest of the code that makes a table, so that a change of it needs no number raised."""
    makers = (cells, columns, cost, metrics, options, paths, schema, schema_json, store)
    sources = [module.__file__ or "" for module in makers]
    code = b"".join(Path(source).read_bytes() for source in (*sources, __file__))
    return sha256(code).hexdigest()[:12]


def _cached_path(folder: Path, digest: str) -> Path:
    return folder / f"{digest}-{_format_version()}.arrow"


def _read_cached(folder: Path, digest: str, expected: pa.Schema) -> _Part | None:
    """The stored part, or None when it is not there or not whole."""
    if not digest:
        return None
    try:
        content = _cached_path(folder, digest).read_bytes()
        if sha256(memoryview(content)[_SUM:]).digest() != content[:_SUM]:
            return None
        with pa.ipc.open_file(pa.py_buffer(content).slice(_SUM)) as file:
            rows = file.read_all()
        about = json.loads(rows.schema.metadata[_METADATA])
        rows = rows.replace_schema_metadata(None)
        if not rows.schema.equals(expected) or rows.num_rows != about["rows"]:
            return None
        return _Part(rows, tuple(about["notices"]), about["broken"])
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException):
        return None


def _write_cached(folder: Path, digest: str, part: _Part) -> None:
    """Store a part: Arrow's own format, which for few rows takes a tenth of Parquet's time.

    It has no checksum, so one stands before it.
    """
    if not digest:
        return
    about = {"rows": part.rows.num_rows, "notices": part.notices, "broken": part.broken}
    rows = part.rows.replace_schema_metadata({_METADATA: json.dumps(about)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, rows.schema) as file:
        file.write_table(rows)
    content = sink.getvalue().to_pybytes()
    with suppress(OSError):
        _write_atomically(_cached_path(folder, digest), sha256(content).digest() + content)


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
