"""Where `lineside-train` begins."""

from edge_runtime.entry import start


def main() -> None:
    """`lineside-train`."""
    start("training.commands.cli")
