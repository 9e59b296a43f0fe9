"""BERT, training."""

from harness import asv


class TrainBert(asv.Suite):
    workload = "bert"
    phase = "train"

    def setup_cache(self) -> str:
        return self.open_session()
