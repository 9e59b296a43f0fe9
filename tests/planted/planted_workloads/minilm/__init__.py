"""The suite's BERT at the size of all-MiniLM-L6-v2, a published BERT whose weights a package holds.

No package holds those of BERT-Base. The code is that of `bert`; the gate's reference is its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from harness.workload import Array, DataModule, Scale, Schedule, Workload
from workloads.bert import BASE
from workloads.bert import WORKLOAD as BERT

STEPS = 64
ARCHITECTURE = replace(BASE, layers=6, hidden=384, feed_forward=1536)
STANDARD = BERT.scales["standard"]

FINE_TUNING = replace(
    STANDARD,
    reduced="all-MiniLM-L6-v2; one epoch of 1,024 sentences of at most 40 pieces",
    epochs=1,
    eval_batch_size=100,
    sizes={"train_examples": 16 * STEPS, "test_examples": 500, "sequence_length": 40},
    architecture=ARCHITECTURE,
    gate_architecture=replace(ARCHITECTURE, dropout=0.0),
    input_shape=(40,),
    data_digest="",
    optimizer=replace(
        STANDARD.optimizer,
        arguments={**STANDARD.optimizer.arguments, "learning_rate": 1e-4},
        schedule=Schedule(warmup_steps=STEPS // 10, total_steps=STEPS),
    ),
    parameters=22_713_986,
    # 2 L (4 H^2 + 2 L H + 2 H F) per layer, and 2 (H^2 + 2 H), as in the workload's README.
    forward_flops=864_388_608,
    training_flops=2_593_165_824,
)


@dataclass(frozen=True)
class FineTuned(Workload):
    """A workload with the code of `bert`."""

    def data(self, scale: str) -> DataModule:
        return BERT.data(scale)

    def published(self, path: Path, scale: Scale) -> Mapping[str, Array]:
        return BERT.published(path, scale)

    def model(self) -> ModuleType:
        return BERT.model()


OWN = {"name": "planted_minilm", "scales": {"standard": FINE_TUNING}, "module": __name__}
MINILM = FineTuned(**{**vars(BERT), **OWN})
