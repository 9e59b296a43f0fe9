"""The record of a run: one frozen dataclass tree, which is the schema of every results file.

Format history, newest first:
10 (2026-12): the gate sees the gradients of vectors apart (`Gate.vector_gradient_norm`).
9 (2026-11): what several devices spend on exchanging gradients (`Samples.exchange`); a session that
    was given no time limit has 0 for it, its runs their scale's (`Protocol.timeout_s`).
8 (2026-11): every accelerator of a run is watched (`Run.accelerators`), no more the first alone.
7 (2026-11): options of the training loop (`Protocol.accumulate`, `Protocol.batch_memory_bytes`,
    `Protocol.plateau_factor`, `Memory.tried_batches`, `Epoch.learning_rate_factor`); the steps that
    loss scaling skipped (`LossScaling`), which stood in `Run.numerics`.
6 (2026-11): the accelerator of a run, watched (`Accelerator`).
5 (2026-11): energy of the epochs (`Energy`); another number of epochs, an end by cost, and what
    ended a training (`Protocol.epochs`, `Protocol.stop_s_per_tenth`, `Samples.train_outcome`).
4 (2026-11): what else ran beside each block (`Block`), and a rule that ends the timed blocks
    (`Protocol.interval_width`, `Samples.steady_outcome`).
3 (2026-11): the choice of an input pipeline (`Protocol.pipeline`).
2 (2026-11): a step budget (`Protocol.train_steps`, `Epoch.epoch_steps`), published weights
    (`Protocol.weights_digest`), FLOPs and the peak they are held against, `Gate.update_norm`,
    `Run.quality_target`.
1 (2026-11): the first format: a `session` header line, then a `run` line for each run.

All times are UTC and in seconds, sizes in bytes, money in US dollars. No host or user name and no
absolute path belongs in any field.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SCHEMA_VERSION = 10

STATUSES = (
    "ok",
    "unsupported",
    "unavailable",
    "oom",
    "timeout",
    "nan",
    "numerics",
    "error",
)

NOT_TRIED = ("unsupported", "unavailable")
"""Statuses of cells that were never started."""

REPLAY = "replay"
"""The plan of a session that is one attempt to replay a run."""


@dataclass(frozen=True)
class Environment:
    """Hardware, system and packages, as the worker's own interpreter saw them."""

    machine: str
    os: str
    python: str
    cpu: str
    cpu_count: int
    memory_bytes: int
    accelerators: tuple[str, ...]
    packages: dict[str, str]
    variables: dict[str, str]


@dataclass(frozen=True)
class Protocol:
    """How a run is measured. Rows made under different protocols are not ranked together.

    `block_min_s` is the shortest timed block aimed at; warm-up blocks run until two medians of
    consecutive step times agree within `warmup_tolerance`, between the floor and the ceiling.
    Timed blocks end when the 95 % interval of their median is narrower than `interval_width`, a
    share of the median (0: no such rule), or when `steady_budget_s` is spent.
    A run is ended after `timeout_s`; 0, in the header of a session that was given none, leaves it
    to each run's scale (`harness.limits`).
    `stop_after` ends a run after that stage (empty: none), for checks that need no timing;
    `reference` stops where the gate would judge, to make the reference it judges by.
    `train_steps` ends the training after that many steps of its first epoch (0: whole epochs, as
    declared). `weights_digest` is of the file that training started from (empty: from the seed).
    `pipeline` replaces the declared kind of input pipeline (empty: as declared). `epochs` replaces
    the declared number (0: as declared). Training ends when a tenth of a point of quality took more
    than `stop_s_per_tenth` in the last epoch (0: no such rule; `harness.stopping`).
    The gradients of `accumulate` equal parts of the declared batch make one update (1: the batch is
    whole). `batch_memory_bytes` is what a step may take of memory: the batch is the largest
    doubling of the declared one that does (0: as declared; `harness.options`). The learning rate is
    multiplied by `plateau_factor` after an epoch whose quality was no better than the best before
    (0: never).
    """

    gate_steps: int = 3
    block_min_s: float = 0.2
    warmup_floor_blocks: int = 3
    warmup_ceiling_blocks: int = 12
    warmup_tolerance: float = 0.05
    min_blocks: int = 6
    max_blocks: int = 30
    interval_width: float = 0.02
    steady_budget_s: float = 3.0
    latency_calls: int = 30
    timeout_s: float = 0.0
    stop_after: str = ""
    train_steps: int = 0
    weights_digest: str = ""
    pipeline: str = ""
    epochs: int = 0
    stop_s_per_tenth: float = 0.0
    accumulate: int = 1
    batch_memory_bytes: int = 0
    plateau_factor: float = 0.0


@dataclass(frozen=True)
class Block:
    """Consecutive steps between two synchronised readings of the clock.

    The rest tells what the machine did meanwhile, from readings outside the timed span; None where
    the kernel does not say. In seconds: CPU time of the run's processes (`cpu_s`) and of everything
    else, stolen time included (`others_cpu_s`); time the worker's threads stood in the run queue,
    added up (`queued_s`); time in which anything on the machine waited for a processor
    (`pressure_s`).
    `preempted` counts its involuntary context switches. A `disturbed` block is kept but does not
    count, by the rule of `harness.probes.disturbed`.
    """

    steps: int
    seconds: float
    cpu_s: float | None = None
    others_cpu_s: float | None = None
    stolen_s: float | None = None
    queued_s: float | None = None
    pressure_s: float | None = None
    preempted: int | None = None
    disturbed: bool = False


@dataclass(frozen=True)
class Epoch:
    """One epoch through the input pipeline, then an evaluation on held-out data.

    Under a step budget `steps` are the first of the `epoch_steps` of a whole epoch, and nothing is
    evaluated; otherwise `epoch_steps` is None. The declared learning rate was multiplied by
    `learning_rate_factor`.
    """

    steps: int
    train_s: float
    evaluation_s: float | None
    loss: float
    quality: dict[str, float]
    epoch_steps: int | None = None
    learning_rate_factor: float = 1.0


@dataclass(frozen=True)
class Exchange:
    """Steps of several devices after the timed blocks, with the exchange of gradients timed inside.

    `exchange_s` of their `seconds` the first device spent on it: waiting for the others is part of
    that.
    """

    steps: int
    seconds: float
    exchange_s: float


@dataclass(frozen=True)
class Samples:
    """Raw measurements; every metric of a run is computed from these.

    `exchange` is None on one device, and where a backend's exchange is no operation of its own.
    """

    first_step_s: float | None = None
    warmup: tuple[Block, ...] = ()
    warmup_outcome: str = ""
    steady: tuple[Block, ...] = ()
    steady_outcome: str = ""
    epochs: tuple[Epoch, ...] = ()
    train_outcome: str = ""
    infer: tuple[Block, ...] = ()
    infer_latency_s: tuple[float, ...] = ()
    exchange: Exchange | None = None


@dataclass(frozen=True)
class Memory:
    """Host memory of the worker: resident set after import, and its peak from build to the end.

    The peak is the kernel's `VmHWM`, reset after import and after the equality gate, whose copies
    of gradients are no part of training; None where the kernel does not give it. `tried_batches`
    are the peaks of a step by the batch sizes that were tried to find the largest that fits.
    """

    host_baseline_bytes: int | None = None
    host_peak_bytes: int | None = None
    device_peak_bytes: int | None = None
    tried_batches: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Gate:
    """The equality gate's figures, and the worst relative deviation of each from the reference."""

    outcome: str = ""
    output: tuple[float, ...] = ()
    loss: tuple[float, ...] = ()
    gradient_norm: tuple[float, ...] = ()
    vector_gradient_norm: tuple[float, ...] = ()
    update_norm: tuple[float, ...] = ()
    deviation: dict[str, float] = field(default_factory=dict)
    tolerance: dict[str, float] = field(default_factory=dict)
    skipped_steps: int = 0


@dataclass(frozen=True)
class LossScaling:
    """Dynamic loss scaling: a step whose gradients are not all finite is skipped.

    It changes no weight, and halves the scale. Counted are the skipped steps of the warm-up and of
    the timed blocks after it, which begin with the initial scale, and those of all epochs, which
    begin with it again; None for a part that was not run to its end. `final_scale` is the scale
    after the last of these parts.
    """

    final_scale: float
    warmup_skipped_steps: int | None = None
    steady_skipped_steps: int | None = None
    train_skipped_steps: int | None = None


@dataclass(frozen=True)
class Contention:
    """What else the machine did while the run lasted.

    `others_cpu_share` is the share of all CPU time that other processes used, steal included;
    `contended` says that it was above the limit under which rows are ranked, that too few timed
    blocks were undisturbed, or that others computed on an accelerator of the run.
    """

    load_1m_before: float | None = None
    load_1m_after: float | None = None
    cpu_pressure_share: float | None = None
    others_cpu_share: float | None = None
    contended: bool = False


@dataclass(frozen=True)
class Energy:
    """What counters of the machine say of each epoch's training, evaluation not included.

    Of the whole machine, whatever else ran on it. `method` is `rapl` (processor packages, and
    memory where it has a counter of its own), `nvml` (the accelerators; `nvml-power` where they
    tell their power only, which is integrated), or both with a plus; `domains` are the counters.
    They are read outside the measured process: at both ends of an epoch, and `sampling_hz` times a
    second in between, since they wrap around.
    """

    method: str
    domains: tuple[str, ...]
    sampling_hz: float
    epochs_j: tuple[float, ...]


@dataclass(frozen=True)
class Device:
    """An accelerator and its driver, as `probe` (`nvml`) tells; None for what it does not.

    `uuid_digest` tells two devices apart: the first 16 hex digits of the SHA-256 of the maker's
    identifier, which is not recorded. `mig` says that the device is divided into instances.
    """

    probe: str
    name: str
    uuid_digest: str
    driver: str
    memory_bytes: int | None
    mig: bool | None


@dataclass(frozen=True)
class DeviceReading:
    """An accelerator at one moment; None for what is not told.

    Memory in use is the whole device's (`memory_used_bytes`, the driver's own included), and that
    of the run's processes. `utilisation` is the share of the last moments (by device a sixth of a
    second to a second) in which something ran. `energy_j` counts from when the driver was loaded.
    `throttle_reasons` are why clocks are below their highest, by nvidia-smi's names.
    """

    memory_used_bytes: int | None = None
    own_memory_bytes: int | None = None
    utilisation: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    temperature_c: float | None = None
    sm_clock_hz: float | None = None
    memory_clock_hz: float | None = None
    throttle_reasons: tuple[str, ...] | None = None
    processes: int | None = None
    own_processes: int | None = None


@dataclass(frozen=True)
class Accelerator:
    """An accelerator of a run, read outside the measured process; None for what is not told.

    Read before the worker started, after it ended, and `sampling_hz` times a second in between
    (`samples` of these). Means and the lowest clock are of the samples, all else of the two ends
    too. A `throttled` run was slowed down by heat or by its supply of power
    (`harness.nvml.SLOWDOWNS`) in any reading; short slow-downs between two readings are not seen.
    `other_processes` is the most of others at a time. `failure` says why reading ended too early.
    """

    device: Device
    sampling_hz: float
    samples: int
    before: DeviceReading | None
    after: DeviceReading | None
    peak_memory_used_bytes: int | None
    peak_own_memory_bytes: int | None
    mean_utilisation: float | None
    mean_power_w: float | None
    max_temperature_c: float | None
    min_sm_clock_hz: float | None
    throttle_reasons: tuple[str, ...] | None
    throttled: bool
    other_processes: int | None
    failure: str = ""


@dataclass(frozen=True)
class Price:
    """A unit price with its provenance; `snapshot` names the file in results/prices."""

    id: str
    usd_per_hour: float
    accelerator: str
    provider: str
    instance: str
    region: str
    kind: str
    as_of: str
    source: str
    snapshot: str


@dataclass(frozen=True)
class Peak:
    """The most FLOP per second that a device does in a precision, and how that is known.

    `method` is `measured` (a matrix product on this machine, the best of the backends) or
    `documented` (dense, from the maker); `source` is the backend or the document.
    """

    flops_per_s: float
    precision: str
    method: str
    source: str
    as_of: str


@dataclass(frozen=True)
class DataOrigin:
    """Where the data came from, and the digest of the prepared arrays."""

    source: str
    digest: str


@dataclass(frozen=True)
class Report:
    """What a worker sends when it ends: the part of a run that it alone knows."""

    status: str
    reason: str
    batch_size: int
    environment: Environment
    numerics: dict[str, str]
    stages: dict[str, float]
    samples: Samples
    memory: Memory
    gate: Gate
    data: DataOrigin | None
    loss_scaling: LossScaling | None = None
    accelerators: tuple[Accelerator, ...] = ()


@dataclass(frozen=True)
class Session:
    """The header line of a results file: one invocation that executes a plan."""

    session: str
    started_at: str
    suite_version: str
    suite_commit: str
    plan: str
    only: tuple[str, ...]
    replicates: int
    order_seed: int
    cells: tuple[str, ...]
    protocol: Protocol
    environment: Environment
    schema_version: int = SCHEMA_VERSION
    kind: str = "session"


@dataclass(frozen=True)
class Run:
    """One execution of one cell in one process."""

    session: str
    run: str
    replicate: int
    suite_version: str
    suite_commit: str
    workload_version: str
    cell: str
    seed: int
    batch_size: int
    started_at: str
    status: str
    reason: str
    environment: Environment
    protocol: Protocol
    replay: str
    numerics: dict[str, str] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    samples: Samples = field(default_factory=Samples)
    memory: Memory = field(default_factory=Memory)
    gate: Gate = field(default_factory=Gate)
    loss_scaling: LossScaling | None = None
    contention: Contention = field(default_factory=Contention)
    energy: Energy | None = None
    accelerators: tuple[Accelerator, ...] = ()
    data: DataOrigin | None = None
    quality_metric: str = ""
    higher_is_better: bool = True
    quality_target: float | None = None
    flops_per_example: int | None = None
    peak: Peak | None = None
    price: Price | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    log_tail: str = ""
    schema_version: int = SCHEMA_VERSION
    kind: str = "run"
