"""The command `epochmark`: reads arguments, calls the harness, prints. Nothing is decided here.

Modules that a command needs are imported inside it, so that help and lists answer at once.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cells import DEVICE_KINDS
from harness.errors import EpochmarkError, UsageError, unknown

if TYPE_CHECKING:
    import pandas

app = typer.Typer(
    help="What an epoch of training really costs, under every Keras backend.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Show and fetch the workloads' data.", invoke_without_command=True)
app.add_typer(data_app, name="data")
prices_app = typer.Typer(help="Show and import reference prices.", invoke_without_command=True)
app.add_typer(prices_app, name="prices")
env_app = typer.Typer(help="Make and check environments for cells.", no_args_is_help=True)
app.add_typer(env_app, name="env")


class Output(StrEnum):
    """How a reading command answers."""

    table = "table"
    json = "json"
    csv = "csv"


class ExportFormat(StrEnum):
    """What `export` writes."""

    csv = "csv"
    parquet = "parquet"
    mlflow = "mlflow"
    wandb = "wandb"


Only = Annotated[
    list[str] | None,
    typer.Option("--only", help="Glob on the cell id, such as '*/jax/*'; may be repeated."),
]
PlanName = Annotated[str | None, typer.Option("--plan", help="quick, smoke, standard or nightly.")]
Results = Annotated[Path, typer.Option("--results", help="The results folder.")]
Format = Annotated[Output, typer.Option("--format", help="How to answer.")]

RESULTS = Path("results")


def main() -> None:
    """Run the command; a person's mistake is one sentence and an exit status, never a traceback."""
    try:
        app()
    except EpochmarkError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output went away, as `head` does.
        sys.stderr.close()
        sys.exit(1)


@app.command("list")
def list_cells(
    only: Only = None,
    plan: PlanName = None,
    supported: Annotated[
        bool, typer.Option("--supported", help="Leave out what cannot run here.")
    ] = False,
    output: Format = Output.table,
) -> None:
    """List the cells, whether each can run here, and why not."""
    from harness.listing import render
    from harness.plans import planned
    from harness.support import support

    cells = [(cell, support(cell)) for cell in planned(plan, only or [])]
    if supported:
        cells = [(cell, possible) for cell, possible in cells if possible.runs]
    typer.echo(render(cells, output.value))


@app.command()
def plans() -> None:
    """List the plans."""
    from harness.plans import PLANS

    for plan in PLANS.values():
        typer.echo(f"{plan.name:<10} {plan.purpose}")


@app.command()
def metrics() -> None:
    """List the metrics: name, unit, which way is better, definition."""
    from harness.metrics import METRICS

    for metric in METRICS.values():
        typer.echo(f"{metric.name} ({metric.unit}, {metric.direction} is better)")
        typer.echo(f"    {metric.definition}")


@prices_app.callback()
def prices(
    context: typer.Context,
    snapshot: Annotated[
        str | None, typer.Option("--prices", help="One snapshot of results/prices alone.")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """List the reference prices that costs can be shown with, unless a command follows."""
    if context.invoked_subcommand is not None:
        return
    from harness.prices import read_prices
    from harness.units import aligned

    rows = [
        (price.id, f"{price.usd_per_hour:.4f} USD/h", price.accelerator, price.as_of, price.source)
        for price in read_prices(results, snapshot).values()
    ]
    typer.echo("\n".join(aligned([("id", "rate", "for", "as of", "source"), *rows])))


@prices_app.command("import")
def prices_import(
    path: Annotated[Path, typer.Argument(help="A price catalogue's file.")],
    catalogue: Annotated[
        str, typer.Option(help="Its kind: karpenter-gcp, skypilot-aws, -azure or -gcp.")
    ],
    as_of: Annotated[str, typer.Option(help="The day its prices are of, such as 2026-08-03.")],
    results: Results = RESULTS,
) -> None:
    """Write a snapshot of that day, for the instances and regions that the book has."""
    from harness.catalogues import import_prices
    from harness.store import spelled

    target, count = import_prices(path, catalogue, as_of, results)
    typer.echo(f"Imported {count} prices into {spelled(target)}.")


@app.command()
def doctor(
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure the noise floor instead of the peak.")
    ] = False,
    drift: Annotated[
        bool,
        typer.Option(
            "--drift", help="Measure nothing: how far are sessions of the same code apart?"
        ),
    ] = False,
    device: Annotated[
        str, typer.Option(help="cpu; or gpu, tpu: can cells run on it, and is it fit?")
    ] = "cpu",
    strict: Annotated[
        bool, typer.Option("--strict", help="With --device: exit with 1 if cells cannot run on it.")
    ] = False,
    only: Only = None,
    pairs: Annotated[int, typer.Option(min=2, help="With --calibrate: pairs per cell.")] = 8,
    results: Results = RESULTS,
    output: Format = Output.table,
) -> None:
    """Is this machine fit to measure on? Then its peak, which MFU is a share of."""
    if only and not calibrate:
        raise UsageError("--only names the cells to calibrate; add --calibrate.")
    if device not in DEVICE_KINDS:
        raise unknown("device", device, sorted(DEVICE_KINDS))
    if calibrate and device != "cpu":
        raise UsageError("--device is not for --calibrate, which goes by cells: use --only.")
    if drift and (calibrate or device != "cpu"):
        raise UsageError("--drift reads results alone: give it without --calibrate and --device.")
    if drift:
        _drift(results)
        return
    from harness import fitness

    fitness.render(fitness.checks(), _aside)
    if calibrate:
        _calibrate(only, pairs, results)
    elif device != "cpu":
        from harness import fitness_devices

        examined = fitness_devices.examine(device)
        examined = fitness_devices.tried_out(examined, _aside)
        fitness_devices.told(examined, output.value, typer.echo)
        if strict and examined.lacking:
            raise typer.Exit(1)
    else:
        _peak(results, output)


def _calibrate(only: list[str] | None, pairs: int, results: Path) -> None:
    from harness import calibrate as calibration
    from harness.noise import read_floors
    from harness.plans import planned, runnable
    from harness.probes import machine_name
    from harness.store import check_writable, spelled

    cells = runnable(planned(None if only else "quick", only or ()))
    check_writable(results)
    path = calibration.calibrate(cells, pairs, results, _aside)
    typer.echo(calibration.render(read_floors(results, machine_name())))
    typer.echo(f"Written to {spelled(path)}.", err=True)


def _drift(results: Path) -> None:
    from harness.drift_command import learn
    from harness.probes import machine_name
    from harness.store import check_writable, spelled

    check_writable(results)
    told, path = learn(results, machine_name())
    typer.echo(told)
    typer.echo(f"Written to {spelled(path)}.", err=True)


def _peak(results: Path, output: Output) -> None:
    from harness import doctor as examination
    from harness.peak import write_peaks
    from harness.store import check_writable, spelled

    check_writable(results)
    measured = examination.examine(say=_aside)
    path = write_peaks(results, measured)
    typer.echo(examination.render(measured, output.value))
    _aside(
        f"Written to {spelled(path)}: the MFU of runs on this machine is a share of these peaks."
    )


@app.command()
def run(
    plan: PlanName = None,
    only: Only = None,
    replicates: Annotated[int, typer.Option(min=1, help="Processes per cell.")] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest unfinished session.")
    ] = False,
    session: Annotated[
        str | None, typer.Option(help="With --resume: which session or results file.")
    ] = None,
    price: Annotated[str | None, typer.Option(help="Reference price for costs.")] = None,
    results: Results = RESULTS,
    order_seed: Annotated[int, typer.Option(help="Seed of the order of runs.")] = 1,
    timeout: Annotated[
        float | None,
        typer.Option(min=1.0, help="Seconds a run may take, in place of its scale's limit."),
    ] = None,
    gate_only: Annotated[
        bool,
        typer.Option("--gate-only", help="Whether cells compute the same, without timing them."),
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Train only the first steps; an epoch's time is extrapolated."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs in place of the declared ones.")
    ] = None,
    stop_at: Annotated[
        float | None,
        typer.Option(min=0.0, help="US dollars: stop when 0.1 point of quality would cost more."),
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(min=2, help="Gather the gradient of a batch from so many equal parts."),
    ] = None,
    batch_memory: Annotated[
        float | None,
        typer.Option(min=0.01, help="GiB: the largest batch whose step takes no more memory."),
    ] = None,
    plateau: Annotated[
        float | None,
        typer.Option(min=0.001, max=0.999, help="Learning rate times this when quality stalls."),
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="Input pipeline in place of the declared one.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Published weights to start the training from.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 when a run is not ok.")
    ] = False,
) -> None:
    """Measure cells: a plan, or those that globs select. Each run is written as it ends."""
    from harness.run_command import Request, carry_out
    from harness.workload import PIPELINES

    if session is not None and not resume:
        raise UsageError("--session names what to go on with; add --resume.")
    if resume and (plan is not None or only):
        raise UsageError("--resume goes on with its session's own cells; leave out --plan, --only.")
    own = {"--steps": steps, "--epochs": epochs, "--stop-at": stop_at, "--pipeline": pipeline}
    own |= {"--accumulate": accumulate, "--batch-memory": batch_memory, "--plateau": plateau}
    for name, value in own.items():
        if resume and value is not None:
            raise UsageError(f"--resume goes on with its session's own protocol; leave out {name}.")
    if gate_only:
        for name, given in {**own, "--weights": weights}.items():
            if given is not None:
                raise UsageError(f"--gate-only trains nothing; leave out {name}.")
    if resume and gate_only:
        raise UsageError("--resume goes on with its session's own protocol; leave out --gate-only.")
    if steps is not None and (epochs is not None or stop_at is not None):
        raise UsageError("--steps trains a part of one epoch; leave out --epochs and --stop-at.")
    if pipeline is not None and pipeline not in PIPELINES:
        raise unknown("input pipeline", pipeline, list(PIPELINES))
    if not resume and plan is None and not only:
        raise UsageError(
            "Nothing to run. Name a plan with --plan quick, or cells with --only GLOB."
        )
    request = Request(
        plan=plan,
        only=tuple(only or ()),
        replicates=replicates,
        resume=resume,
        session=session,
        price=price,
        results=results,
        order_seed=order_seed,
        timeout_s=timeout or 0.0,
        gate_only=gate_only,
        train_steps=steps or 0,
        epochs=epochs or 0,
        stop_at_usd=stop_at or 0.0,
        accumulate=accumulate or 1,
        batch_memory_gib=batch_memory or 0.0,
        plateau_factor=plateau or 0.0,
        pipeline=pipeline or "",
        weights=weights,
    )
    accounted, all_ok = carry_out(request, typer.echo)
    if not accounted or (strict and not all_ok):
        raise typer.Exit(1)


@app.command()
def show(
    files: Annotated[
        list[str] | None, typer.Argument(help="Results files or sessions; all if none is named.")
    ] = None,
    only: Only = None,
    wide: Annotated[bool, typer.Option("--wide", help="Every metric.")] = False,
    costs: Annotated[bool, typer.Option("--costs", help="What it costs, and break-even.")] = False,
    chart: Annotated[bool, typer.Option("--chart", help="Bars in place of a table.")] = False,
    metric: Annotated[str | None, typer.Option(help="With --chart: which metric.")] = None,
    output: Format = Output.table,
    results: Results = RESULTS,
) -> None:
    """Show the results: the latest row of each cell."""
    from harness import show as showing
    from harness.drift import known_drifts

    if wide + costs + chart > 1:
        raise UsageError("--wide, --costs and --chart each show something else: name one.")
    if metric and not chart:
        raise UsageError("--metric says what the bars are of; add --chart.")
    frame, broken = _frame(results, files, only)
    if chart:
        from harness.charts import bars

        typer.echo(bars(frame, metric))
    else:
        view = "wide" if wide else "costs" if costs else "usual"
        drifts = known_drifts(results, frame)
        typer.echo(showing.show(frame, drifts, output=output.value, view=view))
    if broken:
        raise typer.Exit(1)


@app.command()
def reprice(
    files: Annotated[
        list[str] | None, typer.Argument(help="Results files or sessions; all if none is named.")
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option("--prices", help="A snapshot of results/prices; all if none.")
    ] = None,
    price: Annotated[str | None, typer.Option(help="One price id for all rows.")] = None,
    region: Annotated[str | None, typer.Option(help="The same instance in this region.")] = None,
    spot: Annotated[bool, typer.Option("--spot", help="Interruptible capacity.")] = False,
    on_demand: Annotated[
        bool, typer.Option("--on-demand", help="Of which nobody is sent away.")
    ] = False,
    only: Only = None,
    output: Format = Output.table,
    results: Results = RESULTS,
) -> None:
    """Price old results again; the files stay as they are."""
    from harness import reprice as pricing
    from harness.cellbook import book
    from harness.prices import read_prices
    from harness.show import show as shown
    from harness.summary import latest

    if spot and on_demand:
        raise UsageError("--spot and --on-demand exclude each other.")
    kind = "spot" if spot else "on-demand" if on_demand else None
    wish = pricing.wish(price, region, kind)
    known = read_prices(book(results, "prices"), snapshot)
    frame, broken = _frame(results, files, only)
    again, notices = pricing.repriced(latest(frame), known, wish)
    for notice in notices:
        _aside(notice)
    typer.echo(shown(again, output=output.value, view="costs"))
    if broken:
        raise typer.Exit(1)


@app.command()
def advise(
    workload: Annotated[str, typer.Argument(help="The workload to be trained.")],
    files: Annotated[
        list[str] | None, typer.Argument(help="Results files or sessions; all if none is named.")
    ] = None,
    scale: Annotated[str | None, typer.Option(help="smoke, standard or full.")] = None,
    quality: Annotated[
        str | None, typer.Option(help="The quality it must reach, such as 67% or 6.9.")
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(min=0.0, help="The most memory in GiB."),
    ] = None,
    budget: Annotated[float | None, typer.Option(min=0.0, help="The most US dollars.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs to train; as many as measured if not named.")
    ] = None,
    by: Annotated[str, typer.Option(help="cost, time, memory or quality.")] = "cost",
    chart: Annotated[
        Path | None, typer.Option(help="Draw cost and quality into this file: .svg, .png or .pdf.")
    ] = None,
    only: Only = None,
    output: Format = Output.table,
    results: Results = RESULTS,
) -> None:
    """Recommend a cell for a workload, from what was measured, with the reason."""
    from harness import advise_command as command
    from harness.advise import Wanted
    from harness.registry import workload as declared

    wanted = Wanted(
        workload=workload,
        scale=scale,
        epochs=epochs,
        quality=command.bound(quality, declared(workload).quality_unit),
        memory_bytes=None if memory is None else memory * 2**30,
        budget_usd=budget,
        by=by,
    )
    frame, broken = _frame(results, files, only)
    found = command.advice(frame, wanted, results)
    render = {"table": command.text, "json": command.as_json, "csv": command.as_csv}
    typer.echo(render[output.value](found))
    if chart is not None:
        from harness.charts import pareto

        pareto(found, chart)
        typer.echo(f"Drawn into {chart}.", err=True)
    if broken or found.chosen is None:
        raise typer.Exit(1)


@app.command()
def interrupt(
    plan: PlanName = None,
    only: Only = None,
    kills: Annotated[int, typer.Option(min=1, help="Times that each cell is killed.")] = 3,
    results: Results = RESULTS,
) -> None:
    """Kill trainings and resume them from their checkpoints: what an interruption costs."""
    from harness import spot_command as command
    from harness.interruption import read_interruptions
    from harness.plans import planned, runnable
    from harness.probes import machine_name
    from harness.store import check_writable, spelled

    if plan is None and not only:
        raise UsageError("Nothing to run. Name cells with --only GLOB, or a plan with --plan.")
    cells = [cell for cell in runnable(planned(plan, only or ())) if cell.phase == "train"]
    if not cells:
        raise UsageError("Only training can be interrupted; none of these cells is of that phase.")
    check_writable(results)

    path, through = command.interrupt(cells, kills, results, _aside)
    typer.echo(command.render(read_interruptions(results, machine_name())))
    _aside(f"Written to {spelled(path)}.")
    if not through:
        raise typer.Exit(1)


@app.command("options")
def loop_options(
    only: Only = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each kind.")] = 2,
    price: Annotated[str | None, typer.Option(help="Reference price for costs.")] = None,
    output: Format = Output.table,
    results: Results = RESULTS,
) -> None:
    """What the options of a training loop do to the cost of a quality, beside plain fit.

    With --only, trains these functional cells in every variant first; else shows what was measured.
    """
    from harness import effects_command as command
    from harness import runner
    from harness.effects import FOLDER, measure, trainable
    from harness.plans import planned, runnable
    from harness.run_command import chosen_price
    from harness.store import check_writable, spelled

    if only:
        cells = trainable(runnable(planned(None, only)))
        extras = runner.Extras(chosen_price(price, results))
        check_writable(results / FOLDER)
        runner.prepare_data(cells, _aside)
        with runner.terminated_as_interrupted():
            path = measure(
                cells,
                seeds,
                results / FOLDER,
                extras=extras,
                listener=lambda name, run: _aside(command.line(name, run)),
            )
        _aside(f"Written to {spelled(path)}.")
    render = {"table": command.text, "json": command.as_json, "csv": command.as_csv}
    typer.echo(render[output.value](command.stored(results)))


@app.command()
def preflight(
    device: Annotated[
        str, typer.Option(help="What to plan for: tpu-v4, -v5e, -v5p, -v6e, cuda-h100, -a100 ...")
    ],
    scale: Annotated[str, typer.Option(help="smoke, standard or full.")] = "smoke",
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Glob such as '*/preflight/jax/*'; may be repeated."),
    ] = None,
    largest_batch: Annotated[
        bool, typer.Option("--largest-batch", help="Search the largest batch that fits, too.")
    ] = False,
    optimised: Annotated[
        bool, typer.Option("--optimised", help="The TPU compiler's full effort: minutes a cell.")
    ] = False,
    output: Format = Output.table,
    results: Results = RESULTS,
) -> None:
    """Plan training steps for an accelerator that is not here: what fits, and how fast at best."""
    from harness import preflight_command as command
    from harness.cells import SCALES
    from harness.preflight import cells_of
    from harness.store import check_writable, spelled
    from harness.targets import target

    chosen = target(device)
    if scale not in SCALES:
        raise unknown("scale", scale, list(SCALES))
    cells = cells_of(chosen, scale, only or ())
    check_writable(results)

    path, found = command.preflight(
        cells,
        chosen,
        optimised=optimised,
        find_largest=largest_batch,
        results=results,
        say=_aside,
    )
    render = {"table": command.text, "json": command.as_json, "csv": command.as_csv}
    typer.echo(render[output.value](found, chosen))
    _aside(f"Written to {spelled(path)}.")
    if command.failed(found):
        raise typer.Exit(1)


@app.command()
def spot(
    files: Annotated[
        list[str] | None, typer.Argument(help="Results files or sessions; all if none is named.")
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0.0, help="Interruptions an hour that are expected.")
    ] = 0.05,
    interval: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds between checkpoints; the best if none.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs to train; as many as measured if not named.")
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option("--prices", help="A snapshot of results/prices; all if none.")
    ] = None,
    only: Only = None,
    output: Format = Output.table,
    results: Results = RESULTS,
) -> None:
    """What training would cost on interruptible capacity, against on demand."""
    from harness import spot_command as command
    from harness.cellbook import book
    from harness.prices import read_prices

    frame, broken = _frame(results, files, only)
    prices = read_prices(book(results, "prices"), snapshot)
    found, notes = command.outlooks(
        frame,
        prices,
        book(results, "interruptions"),
        rate=rate,
        interval_s=interval,
        epochs=epochs,
    )
    render = {"table": command.text, "json": command.as_json, "csv": command.as_csv}
    typer.echo(render[output.value](found, rate, notes))
    if broken:
        raise typer.Exit(1)


@app.command()
def energy(
    files: Annotated[
        list[str] | None, typer.Argument(help="Results files or sessions; all if none is named.")
    ] = None,
    region: Annotated[
        str | None, typer.Option(help="The grid: 'gcp:us-central1', 'DEU'; the price's if none.")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="By a power model where nothing was measured.")
    ] = False,
    only: Only = None,
    output: Format = Output.table,
    results: Results = RESULTS,
) -> None:
    """Energy of an epoch, and the carbon of the grid it comes from."""
    from harness import energy_command as command
    from harness.carbon import read_intensities
    from harness.cellbook import book

    frame, broken = _frame(results, files, only)
    known = read_intensities(book(results, "carbon"))
    found = command.lines(frame, known, region=region, estimate=estimate)
    render = {"table": command.text, "json": command.as_json, "csv": command.as_csv}
    typer.echo(render[output.value](found))
    if broken:
        raise typer.Exit(1)


@app.command()
def compare(
    baseline: Annotated[str, typer.Argument(help="Session, results file, commit or cell glob.")],
    contender: Annotated[str, typer.Argument(help="What is held against it, named likewise.")],
    metric: Annotated[str, typer.Option(help="A metric of `epochmark metrics`.")] = "step_time_s",
    across: Annotated[
        list[str] | None,
        typer.Option(
            help="A key that may differ: version, precision, batch, machine, protocol, numerics, "
            "energy."
        ),
    ] = None,
    session: Annotated[
        str | None, typer.Option(help="Take globs and commits from this session or file alone.")
    ] = None,
    only: Only = None,
    output: Format = Output.table,
    results: Results = RESULTS,
) -> None:
    """Compare two sets of runs cell by cell: ratio, interval, and a verdict."""
    from harness.compare_command import compared

    text, broken = compared(
        results,
        baseline,
        contender,
        metric=metric,
        across=across or (),
        only=only or (),
        session=session,
        output=output.value,
        say=_aside,
    )
    typer.echo(text)
    if broken:
        raise typer.Exit(1)


@app.command()
def ab(
    baseline: Annotated[
        str, typer.Option(help="'.', an environment or interpreter, or a commit.")
    ] = ".",
    contender: Annotated[str, typer.Option(help="What is held against it, named likewise.")] = ".",
    env: Annotated[
        list[str] | None, typer.Option("--env", help="NAME=VALUE for the contender alone.")
    ] = None,
    baseline_env: Annotated[
        list[str] | None, typer.Option("--baseline-env", help="NAME=VALUE for the baseline alone.")
    ] = None,
    plan: PlanName = None,
    only: Only = None,
    threshold: Annotated[
        str,
        typer.Option(
            metavar="PERCENT|noise",
            help="Slowdown that is no regression yet; 'noise': this machine's, as calibrated.",
        ),
    ] = "0",
    budget: Annotated[float, typer.Option(min=1.0, help="Seconds for each cell.")] = 300.0,
    timeout: Annotated[
        float | None,
        typer.Option(min=1.0, help="Seconds a pair may take, in place of its scale's limit."),
    ] = None,
    results: Results = RESULTS,
    output: Format = Output.table,
) -> None:
    """Run two sides in turns: commits, environments, or sets of flags. 1 is a regression."""
    from harness import ab_command as command

    if plan is None and not only:
        raise UsageError("Nothing to run. Name cells with --only GLOB, or a plan with --plan.")
    request = command.Request(
        baseline=baseline,
        contender=contender,
        baseline_variables=tuple(baseline_env or ()),
        contender_variables=tuple(env or ()),
        plan=plan,
        only=tuple(only or ()),
        threshold=None if threshold == "noise" else command.share(threshold),
        budget_s=budget,
        timeout_s=timeout or 0.0,
        results=results,
    )

    def say(line: str) -> None:
        typer.echo(line, err=output is not Output.table)

    outcomes, regressed = command.carry_out(request, say)
    render = {"table": command.text, "json": command.as_json, "csv": command.as_csv}
    typer.echo(render[output.value](outcomes, request))
    if regressed:
        raise typer.Exit(1)


class Alarm(StrEnum):
    """What makes `trend` exit with 1."""

    never = "never"
    regression = "regression"


@app.command()
def trend(
    metric: Annotated[
        list[str] | None, typer.Option(help="A metric to watch; may be repeated.")
    ] = None,
    only: Only = None,
    segment: Annotated[int, typer.Option(min=3, help="Least sessions beside a step.")] = 4,
    magnitude: Annotated[float, typer.Option(min=0.0, help="Least step in percent.")] = 2.0,
    fail_on: Annotated[
        Alarm, typer.Option("--fail-on", help="Exit with 1 for a regression that is new.")
    ] = Alarm.never,
    output: Format = Output.table,
    results: Results = RESULTS,
) -> None:
    """Find the steps in the history of the results, and what changed at them."""
    from harness import trend_command as command

    found, broken = command.trend(
        results,
        metrics=metric or (),
        only=only or (),
        segment=segment,
        magnitude=magnitude / 100,
        say=_aside,
    )
    render = {"table": command.text, "json": command.as_json, "csv": command.as_csv}
    typer.echo(render[output.value](found))
    alarmed = any(step.worse and step.new for step in found.steps)
    if broken or (alarmed and fail_on is Alarm.regression):
        raise typer.Exit(1)


@app.command()
def night(
    out: Annotated[Path, typer.Option(help="The folder for the summary and the regressions.")],
    results: Results = RESULTS,
) -> None:
    """Sum up the newest session against the last good one. 1 is a regression that is new."""
    from harness import night as command

    found = command.night(results, _aside)
    for path in command.put(found, out):
        typer.echo(str(path), err=True)
    typer.echo(command.summary(found))
    if found.regressions or found.broken:
        raise typer.Exit(1)


@app.command()
def replay(
    run: Annotated[str, typer.Argument(help="FILE:RUN, a results file and a run in it.")],
    weights: Annotated[
        Path | None, typer.Option(help="The published weights that the run started from.")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Measure a published run again: its cell, seed and protocol. 1 is not reproduced."""
    from harness import replay as command

    found = command.replay(run, results, weights=weights, say=typer.echo)
    typer.echo(command.text(found))
    if found.reproduced is False:
        raise typer.Exit(1)


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="The site's folder.")] = Path("site"),
    summary: Annotated[
        Path | None, typer.Option(help="Also write this Markdown file, for a pull request.")
    ] = None,
    asv: Annotated[
        bool, typer.Option("--asv", help="Also put asv's own pages there; npm fetches scripts.")
    ] = False,
    results: Results = RESULTS,
) -> None:
    """Make a static site of the results, which opens without a server or a network."""
    from harness.report.build import build

    built = build(results, out, summary=summary, asv=asv)
    for notice in built.notices:
        _aside(notice)
    typer.echo(f"{built.files} files, {built.bytes / 2**20:.1f} MiB. Open {built.index}")
    if built.broken:
        raise typer.Exit(1)


@app.command()
def export(
    path: Annotated[str, typer.Argument(help="The file to write, or the tracker's store.")],
    to: Annotated[ExportFormat, typer.Option("--to", help="Its format, or the tracker.")] = (
        ExportFormat.csv
    ),
    files: Annotated[
        list[str] | None, typer.Option("--file", help="A results file or session; may be repeated.")
    ] = None,
    only: Only = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    results: Results = RESULTS,
) -> None:
    """Write every run as a row of a CSV or Parquet file, or as a run of an experiment tracker."""
    from harness import export as writer
    from harness import trackers

    frame, broken = _frame(results, files, only)
    if to.value in writer.FORMATS:
        writer.export(frame, to.value, Path(path), force=force)
        typer.echo(f"Wrote {len(frame):,} runs to {path}.")
    else:
        wanted = set(frame["cell"].astype(str))
        runs = trackers.selected_runs(results, files or (), wanted.__contains__)
        written, present = trackers.export(to.value, path, runs, say=typer.echo)
        typer.echo(f"Wrote {written:,} runs to {path}; {present:,} were there already.")
    if broken:
        raise typer.Exit(1)


@app.command()
def reference(
    name: Annotated[str, typer.Argument(help="The workload.")],
) -> None:
    """Make the stored float32 reference of a workload's equality gate anew (for developers)."""
    from harness.reference import make_reference
    from harness.registry import workload

    make_reference(workload(name))
    typer.echo(f"Wrote the reference of {name}. Run its cells on every backend before you keep it.")


@env_app.command("create")
def env_create(
    name: Annotated[str, typer.Argument(help="The environment, such as cuda-jax.")],
) -> None:
    """Make an environment, as its requirements file in requirements/ locks it."""
    from harness import venvs
    from harness.venvs_command import state, told

    environment = venvs.venv(name)
    if not state(environment).usable:
        venvs.create(environment)
    typer.echo(told(state(environment)))


@env_app.command("list")
def env_list(output: Format = Output.table) -> None:
    """List the environments: for which cells, whether they were made, and as locked."""
    from harness import venvs
    from harness import venvs_command as command

    states = [command.state(environment) for environment in venvs.every()]
    typer.echo(command.listing(states, output.value))


@env_app.command("check")
def env_check(
    name: Annotated[str, typer.Argument(help="The environment, such as cuda-jax.")],
) -> None:
    """Is an environment there, and as its requirements file locks it? 1 is no."""
    from harness import venvs
    from harness.venvs_command import state, told

    found = state(venvs.venv(name))
    typer.echo(told(found))
    if not found.usable:
        raise typer.Exit(1)


@data_app.callback()
def data_default(context: typer.Context) -> None:
    """Show what data is on this machine, unless a command follows."""
    if context.invoked_subcommand is None:
        from harness.listing import data_table

        typer.echo(data_table())


@data_app.command("fetch")
def data_fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Workloads; all if none is named.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch again.")] = False,
) -> None:
    """Fetch the workloads' data into the cache, from the first source that gives it."""
    import os

    from harness import data
    from harness.localdata import VARIABLE
    from harness.registry import workload, workloads

    def say(text: str) -> None:
        typer.echo(text)

    for name in names or list(workloads()):
        declared = workload(name)
        for scale in declared.scales:
            if declared.scales[scale].owned and not os.environ.get(VARIABLE):
                typer.echo(f"{name}/{scale}: left out, {VARIABLE} names no folder of your own data")
                continue
            loaded = data.fetch(declared, scale, force=force, log=say)
            typer.echo(f"{name}/{scale}: {loaded.source}, digest {loaded.digest[:16]}")


def _aside(line: str) -> None:
    """What is no part of the answer."""
    typer.echo(line, err=True)


def _frame(
    results: Path, files: list[str] | None, only: list[str] | None
) -> tuple[pandas.DataFrame, int]:
    """The table of the wanted runs; notices go to standard error."""
    from harness.registry import workloads
    from harness.selection import matching
    from harness.table import load_table

    table = load_table(results, files or ())
    for notice in table.notices:
        _aside(notice)
    return matching(table.frame, only or [], list(workloads())), table.broken


if __name__ == "__main__":
    main()
