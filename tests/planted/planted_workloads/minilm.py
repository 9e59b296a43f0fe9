"""The suite's BERT at the size of all-MiniLM-L6-v2, a published BERT whose weights a package holds.

No package holds those of BERT-Base. The code is that of `bert`, so its gate is that of `smoke`.
"""

from dataclasses import replace

from harness.workload import Schedule
from workloads.bert import BASE
from workloads.bert import WORKLOAD as BERT

STEPS = 64
STANDARD = BERT.scales["standard"]

FINE_TUNING = replace(
    STANDARD,
    reduced="all-MiniLM-L6-v2; one epoch of 1,024 sentences of at most 64 pieces",
    epochs=1,
    eval_batch_size=100,
    sizes={"train_examples": 16 * STEPS, "test_examples": 500, "sequence_length": 64},
    architecture=replace(BASE, layers=6, hidden=384, feed_forward=1536),
    gate_architecture=None,
    gate_scale="smoke",
    input_shape=(64,),
    data_digest="",
    optimizer=replace(
        STANDARD.optimizer,
        arguments={**STANDARD.optimizer.arguments, "learning_rate": 1e-4},
        schedule=Schedule(warmup_steps=STEPS // 10, total_steps=STEPS),
    ),
    parameters=22_713_986,
    # 2 L (4 H^2 + 2 L H + 2 H F) per layer, and 2 (H^2 + 2 H), as in the workload's README.
    forward_flops=1_396_999_680,
    training_flops=4_190_999_040,
)

MINILM = replace(
    BERT,
    name="planted_minilm",
    scales={"smoke": BERT.scales["smoke"], "standard": FINE_TUNING},
)
