"""What a machine showed, cell by cell: a JSON file of its own, newer figures in place of older."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from harness.errors import ResultsError
from harness.store import spelled, write_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Entry = TypeVar("Entry", bound="DataclassInstance")


def book(results: Path, name: str) -> Path:
    """The results folder that has the sub-folder: one of one's own, else the project's."""
    return results if (results / name).is_dir() else Path("results")


@dataclass(frozen=True)
class CellBook(Generic[Entry]):
    """The files results/<folder>/<machine>.json; `entry` makes a cell's from its fields.

    It raises ValueError, KeyError or TypeError for fields that are not one. `what` a file holds and
    the command that measures it are told where a file is damaged.
    """

    folder: str
    what: str
    command: str
    entry: Callable[[Mapping[str, Any]], Entry]

    def write(self, results: Path, machine: str, found: Mapping[str, Entry]) -> Path:
        """Add to the machine's file, or make it; returns its path."""
        path = self._path(results, machine)
        merged = {**self.read(results, machine), **found}
        cells = {cell: asdict(merged[cell]) for cell in sorted(merged)}
        write_json(path, {"machine": machine, "cells": cells})
        return path

    def read(self, results: Path, machine: str) -> dict[str, Entry]:
        """What is known of the machine, by cell; nothing where it was not measured.

        Raises ResultsError for a file that is not one of these.
        """
        path = self._path(results, machine)
        if not path.is_file():
            return {}
        try:
            cells: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
            return {cell: self.entry(fields) for cell, fields in cells.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResultsError(
                f"{spelled(path)} is not a file of {self.what}. Delete it, and {self.command}."
            ) from error

    def _path(self, results: Path, machine: str) -> Path:
        return results / self.folder / f"{machine}.json"
