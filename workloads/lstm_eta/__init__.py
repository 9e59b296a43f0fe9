"""An LSTM that predicts a trip's duration from the trips that arrived before it (regression)."""

from dataclasses import dataclass, replace

from harness.workload import Optimizer, Scale, Tolerance, Workload


@dataclass(frozen=True)
class Architecture:
    sequence_length: int
    sequence_features: int
    static_features: int
    units: tuple[int, ...]
    dense: int


TOLERANCES = {
    "float32": Tolerance(loss=1e-4, gradient_norm=1e-3, output=1e-3),
    "mixed_bfloat16": Tolerance(loss=2e-2, gradient_norm=5e-2, output=5e-2),
    "bfloat16": Tolerance(loss=2e-2, gradient_norm=5e-2, output=5e-2),
    "mixed_float16": Tolerance(loss=5e-3, gradient_norm=2e-2, output=1e-2),
}

# The widths of Zhu & Laptev (2017) at Uber; batch and rate of DeepTTE (Wang et al. 2018).
STANDARD = Scale(
    reduced="the two LSTM layers of a larger network; 3 epochs",
    batch_size=400,
    eval_batch_size=1000,
    epochs=3,
    data="history",
    sizes={"train_examples": 273_307, "test_examples": 53_991, "sequence_length": 48},
    architecture=Architecture(48, 6, 8, (128, 32), 64),
    input_shape=(48 * 6 + 8,),
    input_dtype="float32",
    data_digest="6afa4665a16c717efb761244584a68f93f3ba2f0465048947b300eeb1f28172b",
    baseline=("linear in the distance", 11.33),
    quality_bounds=(5.0, 8.5),
    optimizer=Optimizer("Adam", {"learning_rate": 1e-3}),
    tolerances=TOLERANCES,
    parameters=92_417,
    forward_flops=8_557_696,
    training_flops=25_238_912,
)

WORKLOAD = Workload(
    name="lstm_eta",
    version="1.0.0",
    title="LSTM, arrival time of a trip",
    example="trip",
    quality_metric="mae_minutes",
    quality_title="MAE",
    quality_unit="min",
    higher_is_better=False,
    scales={
        "smoke": Scale(
            reduced="one LSTM layer of 64 units, sequences of 8; 20,480 training flights; 4 epochs",
            batch_size=256,
            eval_batch_size=1000,
            epochs=4,
            sizes={"train_examples": 20480, "test_examples": 5000},
            architecture=Architecture(8, 6, 8, (64,), 64),
            input_shape=(8 * 6 + 8,),
            input_dtype="float32",
            data_digest="e08f9950ab29be32f7af8f34a35c2998aaad94beae1bb59640198428c6a0234c",
            baseline=("linear in the distance", 11.30),
            quality_bounds=(5.5, 8.5),
            optimizer=Optimizer("Adam", {"learning_rate": 2e-3, "beta_2": 0.99}),
            tolerances=TOLERANCES,
            parameters=22_913,
            forward_flops=296_064,
            training_flops=830_848,
        ),
        "standard": STANDARD,
        "full": replace(
            STANDARD,
            reduced="the two LSTM layers of a larger network; 10 epochs",
            epochs=10,
            data="tlc",
            sizes={"first_month": 201901, "months": 3},
            data_digest="",
            # No target is published for this data: it is the error of a line that is fitted to the
            # months at hand.
            target_figure="distance_mae_minutes",
            baseline=("linear in the distance", None),
            quality_bounds=(0.5, 10.0),
            gate_scale="standard",
        ),
    },
    module=__name__,
    fast_paths=("lstm",),
)
