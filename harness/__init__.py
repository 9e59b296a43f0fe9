"""How an epoch is measured and recorded. Knows no workload by name and imports no framework."""

from importlib.metadata import PackageNotFoundError, version

try:
    SUITE_VERSION = version("epochmark")
except PackageNotFoundError:  # a source tree that was never installed
    SUITE_VERSION = "0+uninstalled"
