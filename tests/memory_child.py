"""Makes what a GPU's frameworks raise, of their real classes, and prints which is out of memory.

Started as `python -m tests.memory_child BACKEND`; the last line of its output is JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from harness.backends import backend


def made(name: str) -> dict[str, BaseException]:
    """By what it is; the texts are those of the frameworks' sources and of reports of users."""
    if name == "torch":
        import torch

        driver: Any = torch.AcceleratorError
        return {
            "allocator": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            "driver": driver("CUDA error: out of memory\nCUDA kernel errors might be", 2),
            "cublas": RuntimeError(
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
            ),
            "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
            "other: assert": driver("CUDA error: device-side assert triggered", 710),
            "other: cublas": RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when"),
        }
    if name == "tensorflow":
        import tensorflow as tf

        internal, exhausted = tf.errors.InternalError, tf.errors.ResourceExhaustedError
        return {
            "allocator": exhausted(None, None, "OOM when allocating tensor with shape[1,2]"),
            "driver": internal(
                None, None, "Failed call to cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY: out of memory"
            ),
            "cublas": internal(None, None, "Failed: CUBLAS_STATUS_ALLOC_FAILED"),
            "copy": internal(None, None, "Dst tensor is not initialized."),
            "other: launch": internal(None, None, "CUDA_ERROR_LAUNCH_FAILED: unspecified"),
            "other: shape": tf.errors.InvalidArgumentError(None, None, "Out of memory of shapes"),
        }
    import jax

    error = jax.errors.JaxRuntimeError
    return {
        "allocator": error("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 2 bytes."),
        "compiler": error("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory"),
        "driver": error("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
        "cublas": error("INTERNAL: the library was not initialized: CUBLAS_STATUS_ALLOC_FAILED"),
        "other: launch": error("INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access"),
    }


def main() -> None:
    framework = backend(sys.argv[1])
    found = {what: framework.is_out_of_memory(one) for what, one in made(sys.argv[1]).items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
