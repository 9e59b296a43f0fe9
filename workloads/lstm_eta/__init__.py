"""An LSTM that predicts a trip's duration from the trips that arrived before it (regression)."""

from dataclasses import dataclass

from harness.workload import Optimizer, Scale, Tolerance, Workload


@dataclass(frozen=True)
class Architecture:
    sequence_length: int
    sequence_features: int
    static_features: int
    units: int
    layers: int
    dense: int


WORKLOAD = Workload(
    name="lstm_eta",
    version="1.0.0",
    title="LSTM, arrival time of a trip",
    example="trip",
    quality_metric="mae_minutes",
    quality_title="MAE",
    quality_unit="min",
    higher_is_better=False,
    baseline=("linear in the distance", 11.30),
    optimizer=Optimizer("Adam", {"learning_rate": 2e-3, "beta_2": 0.99}),
    scales={
        "smoke": Scale(
            reduced="one LSTM layer of 64 units, sequences of 8; 20,480 training flights; 4 epochs",
            batch_size=256,
            eval_batch_size=1000,
            epochs=4,
            sizes={"train_examples": 20480, "test_examples": 5000},
            architecture=Architecture(8, 6, 8, 64, 1, 64),
            input_shape=(8 * 6 + 8,),
            input_dtype="float32",
            data_digest="e08f9950ab29be32f7af8f34a35c2998aaad94beae1bb59640198428c6a0234c",
            quality_bounds=(5.5, 8.5),
        ),
    },
    tolerances={
        "float32": Tolerance(loss=1e-4, gradient_norm=1e-3, output=1e-3),
        "mixed_bfloat16": Tolerance(loss=2e-2, gradient_norm=5e-2, output=5e-2),
        "mixed_float16": Tolerance(loss=5e-3, gradient_norm=2e-2, output=1e-2),
    },
    module=__name__,
)
