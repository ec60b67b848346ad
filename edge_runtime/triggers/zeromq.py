"""Triggers over ZeroMQ: a PULL socket that binds, JSON in, one message a part."""

import datetime
import logging
import time
from collections import deque
from types import TracebackType
from typing import Annotated, Self

import msgspec
import zmq

from edge_runtime.config.files import ZeromqTriggerConfig
from edge_runtime.credentials import Role
from edge_runtime.errors import ConfigError, SinkError, TriggerError
from edge_runtime.protocols import TriggerLine
from edge_runtime.records import Trigger
from edge_runtime.security.access import Access
from edge_runtime.security.doorkeeper import Door, Quota
from edge_runtime.sockets import bind

_log = logging.getLogger(__name__)
_SHOW_PROBLEM_S = 60.0
_BEGIN_S = 1.0
"""Nobody announces parts so fast that their messages could not be read in it."""
_MAX_MESSAGE_BYTES = 65_536
_SENDERS = Quota(message_bytes=1 << 20, parts=16, rate=250, burst=1100)
"""Who announces more parts than any line makes is cut, not delayed: a trigger that waited would be answered by the picture of another part.
At once may come what a sender has kept while the station was away: 1000 messages, unless it says otherwise (ZMQ_SNDHWM). Longer ones than
are understood pass, to be counted as parts that could not be judged."""


_Name = Annotated[str, msgspec.Meta(max_length=200)]


class _Message(msgspec.Struct):
    """What a sender says of a part; further keys are its own business."""

    part_id: _Name | int = ""
    recipe: _Name | int = ""
    sent: Annotated[datetime.datetime, msgspec.Meta(tz=True)] | None = None


class ZeromqLine(TriggerLine):
    """One trigger a message. One that is no JSON object announces nothing, and one that cannot be read a part that cannot be judged: both
    are counted and shown for a minute.

    A part that has gone by when its message is read is refused, for the next frame shows another one: ZeroMQ keeps messages at the sender
    while the station is down. Known are those that say so (`sent`), and those that came before the station was ready.
    """

    def __init__(self, settings: ZeromqTriggerConfig, first_seq: int, access: Access | None = None) -> None:
        """`access`: who may announce parts; None where nobody beyond this machine can."""
        self._endpoint = settings.endpoint
        self._access = access
        self._max_age_ns = round(settings.max_age_ms * 1e6)
        self._early: deque[list[zmq.Frame]] = deque()
        self._seq = first_seq
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._door: Door | None = None
        self._decoder = msgspec.json.Decoder(_Message)
        self._malformed = 0
        self._malformed_at = 0.0
        self._malformed_why = ""

    def __enter__(self) -> Self:
        self._early.clear()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.LINGER, 0)
        try:
            self._door = bind(self._socket, self._endpoint, "[trigger] endpoint", _SENDERS, self._access, [Role.TRIGGER])
        except SinkError as e:
            self._close()
            raise TriggerError(str(e)) from e
        except ConfigError:
            self._close()
            raise
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        """Ends the context too: a socket alone is closed later, and the port would stay in use until then."""
        if self._socket is not None and self._context is not None:
            self._socket.close()
            self._context.term()
        self._socket = self._context = None
        if self._door is not None:
            self._door.close()
            self._door = None

    @property
    def problem(self) -> str | None:
        """Set for a minute after a message that could not be read."""
        if not self._malformed or time.monotonic() - self._malformed_at > _SHOW_PROBLEM_S:
            return self._door.problem if self._door is not None else None
        return f"trigger socket {self._endpoint}: {self._malformed} messages could not be read; the last: {self._malformed_why}"

    def begin(self) -> None:
        """The station says that it is ready after this. Whether a message came before is known only now: a thread that waits for the first
        one may begin later than a sender that was told, and would take its part for one that has gone."""
        assert self._socket is not None, "enter the trigger line first"
        until = time.monotonic() + _BEGIN_S
        while time.monotonic() < until and self._socket.poll(0, zmq.POLLIN):
            self._early.append(self._socket.recv_multipart(zmq.NOBLOCK, copy=False))

    def end(self) -> bool:
        """Nobody connects any more; `wait` still gives what has come."""
        assert self._socket is not None, "enter the trigger line first"
        if self._door is not None:
            self._door.shut_out()
        return True

    def wait(self, timeout_s: float) -> Trigger | None:
        """The next announced part."""
        assert self._socket is not None, "enter the trigger line first"
        until = time.monotonic() + timeout_s
        while True:
            early = bool(self._early)
            if not early and not self._socket.poll(max(round((until - time.monotonic()) * 1e3), 0), zmq.POLLIN):
                return None
            fired = time.monotonic_ns()
            frames = self._early.popleft() if early else self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            if self._access is not None and self._door is not None and not self._access.admits(frames[0], self._door):
                continue
            parts = [frame.bytes for frame in frames]
            try:
                if len(parts) != 1:
                    raise msgspec.DecodeError(f"expected one message part, found {len(parts)}")
                if len(parts[0]) > _MAX_MESSAGE_BYTES:
                    raise msgspec.DecodeError(f"expected at most {_MAX_MESSAGE_BYTES} bytes, found {len(parts[0])}")
                message = self._decoder.decode(parts[0])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
                self._malformed += 1
                self._malformed_at, self._malformed_why = time.monotonic(), str(e)
                _log.warning(
                    'trigger socket %s: expected JSON such as {"part_id": "A-17"}, found %.80r: %s', self._endpoint, parts[0][:80], e
                )
                if len(parts) == 1 and _is_object(parts[0]):  # somebody announced a part
                    self._seq += 1
                    return Trigger(self._seq - 1, fired, "", refused=f"Its message could not be read: {e}.")
                continue
            refused = "Announced before the station was ready: its part is taken to have gone." if early else ""
            if self._door is not None and (stood_s := self._door.waited_s()):
                refused = refused or f"Announced up to {stood_s:.1f} s ago: the process before the socket stood still for so long."
            if message.sent is not None:
                # It only refuses. Were the trigger dated back by it, two clocks that differ could have it judged by an older picture.
                age = datetime.datetime.now(datetime.UTC) - message.sent
                refused = refused or self._gone(age // datetime.timedelta(microseconds=1) * 1000)
            trigger = Trigger(self._seq, fired, str(message.part_id), str(message.recipe), refused)
            self._seq += 1
            return trigger

    def _gone(self, age_ns: int) -> str:
        """Why a part whose message is that old cannot be judged; empty when it can."""
        if abs(age_ns) <= self._max_age_ns:
            return ""
        limit = f"trigger.max_age_ms is {self._max_age_ns / 1e6:g}"
        if age_ns < 0:
            return f"Announced {-age_ns / 1e9:.1f} s in the future: the sender's clock and this machine's differ ({limit})."
        return f"Announced {age_ns / 1e9:.1f} s ago: its message has waited, or the sender's clock is behind ({limit})."


def _is_object(message: bytes) -> bool:
    try:
        return len(message) <= _MAX_MESSAGE_BYTES and isinstance(msgspec.json.decode(message), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
