"""ResNet-50, inference."""

from harness import asv


class InferResnet50(asv.Suite):
    workload = "resnet50"
    phase = "infer"

    def setup_cache(self) -> str:
        return self.open_session()
