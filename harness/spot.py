"""What a training is expected to cost on capacity that may be taken away, against on demand.

Interruptions come at random at a constant rate. With checkpoints every so often, the expected time
is that of J. T. Daly, A higher order estimate of the optimum checkpoint interval for restart dumps,
Future Generation Computer Systems 22 (2006): its complete cost function, with restarts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from math import exp, expm1, inf, sqrt

from scipy import optimize

from harness.cost import cost_usd

HOUR_S = 3600.0


@dataclass(frozen=True)
class Outlook:
    """A training on both kinds of capacity; `bearable_rate` is the interruptions an hour at which
    they cost the same (0: spot is never the cheaper one)."""

    work_s: float
    interval_s: float
    expected_s: float
    spot_usd: Decimal
    on_demand_usd: Decimal
    bearable_rate: float


def expected_s(
    work_s: float, *, rate: float, interval_s: float, checkpoint_s: float, restart_s: float
) -> float:
    """Seconds until so much work is done, at `rate` interruptions an hour; infinite beyond all."""
    segment_s = interval_s + checkpoint_s
    if rate == 0:
        return work_s * segment_s / interval_s
    mean_s = HOUR_S / rate
    exponent = (segment_s + restart_s) / mean_s
    if exponent > 500:
        return inf
    return mean_s * exp(restart_s / mean_s) * expm1(segment_s / mean_s) * work_s / interval_s


def best_interval_s(*, rate: float, checkpoint_s: float) -> float:
    """The seconds of work between checkpoints that waste least, by Young (1974); infinite for no
    interruptions."""
    return sqrt(2 * checkpoint_s * HOUR_S / rate) if rate else inf


def outlook(
    work_s: float,
    *,
    rate: float,
    interval_s: float | None,
    checkpoint_s: float,
    restart_s: float,
    spot_usd_per_hour: float,
    on_demand_usd_per_hour: float,
) -> Outlook:
    """Both costs of so much work; without an interval the best one, at most the whole work.

    The bearable rate is that at which both cost the same, with the interval that is best there.
    """

    def chosen(rate: float) -> float:
        best = interval_s or best_interval_s(rate=rate, checkpoint_s=checkpoint_s)
        return min(best, work_s)

    def at(rate: float) -> float:
        return expected_s(
            work_s,
            rate=rate,
            interval_s=chosen(rate),
            checkpoint_s=checkpoint_s,
            restart_s=restart_s,
        )

    worth_s = work_s * on_demand_usd_per_hour / spot_usd_per_hour
    found = at(rate)
    return Outlook(
        work_s=work_s,
        interval_s=chosen(rate),
        expected_s=found,
        spot_usd=cost_usd(found, spot_usd_per_hour) if found < inf else Decimal("Infinity"),
        on_demand_usd=cost_usd(work_s, on_demand_usd_per_hour),
        bearable_rate=_rate_of(worth_s, at),
    )


def _rate_of(seconds: float, at: Callable[[float], float]) -> float:
    """The rate at which the expected time is that long; 0 if it is longer at none."""
    if at(0.0) >= seconds:
        return 0.0
    high = 1.0
    while at(high) < seconds:
        high *= 2
    return float(optimize.brentq(lambda rate: min(at(rate), 2 * seconds) - seconds, 0.0, high))
