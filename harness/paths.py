"""Which kernels a model's step really took, read from the operations it runs.

A framework may fall back to a slow form without a word (keras#22874 ran an LSTM as a Python loop on
torch for seven weeks), so the record says what was taken. Knows names of operations, no framework.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

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


def taken(kinds: Iterable[str], backend: str, operations: Collection[str]) -> dict[str, str]:
    """For each kind of layer: the fused operation that was run, or what was run in its place."""
    return {kind: _one(kind, backend, operations) for kind in kinds}


def _one(kind: str, backend: str, operations: Collection[str]) -> str:
    fused = sorted(name for name in operations if name.startswith(FUSED[kind][backend]))
    return f"fused: {fused[0]}" if fused else PLAIN[kind]
