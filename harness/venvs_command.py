"""What `epochmark env` says: which environments there are, and how they differ from their locks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness import answers
from harness.units import aligned
from harness.venvs import CELLS, Venv, differences, pins

COLUMNS = ("name", "cells", "status", "packages", "differences")


@dataclass(frozen=True)
class State:
    """`status` is `not made`, `as locked` or `differs`; `packages` counts those of the lock."""

    name: str
    cells: str
    status: str
    packages: int
    differences: list[str]

    @property
    def usable(self) -> bool:
        return self.status == "as locked"


def state(environment: Venv) -> State:
    """What there is of an environment."""
    found = differences(environment) if environment.made else []
    status = "differs" if found else "as locked" if environment.made else "not made"
    name = environment.name
    return State(name, CELLS[name], status, len(pins(environment.lock)), found)


def listing(states: Sequence[State], output: str) -> str:
    """A line, object or row for each."""
    rows = [vars(found) for found in states]
    if output == "json":
        return answers.as_json(rows)
    if output == "csv":
        return answers.as_csv(rows, COLUMNS)
    body = [(s.name, s.cells, s.status, "; ".join(s.differences[:3])) for s in states]
    return "\n".join(aligned([("environment", "cells", "status", ""), *body]))


def told(found: State) -> str:
    """One environment in a sentence, and what to do."""
    if found.usable:
        return f"{found.name}: as locked, {found.packages} packages."
    remedy = f"`epochmark env create {found.name}` makes it"
    if found.status == "not made":
        return f"{found.name}: not made; {remedy}."
    return f"{found.name}: differs from its lock: {'; '.join(found.differences)}; {remedy} again."
