"""What `epochmark doctor` does: measures this machine's peak, and prints it.

The peak of a precision is the fastest square matrix product of any backend: no backend's own
weakness lowers what the machine can do. Imports no framework; every backend has its own process.
"""

from __future__ import annotations

import csv
import io
import json
import resource
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec

from harness import probes
from harness.asking import asked
from harness.cells import BACKENDS
from harness.clock import utc_now
from harness.errors import EpochmarkError
from harness.peak import Figure, Measured
from harness.units import ABSENT, aligned, scaled

LARGEST = 2048
BUDGET_S = 2.0
TIMEOUT_S = 180.0

Say = Callable[[str], None]


def examine(
    *,
    say: Say,
    backends: Sequence[str] = BACKENDS,
    largest: int = LARGEST,
    budget_s: float = BUDGET_S,
) -> Measured:
    """Measure every installed backend, one after the other, in processes of their own.

    `largest` bounds the side of the matrices, `budget_s` the seconds per backend and precision.
    Raises EpochmarkError when no backend could be measured.
    """
    before, cpu_s = probes.CpuReading.take(), _children_cpu_s()
    figures: list[Figure] = []
    failures = []
    for backend in backends:
        try:
            figures += _measure(backend, largest, budget_s, say)
        except EpochmarkError as error:
            say(str(error))
            failures.append(str(error))
    if not figures:
        raise EpochmarkError(f"No backend could be measured: {' '.join(failures)}")
    others = probes.contention(before, probes.CpuReading.take(), _children_cpu_s() - cpu_s)
    if others.contended and others.others_cpu_share is not None:
        say(
            f"Other processes used {100 * others.others_cpu_share:.0f} % of the processors "
            "meanwhile, so these peaks are too low. Measure again on a quiet machine."
        )
    return Measured(
        machine=probes.machine_name(),
        as_of=utc_now()[:10],
        packages=probes.package_versions(),
        contended=others.contended,
        figures=tuple(figures),
    )


def _measure(backend: str, largest: int, budget_s: float, say: Say) -> list[Figure]:
    if find_spec(backend) is None:
        raise EpochmarkError(f"{backend}: not installed in this environment.")
    say(f"{backend} ...")
    try:
        found = asked(
            "peak_child",
            backend,
            *(str(largest), str(budget_s)),
            device="cpu",
            timeout_s=TIMEOUT_S,
        )
    except EpochmarkError as error:
        raise EpochmarkError(f"{backend}: {error}.") from error
    return [Figure(**fields) for fields in found]


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def render(measured: Measured, output: str) -> str:
    """The peaks with each backend's figure, as aligned lines, JSON or CSV."""
    if output == "json":
        peaks = [asdict(peak) for peak in measured.peaks.values()]
        return json.dumps({**asdict(measured), "peaks": peaks}, indent=1, allow_nan=False)
    if output == "csv":
        return _csv(measured)
    return _table(measured)


def _csv(measured: Measured) -> str:
    best = {(peak.precision, peak.source) for peak in measured.peaks.values()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["precision", "backend", "size", "flops_per_s", "best"])
    for figure in measured.figures:
        chosen = (figure.precision, figure.backend) in best
        writer.writerow([figure.precision, figure.backend, figure.size, figure.flops_per_s, chosen])
    return text.getvalue().rstrip("\n")


def _table(measured: Measured) -> str:
    rates = {(f.precision, f.backend): f.flops_per_s for f in measured.figures}
    backends = [name for name in BACKENDS if any(f.backend == name for f in measured.figures)]
    rows = [["precision", "peak", "of", *backends]]
    for precision, peak in measured.peaks.items():
        figures = [rates.get((precision, backend)) for backend in backends]
        shown = [ABSENT if rate is None else _rate(rate) for rate in figures]
        rows.append([precision, _rate(peak.flops_per_s), peak.source, *shown])
    return "\n".join([f"{measured.machine}, {measured.as_of}", *aligned(rows)])


def _rate(flops_per_s: float) -> str:
    return f"{scaled(flops_per_s)}FLOP/s"
