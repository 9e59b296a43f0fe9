"""What asv sees: a module per workload and phase, each with one thin class.

A module imports `harness.asv` as a module: asv would list an imported base class once more.
"""
