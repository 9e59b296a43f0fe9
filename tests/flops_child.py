"""Counts the FLOPs of every workload and scale on one backend, and prints them as JSON.

Started by test_flops.py as `python -m tests.flops_child BACKEND`, in a worker's environment. Two
counters that share nothing: on jax one walks the traced program and runs nothing; on torch every
operation of a real step is counted as it runs. Both count 2 per multiply-add of matrix products and
convolutions, and nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from harness import data
from harness.backends import backend
from harness.environment import cpu_count
from harness.registry import workloads
from harness.workload import Array, Scale, Workload

EXAMPLES = 2  # more than one, so that a product that does not grow with the batch would show
STYLES = ("sequential", "functional", "subclassing")


@dataclass(frozen=True)
class Network:
    """What is counted: a workload's model in one style, and arrays of the shapes it takes."""

    build: Callable[[], Any]
    loss: Callable[[Any, Any], Any]
    inputs: Array
    targets: Array


def main() -> None:
    name = sys.argv[1]
    backend(name).configure("float32", cpu_count())
    count, probes = {"jax": (on_jax, jax_probes), "torch": (on_torch, torch_probes)}[name]
    found: dict[str, Any] = {}
    for workload in workloads().values():
        for scale, declared in workload.scales.items():
            if declared.owned:
                continue
            for style in styles(workload, scale):
                found["/".join((workload.name, scale, style))] = count(
                    network(workload, scale, style)
                )
    print(json.dumps({"examples": EXAMPLES, "counts": found, "probes": probes()}))


def styles(workload: Workload, scale: str) -> Sequence[str]:
    """All at the first, small scale: the others would tell the same, in more time."""
    return STYLES if scale == next(iter(workload.scales)) else ("functional",)


def network(workload: Workload, scale_name: str, style: str) -> Network:
    scale, module = workload.scales[scale_name], workload.model()
    return Network(
        build=lambda: getattr(module, style)(scale),
        loss=module.loss(scale),
        inputs=inputs(scale),
        targets=targets(workload),
    )


def inputs(scale: Scale) -> Array:
    """Values that every network takes: ids that all tables hold, none of them padding."""
    random, shape = np.random.default_rng(0), (EXAMPLES, *scale.input_shape)
    if np.issubdtype(np.dtype(scale.input_dtype), np.integer):
        return random.integers(1, 3, shape).astype(scale.input_dtype)
    return random.standard_normal(shape).astype(scale.input_dtype)


def targets(workload: Workload) -> Array:
    """Real targets of the smallest data set: those of the other scales have the same form."""
    scale = next(iter(workload.scales))
    arrays = data.load(workload, scale).arrays
    _, found = workload.data(scale).batches(arrays, batch_size=EXAMPLES, seed=0, epoch=0)[0]
    return found


# The traced program of jax


def on_jax(net: Network) -> dict[str, int]:
    """Traced on shapes alone: neither the weights nor a step's values are ever computed."""
    import jax
    import keras

    with keras.StatelessScope(initialize_variables=False):
        model = net.build()

    def forward(trainable: Any, others: Any, x: Any) -> Any:
        return model.stateless_call(trainable, others, x, training=False)[0]

    def objective(trainable: Any, others: Any, x: Any, y: Any) -> Any:
        return net.loss(y, model.stateless_call(trainable, others, x, training=True)[0])

    groups = (model.trainable_variables, model.non_trainable_variables)
    state = [[jax.ShapeDtypeStruct(v.shape, v.dtype) for v in group] for group in groups]
    training = jax.value_and_grad(objective)
    return {
        "parameters": sum(prod(v.shape) for v in model.trainable_variables),
        "forward": program_flops(jax.make_jaxpr(forward)(*state, net.inputs)),
        "training": program_flops(jax.make_jaxpr(training)(*state, net.inputs, net.targets)),
    }


def program_flops(program: Any, wanted: Sequence[bool] = ()) -> int:
    """FLOPs of a jaxpr, of whatever leads to the outputs that are wanted (none named: all)."""
    program = getattr(program, "jaxpr", program)  # a closed program holds the plain one
    outputs = program.outvars
    if len(wanted) != len(outputs):  # none named, or the condition of a while loop
        wanted = [True] * len(outputs)
    live = {id(variable) for variable, want in zip(outputs, wanted, strict=True) if want}
    total = 0
    for equation in reversed(program.eqns):
        used = [id(variable) in live for variable in equation.outvars]
        if any(used):
            live |= {id(variable) for variable in equation.invars}
            total += equation_flops(equation, used)
    return total


def equation_flops(equation: Any, used: Sequence[bool]) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        return product_flops(*shapes(equation), parameters["dimension_numbers"])
    if name == "conv_general_dilated":
        return convolution_flops(*shapes(equation), parameters["dimension_numbers"])
    if name == "scan":
        # The last turn's carry is the answer, or nobody's: the gradient of an LSTM's initial state
        # leaves the loop and is dropped. XLA computes it nevertheless; the mathematics doesn't.
        body, carries = parameters["jaxpr"], parameters["num_carry"]
        turn = program_flops(body, [True] * carries + list(used[carries:]))
        turns: int = parameters["length"]
        return (turns - 1) * turn + program_flops(body, used)
    inner = [program_flops(program, used) for program in programs(parameters)]
    if name == "while" and any(inner):
        raise ValueError("a while loop holds products: it does not say how often it turns")
    if name == "cond" and len(set(inner)) > 1:
        raise ValueError("the branches of a cond differ in their products")
    return max(inner, default=0) if name == "cond" else sum(inner)


def programs(parameters: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among an equation's parameters: those of pjit, custom_jvp_call, remat, cond."""
    for value in parameters.values():
        for part in value if isinstance(value, list | tuple) else (value,):
            if hasattr(getattr(part, "jaxpr", part), "eqns"):
                yield part


def shapes(equation: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    one, other = (variable.aval.shape for variable in equation.invars[:2])
    return one, other, equation.outvars[0].aval.shape


def product_flops(
    one: Sequence[int], other: Sequence[int], result: Sequence[int], numbers: Any
) -> int:
    """2 per element of the result and element summed over."""
    (contracted, _), _ = numbers
    summed: list[int] = [one[axis] for axis in contracted]
    return 2 * prod(result) * prod(summed)


def convolution_flops(
    image: Sequence[int], kernel: Sequence[int], result: Sequence[int], numbers: Any
) -> int:
    """2 per kernel element, and per position of the result or of the image, whichever are fewer.

    A layer's convolution has its usual count: positions of the result times kernel, padding
    counted like an image. JAX writes the gradient of the image as a convolution of the result's
    gradient, spread out by the stride and padded on all sides, so that the positions of *its*
    result (the image) times the kernel would mostly count products with zeros: 4 times too many at
    stride 2, and (n + k - 1) / n at stride 1 without padding. Its own image, the gradient before
    it is spread, has exactly as many products with each kernel element as the layer has. Axes are
    judged one by one. With images smaller than the kernel both may be too many: there are none.
    """
    one, other, out = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    channels: int = result[out[0]] * result[out[1]] * kernel[other[1]]
    axes = zip(one[2:], other[2:], out[2:], strict=True)
    pairs: list[int] = [kernel[k] * min(image[i], result[o]) for i, k, o in axes]
    return 2 * channels * prod(pairs)


def jax_probes() -> dict[str, Any]:
    """Small programs whose FLOPs test_flops.py works out by hand."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    def counted(function: Any, *shape: tuple[int, ...]) -> int:
        arguments = [jax.ShapeDtypeStruct(s, "float32") for s in shape]
        return program_flops(jax.make_jaxpr(function)(*arguments))

    def convolve(stride: int, padding: str) -> Any:
        def function(x: Any, kernel: Any) -> Any:
            numbers = ("NHWC", "HWIO", "NHWC")
            result = lax.conv_general_dilated(
                x, kernel, (stride, stride), padding, dimension_numbers=numbers
            )
            return jnp.sum(result**2)

        return function

    def loop(x: Any, w: Any) -> Any:
        return lax.scan(lambda carry, _: (carry @ w, jnp.sum(carry)), x, None, length=7)

    def recurrent(w: Any, x: Any) -> Any:
        start = jnp.zeros((2, 3))
        return jnp.sum(lax.scan(lambda h, _: (jnp.tanh(h @ w + x), 0.0), start, None, length=7)[0])

    def endless(x: Any, w: Any) -> Any:
        return lax.while_loop(lambda x: jnp.sum(x) > 0, lambda x: x @ w, x)

    def unequal(x: Any, w: Any) -> Any:
        return lax.cond(jnp.sum(x) > 0, lambda: x @ w, lambda: x)

    def refused(function: Any) -> str:
        try:
            return str(counted(function, (3, 3), (3, 3)))
        except ValueError as error:
            return str(error)

    both = (0, 1)
    return {
        "product": counted(jnp.matmul, (2, 3), (3, 5)),
        "unused product": counted(lambda x, w: (x, x @ w)[0], (2, 3), (3, 5)),
        "batched product": counted(jnp.matmul, (4, 2, 3), (4, 3, 5)),
        "jit, custom_jvp and remat": counted(
            jax.jit(jax.checkpoint(lambda x, w: jax.nn.relu(x @ w))), (2, 3), (3, 5)
        ),
        "scan": counted(loop, (2, 3), (3, 3)),
        "scan, trained": counted(jax.value_and_grad(recurrent), (3, 3), (2, 3)),
        "convolution": counted(convolve(1, "VALID"), (2, 8, 8, 4), (3, 3, 4, 6)),
        "convolution, trained": counted(
            jax.value_and_grad(convolve(1, "VALID"), both), (2, 8, 8, 4), (3, 3, 4, 6)
        ),
        "padded convolution, trained": counted(
            jax.value_and_grad(convolve(1, "SAME"), both), (2, 8, 8, 4), (3, 3, 4, 6)
        ),
        "strided convolution, trained": counted(
            jax.value_and_grad(convolve(2, "VALID"), both), (2, 9, 9, 4), (3, 3, 4, 6)
        ),
        "while": refused(endless),
        "cond": refused(unequal),
    }


# The operations that torch runs


def on_torch(net: Network) -> dict[str, int]:
    """One real call, and one real step without its optimiser."""
    import torch
    from keras import ops

    model = net.build()
    x, y = ops.convert_to_tensor(net.inputs), ops.convert_to_tensor(net.targets)
    with torch.no_grad():
        forward = torch_flops(lambda: model(x, training=False))
    training = torch_flops(lambda: net.loss(y, model(x, training=True)).backward())
    parameters = sum(prod(v.shape) for v in model.trainable_variables)
    return {"parameters": parameters, "forward": forward, "training": training}


def torch_flops(function: Callable[[], Any]) -> int:
    """torch's own counter, with the operation it does not know: attention on a CPU.

    Keras runs an LSTM on a CPU as a loop of plain products, so nothing of it goes uncounted.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    aten = torch.ops.aten
    mapping = {
        aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_gradient_flops,
    }
    counter: Any = FlopCounterMode(display=False, custom_mapping=mapping)
    with counter:
        function()
    return int(counter.get_total_flops())


def attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    """Shapes (batch, heads, length, size): queries with keys, then weights with values."""
    batch, heads, length, size = query
    return 2 * batch * heads * length * key[2] * (size + value[3])


def attention_gradient_flops(
    gradient: Sequence[int], query: Sequence[int], key: Sequence[int], value: Sequence[int],
    *_: Any, **__: Any,
) -> int:  # fmt: skip
    """Two gradients for each product. That the kernel computes the scores anew is not the model."""
    return 2 * attention_flops(query, key, value)


def torch_probes() -> dict[str, Any]:
    """Small programs whose FLOPs test_flops.py works out by hand."""
    import torch
    from torch.nn import functional

    def values(*shape: int) -> Any:
        return torch.ones(*shape, requires_grad=True)

    query, key, value = (values(1, 2, 4, 8) for _ in range(3))
    image, kernel = values(2, 4, 9, 9), values(6, 4, 3, 3)
    attend: Any = functional.scaled_dot_product_attention
    convolve: Any = functional.conv2d
    return {
        "attention, trained": torch_flops(lambda: attend(query, key, value).sum().backward()),
        "strided convolution, trained": torch_flops(
            lambda: convolve(image, kernel, stride=2).square().sum().backward()
        ),
    }


if __name__ == "__main__":
    main()
