"""The one file that writes and reads results files. Knows the record, not how it is measured.

A file is only ever appended to, by its own session; `harness.schema_json` says what a line is.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from itertools import count
from pathlib import Path
from typing import Any

from harness.errors import ResultsError, UsageError
from harness.schema import Run, Session
from harness.schema_json import (
    InvalidLineError,
    decode,
    encode,
    figures_of,
    run_of,
    session_of,
)

LATEST = "latest"


@dataclass(frozen=True)
class ResultsFile:
    """A results file as read: `altered` are the ids of runs whose digest does not match.

    `figures` are the metrics of each run, in the same order, computed from its samples.
    `broken` counts the lines that could not be used, a cut-off last line not among them.
    """

    path: Path
    session: Session
    runs: tuple[Run, ...]
    figures: tuple[dict[str, float], ...]
    notices: tuple[str, ...]
    altered: frozenset[str]
    broken: int


class SessionWriter:
    """Appends one session's runs to its file; every line is on the disk before `append` returns.

    The file is locked while the writer is open, so that nobody resumes a session that still runs.
    """

    def __init__(self, results: Path, session: Session) -> None:
        """Create the session's file, with its header; an existing file is never overwritten."""
        line = encode(session)
        try:
            self._open(_create(_folder(results, session), _stem(session)), session.session)
            _append(self._file.fileno(), line)
        except OSError as error:
            raise _unwritable(results, error) from error

    @classmethod
    def resume(cls, path: Path) -> SessionWriter:
        """Go on with an unfinished session's file; a cut-off last line is removed first."""
        found = read_file(path)
        writer = cls.__new__(cls)
        try:
            writer._open(path, found.session.session)
            notice = _mend(path, writer._file.fileno())
        except OSError as error:
            raise _unwritable(path, error) from error
        writer.notices = (notice,) if notice else ()
        return writer

    def _open(self, path: Path, session: str) -> None:
        self.path = path
        self.session = session
        self.notices: tuple[str, ...] = ()
        self._file = path.open("ab", buffering=0)
        try:
            flock(self._file, LOCK_EX | LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise ResultsError(
                f"{spelled(path)} is being written by another Epochmark. Wait until it ends."
            ) from error

    def append(self, run: Run) -> None:
        """Write one run, wholly or not at all; raises ResultsError when it cannot be."""
        if run.session != self.session:
            raise ResultsError(
                f"Run {run.run!r} belongs to session {run.session!r} and cannot be written to "
                f"{spelled(self.path)}, which holds session {self.session!r}."
            )
        try:
            _append(self._file.fileno(), encode(run))
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> SessionWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_writable(results: Path) -> None:
    """Raise ResultsError unless runs can be stored there; creates the folder."""
    try:
        folder = results / "runs"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(results, error) from error


def spelled(path: Path) -> str:
    """A path for a message: as it was given, or relative to the working folder if inside it."""
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def results_files(results: Path, wanted: Sequence[str] = ()) -> list[Path]:
    """The results files, oldest first.

    `wanted` names files (by path or name) or session ids; `latest` is the newest file.
    """
    found = sorted((results / "runs").glob("*/*.jsonl"), key=lambda path: (path.stem, str(path)))
    if wanted:
        chosen = {path for name in wanted for path in _named(name, found, results)}
        return sorted(chosen, key=lambda path: (path.stem, str(path)))
    if not found:
        raise ResultsError(
            f"There are no results in {spelled(results)!r}. "
            "Measure some with `epochmark run --plan quick`."
        )
    return found


def write_json(path: Path, fields: Mapping[str, Any]) -> None:
    """Write a file of one strict JSON object, whole or not at all: others may read it meanwhile.

    Raises OSError where it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(fields, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    new.replace(path)


def read_file(path: Path) -> ResultsFile:
    """Read and validate one results file; what is wrong with single lines becomes a notice."""
    return parse_file(path, read_content(path))


def read_content(path: Path) -> bytes:
    """A results file's bytes; raises ResultsError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ResultsError(f"{spelled(path)} cannot be read: {error.strerror}.") from error


def parse_file(path: Path, content: bytes) -> ResultsFile:
    """What `read_file` does, for a file whose content was read already."""
    lines = content.split(b"\n")
    reader = _Reader(path)
    last = max((number for number, line in enumerate(lines, 1) if line.strip()), default=0)
    for number, line in enumerate(lines, 1):
        if line.strip():
            reader.take(number, line, is_last=number == last)
    return reader.finish()


class _Reader:
    """Gathers a file's lines into a ResultsFile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = spelled(path)
        self.session: Session | None = None
        self.runs: list[Run] = []
        self.figures: list[dict[str, float]] = []
        self.notices: list[str] = []
        self.altered: set[str] = set()
        self.broken = 0

    def take(self, number: int, line: bytes, *, is_last: bool) -> None:
        try:
            self._record(number, line)
        except InvalidLineError as problem:
            self._skip(number, str(problem))
        except ValueError:
            if is_last and self.session is not None:
                self.notices.append(_torn(self.name))
            else:
                self._skip(number, "it is not strict JSON")

    def _record(self, number: int, line: bytes) -> None:
        if self.session is None:
            self.session, intact = session_of(line, self.name)
            mark = ", the session's header, was changed after it was written."
        else:
            run, intact = run_of(line, self.session, self.name)
            self.figures.append(figures_of(run))
            self.runs.append(run)
            mark = " was changed after it was written; its row is marked."
            if not intact:
                self.altered.add(run.run)
        if not intact:
            self.notices.append(f"line {number} of {self.name}{mark}")

    def _skip(self, number: int, problem: str) -> None:
        if self.session is None:
            raise ResultsError(
                f"{self.name} does not start with a session's header (line {number}: {problem}). "
                "Restore it from the commit that added it, or move it out of the results folder."
            )
        self.broken += 1
        self.notices.append(f"line {number} of {self.name} was skipped: {problem}.")

    def finish(self) -> ResultsFile:
        if self.session is None:
            raise ResultsError(f"{self.name} is empty. Delete it, or name another file.")
        notices, altered = tuple(self.notices), frozenset(self.altered)
        runs, figures = tuple(self.runs), tuple(self.figures)
        return ResultsFile(self.path, self.session, runs, figures, notices, altered, self.broken)


def _folder(results: Path, session: Session) -> Path:
    machine = re.sub(r"[^\w.-]+", "-", session.environment.machine).strip(".-") or "unnamed"
    folder = results / "runs" / machine
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _stem(session: Session) -> str:
    started = datetime.fromisoformat(session.started_at).astimezone(UTC)
    commit = re.sub(r"\W", "", session.suite_commit)[:7] or "unknown"
    return f"{started:%Y%m%dT%H%M%SZ}-{commit}"


def _create(folder: Path, stem: str) -> Path:
    for attempt in count(1):
        path = folder / (f"{stem}.jsonl" if attempt == 1 else f"{stem}-{attempt}.jsonl")
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            continue
        return path
    raise AssertionError("count() does not end")


def _append(descriptor: int, line: bytes) -> None:
    """Add a line, wholly or not at all: half a line would swallow the next one."""
    before = os.fstat(descriptor).st_size
    try:
        written = 0
        while written < len(line):
            written += os.write(descriptor, line[written:])
    except OSError:
        os.ftruncate(descriptor, before)
        raise
    os.fsync(descriptor)


def _mend(path: Path, descriptor: int) -> str:
    """Make a file end with a whole line; says what was cut off, if anything was."""
    content = path.read_bytes()
    start = content.rstrip().rfind(b"\n") + 1
    try:
        decode(content[start:])
    except ValueError:
        os.ftruncate(descriptor, start)
        return f"{spelled(path)}: the cut-off last line ({len(content) - start} bytes) was removed."
    if not content.endswith(b"\n"):
        _append(descriptor, b"\n")
    return ""


def _torn(name: str) -> str:
    return f"{name}: the last line is cut off (a run that did not finish writing); it was skipped."


def _unwritable(place: Path, error: OSError) -> ResultsError:
    folder = "file" if place.suffix == ".jsonl" else "folder"
    return ResultsError(
        f"The results {folder} {spelled(place)!r} cannot be written: {error.strerror}. "
        "Name another with --results."
    )


def _named(name: str, found: Sequence[Path], results: Path) -> list[Path]:
    path = Path(name)
    if path.is_file():
        return [path]
    if name == LATEST and found:
        return [found[-1]]
    chosen = [path for path in found if name in (path.name, path.stem)]
    chosen = chosen or [path for path in found if _session_id(path) == name]
    if not chosen:
        latest = f" The latest is {found[-1].stem}." if found else ""
        raise UsageError(
            f"Unknown results file or session {name!r} in {spelled(results)!r}.{latest}"
        )
    return chosen


def _session_id(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return str(decode(file.readline()).fields.get("session", ""))
    except (OSError, ValueError):
        return ""
