"""BERT (Devlin et al. 2018), sentence classification."""

from dataclasses import dataclass

from harness.workload import Optimizer, Scale, Tolerance, Workload


@dataclass(frozen=True)
class Architecture:
    vocabulary: int
    positions: int
    layers: int
    hidden: int
    heads: int
    feed_forward: int
    dropout: float
    classes: int


WORKLOAD = Workload(
    name="bert",
    version="1.0.0",
    title="BERT, sentence classification",
    example="sentence",
    quality_metric="accuracy",
    quality_unit="%",
    higher_is_better=True,
    baseline=("majority class", 0.50),
    optimizer=Optimizer("AdamW", {"learning_rate": 1e-3, "weight_decay": 0.01, "epsilon": 1e-6}),
    scales={
        "smoke": Scale(
            reduced="the BERT-Tiny shape (2 layers, hidden 128, 2 heads), trained from random "
            "weights without dropout; sequences of 48; 4,096 training sentences; 2 epochs",
            batch_size=32,
            eval_batch_size=250,
            epochs=2,
            sizes={"train_examples": 4096, "test_examples": 1000, "sequence_length": 48},
            architecture=Architecture(30522, 512, 2, 128, 2, 512, 0.0, 2),
            input_shape=(48,),
            input_dtype="int32",
            data_digest="46f570d0187fe519db25299c186cc5428022e84238d4d074b7bead4aa1d205d7",
            quality_bounds=(0.55, 0.85),
        ),
    },
    tolerances={
        "float32": Tolerance(loss=1e-4, gradient_norm=1e-3, output=1e-3),
        "mixed_bfloat16": Tolerance(loss=2e-2, gradient_norm=5e-2, output=5e-2),
        "mixed_float16": Tolerance(loss=5e-3, gradient_norm=2e-2, output=1e-2),
    },
    module=__name__,
    initializers={r"/(kernel|embeddings|position_embedding|type_embedding)$": "normal_002"},
)
