"""A function that is called at a stated rate, in a thread of the parent."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Periodic:
    """Calls a function `hz` times a second, from `start` to `stop`, which waits for the last."""

    def __init__(self, call: Callable[[], object], hz: float) -> None:
        self._call = call
        self._hz = hz
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """The first call comes after one interval."""
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(1 / self._hz):
            self._call()
