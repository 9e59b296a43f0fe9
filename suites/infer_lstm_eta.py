"""The LSTM for arrival times, inference."""

from harness import asv


class InferLstmEta(asv.Suite):
    workload = "lstm_eta"
    phase = "infer"

    def setup_cache(self) -> str:
        return self.open_session()
