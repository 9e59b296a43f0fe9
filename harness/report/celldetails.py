"""What the processes of a cell ran on, and how: a column for each where they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

from harness.report.parts import Entry, Table
from harness.schema import Accelerator, DeviceReading, Run
from harness.units import ABSENT, digits, percent, size

Pairs = list[tuple[str, object]]


def details(runs: Sequence[Run]) -> Iterator[Table]:
    """Tables of names and values; those that no process has anything for are left out."""
    for id, caption, pairs in (
        ("environment", "Environment", _environment),
        ("numerics", "Numerics in effect", lambda run: sorted(run.numerics.items())),
        ("memory", "Memory", _memory),
        ("gate", "Equality gate", _gate),
        ("contention", "What else the machine did", _contention),
        ("scaling", "Loss scaling", _loss_scaling),
        ("energy", "Energy", _energy),
        ("accelerators", "Accelerators, as they were read", _accelerators),
        ("work", "FLOPs and the peak they are held against", _work),
        ("protocol", "Protocol", _protocol),
        (
            "price",
            "Reference price",
            lambda run: list(asdict(run.price).items()) if run.price else [],
        ),
    ):
        table = by_process(runs, pairs, id=id, caption=caption)
        if table.rows:
            yield table


def by_process(
    runs: Sequence[Run],
    pairs: Callable[[Run], Sequence[tuple[str, object]]],
    *,
    id: str,
    caption: str,
) -> Table:
    """One column where all processes have the same values, else one for each process."""
    found = [{name: _text(value) for name, value in pairs(run)} for run in runs]
    names = list(dict.fromkeys(name for values in found for name in values))
    same = all(values == found[0] for values in found)
    columns = found[:1] if same else found
    each = f"value, the same in all {len(runs)} processes" if len(runs) > 1 else "value"
    head = ("", each) if same else ("", *map(short, runs))
    rows = tuple(
        (Entry(name), *(Entry(values.get(name, ABSENT)) for values in columns)) for name in names
    )
    return Table(id, caption, head, rows)


def short(run: Run) -> str:
    """A process's name within its session."""
    return run.run.removeprefix(f"{run.session}-")


def _text(value: object) -> str:
    if value is None or value == "":
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _environment(run: Run) -> Pairs:
    environment = run.environment
    return [
        ("machine", environment.machine),
        ("processor", f"{environment.cpu}, {environment.cpu_count} visible"),
        ("memory", size(environment.memory_bytes)),
        ("accelerators", environment.accelerators),
        ("system", environment.os),
        ("python", environment.python),
        *sorted(environment.packages.items()),
        *sorted(environment.variables.items()),
    ]


def _memory(run: Run) -> Pairs:
    memory = run.memory
    found: Mapping[str, int | None] = {
        "host, after import": memory.host_baseline_bytes,
        "host, peak from build to the end": memory.host_peak_bytes,
        "device, peak of the allocator": memory.device_peak_bytes,
        **{f"a step with a batch of {one}": peak for one, peak in memory.tried_batches.items()},
    }
    return [(name, None if value is None else size(value)) for name, value in found.items()]


def _gate(run: Run) -> Pairs:
    worst = [
        (
            f"{name}, worst deviation",
            f"{value:.3g} of {run.gate.tolerance.get(name, 0):.3g} allowed",
        )
        for name, value in run.gate.deviation.items()
    ]
    return [("outcome", run.gate.outcome or "not reached"), *worst]


def _contention(run: Run) -> Pairs:
    found = run.contention
    shares = {
        "time in which anything waited for a processor": found.cpu_pressure_share,
        "CPU time of other processes": found.others_cpu_share,
    }
    return [
        ("load, a minute before", _number(found.load_1m_before)),
        ("load, a minute after", _number(found.load_1m_after)),
        *((name, None if share is None else percent(share)) for name, share in shares.items()),
        ("contended", found.contended),
    ]


def _loss_scaling(run: Run) -> Pairs:
    found = run.loss_scaling
    if found is None:
        return []
    counts = {
        "steps skipped in the warm-up": found.warmup_skipped_steps,
        "steps skipped in the timed blocks": found.steady_skipped_steps,
        "steps skipped in the epochs": found.train_skipped_steps,
    }
    told = [(name, None if count is None else f"{count:,}") for name, count in counts.items()]
    return [("scale at the end", f"{found.final_scale:,g}"), *told]


def _energy(run: Run) -> Pairs:
    found = run.energy
    if found is None:
        return []
    return [
        ("method", found.method),
        ("counters", found.domains),
        ("readings", f"{found.sampling_hz:g} a second"),
        *((f"epoch {place}", f"{digits(one)} J") for place, one in enumerate(found.epochs_j, 1)),
    ]


def _accelerators(run: Run) -> Pairs:
    several = len(run.accelerators) > 1
    return [
        (f"{place}: {name}" if several else name, value)
        for place, one in enumerate(run.accelerators)
        for name, value in _accelerator(one)
    ]


def _accelerator(one: Accelerator) -> Pairs:
    device = one.device
    ends = (("before", one.before), ("after", one.after))
    return [
        ("device", f"{device.name}, driver {device.driver}, read by {device.probe}"),
        ("device memory", _size(device.memory_bytes)),
        ("divided into instances", device.mig),
        ("readings", f"{one.samples}, {one.sampling_hz:g} a second"),
        ("peak memory in use", _size(one.peak_memory_used_bytes)),
        ("peak memory of the run", _size(one.peak_own_memory_bytes)),
        (
            "mean utilisation",
            None if one.mean_utilisation is None else percent(one.mean_utilisation),
        ),
        ("mean power", _number(one.mean_power_w, "W")),
        ("highest temperature", _number(one.max_temperature_c, "°C")),
        ("lowest clock", _clock(one.min_sm_clock_hz)),
        ("clocks held down by", one.throttle_reasons),
        ("throttled", one.throttled),
        ("most processes of others", one.other_processes),
        *((f"{name} the run", _reading(reading)) for name, reading in ends if reading),
        *([("reading ended early", one.failure)] if one.failure else []),
    ]


def _reading(one: DeviceReading) -> str:
    parts = (
        _number(one.temperature_c, "°C"),
        _clock(one.sm_clock_hz),
        _number(one.power_w, "W"),
        None if one.memory_used_bytes is None else f"{size(one.memory_used_bytes)} in use",
    )
    return ", ".join(part for part in parts if part)


def _size(value: int | None) -> str | None:
    return None if value is None else size(value)


def _number(value: float | None, unit: str = "") -> str | None:
    return None if value is None else f"{digits(value)} {unit}".rstrip()


def _clock(value: float | None) -> str | None:
    return None if value is None else f"{value / 1e6:.0f} MHz"


def _work(run: Run) -> Pairs:
    if run.flops_per_example is None:
        return []
    peak = run.peak
    return [
        ("FLOPs of one example", f"{run.flops_per_example:,}"),
        *(
            [
                ("peak", f"{peak.flops_per_s / 1e9:,.4g} GFLOP/s in {peak.precision}"),
                ("peak is", f"{peak.method}, {peak.source}, as of {peak.as_of}"),
            ]
            if peak
            else []
        ),
    ]


def _protocol(run: Run) -> Pairs:
    return [
        ("suite", f"{run.suite_version}, commit {run.suite_commit}"),
        ("workload version", run.workload_version),
        ("session", run.session),
        ("schema of the record", run.schema_version),
        ("batch size", run.batch_size),
        ("warm-up", run.samples.warmup_outcome),
        ("end of timing", run.samples.steady_outcome),
        ("end of training", run.samples.train_outcome),
        ("data", f"{run.data.source}, digest {run.data.digest[:16]}" if run.data else None),
        *asdict(run.protocol).items(),
    ]
