"""Input pipelines over an epoch's batches: what `fit` or a hand-written loop reads.

`pydataset` is Keras's own and `tf_data` is TensorFlow's; each works under every backend.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import keras

from harness.batches import Batches
from harness.workload import Batch, Pipeline

PREFETCHED = 2  # batches made ahead of the step that takes them


class _PyDataset(keras.utils.PyDataset):
    def __init__(self, batches: Batches, workers: int) -> None:
        super().__init__(workers=workers, max_queue_size=PREFETCHED * workers)
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Batch:
        return self._batches[number]


def load(declared: Pipeline) -> None:
    """Import what the pipeline needs, before any clock."""
    if declared.kind == "tf_data":
        import_module("tensorflow")


def opened(declared: Pipeline, batches: Batches) -> Any:
    """The data set that `fit` takes: a PyDataset or a tf.data one."""
    if declared.kind == "pydataset":
        return _PyDataset(batches, declared.workers)
    return mapped(batches, declared.workers)


def mapped(batches: Batches, workers: int) -> Any:
    """Batches by number, made in threads of tf.data's and kept in order."""
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        # It makes batches here, and must not take the accelerator's memory.
        tf.config.set_visible_devices([], "GPU")
    first = batches[0]

    def read(number: Any) -> list[Any]:
        return list(batches[int(number)] if number else first)

    def made(number: Any) -> tuple[Any, ...]:
        arrays = tf.numpy_function(read, [number], [array.dtype for array in first])
        pairs = zip(arrays, first, strict=True)
        return tuple(tf.ensure_shape(array, like.shape) for array, like in pairs)

    numbers = tf.data.Dataset.range(len(batches))
    return untuned(numbers.map(made, num_parallel_calls=workers, deterministic=True))


def untuned(dataset: Any) -> Any:
    """The tf.data set with a fixed number of batches prefetched and without the autotuner.

    The autotuner's thread wakes after 10 ms, 20, 40 and so on, and the end of an epoch can wait for
    it: epochs then pile up at 1.27, 2.55, 5.11 and 10.2 s.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(PREFETCHED).with_options(options)


def arrays(dataset: Any) -> Iterator[Batch]:
    """The batches of either kind of data set as numpy arrays, for a loop without TensorFlow."""
    iterate = getattr(dataset, "as_numpy_iterator", dataset.__iter__)
    return iterate()  # type: ignore[no-any-return]
