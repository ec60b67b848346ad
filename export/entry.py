"""Where `lineside-export` and `lineside-train` begin."""

from edge_runtime.entry import start


def main() -> None:
    """`lineside-export`."""
    start("export.cli")


def train() -> None:
    """`lineside-train`."""
    start("export.train")
