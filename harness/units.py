"""How a stored number is printed: three digits and a scaled unit. Storage stays in SI units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import floor, isfinite, log10

from harness.metrics import METRICS

ABSENT = "-"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line per row, its cells padded to the widest of their column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def ruled(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines with a rule below the head."""
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    return aligned([head, ["-" * width for width in widths], *body])


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """What is not the same in both, as `name: one, other`."""
    return [
        f"{name}: {one.get(name, 'absent')}, {other.get(name, 'absent')}"
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name)
    ]


def formatted(name: str, value: float, *, quality_unit: str = "") -> str:
    """A metric's value as METRICS says; what was not measured is a dash, never a zero."""
    if not isfinite(value):
        return ABSENT
    form = METRICS[name].form
    if form == "quality":
        return quality(value, unit=quality_unit)
    return FORMS[form](value)


def digits(value: float, significant: int = 3) -> str:
    """Plain decimal notation, at least this many significant digits."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, significant - 1 - floor(log10(abs(value))))}f}"


def seconds(value: float) -> str:
    """In microseconds, milliseconds or seconds."""
    if abs(value) >= 1 or value == 0:
        return f"{digits(value)} s"
    return f"{digits(value * 1e3)} ms" if abs(value) >= 1e-3 else f"{digits(value * 1e6)} µs"


def scaled(value: float) -> str:
    """With the decimal prefix that leaves one to three digits before the point."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{digits(value / factor)} {prefix}"
    return f"{digits(value)} "


def size(value: float) -> str:
    """In GiB = 1024^3 bytes, or MiB where that would start with a zero."""
    if value >= 2**30:
        return f"{digits(value / 2**30)} GiB"
    return f"{digits(value / 2**20)} MiB"


def excess(value: float) -> str:
    """Seconds beyond a usual time, none where it took less."""
    return seconds(max(0.0, value))


def percent(share: float) -> str:
    """A share with two digits; a dash for one that is not finite."""
    return f"{digits(100 * share, 2)} %" if isfinite(share) else ABSENT


def usd(value: float) -> str:
    """Three digits, however small."""
    return f"{digits(value)} USD"


def quality(value: float, *, unit: str) -> str:
    """A share in percent where that is the declared unit, else the number with its unit."""
    if unit == "%":
        return f"{100 * value:.1f} %"
    return f"{digits(value)} {unit}".rstrip()


FORMS: dict[str, Callable[[float], str]] = {
    "seconds": seconds,
    "excess": excess,
    "rate": lambda value: f"{scaled(value)}/s",
    "percent": lambda value: f"{100 * value:.1f} %",
    "count": lambda value: f"{value:,.0f}",
    "bytes": size,
    "usd": usd,
    "joules": lambda value: f"{scaled(value)}J",
    "flops": lambda value: f"{scaled(value)}FLOP",
}
