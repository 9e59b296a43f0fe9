"""BERT (Devlin et al. 2018), sentence classification."""

from dataclasses import dataclass, replace

from harness.workload import Optimizer, Scale, Schedule, Tolerance, Workload


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


TINY = Architecture(30522, 512, 2, 128, 2, 512, 0.0, 2)
BASE = Architecture(30522, 512, 12, 768, 12, 3072, 0.1, 2)
TOLERANCES = {
    "float32": Tolerance(loss=1e-4, gradient_norm=1e-3, output=1e-3),
    "mixed_bfloat16": Tolerance(loss=2e-2, gradient_norm=5e-2, output=5e-2),
    "bfloat16": Tolerance(loss=2e-2, gradient_norm=5e-2, output=5e-2),
    "mixed_float16": Tolerance(loss=5e-3, gradient_norm=2e-2, output=1e-2),
}

# BERT-Base, fine-tuned as in appendix A.3 of the paper.
STANDARD = Scale(
    batch_size=16,
    eval_batch_size=32,
    epochs=3,
    sizes={"train_examples": 7520, "test_examples": 1000, "sequence_length": 128},
    architecture=BASE,
    gate_architecture=replace(BASE, dropout=0.0),
    written_out=("attention",),  # its weights are dropped, which no fused operation here does
    input_shape=(128,),
    input_dtype="int32",
    data_digest="3aded1c8a93b19fbbaa24acdc884870410304926af2d1e8a8a008b618cec2878",
    baseline=("majority class", 0.522),
    # From random weights a recipe of fine-tuning is not meant to learn: not worse than
    # guessing. From published ones: not better than any BERT-Base.
    quality_bounds=(0.45, 0.97),
    optimizer=Optimizer(
        "AdamW",
        {
            "learning_rate": 2e-5,
            "weight_decay": 0.01,
            "epsilon": 1e-6,
            "global_clipnorm": 1.0,
        },
        schedule=Schedule(warmup_steps=141, total_steps=1410),
        undecayed=("bias", "gamma", "beta"),
    ),
    tolerances=TOLERANCES,
    parameters=109_483_778,
    forward_flops=22_348_434_432,
    training_flops=67_045_303_296,
)

WORKLOAD = Workload(
    name="bert",
    version="1.0.0",
    title="BERT, sentence classification",
    example="sentence",
    quality_metric="accuracy",
    quality_title="accuracy",
    quality_unit="%",
    higher_is_better=True,
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
            architecture=TINY,
            input_shape=(16,),
            input_dtype="int32",
            data_digest="df84d7eb8305cd68998a132610655480e39dc91972ac513b99651792a5813e4a",
            baseline=("majority class", 0.528),
            quality_bounds=(0.56, 0.8),
            optimizer=Optimizer(
                "AdamW", {"learning_rate": 5e-4, "weight_decay": 0.01, "epsilon": 1e-6}
            ),
            tolerances=TOLERANCES,
            parameters=4_386_178,
            forward_flops=12_878_336,
            training_flops=38_635_008,
        ),
        "standard": STANDARD,
        "full": replace(
            STANDARD,
            batch_size=32,
            eval_batch_size=109,
            data="sst2",
            sizes={"train_examples": 67_349, "test_examples": 872, "sequence_length": 128},
            data_digest="",
            baseline=("majority class", None),
            # BERT-Base on these 872 sentences (Devlin et al. 2018, table 5).
            quality_target=0.927,
            optimizer=replace(
                STANDARD.optimizer, schedule=Schedule(warmup_steps=631, total_steps=6312)
            ),
            gate_scale="standard",
        ),
    },
    module=__name__,
    checkpoint="checkpoint",
    fast_paths=("attention",),
    initializers={r"/(embeddings|position_embedding|type_embedding)$": "normal_002"},
)
