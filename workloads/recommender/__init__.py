"""Neural collaborative filtering (He et al. 2017, NeuMF) with a second head for the rating."""

from dataclasses import dataclass

from harness.workload import Optimizer, Scale, Tolerance, Workload


@dataclass(frozen=True)
class Architecture:
    users: int
    items: int
    factors: int
    mlp: tuple[int, ...]


WORKLOAD = Workload(
    name="recommender",
    version="1.0.0",
    title="Neural collaborative filtering, multi-task",
    example="rating",
    quality_metric="hit_rate_at_10",
    quality_title="HR@10",
    quality_unit="%",
    higher_is_better=True,
    baseline=("popularity ranking", 0.394),
    optimizer=Optimizer("Adam", {"learning_rate": 5e-3}),
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
            quality_bounds=(0.5, 0.7),
        ),
    },
    tolerances={
        "float32": Tolerance(loss=1e-4, gradient_norm=1e-3, output=1e-3),
        "mixed_bfloat16": Tolerance(loss=2e-2, gradient_norm=5e-2, output=5e-2),
        "mixed_float16": Tolerance(loss=5e-3, gradient_norm=2e-2, output=1e-2),
    },
    module=__name__,
    initializers={r"/embeddings$": "normal_01"},
)
