"""Workloads with planted faults, found by entry point when this folder is on the path.

The tests check that a worker which misbehaves becomes a row, and that the gate sees wrong
mathematics. Nothing here is part of the suite.
"""
