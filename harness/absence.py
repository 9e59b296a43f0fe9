"""That a machine has no device of a kind: why, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Absence:
    """`reason` is a noun phrase, `remedy` an imperative."""

    reason: str
    remedy: str

    def told(self, missing: str) -> str:
        """The reason of a cell that `missing` keeps from running."""
        return f"{missing}: {self.reason}; {self.remedy}"
