"""The recommender, training."""

from harness import asv


class TrainRecommender(asv.Suite):
    workload = "recommender"
    phase = "train"

    def setup_cache(self) -> str:
        return self.open_session()
