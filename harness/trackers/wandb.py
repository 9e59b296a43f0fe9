"""Writes runs into a folder as Weights & Biases' offline runs, which `wandb sync` uploads."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import wandb
from wandb.proto.wandb_internal_pb2 import Record as Entry

from harness.trackers import PROJECT, Record

BLOCK = 32768


class Writer:
    """The offline runs of one folder. Nothing of the exporting machine is written."""

    def __init__(self, path: str) -> None:
        """Make the folder."""
        self._folder = Path(path).resolve()
        self._folder.mkdir(parents=True, exist_ok=True)

    def add(self, record: Record) -> bool:
        """Write a run wholly, in place of a half of it; False when all of it is there already."""
        there = list((self._folder / "wandb").glob(f"offline-run-*-{record.id}"))
        if any(complete(folder / f"run-{record.id}.wandb") for folder in there):
            return False
        for half in there:
            shutil.rmtree(half)
        self._create(record)
        return True

    def _create(self, record: Record) -> None:
        settings = wandb.Settings(
            console="off", disable_git=True, save_code=False, silent=True, host="",
            x_disable_meta=True, x_save_requirements=False, x_disable_stats=True,
            x_start_time=record.started_s,
        )  # fmt: skip
        with wandb.init(
            mode="offline", dir=self._folder, project=PROJECT, group=record.session, id=record.id,
            name=record.name, config={**record.params, "epochmark": dict(record.tags)},
            tags=[record.tags["status"]], settings=settings,
        ) as run:  # fmt: skip
            for point in record.epochs:
                run.log({**point.values, "_timestamp": point.ended_s}, step=point.step)
            run.summary.update(dict(record.metrics))
            for name, text in record.artifacts.items():
                file = Path(run.dir) / name
                file.write_text(text, encoding="utf-8")
                run.save(file, base_path=run.dir, policy="now")
            run.finish(exit_code=0 if record.ok else 1)


def entries(file: Path) -> Iterator[Entry]:
    """What a run's file holds, up to a torn end.

    The client has no reader. After 7 bytes of head the format is LevelDB's log: blocks of 32 KiB
    of pieces, each with checksum, length and kind (1 whole, 2 first, 3 middle, 4 last).
    """
    content, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        piece = content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind not in (1, 2, 3, 4) or len(piece) < length:
            return
        parts = piece if kind in (1, 2) else parts + piece
        if kind in (1, 4):
            yield Entry.FromString(parts)


def complete(file: Path) -> bool:
    """Whether the run was ended: its exit is written last."""
    return file.exists() and any(entry.HasField("exit") for entry in entries(file))
