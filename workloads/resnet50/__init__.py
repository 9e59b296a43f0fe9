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
    quality_unit="%",
    higher_is_better=True,
    baseline=("majority class", 0.10),
    optimizer=Optimizer("SGD", {"learning_rate": 0.03, "momentum": 0.9}),
    scales={
        "smoke": Scale(
            reduced="28x28 grey images; stem of one 3x3 convolution, stride 2, without pooling; "
            "3 stages of 1 block, 16 to 64 wide; 4,096 training images; 2 epochs",
            batch_size=64,
            eval_batch_size=250,
            epochs=2,
            sizes={"train_examples": 4096, "test_examples": 1000},
            architecture=Architecture(10, 16, 3, 2, False, 8, (1, 1, 1)),
            input_shape=(28, 28, 1),
            input_dtype="float32",
            data_digest="a8b1913f4ee4aaa0a328720e2096c2d3d62ea95c5f2ef2ab024f0a1a6f8a7d28",
            quality_bounds=(0.5, 0.9),
        ),
    },
    tolerances={
        "float32": Tolerance(loss=1e-4, gradient_norm=1e-3, output=1e-3),
        "mixed_bfloat16": Tolerance(loss=2e-2, gradient_norm=5e-2, output=5e-2),
        "mixed_float16": Tolerance(loss=5e-3, gradient_norm=2e-2, output=1e-2),
    },
    module=__name__,
    gate_gain=0.03,
    initializers={r"conv\w*/kernel$": "he_normal"},
)
