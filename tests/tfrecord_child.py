"""Writes ImageNet's records as TFDS does, with TensorFlow's own writer, and reads them with it.

Started by test_full_data.py as `python -m tests.tfrecord_child FOLDER VERSION`: the pictures in
FOLDER (`train` and `val`) become files in VERSION. Prints, by file, label and SHA-256 of each
picture that `tf.data` finds there, as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import tensorflow as tf


def main() -> None:
    folder, version = Path(sys.argv[1]), Path(sys.argv[2])
    kinds = sorted(path.name for path in (folder / "train").iterdir())
    training = sorted((folder / "train").glob("*/*.JPEG"))
    parts = {
        "train.tfrecord-00000-of-00002": training[:3],
        "train.tfrecord-00001-of-00002": training[3:],
        "validation.tfrecord-00000-of-00001": sorted((folder / "val").glob("*/*.JPEG")),
    }
    version.mkdir(parents=True)
    names = {version / f"imagenet2012-{name}": pictures for name, pictures in parts.items()}
    for path, pictures in names.items():
        write(path, pictures, kinds)
    print(json.dumps({path.name: read(path) for path in names}))


def write(path: Path, pictures: Sequence[Path], kinds: Sequence[str]) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for picture in pictures:
            features = {
                "file_name": several(bytes_list=tf.train.BytesList(value=[picture.name.encode()])),
                "image": several(bytes_list=tf.train.BytesList(value=[picture.read_bytes()])),
                "label": several(
                    int64_list=tf.train.Int64List(value=[kinds.index(picture.parent.name)])
                ),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


def several(**values: Any) -> Any:
    return tf.train.Feature(**values)


def read(path: Path) -> list[tuple[int, str]]:
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = tf.data.TFRecordDataset(str(path)).map(
        lambda record: tf.io.parse_single_example(record, features)
    )
    return [
        (int(found["label"]), sha256(found["image"]).hexdigest())
        for found in parsed.as_numpy_iterator()
    ]


if __name__ == "__main__":
    main()
