"""The LSTM for arrival times, training."""

from harness import asv


class TrainLstmEta(asv.Suite):
    workload = "lstm_eta"
    phase = "train"

    def setup_cache(self) -> str:
        return self.open_session()
