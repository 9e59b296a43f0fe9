"""The process that tries out one backend on a device, for `epochmark doctor --device`.

Started as `python -m harness.device_child BACKEND DEVICE PRECISION` in a worker's environment; the
last line of its standard output is JSON, the fields of `device_checks.Tried`. It takes the very
functions that a run takes, and judges nothing.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import probes
from harness.backends import Backend, backend
from harness.clock import now
from harness.device_checks import Tried
from harness.environment import cpu_count
from harness.errors import WorkerError

SIDE = 768
"""Of the square matrices whose product is held against that of numpy in double precision."""

LAYERS = 4
# The width of a layer and the examples of a batch; on a processor a thousandth of the work.
WIDTHS = {"cpu": 384, "gpu": 4096, "tpu": 4096}
WARM_STEPS, STEPS = 3, 20

ALLOCATED = {"cpu": 2**27, "gpu": 2**29, "tpu": 2**29}
"""Bytes of the array that the allocator's peak has to show."""

TOO_MANY_NUMBERS = 2**46
"""More than any machine has the memory for."""


def main() -> None:
    name, device, precision = sys.argv[1:]
    print(json.dumps(asdict(tried(backend(name), device, precision))))


def tried(framework: Backend, device: str, precision: str) -> Tried:
    """Everything, or for a precision other than float32 only what it decides."""
    numerics = framework.configure(precision, cpu_count())
    try:
        found = numerics if device == "cpu" else framework.accelerator(device)
    except WorkerError as error:
        return Tried(reason=str(error))
    done = Tried(
        device_kind=found.get("device_kind", ""),
        product_error=product_error(),
        convolution_error=convolution_error(),
    )
    if precision != "float32":
        return done
    done = replace(done, **allocated(framework, device))
    jit = numerics["jit_compile"] == "True"
    done = replace(done, **awaited(framework, WIDTHS[device], jit=jit))
    return replace(done, **refused(framework))


def deviation(found: Any, reference: NDArray[np.float64]) -> float:
    """The root mean square of the difference, as a share of that of the reference."""
    difference = np.asarray(found, dtype=np.float64) - reference
    return float(np.linalg.norm(difference) / np.linalg.norm(reference))


def product_error() -> float:
    """Of a matrix product."""
    from keras import ops

    random = np.random.default_rng(0)
    one, other = (random.standard_normal((SIDE, SIDE), dtype=np.float32) for _ in range(2))
    found = ops.matmul(ops.convert_to_tensor(one), ops.convert_to_tensor(other))
    return deviation(ops.convert_to_numpy(found), one.astype(np.float64) @ other)


def convolution_error() -> float:
    """Of a convolution of 3 by 3, which has switches of its own."""
    from keras import ops

    random = np.random.default_rng(0)
    images = random.standard_normal((4, 16, 16, 128), dtype=np.float32)
    kernel = random.standard_normal((3, 3, 128, 64), dtype=np.float32)
    found = ops.conv(
        ops.convert_to_tensor(images),
        ops.convert_to_tensor(kernel),
        padding="valid",
        data_format="channels_last",
    )
    wide = images.astype(np.float64)
    places = [(row, column) for row in range(3) for column in range(3)]
    reference = sum(wide[:, r : r + 14, c : c + 14] @ kernel[r, c] for r, c in places)
    return deviation(ops.convert_to_numpy(found), np.asarray(reference))


def awaited(framework: Backend, width: int, *, jit: bool) -> dict[str, Any]:
    """How long steps take to be given to the device, to be waited for, and then to be read."""
    import keras

    model = keras.Sequential(
        [keras.Input((width,)), *(keras.layers.Dense(width) for _ in range(LAYERS))]
    )
    # So small a rate that nothing grows without bound.
    optimizer = keras.optimizers.SGD(1e-6)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer=optimizer, loss="mse", jit_compile=jit)
    trainer = framework.fit_trainer(model)
    ones = np.ones((width, width), dtype=np.float32)
    placed = trainer.place((ones, ones))

    def read(result: Any) -> None:
        """A number that the last step has made, and one that its update has."""
        trainer.loss(result)
        trainer.pull()
        keras.ops.convert_to_numpy(model.trainable_variables[0][:1, :1])

    for _ in range(WARM_STEPS):
        result = trainer.step(placed)
        read(result)
    began = now()
    for _ in range(STEPS):
        result = trainer.step(placed)
    given = now()
    trainer.synchronise(result)
    waited = now()
    read(result)
    done = now()
    # Forward, and backward to the weights: the least of a step.
    flops = STEPS * LAYERS * 2 * 2 * width**3
    return {
        "given_s": given - began,
        "waited_s": waited - given,
        "read_s": done - waited,
        "flops": flops,
    }


def allocated(framework: Backend, device: str) -> dict[str, Any]:
    """The allocator's peak before and after an array of known size; of a `cpu`, the process's."""
    from keras import ops

    def peak() -> int | None:
        on_device = device != "cpu"
        return framework.device_peak_bytes() if on_device else probes.peak_resident_bytes()

    framework.reset_device_peak() if device != "cpu" else probes.reset_peak()
    before = peak()
    # A peak that is not reset only shows what goes beyond it.
    size = ALLOCATED[device] + ((before or 0) if device != "cpu" else 0)
    array = ops.ones((size // 4,), dtype="float32")
    ops.convert_to_numpy(array[:1])
    return {"allocated_bytes": size // 4 * 4, "peak_before_bytes": before, "peak_bytes": peak()}


def refused(framework: Backend) -> dict[str, Any]:
    """Whether the backend's error is known for one that says that memory ran out."""
    from keras import ops

    try:
        ops.convert_to_numpy(ops.zeros((TOO_MANY_NUMBERS,), dtype="float32"))
    except Exception as error:
        told = str(error).strip().splitlines() or [""]
        return {
            "refusal": f"{type(error).__name__}: {told[0][:120]}",
            "refusal_known": framework.is_out_of_memory(error),
        }
    return {}


if __name__ == "__main__":
    main()
