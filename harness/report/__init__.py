"""The published report: a static site made from results, which opens without server or network.

Knows no workload by name, reads results through `harness.table` and `harness.store` only, and has
no statistics of its own: verdicts are those of `harness.compare`, `trend` and `advise`.
"""
