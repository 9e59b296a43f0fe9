"""Models that end their process, or their numbers, in the way that the scale names."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from harness.workload import Scale

FOREVER_S = 3600


def loss(scale: Scale) -> keras.losses.Loss:
    return keras.losses.MeanSquaredError()


def allocation() -> None:
    """Ask the backend for more memory than any machine has: 2^46 numbers of four bytes."""
    keras.ops.convert_to_numpy(keras.ops.zeros((2**46,), dtype="float32"))


def exception() -> None:
    raise ValueError("the planted layer is wrong\nand here is more about it")


def hang() -> None:
    """Also start a process, as a data loader does, that outlives its parent unless it is killed."""
    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({FOREVER_S})"])
    time.sleep(FOREVER_S)


def memory_error() -> None:
    np.ones(2**58, dtype=np.float32)


def die(number: signal.Signals) -> Callable[[], None]:
    def now() -> None:
        print("last words", flush=True)
        os.kill(os.getpid(), number)

    return now


FAULTS: dict[str, Callable[[], object]] = {
    "allocation": allocation,
    "exception": exception,
    "exit": lambda: os._exit(3),
    "hang": hang,
    "hang_at_exit": lambda: atexit.register(time.sleep, FOREVER_S),
    "memory_error": memory_error,
    "sigkill": die(signal.SIGKILL),
    "sigsegv": die(signal.SIGSEGV),
}


def functional(scale: Scale) -> keras.Model:
    fault = scale.architecture
    FAULTS.get(fault, lambda: None)()
    inputs = keras.Input(scale.input_shape)
    outputs: Any = keras.layers.Dense(2 if fault == "more_outputs" else 1, name="dense")(inputs)
    if fault == "dropout":
        outputs = keras.layers.Dropout(0.5, seed=1)(outputs)
    if fault == "nan":
        outputs = outputs * float("nan")
    return keras.Model(inputs, outputs)
