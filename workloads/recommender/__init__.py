"""Neural collaborative filtering (He et al. 2017, NeuMF) with a second head for the rating."""

from dataclasses import dataclass, replace

from harness.workload import Optimizer, Scale, Tolerance, Workload


@dataclass(frozen=True)
class Architecture:
    users: int
    items: int
    factors: int
    mlp: tuple[int, ...]


TOLERANCES = {
    "float32": Tolerance(loss=1e-4, gradient_norm=1e-3, output=1e-3),
    "mixed_bfloat16": Tolerance(loss=2e-2, gradient_norm=5e-2, output=5e-2),
    "bfloat16": Tolerance(loss=2e-2, gradient_norm=5e-2, output=5e-2),
    "mixed_float16": Tolerance(loss=5e-3, gradient_norm=2e-2, output=1e-2),
}

# MLPerf training v0.5, but for its data, its 999 negatives in the test and its target.
STANDARD = Scale(
    reduced="MovieLens-100K in place of 20M, its 943 users and 1,682 films spread over "
    "tables of 20M's size, whose other rows nobody reads; ranked among 99 films, not 999; "
    "3 epochs",
    batch_size=2048,
    eval_batch_size=9430,
    epochs=3,
    data="spread",
    sizes={"negatives": 4, "users": 138_493, "items": 26_744},
    architecture=Architecture(138_493, 26_744, 64, (256, 256, 128, 64)),
    input_shape=(2,),
    input_dtype="int32",
    data_digest="e11636dfc67eec203932ce0de6a24ec93157ae41efc9238d12cf6852557194e2",
    baseline=("popularity ranking", 0.394),
    quality_bounds=(0.5, 0.72),
    optimizer=Optimizer("Adam", {"learning_rate": 2e-3, "epsilon": 1e-8}),
    tolerances=TOLERANCES,
    parameters=31_832_642,
    forward_flops=213_376,
    training_flops=640_128,
)

WORKLOAD = Workload(
    name="recommender",
    version="1.0.0",
    title="Neural collaborative filtering, multi-task",
    example="rating",
    quality_metric="hit_rate_at_10",
    quality_title="HR@10",
    quality_unit="%",
    higher_is_better=True,
    scales={
        "smoke": Scale(
            reduced="MovieLens-100K in place of 20M; 16 factors, towers 64-32-16; 2 epochs",
            batch_size=2048,
            eval_batch_size=9430,
            epochs=2,
            sizes={"negatives": 4},
            architecture=Architecture(943, 1682, 16, (64, 32, 16)),
            input_shape=(2,),
            input_dtype="int32",
            data_digest="3e988f52bf02a5deaa1b5e7836c4e6985416dde72c6c73fc7d398deb63ea34cf",
            baseline=("popularity ranking", 0.394),
            quality_bounds=(0.5, 0.7),
            optimizer=Optimizer("Adam", {"learning_rate": 5e-3}),
            tolerances=TOLERANCES,
            parameters=128_658,
            forward_flops=5_216,
            training_flops=15_648,
        ),
        "standard": STANDARD,
        "full": replace(
            STANDARD,
            reduced="",
            eval_batch_size=100_000,
            epochs=20,
            data="movielens",
            sizes={"users": 138_493, "items": 26_744, "negatives": 4, "test_negatives": 999},
            data_digest="",
            baseline=("popularity ranking", None),
            quality_bounds=(0.5, 0.75),
            quality_target=0.635,  # HR@10 among 999 films, MLPerf training v0.5
            # MLPerf's rate, for the data that it was chosen on.
            optimizer=Optimizer("Adam", {"learning_rate": 5e-4, "epsilon": 1e-8}),
            gate_scale="standard",
        ),
    },
    module=__name__,
    initializers={r"/embeddings$": "normal_01"},
)
