"""What one overview is of: a machine, scale, phase and device, and what was measured there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from harness.ranking import POINT
from harness.report.declared import reduced
from harness.report.parts import each, slug
from harness.report.source import Source
from harness.units import size

PANEL = ["machine", "scale", "phase", "device"]

NAMED = 5
"""So many processors are named at the top."""

PACKAGES = {"keras": "Keras", "tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


@dataclass(frozen=True)
class Panel:
    """One matrix, on a page of its own name."""

    path: str
    title: str
    rows: pd.DataFrame

    @property
    def scale(self) -> str:
        return str(self.rows["scale"].iloc[0])


def panels(source: Source) -> list[Panel]:
    """The site's first page first: training, on the machine that measured last, most cells."""
    rows = source.rows
    newest = str(source.runs["machine"].iloc[source.runs["started_at"].argmax()])
    groups = [(key, group) for key, group in rows.groupby(PANEL, observed=True, sort=False)]

    def rank(one: tuple[tuple[object, ...], pd.DataFrame]) -> tuple[object, ...]:
        (machine, _, phase, _), group = one
        return phase != "train", machine != newest, -len(group), *map(str, one[0])

    machines = rows["machine"].nunique()
    found = []
    for key, group in sorted(groups, key=rank):
        machine, scale, phase, device = map(str, key)
        title = f"{scale}, {phase}, {device}" + (f", {machine}" if machines > 1 else "")
        found.append(Panel(f"overview-{slug(*key)}.html", title, group))
    return found


def about(source: Source) -> str:
    """What all of the site was measured on, and when."""
    runs = source.runs
    cells = source.rows[list(POINT)].drop_duplicates()
    return (
        f"{_count(len(runs), 'run')} of {_count(len(cells), 'cell')} on "
        f"{_count(runs['machine'].nunique(), 'machine')} "
        f"({_some(runs['cpu'].unique().tolist())}), in "
        f"{_count(runs['session'].nunique(), 'session')}, {_days(runs)}."
    )


def about_panel(panel: Panel, source: Source) -> str:
    """The machine, software and days of one panel."""
    rows = panel.rows
    first = each(rows)[0]
    machine = str(first["machine"])
    memory = {
        size(run.environment.memory_bytes)
        for (name, _, _), run in source.records.items()
        if name == machine
    }
    parts = [
        "; ".join(map(str, rows["cpu"].unique())),
        _count(int(first["cpu_count"]), "core"),
        *sorted(memory),
        *filter(None, map(str, rows["accelerators"].unique())),
    ]
    return f"{', '.join(parts)}; {_versions(rows)}; measured {_days(rows)}."


def _versions(rows: pd.DataFrame) -> str:
    """Of Keras and of each backend where it was the backend."""
    told = []
    for name, title in PACKAGES.items():
        own = rows if name == "keras" else rows[rows["backend"] == name]
        if versions := sorted(filter(None, map(str, own[name].unique()))):
            told.append(f"{title} {' and '.join(versions)}")
    return ", ".join(told) or "versions unknown"


def note_of_scale(rows: pd.DataFrame) -> str:
    """That the panel's networks are not those of the names that they have, where so."""
    scale = str(rows["scale"].iloc[0])
    names = [str(name) for name in rows["workload"].unique() if reduced(str(name), scale)]
    if not names:
        return ""
    return (
        f"Scale {scale} is not the published form of {_listed(names)}: "
        "what is reduced stands with each."
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _some(names: Sequence[str]) -> str:
    shown = "; ".join(names[:NAMED])
    return f"{shown}; {len(names) - NAMED} more" if len(names) > NAMED else shown


def _days(runs: pd.DataFrame) -> str:
    days = sorted({str(at)[:10] for at in (runs["started_at"].min(), runs["started_at"].max())})
    return " to ".join(days)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'s' if number != 1 else ''}"
