"""Finds workloads: every package inside `workloads`, and entry points for a user's own."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from harness.errors import unknown
from harness.workload import Workload

ENTRY_POINT_GROUP = "epochmark.workloads"


@cache
def workloads() -> dict[str, Workload]:
    """All workloads by name, the suite's own first, each group in alphabetical order."""
    found: dict[str, Workload] = {}
    package = import_module("workloads")
    for module in sorted(iter_modules(package.__path__), key=lambda m: m.name):
        if module.ispkg:
            workload: Workload = import_module(f"workloads.{module.name}").WORKLOAD
            found[workload.name] = workload
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda p: p.name):
        workload = point.load()
        found.setdefault(workload.name, workload)
    return found


def workload(name: str) -> Workload:
    """The workload of that name; raises UsageError when there is none."""
    known = workloads()
    if name not in known:
        raise unknown("workload", name, list(known))
    return known[name]
