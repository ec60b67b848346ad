"""Where the console scripts begin: Ctrl-C ends them with a sentence, even in the second that their modules take to load.

What a start costs, and why this is done: deploy/decisions/0056.
"""

# A Ctrl-C before `start` has its say is the interpreter's to tell, with a traceback: nothing is loaded here that takes time.
import gc
import os
import signal

_INTERRUPTED = 130
"""As a shell reports a process that SIGINT ended."""


def start(module: str) -> None:
    """Load a command line's module and run its `main`. Nothing heavy is loaded before."""
    before = signal.getsignal(signal.SIGINT)
    taken = before is signal.default_int_handler  # nohup and the like have set it to be ignored
    if taken:
        signal.signal(signal.SIGINT, _leave)
    import importlib

    with loading():
        main = importlib.import_module(module).main
    try:
        signal.signal(signal.SIGINT, before)
        main()
    except KeyboardInterrupt:  # before the command line has begun, or when it is at its end
        _say(b"interrupted\n")
        os._exit(_INTERRUPTED)  # at once: threads may be left
    finally:
        if taken:  # what the interpreter still does would end with a traceback
            signal.signal(signal.SIGINT, signal.SIG_DFL)


class loading:  # noqa: N801 - a context manager, which contextlib would have to be loaded for
    """While modules are loaded nothing becomes garbage, and the collector would walk all that is there again and again."""

    def __enter__(self) -> None:
        gc.disable()

    def __exit__(self, *raised: object) -> None:
        gc.freeze()  # nor does what was loaded ever become garbage
        gc.enable()


def main() -> None:
    """`lineside`."""
    start("edge_runtime.cli")


def _leave(number: int, frame: object) -> None:
    """At once: an exception inside of an extension's loading would come out as another one."""
    _say(b"interrupted; nothing was begun\n")
    os._exit(_INTERRUPTED)


def _say(text: bytes) -> None:
    try:
        os.write(2, text)
    except OSError:  # nobody is there to be told
        return
