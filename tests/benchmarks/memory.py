"""The peak memory of a plain Keras training, for the worker's to be held against.

`python -m tests.benchmarks.memory WORKLOAD` trains as a script of a page would: one import,
the model compiled with the declared optimiser, `train_on_batch` over the declared epochs,
`predict_on_batch` after each. It prints the bytes of its own peak.
"""

from __future__ import annotations

import sys

from harness import data
from harness.probes import peak_resident_bytes
from harness.registry import workload


def trained(name: str) -> None:
    """All declared epochs of the workload at scale smoke."""
    import keras

    declared = workload(name)
    scale = declared.scales["smoke"]
    arrays = data.load(declared, "smoke").arrays
    module, made = declared.model(), declared.data("smoke")
    model = module.functional(scale)
    kind = getattr(keras.optimizers, scale.optimizer.name)
    model.compile(optimizer=kind(**scale.optimizer.arguments), loss=module.loss(scale))
    for epoch in range(scale.epochs):
        batches = made.batches(arrays, batch_size=scale.batch_size, seed=0, epoch=epoch)
        for number in range(len(batches)):
            model.train_on_batch(*batches[number])
        size = scale.eval_batch_size
        for start in range(0, len(arrays["test_targets"]) - size + 1, size):
            model.predict_on_batch(made.test_inputs(arrays, start, start + size))


if __name__ == "__main__":
    trained(sys.argv[1])
    print(peak_resident_bytes())
