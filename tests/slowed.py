"""A copy of the suite in which a workload's step does more work: what `epochmark ab` must find.

The work is real (matrix products in the forward pass and their gradients in the backward pass),
changes no figure, and is as much as the variable WORK says: products of one SIZE x SIZE matrix.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.child import Installation

ROOT = Path(__file__).parents[1]
WORK = "PLANTED_WORK"
SIZE = 64

EXTRA = f'''

import os  # noqa: E402

from keras import layers, ops  # noqa: E402


class ExtraWork(layers.Layer):
    """Products that depend on the input, so that no compiler folds them, and add nothing to it."""

    def call(self, x):
        y = ops.full(({SIZE}, {SIZE}), 0.5) * ops.tanh(ops.cast(ops.mean(x), "float32"))
        for _ in range(int(os.environ.get("{WORK}", "0"))):
            y = ops.tanh(ops.matmul(y, y) / {SIZE} + 0.5)
        return x + ops.cast(0.0 * ops.mean(y), x.dtype)


without_extra_work = functional


def functional(scale):
    model = without_extra_work(scale)
    return keras.Model(model.input, ExtraWork(name="extra")(model.output))
'''


def slowed(folder: Path, workload: str, products: int) -> Installation:
    """A copy of the source tree, made once per folder, whose step does so many products more."""
    if not (folder / "harness").exists():
        for name in ("harness", "workloads"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    model = folder / "workloads" / workload / "model.py"
    source = (ROOT / "workloads" / workload / "model.py").read_text(encoding="utf-8")
    model.write_text(source + EXTRA, encoding="utf-8")
    return Installation(root=folder, variables={WORK: str(products)})
