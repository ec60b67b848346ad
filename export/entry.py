"""Where `lineside-export` begins, and what `lineside-train` becomes for its verbs `release` and `compare`."""

import sys

from edge_runtime.entry import start


def main() -> None:
    """`lineside-export`."""
    start("export.cli")


if __name__ == "__main__":
    start(sys.argv.pop(1))
