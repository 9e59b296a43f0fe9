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
    quality_title="accuracy",
    quality_unit="%",
    higher_is_better=True,
    baseline=("majority class", 0.528),
    optimizer=Optimizer("AdamW", {"learning_rate": 5e-4, "weight_decay": 0.01, "epsilon": 1e-6}),
    scales={
        "smoke": Scale(
            reduced="the BERT-Tiny shape (2 layers, hidden 128, 2 heads), trained from random "
            "weights without dropout; sentences of at most 16 pieces, 1,024 of them for training; "
            "batch 16; 2 epochs",
            batch_size=16,
            eval_batch_size=250,
            epochs=2,
            sizes={
                "train_examples": 1024,
                "test_examples": 500,
                "sequence_length": 16,
                "whole_sentences": 1,
            },
            architecture=Architecture(30522, 512, 2, 128, 2, 512, 0.0, 2),
            input_shape=(16,),
            input_dtype="int32",
            data_digest="df84d7eb8305cd68998a132610655480e39dc91972ac513b99651792a5813e4a",
            quality_bounds=(0.56, 0.8),
        ),
    },
    tolerances={
        "float32": Tolerance(loss=1e-4, gradient_norm=1e-3, output=1e-3),
        "mixed_bfloat16": Tolerance(loss=2e-2, gradient_norm=5e-2, output=5e-2),
        "mixed_float16": Tolerance(loss=5e-3, gradient_norm=2e-2, output=1e-2),
    },
    module=__name__,
    initializers={r"/(embeddings|position_embedding|type_embedding)$": "normal_002"},
)
