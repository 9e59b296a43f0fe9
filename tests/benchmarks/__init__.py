"""Epochmark's own speed, by pytest-benchmark: `make bench-self`, not part of the tests."""
