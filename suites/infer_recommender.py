"""The recommender, inference."""

from harness import asv


class InferRecommender(asv.Suite):
    workload = "recommender"
    phase = "infer"

    def setup_cache(self) -> str:
        return self.open_session()
