"""Data sets that nobody may pass on: read from a folder of the user's, named by EPOCHMARK_DATA.

Nothing is copied. Errors name files from that folder on, so that no record holds a machine's paths.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DataError

VARIABLE = "EPOCHMARK_DATA"


def data_folder() -> Path:
    """The folder that EPOCHMARK_DATA names; raises DataError when there is none."""
    chosen = os.environ.get(VARIABLE)
    if not chosen:
        raise DataError(f"{VARIABLE} names no folder")
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        raise DataError(f"the folder that {VARIABLE} names is not there")
    return folder


@dataclass(frozen=True)
class LocalFolder:
    """A data set's own folder in EPOCHMARK_DATA; stands among the files of a `Source`.

    `layout` are patterns within it, each of which some file must match. `origin` says where the
    data set comes from, `licence` on what terms.
    """

    name: str
    layout: tuple[str, ...]
    origin: str
    licence: str

    def into(self, folder: Path) -> None:
        """Only looks whether the files are there: `decode` reads them where they lie."""
        found = self.path()
        for pattern in self.layout:
            if next(found.glob(pattern), None) is None:
                raise DataError(f"{self.name!r} in {VARIABLE} has no {pattern}; {self._wanted()}")

    def path(self) -> Path:
        """The folder itself; raises DataError when it is not there."""
        try:
            found = data_folder() / self.name
        except DataError as error:
            raise DataError(f"{error}; {self._wanted()}") from None
        if not found.is_dir():
            raise DataError(f"{VARIABLE} has no folder {self.name!r}; {self._wanted()}")
        return found

    def _wanted(self) -> str:
        files = " and ".join(f"{self.name}/{pattern}" for pattern in self.layout)
        return f"expected {files} from {self.origin} ({self.licence})"
