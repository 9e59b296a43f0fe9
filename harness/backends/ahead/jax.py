"""JAX: the step is lowered for the accelerator and compiled by its own compiler.

That is the package libtpu for TPUs, and XLA's for CUDA in JAX's plugin for GPUs, which plans memory
but tries out no kernels: some want room of their own, so its peak is a floor. Keras chooses kernels
by the host's platform: the processor's forms of attention and LSTM are what is compiled.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from harness import derived
from harness.backends.ahead import Built, Figures, Spec, program_digest
from harness.probes import package_versions
from harness.targets import Multiprocessors, Target

CUDA = {
    "runtime": "13.0.0",
    "driver": "13.0.0",
    "compile_time_toolkit": "13.0.0",
    "dnn": "9.10.0",
}
"""Versions of what a machine with the GPU would have: the oldest that JAX's plugin takes."""


def plan(built: Built, target: Target, *, optimised: bool) -> Figures:
    jax.config.update("jax_optimization_level", "O3" if optimised else "O0")
    sharding = SingleDeviceSharding(_chip(target))
    trainer: Any = built.trainer
    function, arguments = trainer.program(_shape(built.inputs), _shape(built.targets))
    placed = jax.tree.map(lambda leaf: _placed(leaf, sharding), arguments)
    platform = "tpu" if target.device == "tpu" else "cuda"
    lowered = function.trace(*placed).lower(lowering_platforms=(platform,))
    program = program_digest(
        lowered.as_text(), target, package_versions(), backend="jax", optimised=optimised
    )
    known = derived.read("preflight", program)
    if known is None:
        known = asdict(_compiled(lowered, program))
        derived.keep("preflight", program, known)
    return Figures(**known)


def _chip(target: Target) -> Any:
    if target.multiprocessors is None:
        described = topologies.get_topology_desc(
            platform="tpu",
            topology_name=target.topology,
            chips_per_host_bounds=[1, 1, 1],
            **target.options,
        )
    else:
        described = topologies.get_topology_desc(
            platform="cuda",
            topology_name="",
            topology="1x1x1",
            target_config=_described(target, target.multiprocessors),
        )
    return described.devices[0]


def _described(target: Target, of: Multiprocessors) -> str:
    """The GPU as XLA's `GpuTargetConfigProto` has it, in text."""
    major, minor = of.capability
    device = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 48 * 1024,
        "shared_memory_per_block_optin": of.block_shared_bytes,
        "shared_memory_per_core": of.shared_bytes,
        "threads_per_core_limit": of.threads,
        "core_count": of.number,
        "fpus_per_core": of.float32_units,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "thread_dim_limit_x": 1024,
        "thread_dim_limit_y": 1024,
        "thread_dim_limit_z": 64,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
        "memory_bandwidth": round(target.bandwidth_bytes_per_s),
        "device_memory_size": target.memory_bytes,
        "l2_cache_size": of.cache_bytes,
        "clock_rate_ghz": of.clock_ghz,
        **{f"{name}_version": f'"{version}"' for name, version in CUDA.items()},
    }
    lines = "\n".join(f"{name}: {value}" for name, value in device.items())
    capability = f"cuda_compute_capability {{ major: {major} minor: {minor} }}"
    dnn = " ".join(map("{}: {}".format, ("major", "minor", "patch"), CUDA["dnn"].split(".")))
    return (
        f"gpu_device_info {{\n{lines}\n{capability}\n}}\n"
        f'platform_name: "CUDA"\ndnn_version_info {{ {dnn} }}\n'
        f'device_description_str: "{target.accelerator}"\n'
    )


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
    costs = compiled.cost_analysis()
    return Figures(
        program,
        peak_bytes=memory.peak_memory_in_bytes or held_bytes(memory),
        moved_bytes=int(costs["bytes accessed"]) if costs else None,
        crossing_bytes=memory.argument_size_in_bytes + memory.output_size_in_bytes,
    )


def held_bytes(memory: Any) -> int:
    """The step's arguments, what it makes beside them, and its one region for all else.

    What the GPU's compiler lets one know, which tells no peak and counts no bytes. On the processor
    the peak that XLA tells leaves that region out, and this is what a step really takes there.
    """
    crossing = memory.argument_size_in_bytes + memory.output_size_in_bytes
    held: int = crossing - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    return held


def _sentence(text: str) -> str:
    """The compiler's reason, without its status code and the list of buffers that follows."""
    first = text.strip().splitlines()[0]
    return first.split("RESOURCE_EXHAUSTED:")[-1].strip()
