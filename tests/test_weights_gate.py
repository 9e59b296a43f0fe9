"""The gate's arithmetic without a framework: names and draws of weights, gradients, the verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from harness import gate, registry, weights
from harness.errors import WorkerError
from harness.gate import (
    Figures,
    GradientReader,
    UpdateReader,
    deviations,
    failure,
    judge,
    reference,
)
from harness.reference import dependencies
from harness.workload import Array, Tolerance

TOLERANCE = Tolerance(loss=1e-4, gradient_norm=1e-3, output=1e-2)


@dataclass
class Variable:
    """What the harness uses of a Keras variable."""

    path: str
    shape: tuple[int, ...] = (2, 3)
    value: Any = None

    def assign(self, value: Any) -> None:
        self.value = value


@pytest.fixture(autouse=True)
def _snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots without Keras, which only turns tensors into arrays here."""
    monkeypatch.setattr(
        weights, "snapshot", lambda variables: [np.array(v.value) for v in variables]
    )


def keys(*paths: str) -> list[str]:
    return weights.keys([Variable(path) for path in paths])


# Keys


def test_a_key_is_the_layer_and_the_weight_whatever_holds_the_layer() -> None:
    sequential = keys("sequential/towers/mlp1/kernel", "sequential/towers/mlp1/bias")
    functional = keys("mlp1/kernel", "mlp1/bias")
    assert sequential == functional == ["mlp1/kernel", "mlp1/bias"]


def test_a_key_grows_until_it_is_unique() -> None:
    assert keys("model/lstm1/lstm_cell/bias", "model/lstm2/lstm_cell/bias", "model/dense/bias") == [
        "lstm1/lstm_cell/bias",
        "lstm2/lstm_cell/bias",
        "dense/bias",
    ]


def test_a_path_of_one_part_is_its_own_key() -> None:
    assert keys("scale", "dense/bias") == ["scale", "dense/bias"]


def test_seeds_of_random_layers_are_not_weights() -> None:
    @dataclass
    class Model:
        variables: list[Variable]

    model = Model([Variable("dense/bias"), Variable("dropout/seed_generator_state")])
    assert [v.path for v in weights.of(model)] == ["dense/bias"]


# Draws


def drawn(*paths: str, seed: int = 1) -> dict[str, Array]:
    """Values given to variables in this order, by path."""
    variables = [Variable(path) for path in paths]
    weights.assign(variables, lambda key, shape: weights.initial(key, shape, seed=seed, rules={}))
    return {v.path: v.value for v in variables}


def test_a_weight_gets_the_same_values_in_whatever_order_it_is_made() -> None:
    first, second = drawn("a/kernel", "b/kernel", "c/kernel"), drawn("c/kernel", "a/kernel")
    for path, value in second.items():
        np.testing.assert_array_equal(value, first[path])
    assert not np.array_equal(first["a/kernel"], first["b/kernel"])
    assert not np.array_equal(first["a/kernel"], drawn("a/kernel", seed=2)["a/kernel"])


def test_draws_do_not_depend_on_numpys_global_state() -> None:
    np.random.seed(1)
    first = drawn("a/kernel")["a/kernel"]
    np.random.seed(2)
    np.testing.assert_array_equal(drawn("a/kernel")["a/kernel"], first)


@pytest.mark.parametrize(
    ("key", "shape", "mean", "deviation"),
    [
        ("dense/kernel", (300, 200), 0.0, math.sqrt(2 / 500)),
        ("conv/kernel", (3, 3, 64, 32), 0.0, math.sqrt(2 / (9 * 96))),
        ("token/embeddings", (1000, 100), 0.0, math.sqrt(2 / 1100)),
        ("dense/bias", (8,), 0.0, 0.0),
        ("bn/gamma", (8,), 1.0, 0.0),
        ("bn/beta", (8,), 0.0, 0.0),
        ("bn/moving_mean", (8,), 0.0, 0.0),
        ("bn/moving_variance", (8,), 1.0, 0.0),
        ("lstm_cell/bias", (8,), 0.25, math.sqrt(0.1875)),
    ],
)
def test_initial_values_by_the_name_of_the_weight(
    key: str, shape: tuple[int, ...], mean: float, deviation: float
) -> None:
    value = weights.initial(key, shape, seed=1, rules={})
    assert value.dtype == np.float32
    assert value.shape == shape
    assert float(value.mean()) == pytest.approx(mean, abs=0.05 * deviation)
    assert float(value.std()) == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize(
    ("rule", "deviation"),
    [
        ("he_normal", math.sqrt(2 / 300)),
        ("glorot_uniform", math.sqrt(2 / 500)),
        ("normal_002", 0.02),
        ("normal_01", 0.1),
        ("zeros", 0.0),
    ],
)
def test_a_workloads_own_rule_goes_first(rule: str, deviation: float) -> None:
    value = weights.initial("dense/kernel", (300, 200), seed=1, rules={r"/kernel$": rule})
    assert float(value.std()) == pytest.approx(deviation, rel=0.05)


def test_recurrent_weights_are_an_orthogonal_block_for_each_gate() -> None:
    value = weights.initial("lstm_cell/recurrent_kernel", (16, 64), seed=1, rules={})
    for block in np.split(value, 4, axis=1):
        np.testing.assert_allclose(block.T @ block, np.eye(16), atol=1e-5)


def test_only_the_forget_gate_starts_open() -> None:
    value = weights.initial("lstm_cell/bias", (8,), seed=1, rules={})
    assert value.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


def test_a_weight_that_no_rule_knows_is_told() -> None:
    with pytest.raises(ValueError, match="No initialiser") as caught:
        weights.initial("dense/offset", (3,), seed=1, rules={})
    assert str(caught.value) == (
        "No initialiser matches the weight 'dense/offset'; add one to the declaration."
    )


def for_gate(key: str, shape: tuple[int, ...], factors: Mapping[str, float] | None = None) -> Array:
    return weights.for_gate(key, shape, seed=gate.SEED, rules={}, factors=factors or {})


@pytest.mark.parametrize("name", ["bias", "beta", "gamma", "moving_mean", "moving_variance"])
def test_in_the_gate_no_bias_scale_or_statistic_is_neutral(name: str) -> None:
    """Leaving out a weight that is 0 or 1 would change nothing."""
    for layer in ("dense", "lstm_cell", "bn"):
        value = for_gate(f"{layer}/{name}", (1000,))
        assert value.dtype == np.float32
        assert np.abs(value).min() > 0
        assert not np.any(value == 1.0)
        assert value.std() > 0.05


def test_the_declared_factors_multiply_the_weights_whose_keys_they_match() -> None:
    factors = {r"conv\w*/kernel$": 0.03, r"_bn3/gamma$": 0.25, r"^a_bn3/gamma$": 2.0}
    for key, shape, factor in [
        ("a_conv1/kernel", (3, 3, 8, 8), 0.03),
        ("b_bn3/gamma", (50,), 0.25),
        ("a_bn3/gamma", (50,), 0.5),
        ("a_bn3/beta", (50,), 1.0),
        ("dense/kernel", (8, 8), 1.0),
    ]:
        expected = for_gate(key, shape) * factor
        np.testing.assert_allclose(for_gate(key, shape, factors), expected, rtol=1e-5)


# Gradients, recovered from the optimiser


def numbers(*values: float) -> Variable:
    return Variable("", value=np.array(values, np.float32))


@dataclass
class Momentum:
    """Keras's SGD with momentum: `m = momentum m - rate g`."""

    momentum: float = 0.9
    rate: float = 0.03
    iterations: Variable = field(default_factory=lambda: Variable("", value=np.int32(0)))
    momentums: list[Variable | None] = field(
        default_factory=lambda: [numbers(0, 0), None, numbers(0)]
    )

    @property
    def _learning_rate(self) -> Variable:
        return Variable("", value=np.float32(self.rate))

    def apply(self, gradients: Sequence[Array]) -> None:
        slots = [slot for slot in self.momentums if slot is not None]
        for slot, gradient in zip(slots, gradients, strict=True):
            slot.value = np.float32(self.momentum) * slot.value - np.float32(self.rate) * gradient
        self.iterations.value += 1


@dataclass
class Adam:
    """Keras's Adam and AdamW: `m += (1 - b1) (g - m)`."""

    beta_1: float = 0.9
    iterations: Variable = field(default_factory=lambda: Variable("", value=np.int32(0)))
    _momentums: list[Variable] = field(default_factory=lambda: [numbers(0, 0), numbers(0)])

    def apply(self, gradients: Sequence[Array]) -> None:
        for slot, gradient in zip(self._momentums, gradients, strict=True):
            slot.value = slot.value + np.float32(1 - self.beta_1) * (gradient - slot.value)
        self.iterations.value += 1


@dataclass
class LossScale:
    """Keras's LossScaleOptimizer: unscales, then hands on, or skips a step that overflowed."""

    inner_optimizer: Any
    scale: float = 2.0**15
    iterations: Variable = field(default_factory=lambda: Variable("", value=np.int32(99)))

    def apply(self, gradients: Sequence[Array]) -> None:
        if all(np.isfinite(g).all() for g in gradients):
            self.inner_optimizer.apply(
                [gradient / np.float32(self.scale) for gradient in gradients]
            )


GRADIENTS = [([3, 4], [12]), ([-1, 2], [2]), ([0, 0], [0.5]), ([0.06, 0], [0.08])]
NORMS = [13.0, 3.0, 0.5, 0.1]


def steps(*, scale: float = 1.0) -> list[list[Array]]:
    return [[np.array(g, np.float32) * np.float32(scale) for g in step] for step in GRADIENTS]


@pytest.mark.parametrize("make", [Momentum, Adam])
@pytest.mark.parametrize("scaled", [False, True])
def test_each_steps_gradient_norm_is_recovered(make: Callable[[], Any], scaled: bool) -> None:
    optimizer = LossScale(make()) if scaled else make()
    reader = GradientReader(optimizer)
    found = []
    for number, gradients in enumerate(steps(scale=2.0**15 if scaled else 1.0), 1):
        optimizer.apply(gradients)
        assert reader.updates() == number
        found.append(reader.norms()[0])
    assert found == pytest.approx(NORMS, rel=1e-3)


def test_a_reader_of_an_optimiser_that_stepped_before_does_not_see_the_old_steps() -> None:
    optimizer = Momentum()
    optimizer.apply(steps()[0])
    reader = GradientReader(optimizer)
    optimizer.apply(steps()[1])
    assert reader.norms()[0] == pytest.approx(3.0, rel=1e-4)


def test_the_gradient_of_vectors_is_told_apart() -> None:
    """A bias that is half as large is no thousandth of the whole norm, and half of this one."""
    kernel = Variable("", value=np.zeros((2, 1), np.float32))
    optimizer = Adam(_momentums=[kernel, numbers(0)])
    reader = GradientReader(optimizer)
    optimizer.apply([np.array([[30], [40]], np.float32), np.array([1], np.float32)])
    assert reader.norms() == pytest.approx((math.hypot(50, 1), 1.0), rel=1e-3)


def test_a_step_skipped_for_overflow_is_not_an_update() -> None:
    optimizer = LossScale(Adam())
    reader = GradientReader(optimizer)
    optimizer.apply([np.array([np.inf, 0], np.float32), np.array([1], np.float32)])
    assert reader.updates() == 0
    optimizer.apply(steps(scale=2.0**15)[0])
    assert reader.updates() == 1
    assert reader.norms()[0] == pytest.approx(13.0, rel=1e-4)


def test_each_updates_length_is_measured_from_the_one_before() -> None:
    weight, bias = Variable("w", value=np.zeros(2)), Variable("b", value=np.zeros(1))
    reader = UpdateReader([weight, bias])
    weight.assign(np.array([3.0, 4.0]))
    bias.assign(np.array([12.0]))
    assert reader.norm() == pytest.approx(13.0)
    bias.assign(np.array([11.5]))
    assert reader.norm() == pytest.approx(0.5)
    assert reader.norm() == 0.0


def test_values_that_are_one_number_all_over_take_one_numbers_room() -> None:
    zeros, other = np.zeros((1000, 1000), np.float32), np.arange(6.0).reshape(2, 3)
    held = weights.compact([zeros, other, np.float32(3.0) * np.ones(())])
    np.testing.assert_array_equal(held[0], zeros)
    assert held[0].dtype == np.float32
    assert held[0].base is not None
    assert held[0].base.nbytes == 4
    assert held[1] is other
    assert held[2] == 3.0


# The verdict


EXPECTED = Figures(
    output=(2.0, -4.0, 0.0),
    loss=(1.0, 0.5),
    gradient_norm=(10.0, 5.0),
    vector_gradient_norm=(1.0, 0.2),
    update_norm=(0.2, 0.1),
)


def test_losses_and_norms_deviate_by_their_own_size_and_outputs_by_the_largest() -> None:
    measured = Figures((2.0, -4.1, 0.02), (1.0, 0.51), (10.1, 5.1), (1.0, 0.1), (0.2, 0.104))
    expected = {
        "output": 0.1 / 4, "loss": 0.02, "gradient_norm": 0.02, "vector_gradient_norm": 0.5,
        "update_norm": 0.04,
    }  # fmt: skip
    assert deviations(measured, EXPECTED) == pytest.approx(expected)


def test_inference_is_judged_by_outputs_alone() -> None:
    assert deviations(Figures(output=EXPECTED.output), EXPECTED) == {"output": 0.0}


def test_equal_figures_pass_and_the_record_holds_them() -> None:
    judged = judge(EXPECTED, EXPECTED, TOLERANCE)
    assert judged.outcome == "passed"
    names = ("output", "loss", "gradient_norm", "vector_gradient_norm", "update_norm")
    assert {name: getattr(judged, name) for name in names} == asdict(EXPECTED)
    assert judged.deviation == dict.fromkeys(names, 0.0)
    assert judged.tolerance == dict(zip(names, (1e-2, 1e-4, 1e-3, 1e-3, 1e-3), strict=True))


def test_a_model_without_vectors_is_not_judged_by_them() -> None:
    zeros = replace(EXPECTED, vector_gradient_norm=(0.0, 0.0))
    assert judge(zeros, zeros, TOLERANCE).outcome == "passed"
    assert "vector_gradient_norm" not in deviations(zeros, zeros)


@pytest.mark.parametrize(
    ("measured", "outcome", "sentence"),
    [
        (
            replace(EXPECTED, output=(2.0, -4.5, 0.0)),
            "failed: output",
            "output is 0.12 away from the float32 reference, 0.01 allowed",
        ),
        (
            replace(EXPECTED, loss=(1.0, 0.6)),
            "failed: loss",
            "loss is 0.2 away from the float32 reference, 0.0001 allowed",
        ),
        (
            replace(EXPECTED, gradient_norm=(10.0, 5.0125)),
            "failed: gradient_norm",
            "gradient norm is 0.0025 away from the float32 reference, 0.001 allowed",
        ),
        (
            replace(EXPECTED, vector_gradient_norm=(0.5, 0.2)),
            "failed: vector_gradient_norm",
            "vector gradient norm is 0.5 away from the float32 reference, 0.001 allowed",
        ),
        (
            replace(EXPECTED, update_norm=(0.2, 0.11)),
            "failed: update_norm",
            "update norm is 0.1 away from the float32 reference, 0.001 allowed",
        ),
    ],
)
def test_a_figure_beyond_its_tolerance_fails_and_is_named(
    measured: Figures, outcome: str, sentence: str
) -> None:
    judged = judge(measured, EXPECTED, TOLERANCE)
    assert judged.outcome == outcome
    assert failure(judged) == sentence


def test_the_tolerance_itself_is_still_accepted() -> None:
    expected = Figures(output=(1.0,))
    assert judge(Figures(output=(1.25,)), expected, Tolerance(0, 0, 0.25)).outcome == "passed"
    assert judge(Figures(output=(1.26,)), expected, Tolerance(0, 0, 0.25)).outcome != "passed"


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_output_that_is_no_number_fails_wherever_it_stands(place: int, bad: float) -> None:
    """`max` forgets a NaN that does not come first."""
    output = [bad if index == place else value for index, value in enumerate(EXPECTED.output)]
    measured = replace(EXPECTED, output=tuple(output))
    assert judge(measured, EXPECTED, TOLERANCE).outcome == "failed: output"


def test_another_number_of_outputs_fails() -> None:
    measured = replace(EXPECTED, output=(2.0, -4.0))
    assert judge(measured, EXPECTED, TOLERANCE).outcome == "failed: output"


def test_fewer_steps_than_the_reference_fail() -> None:
    measured = Figures(EXPECTED.output, (1.0,), (10.0,), (0.2,))
    assert judge(measured, EXPECTED, TOLERANCE).outcome == "failed: loss"


# The stored references


def test_every_workload_and_scale_has_a_reference_of_its_present_declaration() -> None:
    for workload in registry.workloads().values():
        for scale, declared in workload.scales.items():
            if declared.owned:
                continue
            stored = reference(workload, scale)
            assert len(stored.loss) == len(stored.gradient_norm) == 3
            assert len(stored.output) % gate.OUTPUT_EXAMPLES == 0
            assert len(stored.update_norm) == len(stored.vector_gradient_norm) == 3
            for values in (getattr(stored, name) for name in Figures.__annotations__):
                assert np.isfinite(values).all()
                assert len(set(values)) > 1, "constant figures would hide a fault"
            notes = json.loads((files(workload.module) / "reference.json").read_text())[scale]
            assert notes["data_digest"] == declared.data_digest
            assert notes["workload_version"] == workload.version
            # Another rate, decay or width would make the figures another model's.
            assert notes["declared"] == dependencies(workload, scale)


def test_a_missing_reference_is_told_with_what_to_do() -> None:
    bert = registry.workload("bert")
    with pytest.raises(WorkerError) as caught:
        reference(bert, "full")
    assert caught.value.status == "numerics"
    assert str(caught.value) == (
        "No reference of 'bert' at scale 'full' is stored; "
        "make one with `epochmark reference bert`."
    )
