"""What a station is to the system that runs it: its log, signals, limits, and an interpreter that does not disturb the loop."""

import contextlib
import gc
import logging
import logging.handlers
import os
import queue
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import cast

from edge_runtime.errors import EXIT_OK

log = logging.getLogger(__name__)

_SWITCH_INTERVAL_S = 0.0005
"""Python's own 5 ms is how long another thread may keep the loop waiting for its turn."""
_LOG_TIMEOUT_S = 1.0
_LOG_LINES = 1000
_DESCRIPTORS = 65_536
_START_S = 1.5
"""How long the start goes on that was told to stop."""


class _DroppingHandler(logging.handlers.QueueHandler):
    """A log that is not read any more costs lines, never memory nor time."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            self.queue.put_nowait(record)


class _Listener(logging.handlers.QueueListener):
    def enqueue_sentinel(self) -> None:
        """Wait for room: where nobody reads the log, the queue is full."""
        self.queue.put(self._sentinel)  # type: ignore[attr-defined]


class _Stderr(logging.Handler):
    """Writes to stderr without any lock of Python's, one of which a reader that stands still would keep from the end of the process."""

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{self.format(record)}\n"
        try:
            out = sys.stderr.fileno()
        except (AttributeError, OSError):  # it is closed, or no file
            if sys.stderr is not None:
                sys.stderr.write(line)
            return
        rest = line.encode(errors="backslashreplace")
        with contextlib.suppress(OSError):  # a full disk, a terminal that is gone: nobody could be told
            while rest:
                rest = rest[os.write(out, rest) :]

    def acquire(self) -> None:
        """Only one thread ever writes."""

    def release(self) -> None:
        """See `acquire`."""


class _Prefixed(logging.Formatter):
    """For the system's journal, which takes a line's priority from its beginning (sd-daemon(3)): `journalctl -p warning`."""

    def format(self, record: logging.LogRecord) -> str:
        priority = 3 if record.levelno >= logging.ERROR else 4 if record.levelno >= logging.WARNING else 6
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).split("\n"))


@contextlib.contextmanager
def logging_aside() -> Iterator[None]:
    """Log lines go to stderr in a thread of their own: where the service manager reads slowly, a fault must not delay the next part."""
    root = logging.getLogger()
    if root.handlers:
        yield  # whoever runs a station inside a program of his own has set up his own logging
        return
    lines: queue.Queue[logging.LogRecord] = queue.Queue(_LOG_LINES)
    stderr = _Stderr()
    stderr.setFormatter(_Prefixed() if "JOURNAL_STREAM" in os.environ else logging.Formatter("%(levelname)s %(message)s"))
    listener = _Listener(lines, stderr)
    handler = _DroppingHandler(lines)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    listener.start()
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        last_lines = threading.Thread(target=listener.stop, name="log", daemon=True)
        last_lines.start()
        last_lines.join(_LOG_TIMEOUT_S)


class StoppedEarly(Exception):
    """The station was asked to stop before it had begun: no part was announced yet."""


class Stop:
    """The wish that the station ends, from a signal to the loop."""

    def __init__(self) -> None:
        self._asked, self._begun = threading.Event(), threading.Event()
        self._tell: Callable[[], None] | None = None

    def ask(self) -> None:
        """Take no further trigger and end; while the pieces are still being opened, as soon as they are. Never waits."""
        self._asked.set()
        if self._tell is not None:
            self._tell()

    def begin(self, tell: Callable[[], None]) -> None:
        """All pieces are open: from now on `tell` is how to stop."""
        self._tell = tell
        self._begun.set()
        if self._asked.is_set():
            tell()

    def end_a_start(self) -> None:
        """For the thread that was told to stop: a start that does not come to its end soon is ended with the process.

        No part was taken yet. What it waits for (a model that is compiled, a camera, a PLC) may take minutes, and cannot be interrupted;
        all that it has written survives kill -9 just as well.
        """
        if not self._begun.wait(_START_S):
            with contextlib.suppress(OSError):
                os.write(2, b"stopped while it was starting; no part was taken\n")
            os._exit(EXIT_OK)

    def raise_if_asked(self) -> None:
        """Between two steps of a start, which take seconds: raises StoppedEarly where a stop was asked for."""
        if self._asked.is_set():
            log.info("stopped before it had begun")
            raise StoppedEarly


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[Stop]:
    """SIGTERM, SIGINT and SIGHUP (its terminal is gone) ask the station to stop, also while it still opens its pieces.

    They are kept from the main thread and waited for in one of their own: CPython's `SimpleQueue.get(timeout)`, in which the loop waits for
    its next part, waits for ever when a signal interrupts the end of its time (3.11). Enter this before any other thread is started.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may set handlers; whoever runs a station elsewhere stops it himself
        return

    def ask(number: int, _: FrameType | None = None) -> None:
        stop.ask()

    def listen() -> None:
        while not ended.is_set():
            number = signal.sigwait(asking)
            if not ended.is_set():
                ask(number)
                stop.end_a_start()

    asking = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup leaves it
        asking.append(signal.SIGHUP)
    ended = threading.Event()
    listener = threading.Thread(target=listen, name="signals", daemon=True)
    # A thread that a library has started already may be chosen to take a signal: then the handler is run, by the main thread, in its turn.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, asking)
    before = {number: signal.signal(number, ask) for number in asking}
    listener.start()
    try:
        yield stop
    finally:
        ended.set()
        stop.begin(lambda: None)  # it came to its end: nobody waits for the start any more
        signal.pthread_kill(cast("int", listener.ident), signal.SIGTERM)
        listener.join()
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def allow_descriptors() -> None:
    """Raise the limit of open files and connections to what this process may have at all: a crowd of observers takes the usual ones."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keeps Python's own interruptions of the loop short: the turns of threads, and the garbage collector."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()  # what lives now lives to the end: the collector need not walk it while a part waits
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval)
