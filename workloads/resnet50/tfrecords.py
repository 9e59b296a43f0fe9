"""Finds the pictures in TFRecord files as TFDS writes them, without TensorFlow.

A record is its message's size (8 bytes, low byte first), a checksum (4), the message and another
checksum (4). The message is a protocol buffer, `tf.train.Example`: a map of names to lists of one
value. Checksums are left alone: a picture that is cut off does not decode, but a changed byte can
go unseen, as in a folder of pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

SIZE_BYTES, CHECKSUM_BYTES = 8, 4
DELIMITED = 2  # the wire type of everything in an Example: a size, then so many bytes


@dataclass(frozen=True)
class Picture:
    """The bytes of one encoded picture within its file, and its label."""

    begin: int
    size: int
    label: int


def pictures(path: Path, name: str) -> list[Picture]:
    """Every picture of the file, in order; raises ValueError, with the name, for another kind."""
    if path.stat().st_size == 0:  # which cannot be mapped
        return []
    # Mapped, so that the pictures themselves are not read.
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return [_picture(content, *span, name) for span in _records(content, name)]


def _records(content: mmap, name: str) -> Iterator[tuple[int, int]]:
    """Begin and end of each message."""
    at = 0
    while at < len(content):
        begin = at + SIZE_BYTES + CHECKSUM_BYTES
        end = begin + int.from_bytes(content[at : at + SIZE_BYTES], "little")
        if end + CHECKSUM_BYTES > len(content):
            raise ValueError(f"{name} breaks off at byte {at}, expected a whole TFRecord file")
        yield begin, end
        at = end + CHECKSUM_BYTES


def _picture(content: mmap, begin: int, end: int, name: str) -> Picture:
    try:
        values = _values(content, begin, end)
        first, last = values[b"image"]
        label, _ = _varint(content, values[b"label"][0])
    except (ValueError, KeyError, IndexError) as error:
        where = f"the record at byte {begin} of {name}"
        raise ValueError(f"{where} is another, expected an image with its label") from error
    return Picture(first, last - first, label)


def _values(content: mmap, begin: int, end: int) -> dict[bytes, tuple[int, int]]:
    """Where the one value of each named feature begins and ends."""
    found = {}
    features = _only(content, begin, end)
    for _, *entry in _fields(content, *features):
        (_, first, last), (_, *value) = _fields(content, *entry)
        # A feature holds a list of one type, the list its values: here one.
        found[content[first:last]] = _only(content, *_only(content, *value))
    return found


def _only(content: mmap, begin: int, end: int) -> tuple[int, int]:
    """Begin and end of a message's only field."""
    ((_, first, last),) = _fields(content, begin, end)
    return first, last


def _fields(content: mmap, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of each field of the message between these bytes."""
    at = begin
    while at < end:
        key, at = _varint(content, at)
        size, at = _varint(content, at)
        if key & 7 != DELIMITED or at + size > end:
            raise ValueError("no field of an Example")
        yield key >> 3, at, at + size
        at += size


def _varint(content: mmap, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, low bits first, and the place behind it."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
