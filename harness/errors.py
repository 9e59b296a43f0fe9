"""Every error a user can meet, each one sentence with an exit status.

EpochmarkError
├── UsageError          a mistake in the call: unknown cell, plan, price, folder (status 2)
│   └── NotComparableError  two sides that differ in what must agree (harness.compare)
├── DataError           a data set that is missing, damaged or cannot be fetched (status 2)
├── ResultsError        a results file or folder that cannot be read or written (status 2)
│   └── NewerSchemaError    a file from a later version of Epochmark (status 2)
└── WorkerError         inside a worker: ends the run with the status it carries
"""

from __future__ import annotations


class EpochmarkError(Exception):
    """Base of all errors whose text is meant for a person."""

    exit_status = 2


class UsageError(EpochmarkError):
    """The call names something that does not exist or does not fit."""


class DataError(EpochmarkError):
    """A data set is missing, damaged or could not be fetched."""


class ResultsError(EpochmarkError):
    """A results file or folder cannot be read or written."""


class NewerSchemaError(ResultsError):
    """A results file was written by a later version of Epochmark."""


class WorkerError(EpochmarkError):
    """Ends a run with a status of its own, such as `numerics` or `nan`."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def unknown(kind: str, name: str, known: list[str], *, where: str = "") -> UsageError:
    """The sentence for a name that is not in a list, with the list."""
    place = f" in {where!r}" if where else ""
    plural = f"{kind}s" if not kind.endswith("s") else kind
    return UsageError(f"Unknown {kind} {name!r}{place}. Known {plural}: {', '.join(known)}.")
