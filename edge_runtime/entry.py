"""Where the console scripts begin: Ctrl-C ends them with a sentence, even in the second that their modules take to load."""

import importlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def start(module: str) -> None:
    """Load a command line's module and run its `main`. Nothing heavy is loaded before."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # nohup and the like have set it to be ignored
        signal.signal(signal.SIGINT, _leave)
    main = importlib.import_module(module).main
    signal.signal(signal.SIGINT, before)
    main()


def main() -> None:
    """`lineside`."""
    start("edge_runtime.cli")


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """At once: an exception inside of an extension's loading would come out as another one."""
    os.write(sys.stderr.fileno(), b"interrupted; nothing was begun\n")
    os._exit(128 + number)
