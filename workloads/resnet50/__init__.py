"""ResNet-50 v1.5 (He et al. 2015, stride in the 3x3 convolution), image classification."""

from dataclasses import dataclass, replace

from harness.workload import Optimizer, Pipeline, Scale, Schedule, Tolerance, Workload


@dataclass(frozen=True)
class Architecture:
    """`blocks` bottlenecks per stage, the first stage `width` wide, each next one twice as wide."""

    classes: int
    stem_filters: int
    stem_kernel: int
    stem_stride: int
    stem_pool: bool
    width: int
    blocks: tuple[int, ...]
    label_smoothing: float = 0.0


TOLERANCES = {
    "float32": Tolerance(loss=1e-4, gradient_norm=1e-2, output=1e-4),
    "mixed_bfloat16": Tolerance(loss=2e-2, gradient_norm=0.12, output=5e-2),
    "bfloat16": Tolerance(loss=2e-2, gradient_norm=0.12, output=5e-2),
    "mixed_float16": Tolerance(loss=5e-3, gradient_norm=0.08, output=1e-2),
}

GATE_GAIN = 0.03

STANDARD = Scale(
    reduced="2,000 training photos of 2 kinds (ImageNet: 1.28 million of 1,000); 1 epoch",
    batch_size=32,
    eval_batch_size=32,
    epochs=1,
    data="photos",
    sizes={"train_examples": 2000, "test_examples": 500},
    architecture=Architecture(1000, 64, 7, 2, True, 64, (3, 4, 6, 3), label_smoothing=0.1),
    input_shape=(224, 224, 3),
    input_dtype="float32",
    data_digest="26c249bd5d561ccc7ddbd0247558b260cacc09741699c1b0f521e1b97be5fb14",
    baseline=("majority class", 0.586),
    # The most alike training photo has the right label for 95.6 %: a good training may too.
    quality_bounds=(0.3, 0.99),
    # 0.1 for a batch of 256, in proportion (Goyal et al. 2017).
    optimizer=Optimizer("SGD", {"learning_rate": 0.0125, "momentum": 0.9}),
    gate_rate=1e-4,
    tolerances=TOLERANCES,
    parameters=25_557_032,
    forward_flops=8_178_368_512,
    training_flops=24_299_077_632,
)

WORKLOAD = Workload(
    name="resnet50",
    version="1.0.0",
    title="ResNet-50 v1.5, image classification",
    example="image",
    quality_metric="top1_accuracy",
    quality_title="top-1",
    quality_unit="%",
    higher_is_better=True,
    scales={
        "smoke": Scale(
            reduced="28x28 grey images; stem of one 3x3 convolution, stride 2, without pooling; "
            "3 stages of 1 block, 8 to 32 wide; batch 32; 2,048 training images; 2 epochs",
            batch_size=32,
            eval_batch_size=250,
            epochs=2,
            sizes={"train_examples": 2048, "test_examples": 1000},
            architecture=Architecture(10, 16, 3, 2, False, 8, (1, 1, 1)),
            input_shape=(28, 28, 1),
            input_dtype="float32",
            data_digest="1056300aa010e52880bf8f4d66eeac78fa7078f0d761754e45f6d20501e72304",
            baseline=("majority class", 0.106),
            quality_bounds=(0.6, 0.85),
            optimizer=Optimizer("SGD", {"learning_rate": 0.03, "momentum": 0.9}),
            gate_rate=GATE_GAIN**2,  # its gradients are larger by as much
            tolerances=TOLERANCES,
            parameters=33_498,
            forward_flops=2_252_416,
            training_flops=6_700_800,
        ),
        "standard": STANDARD,
        # Ninety epochs with a batch of 256 (He et al. 2015; Goyal et al. 2017). The rate falls in a
        # line, and the decay, which Keras does not put through the momentum, is ten times theirs.
        "full": replace(
            STANDARD,
            reduced="",
            batch_size=256,
            eval_batch_size=250,
            epochs=90,
            data="imagenet",
            pipeline=Pipeline("pydataset", workers=8),
            sizes={"classes": 1000, "train_examples": 1_281_167, "test_examples": 50_000},
            data_digest="",
            baseline=("one class of a thousand", 0.001),
            quality_bounds=(0.7, 0.8),
            quality_target=0.759,  # MLPerf training, from v0.6 on
            optimizer=Optimizer(
                "SGD",
                {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-3},
                schedule=Schedule(warmup_steps=5 * 5004, total_steps=90 * 5004),
                undecayed=("bias", "gamma", "beta"),
            ),
            gate_scale="standard",
        ),
    },
    module=__name__,
    fast_paths=("convolution",),
    batch_statistics=True,
    initializers={r"conv\w*/kernel$": "he_normal"},
    # Activations before a normalisation are small, so that its epsilon shows; and so is what a
    # residual branch adds: with scales of 1 fifty layers magnify rounding a hundred thousand times.
    gate_factors={
        r"conv\w*/kernel$": GATE_GAIN,
        r"/moving_mean$": GATE_GAIN,
        r"/moving_variance$": GATE_GAIN**2,
        r"_bn3/gamma$": 0.25,
    },
)
