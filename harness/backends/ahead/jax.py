"""JAX: the step is lowered for the TPU and compiled by its own compiler, the package libtpu.

Keras chooses kernels by the host's platform, so the processor's forms of attention and the like
are what is compiled.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from harness import derived
from harness.backends.ahead import Built, Figures, Spec
from harness.probes import package_versions
from harness.targets import Target


def plan(built: Built, target: Target, *, optimised: bool) -> Figures:
    jax.config.update("jax_optimization_level", "O3" if optimised else "O0")
    sharding = SingleDeviceSharding(_chip(target))
    trainer: Any = built.trainer
    function, arguments = trainer.program(_shape(built.inputs), _shape(built.targets))
    placed = jax.tree.map(lambda leaf: _placed(leaf, sharding), arguments)
    lowered = function.trace(*placed).lower(lowering_platforms=("tpu",))
    compilers = [package_versions().get(name, "") for name in ("jaxlib", "libtpu")]
    made_of = [target.name, str(optimised), *compilers, lowered.as_text()]
    program = hashlib.sha256("\n".join(made_of).encode()).hexdigest()
    known = derived.read("preflight", program)
    if known is None:
        known = asdict(_compiled(lowered, program))
        derived.keep("preflight", program, known)
    return Figures(**known)


def _chip(target: Target) -> Any:
    described = topologies.get_topology_desc(
        platform="tpu",
        topology_name=target.topology,
        chips_per_host_bounds=[1, 1, 1],
        **target.options,
    )
    return described.devices[0]


def _shape(spec: Spec) -> Any:
    return jax.ShapeDtypeStruct(spec.shape, jax.dtypes.canonicalize_dtype(spec.dtype))


def _placed(leaf: Any, sharding: Any) -> Any:
    return jax.ShapeDtypeStruct(
        leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype), sharding=sharding
    )


def _compiled(lowered: Any, program: str) -> Figures:
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Figures(program, refusal=_sentence(str(error)))
    memory = compiled.memory_analysis()
    return Figures(
        program,
        peak_bytes=memory.peak_memory_in_bytes,
        moved_bytes=int(compiled.cost_analysis()["bytes accessed"]),
        crossing_bytes=memory.argument_size_in_bytes + memory.output_size_in_bytes,
    )


def _sentence(text: str) -> str:
    """The compiler's reason, without its status code and the list of buffers that follows."""
    first = text.strip().splitlines()[0]
    return first.split("RESOURCE_EXHAUSTED:")[-1].strip()
