"""What seconds cost at an hourly rate. Money is counted in decimal; reads no files, knows no table.

A record holds seconds and rates as floats. Each stands for the shortest decimal that reads back as
it, which is the number that was written down: a rate of 0.1 is a tenth of a dollar.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

_HOUR_S = 3600


def exactly(value: float) -> Decimal:
    """The number that the float was written as."""
    return Decimal(repr(float(value)))


def cost_usd(seconds: float, usd_per_hour: float) -> Decimal:
    """US dollars for so many seconds."""
    return exactly(seconds) * exactly(usd_per_hour) / _HOUR_S


@dataclass(frozen=True)
class Cost:
    """Of one training: what is paid once (start-up and compilation), and what an epoch adds."""

    fixed_usd: Decimal
    epoch_usd: Decimal

    def of(self, epochs: int) -> Decimal:
        """US dollars for so many epochs."""
        return self.fixed_usd + epochs * self.epoch_usd


def break_even(one: Cost, other: Cost) -> int | None:
    """From how many epochs on the first costs no more than the other; None where it never does.

    0 where it is so from the start.
    """
    saved, ahead = other.epoch_usd - one.epoch_usd, one.fixed_usd - other.fixed_usd
    if saved < 0 or (saved == 0 and ahead > 0):
        return None
    if ahead <= 0:
        return 0
    return int((ahead / saved).to_integral_value(ROUND_CEILING))
