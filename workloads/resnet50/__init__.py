"""ResNet-50 v1.5 (He et al. 2015, stride in the 3x3 convolution), image classification."""

from dataclasses import dataclass

from harness.workload import Optimizer, Scale, Tolerance, Workload


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


WORKLOAD = Workload(
    name="resnet50",
    version="1.0.0",
    title="ResNet-50 v1.5, image classification",
    example="image",
    quality_metric="top1_accuracy",
    quality_title="top-1",
    quality_unit="%",
    higher_is_better=True,
    baseline=("majority class", 0.106),
    optimizer=Optimizer("SGD", {"learning_rate": 0.03, "momentum": 0.9}),
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
            quality_bounds=(0.6, 0.85),
        ),
    },
    tolerances={
        "float32": Tolerance(loss=5e-4, gradient_norm=2e-2, output=1e-4),
        "mixed_bfloat16": Tolerance(loss=2e-2, gradient_norm=0.12, output=5e-2),
        "mixed_float16": Tolerance(loss=5e-3, gradient_norm=0.08, output=1e-2),
    },
    module=__name__,
    gate_gain=0.03,
    initializers={r"conv\w*/kernel$": "he_normal"},
)
