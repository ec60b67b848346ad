"""How threads hand things over: Mailbox (latest wins), Lane (bounded, overflow raises), Helper (a call that may hang, elsewhere).

Lane, Reply and Helper stand on queue.SimpleQueue, which is C all through: it hands over in half the time of a Condition, and a call and its
reply take less than half of what a concurrent.futures.Future takes. Four hand-overs stand in the way of every part.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from edge_runtime.errors import HandoffFull

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")


def take(waiting: "queue.SimpleQueue[T]", timeout_s: float) -> T:
    """The oldest; raises queue.Empty when nothing came in time. For a queue's one reader.

    CPython's own `get(timeout=...)` (3.11) waits for ever where its time is over between two tries of its lock, which happens with short
    times. The first try without waiting leaves the lock such that there is no second one. A signal makes one all the same: whoever handles
    signals in the reading thread must keep them from it (station/process.py).
    """
    try:
        return waiting.get_nowait()
    except queue.Empty:
        if timeout_s <= 0:
            raise
    return waiting.get(timeout=timeout_s)


class Mailbox(Generic[T]):
    """Holds one thing; a newer one replaces it unread."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._content: list[T] = []

    def put(self, x: T) -> None:
        """Never waits."""
        with self._ready:
            self._content = [x]
            self._ready.notify()

    def get(self, timeout_s: float) -> T | None:
        """Take what is there; None when nothing came in time."""
        with self._ready:
            if not self._ready.wait_for(lambda: self._content, timeout_s):
                return None
            return self._content.pop()


class Lane(Generic[T]):
    """First in, first out, of a fixed size, from one thread to one other. What does not fit raises: nothing is dropped in silence."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._queue: queue.SimpleQueue[tuple[T, bool]] = queue.SimpleQueue()
        # Each is written by one side only, so neither needs a lock.
        self._put = 0
        self._taken = 0

    @property
    def full(self) -> bool:
        """True when `put` would raise. For the producer, False holds until its next `put`."""
        return self._put - self._taken >= self._size

    def put(self, x: T) -> None:
        """Never waits. Raises HandoffFull."""
        if self.full:
            raise HandoffFull(f"{self._size} are waiting already")
        self._put += 1
        self._queue.put((x, True))

    def note(self, x: T) -> None:
        """Put something that costs its reader nothing: delivered in its turn like the rest, but it takes no room and always fits.

        From any thread."""
        self._queue.put((x, False))

    def get(self, timeout_s: float) -> T | None:
        """The oldest; None when nothing came in time."""
        try:
            x, takes_room = take(self._queue, timeout_s)
        except queue.Empty:
            return None
        self._taken += takes_room
        return x

    def __len__(self) -> int:
        return self._queue.qsize()


class Reply(Generic[R]):
    """Where the result of one call will lie. One thread gives or fails it once, one other reads it."""

    def __init__(self) -> None:
        self._box: queue.SimpleQueue[tuple[R | None, BaseException | None]] = queue.SimpleQueue()
        self.unwanted = False
        """Set by whoever does not wait any longer: a call that has not begun is then skipped."""

    @property
    def done(self) -> bool:
        """True when `result` would not wait."""
        return not self._box.empty()

    def give(self, result: R) -> None:
        """The call returned."""
        self._box.put((result, None))

    def fail(self, error: BaseException) -> None:
        """The call raised."""
        self._box.put((None, error))

    def result(self, timeout_s: float) -> R:
        """The result; raises what the call raised, or TimeoutError."""
        try:
            value, error = take(self._box, timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if error is not None:
            raise error
        return cast(R, value)


class Helper(Generic[A, R]):
    """Runs one function in its own daemon thread, one call after the other.

    A driver or a model that hangs cannot be interrupted, only left behind: the caller waits for the Reply as long as it likes, and a late
    result lands in a Reply that nobody reads, so it can never be taken for another call's.
    """

    def __init__(self, function: Callable[[A], R], name: str) -> None:
        self._function = function
        self._calls: queue.SimpleQueue[tuple[A, Reply[R]] | None] = queue.SimpleQueue()
        self._asked = 0
        self._finished = 0
        self._closed = False
        self._busy_since_ns = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def busy_s(self) -> float:
        """How long the call that runs now has been running; 0 when none does."""
        since = self._busy_since_ns
        return (time.monotonic_ns() - since) / 1e9 if since else 0.0

    @property
    def pending(self) -> int:
        """Calls that have not ended."""
        return self._asked - self._finished

    def call(self, argument: A) -> Reply[R]:
        """Begin; never waits."""
        reply: Reply[R] = Reply()
        self._asked += 1
        self._calls.put((argument, reply))
        return reply

    @property
    def alive(self) -> bool:
        """False when the thread has ended."""
        return self._thread.is_alive()

    def leave(self) -> None:
        """End after the calls that were asked for already, whenever the one that hangs returns; never waits."""
        self._calls.put(None)

    def close(self, timeout_s: float) -> bool:
        """Begin no further call and wait so long for the one that runs. False when it hangs and was left behind."""
        self._closed = True
        self._calls.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            if call is None or self._closed:
                return
            argument, reply = call
            if not reply.unwanted:
                self._busy_since_ns = time.monotonic_ns()
                try:
                    reply.give(self._function(argument))
                except BaseException as e:  # whatever it is, it belongs to whoever waits for this call
                    reply.fail(e)
                self._busy_since_ns = 0
            self._finished += 1
            del argument, reply, call  # a frame is large: not kept until the next call
