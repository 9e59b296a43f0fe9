"""Tries out a backend on the processor with faults planted in it, one after the other.

Started as `python -m tests.device_faults BACKEND`; the last line of its output is JSON, what was
shown by the fault's name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np

from harness import device_child, probes
from harness.backends import Backend, backend


@contextmanager
def replaced(place: Any, name: str, by: Any) -> Iterator[None]:
    before = getattr(place, name)
    setattr(place, name, by)
    try:
        yield
    finally:
        setattr(place, name, before)


def rounded(array: Any) -> Any:
    """To the ten bits behind the point that TensorFloat-32 keeps."""
    from keras import ops

    bits = np.asarray(ops.convert_to_numpy(array)).view(np.uint32)
    kept = (bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)
    return ops.convert_to_tensor(kept.view(np.float32))


def coarse(function: Callable[..., Any]) -> Callable[..., Any]:
    def computed(one: Any, other: Any, **options: Any) -> Any:
        return function(rounded(one), rounded(other), **options)

    return computed


def main() -> None:
    from keras import ops

    framework: Backend = backend(sys.argv[1])
    module: Any = framework
    plain = device_child.tried(framework, "cpu", "float32")
    steps = {"given_s", "waited_s", "read_s", "flops"}
    found = {"none": asdict(plain)}

    def note(fault: str, changed: dict[str, Any]) -> None:
        found[fault] = asdict(plain) | changed

    with replaced(ops, "matmul", coarse(ops.matmul)):
        note("product", {"product_error": device_child.product_error()})
    with replaced(ops, "conv", coarse(ops.conv)):
        note("convolution", {"convolution_error": device_child.convolution_error()})
    with replaced(module.FitTrainer, "synchronise", lambda self, result: None):
        width = device_child.WIDTHS["cpu"]
        shown = device_child.awaited(framework, width, jit=True)
        assert shown.keys() == steps
        note("waiting", shown)
    with replaced(probes, "peak_resident_bytes", lambda: 10**6):
        note("allocator's peak", device_child.allocated(framework, "cpu"))
    with replaced(module, "is_out_of_memory", lambda error: False):
        note("out of memory", device_child.refused(framework))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
