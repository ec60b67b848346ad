"""The control socket: who asks, whether he may, and which handler answers. What the handlers do is theirs (verbs.py).

A thread of its own receives, looks who asks, and answers; what takes long runs in a second one. The loop's thread has no part in it.

Why: deploy/decisions/0047. How a verb is added: deploy/developing/control.md.
"""

import grp
import logging
import os
import pwd
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec
import zmq

from edge_runtime import wire
from edge_runtime.config.files import ControlConfig
from edge_runtime.credentials import Role, may
from edge_runtime.errors import EXIT_BUG, EXIT_BUSY, EXIT_USAGE, ConfigError, LinesideError, Refused, SchemaError, WireError
from edge_runtime.handoff import Helper, Reply
from edge_runtime.security.access import Access, beyond_loopback
from edge_runtime.security.door.talk import PEER
from edge_runtime.security.doorkeeper import Quota
from edge_runtime.sockets import Served
from edge_runtime.words import one_line

log = logging.getLogger(__name__)

_POLL_MS = 50
_MOST_WAITING = 4
"""Slow requests that wait for the one that is being done; one more is refused."""
_CLOSE_S = 2.0
_ASKING = Quota(message_bytes=65_536, parts=4, rate=20, burst=40, patient=True)
_ALL = frozenset(Role)
_LOCAL = frozenset({Role.OBSERVE, Role.OPERATE})
"""What somebody on this machine may of whom nothing more is known."""
_UNKNOWN = "somebody on this machine"
T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as far as the connection proves it, and what he says beside his request."""

    name: str
    """His key's, or his user's on this machine."""
    roles: frozenset[Role]
    """Roles that he holds, with those that they imply."""
    why: str = ""
    person: str = ""
    """His name, as he says himself: nothing proves it."""


@dataclass(frozen=True, slots=True)
class Verb(Generic[T]):
    """One thing that may be asked."""

    name: str
    role: Role
    """Which the caller must have."""
    takes: type[T]
    """The arguments, with their bounds; others are refused before the handler is called."""
    answer: Callable[[T, Caller], object]
    """The handler. Gives a record or a mapping that msgpack can hold; raises LinesideError for what the caller can act on."""
    slow: bool = False
    """Runs in the thread for what takes long, one after the other; quick ones (milliseconds) are answered meanwhile."""


@dataclass(frozen=True, slots=True)
class _Job:
    verb: Verb[Any]
    arguments: Any
    caller: Caller
    sender: bytes
    request: int


class ControlServer:
    """A context manager: while it is entered, verbs are answered."""

    def __init__(self, settings: ControlConfig, access: Access, verbs: Iterable[Verb[Any]]) -> None:
        self._settings, self._access = settings, access
        self._verbs = {verb.name: verb for verb in verbs}
        self._groups = {group: may(roles) for group, roles in settings.groups.items()}
        self._pending: list[tuple[_Job, Reply[wire.ControlReply]]] = []
        self._slow: Helper[_Job, wire.ControlReply] | None = None
        self._served = Served(
            "control", zmq.ROUTER, settings.endpoint, "[control] endpoint", _ASKING, self._serve, access=access,
            roles=_ALL - {Role.TRIGGER}, options={zmq.LINGER: 250, zmq.SNDHWM: 20, zmq.RCVHWM: 100},
        )  # fmt: skip

    def __enter__(self) -> Self:
        """Bind. Raises SinkError naming the endpoint, ConfigError where keys are missing."""
        self._slow = Helper(self._done, "control work")
        try:
            self._served.open()
            door = self._served.door
            if door is None or (beyond_loopback(self._settings.endpoint) and not door.quota.curve):
                raise ConfigError(f"[control] endpoint: {self._settings.endpoint}: expected keys, for nobody would know who asks")
        except LinesideError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._served.close()
        if self._slow is not None:
            self._slow.close(_CLOSE_S)
        self._slow = None

    @property
    def problem(self) -> str | None:
        """A sentence for health while nobody is answered."""
        return self._served.problem

    def _serve(self, sock: "zmq.Socket[bytes]") -> None:
        while not self._served.stopping.is_set():
            if sock.poll(_POLL_MS):
                self._take(sock, sock.recv_multipart(copy=False))
            for job, reply in [p for p in self._pending if p[1].done]:
                self._pending.remove((job, reply))
                self._send(sock, job.sender, reply.result(0))

    def _take(self, sock: "zmq.Socket[bytes]", frames: list[zmq.Frame]) -> None:
        sender, *parts = [frame.bytes for frame in frames]
        try:
            asked = wire.decode_control(parts[-1] if len(parts) == 1 else b"")
        except SchemaError:
            with_number = wire.encode_refusal()
            return self._send_raw(sock, sender, with_number)
        except WireError as e:
            number = wire.request_of(parts[-1]) if len(parts) == 1 else None
            if number is None:
                return None  # an answer would mean nothing to it
            return self._send(sock, sender, wire.ControlReply(request=number, refused=str(e), code=EXIT_USAGE))
        try:
            job = self._job(asked, self._caller(asked, frames[-1]), sender)
        except LinesideError as e:
            return self._send(sock, sender, wire.ControlReply(request=asked.request, refused=str(e), code=e.exit_code))
        if not job.verb.slow:
            return self._send(sock, sender, self._done(job))
        assert self._slow is not None
        if len(self._pending) > _MOST_WAITING:
            busy = wire.ControlReply(request=asked.request, refused="too many wait already: ask again", code=EXIT_BUSY)
            return self._send(sock, sender, busy)
        self._pending.append((job, self._slow.call(job)))
        return None

    def _caller(self, asked: wire.ControlRequest, frame: zmq.Frame) -> Caller:
        """Raises Refused, ConfigError. What the message says of whoever asks is believed in nothing."""
        name, roles = self._who(frame)
        why, person = (one_line(what, said) if said else "" for what, said in (("--why", asked.why), ("--as", asked.person)))
        return Caller(name, roles, why, person)

    def _who(self, frame: zmq.Frame) -> tuple[str, frozenset[Role]]:
        door = self._served.door
        assert door is not None
        if door.quota.curve:
            if not self._access.admits(frame, door) or (key := self._access.holder(frame)) is None:
                raise Refused("this key was revoked")
            return key.name, may(key.roles)
        if self._settings.endpoint.startswith("ipc://"):
            return self._user(*(int(str(frame.get(name))) for name in PEER[:2]))
        return _UNKNOWN, _LOCAL

    def _user(self, uid: int, gid: int) -> tuple[str, frozenset[Role]]:
        """Name and roles of a user of this machine, as the kernel says."""
        try:
            user = pwd.getpwuid(uid)
            groups = {*os.getgrouplist(user.pw_name, user.pw_gid), gid}
            name = user.pw_name
        except KeyError:
            name, groups = str(uid), {gid}
        if uid in (0, os.geteuid()):
            return name, _ALL
        named = [roles for group, roles in self._groups.items() if _gid(group) in groups]
        return name, frozenset().union(_LOCAL, *named)

    def _job(self, asked: wire.ControlRequest, caller: Caller, sender: bytes) -> _Job:
        """Raises Refused."""
        verb = self._verbs.get(asked.verb)
        if verb is None:
            known = ", ".join(sorted(self._verbs))
            raise Refused(f"expected one of {known}, found {asked.verb!r}: this station knows no such verb", EXIT_USAGE)
        if verb.role not in caller.roles:
            log.warning("control: %s asked for %s, and lacks the role %s", caller.name, verb.name, verb.role)
            has = ", ".join(sorted(caller.roles)) or "none"
            raise Refused(f"{verb.name} demands the role {verb.role}, and {caller.name} has {has}")
        try:
            arguments = msgspec.convert(asked.arguments, verb.takes)
        except msgspec.ValidationError as e:
            raise Refused(f"{verb.name}: {e}", EXIT_USAGE) from e
        return _Job(verb, arguments, caller, sender, asked.request)

    @staticmethod
    def _done(job: _Job) -> wire.ControlReply:
        try:
            result = msgspec.to_builtins(job.verb.answer(job.arguments, job.caller))
        except LinesideError as e:
            return wire.ControlReply(request=job.request, refused=str(e), code=e.exit_code)
        except Exception:
            log.exception("control: %s failed", job.verb.name)
            sentence = "a bug in Lineside; the station's log has more, and the station goes on"
            return wire.ControlReply(request=job.request, refused=sentence, code=EXIT_BUG)
        if job.verb.role is not Role.OBSERVE:
            said = f" ({job.caller.person})" if job.caller.person else ""
            log.info("control: %s%s: %s%s", job.caller.name, said, job.verb.name, f": {job.caller.why}" if job.caller.why else "")
        return wire.ControlReply(request=job.request, result=result)

    def _send(self, sock: "zmq.Socket[bytes]", sender: bytes, reply: wire.ControlReply) -> None:
        try:
            payload = wire.encode_control(reply)
        except UnicodeEncodeError:  # a file's name may hold any bytes
            reply = msgspec.structs.replace(reply, refused=_sendable(reply.refused), result=_sendable(reply.result))
            payload = wire.encode_control(reply)
        self._send_raw(sock, sender, payload)

    @staticmethod
    def _send_raw(sock: "zmq.Socket[bytes]", sender: bytes, payload: bytes) -> None:
        try:
            sock.send_multipart([sender, payload], flags=zmq.NOBLOCK)
        except zmq.ZMQError:  # it went away, or does not read
            log.warning("control: an answer could not be given: whoever asked has gone")


def _sendable(value: Any) -> Any:
    """The same value, in whose texts a mark stands for each byte that UTF-8 does not have."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_sendable(key): _sendable(one) for key, one in value.items()}
    return [_sendable(one) for one in value] if isinstance(value, list | tuple) else value


def _gid(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def groups_known(groups: Mapping[str, object]) -> str | None:
    """The first group that this machine does not have."""
    return next((group for group in groups if _gid(group) is None), None)
