"""ResNet-50, training."""

from harness import asv


class TrainResnet50(asv.Suite):
    workload = "resnet50"
    phase = "train"

    def setup_cache(self) -> str:
        return self.open_session()
