"""In place of a planning process: it reads an order and ends."""

import sys

if __name__ == "__main__":
    sys.stdin.readline()
    sys.exit(3)
