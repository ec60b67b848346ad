"""Where the console scripts begin: Ctrl-C ends them with a sentence, even in the second that their modules take to load.

What a start costs, and why this is done: deploy/decisions/0056.
"""

import contextlib
import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn


def start(module: str) -> None:
    """Load a command line's module and run its `main`. Nothing heavy is loaded before."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # nohup and the like have set it to be ignored
        signal.signal(signal.SIGINT, _leave)
    with loading():
        main = importlib.import_module(module).main
    signal.signal(signal.SIGINT, before)
    main()


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """While modules are loaded nothing becomes garbage, and the collector would walk all that is there again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor does what was loaded ever become garbage
        gc.enable()


def main() -> None:
    """`lineside`."""
    start("edge_runtime.cli")


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """At once: an exception inside of an extension's loading would come out as another one."""
    os.write(sys.stderr.fileno(), b"interrupted; nothing was begun\n")
    os._exit(128 + number)
