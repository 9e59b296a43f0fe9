"""BERT, inference."""

from harness import asv


class InferBert(asv.Suite):
    workload = "bert"
    phase = "infer"

    def setup_cache(self) -> str:
        return self.open_session()
