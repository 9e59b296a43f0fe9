"""Which paths a model's step really took: kernels by the operations it runs, compiled or eager.

A framework may fall back to a slow form without a word (keras#22874 ran an LSTM as a Python loop on
torch for seven weeks), so the record says what was taken, and what such a device is expected to
take and did not. Knows names of operations, no framework.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

FUSED = {
    "lstm": {
        "tensorflow": ("CudnnRNN",),
        "jax": ("rnn",),
        "torch": ("aten::_cudnn_rnn", "aten::mkldnn_rnn_layer", "aten::miopen_rnn"),
    },
    "attention": {
        "tensorflow": ("_MklFusedMultiHeadAttention",),
        "jax": ("dot_product_attention_fwd", "flash_attention", "splash"),
        "torch": (
            "aten::_scaled_dot_product_flash_attention",
            "aten::_scaled_dot_product_efficient_attention",
            "aten::_scaled_dot_product_cudnn_attention",
        ),
    },
}
"""Starts of the names of the operations that do the whole of it in one kernel."""

PLAIN = {"lstm": "a loop over the steps", "attention": "written out as matrix products"}

LAYOUT = "convolution"
"""The kind of layer whose path is how the images lie in memory that it gets, such as NHWC."""

CONVOLUTIONS = {
    "tensorflow": "Conv2D",
    "jax": "conv_general_dilated",
    "torch": "aten::convolution",
}
"""Names of the forward convolution, after which a backend says the layout of the images it gets."""

LAYOUTS = {"channels_last": "NHWC", "channels_first": "NCHW"}
"""Keras's image formats in the frameworks' letters: examples, channels, height and width."""

EXPECTED = frozenset(
    {
        ("attention", "torch", "cpu"),
        ("attention", "torch", "gpu"),
        # On a GPU Keras 3.15 gives an LSTM of this form to cuDNN under every backend
        # (`cudnn_ok` in its backends' rnn.py), and under torch falls back without a word.
        ("lstm", "tensorflow", "gpu"),
        ("lstm", "jax", "gpu"),
        ("lstm", "torch", "gpu"),
    }
)
"""Kinds of layers, backends and devices of which a fused operation is expected.

Those of the CPU were seen; those of the GPU are from Keras's and torch's code, on none seen yet.
"""

COMPILED = ("tensorflow", "jax")
"""Backends whose steps are expected to be compiled; torch's are eager."""

EAGER = "eager"

LOST = "lost_fast_paths"
"""The setting in a record that names the expected paths that were not taken; else it is absent."""

SEEN = frozenset({*FUSED, LAYOUT})
"""Settings in a record that nobody set: they tell what a framework chose to run."""


def taken(kinds: Iterable[str], backend: str, operations: Collection[str]) -> dict[str, str]:
    """For each kind of layer: the fused operation that was run, or what was run in its place."""
    return {kind: _one(kind, backend, operations) for kind in kinds}


def _layout(backend: str, operations: Collection[str]) -> str:
    start = f"{CONVOLUTIONS[backend]} "
    found = sorted(name.removeprefix(start) for name in operations if name.startswith(start))
    return ", ".join(found) or "unknown"


def _one(kind: str, backend: str, operations: Collection[str]) -> str:
    if kind == LAYOUT:
        return _layout(backend, operations)
    fused = sorted(name for name in operations if name.startswith(FUSED[kind][backend]))
    return f"fused: {fused[0]}" if fused else PLAIN[kind]


@contextmanager
def python_calls(model: Any) -> Iterator[list[str]]:
    """Notes each time that the Python code of a Keras model runs.

    In a step that ran before, the same way, that is none if it was compiled.
    """
    call = model.call
    seen: list[str] = []

    def noting(*arguments: Any, **named: Any) -> Any:
        seen.append("call")
        return call(*arguments, **named)

    # Past Keras's own __setattr__, which keeps track of what a layer holds.
    object.__setattr__(model, "call", noting)
    try:
        yield seen
    finally:
        object.__delattr__(model, "call")


def execution(configured: Mapping[str, str], *, python_ran: bool) -> dict[str, str]:
    """How a step was executed: as the backend was configured, unless its Python code says other."""
    as_configured = {name: configured[name] for name in ("execution", "jit_compile")}
    if python_ran == (as_configured["execution"] == EAGER):
        return as_configured
    if python_ran:
        return {"execution": EAGER, "jit_compile": "False"}
    return as_configured | {"execution": "compiled"}


def lost(settings: Mapping[str, str], kinds: Iterable[str], backend: str, device: str) -> list[str]:
    """The expected paths that the record's settings do not show; `device` is a kind of device.

    Images are expected to reach a convolution as they are declared: else a copy was put between.
    """

    def missing(kind: str) -> bool:
        if kind == LAYOUT:
            return settings.get(kind) != LAYOUTS[settings["image_data_format"]]
        return (kind, backend, device) in EXPECTED and settings.get(kind) == PLAIN[kind]

    found = [kind for kind in kinds if missing(kind)]
    if backend in COMPILED and settings.get("execution") == EAGER:
        found.append("execution")
    return found
