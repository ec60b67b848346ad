"""The door: a process of its own between peers and a station's ZeroMQ sockets, which cuts whoever sends more than its quota.

libzmq holds subscriptions, and the parts of a message, without limit, in the process and often the thread of whoever owns the socket.
So peers connect here instead. What they send is counted (talk.py) and handed on to the station message by message; what the
station sends is handed back as it is. Should a peer bring this process down, another takes its place: the listening sockets are the
station's (doorkeeper.py), and no decision waits for it.

Nothing is imported here but this folder and some of the standard library: the bare interpreter that runs it starts in a moment.

Why: deploy/decisions/0040, 0056.
"""

import array
import collections
import contextlib
import ctypes
import json
import mmap
import os
import resource
import selectors
import signal
import socket
import struct
import time
import types

from edge_runtime.security.door.clock import AWAY_S, CLOCK
from edge_runtime.security.door.talk import GREETING, Allowance, Over, Talk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from edge_runtime.security.door.quota import Quota

_HEAD = 1 << 16
"""Bytes that are read at once."""
_PATIENT_HEAD = 1 << 12
"""Bytes that are read at once of a peer that is made to wait for what it has sent too early."""
_MOST_OWED_S = 10.0
"""Whoever would have to wait longer than that is cut."""
_HANDSHAKE_S = 10.0
"""A peer that has not said a whole message by then, though it connected, is none."""
_CROWD = 0.1
"""Share of a socket's rate below which no peer is cut for what all send together."""
_CONNECTS_A_S = 50.0
_AFTER_CUT_S = 0.2
"""Nobody connects for so long after somebody was cut: who comes again at once gains nothing by it."""
_MEMORY = 512 << 20
_TELL_S = 0.5
_LAST_WORDS_S = 0.3
"""How long what the station still sent may take to leave after it has closed."""
_BEAT_S = 0.1
_CURVE_HANDSHAKE = GREETING + 170
"""Bytes that a station sends a peer whose handshake goes wrong: its greeting, and WELCOME."""
_PR_SET_PDEATHSIG = 1
_DEAD_AFTER_MS = 6000
"""A peer whose cable was pulled is forgotten by then: without heartbeats, which make libzmq abort the process where a queue is full."""


class _Peer:
    """A connection: what it sends goes up to the station, what the station sends down to it."""

    def __init__(self, door: "_Door", outer: socket.socket, now: float) -> None:
        self.door, self.outer, self.since = door, outer, now
        self.inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        user = None
        if outer.family == socket.AF_UNIX:
            pid, uid, gid = struct.unpack("3i", outer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
            user = (uid, gid, pid)
        self.talk = Talk(door.quota, user)
        self.told = 0
        """Bytes that came from the station."""
        self.strange = False
        """Counted as a stranger."""
        self.allowance = Allowance(door.quota.rate, door.quota.burst, now)
        self.up, self.down = bytearray(), bytearray()
        self.heard, self._busy = now, 0.0
        self.until = 0.0
        """Not read before."""
        self.closing = False
        """The station has closed: what it sent last still leaves."""

    def hears(self, messages: int, now: float) -> None:
        """So many came now."""
        self._busy = self.busy(now) + messages
        self.heard = now

    def busy(self, now: float) -> float:
        """Messages of about the last second."""
        return self._busy * float(0.5 ** (now - self.heard))


class _Door:
    def __init__(self, number: int, listening: socket.socket, inner: str, quota: "Quota", now: float) -> None:
        self.number, self.listening, self.inner, self.quota = number, listening, inner, quota
        self.peers: set[_Peer] = set()
        self.cut: collections.Counter[str] = collections.Counter()
        self.strangers: collections.Counter[str] = collections.Counter()
        """Who had no key, or none that this station could read; whose key it does not know, the station counts itself."""
        self.connects = Allowance(_CONNECTS_A_S, _CONNECTS_A_S, now)
        self.all = Allowance(quota.rate, quota.burst, now)
        """What all peers may send together, where none is made to wait."""
        self.paused_until = 0.0
        self.open = True


class Doors:
    """Everything that this process does, in one thread."""

    def __init__(self, control: socket.socket, clock: "mmap.mmap | bytearray | None" = None) -> None:
        """`clock`: CLOCK.size bytes that the station sees."""
        self._control = control
        self._clock = bytearray(CLOCK.size) if clock is None else clock
        self._back_ns = self._away_ns = 0
        self._marked = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, None)
        self._doors: dict[int, _Door] = {}
        self._waiting: set[_Peer | _Door] = set()
        self._tell_at = 0.0
        self._changed = False
        self._orders = b""
        self._fds: list[int] = []

    def run(self) -> None:
        """Until the station is gone."""
        while True:
            now = time.monotonic()
            self._wake(now)
            patience = min(self._patience(now), _BEAT_S)
            ready = self._selector.select(patience)
            self._beat(patience)
            for key, events in ready:
                now = time.monotonic()
                if key.data is None:
                    if not self._take_order(now):
                        return self._last_words()
                elif isinstance(key.data, _Door):
                    self._accept(key.data, now)
                elif key.data in key.data.door.peers:  # not cut a moment ago
                    with self._cutting(key.data):
                        self._serve(key.data, key.fileobj is key.data.outer, events, now)

    def _beat(self, meant_s: float) -> None:
        """Before anything is handed on: the station asks in which time it may have waited.

        `meant_s`: how long this was to last at most since the last time, wherever in between the process stood still.
        """
        now = time.monotonic()
        if (late_s := now - self._marked - meant_s) > AWAY_S:
            self._back_ns, self._away_ns = round(now * 1e9), round(late_s * 1e9)
        self._marked = now
        CLOCK.pack_into(self._clock, 0, round(now * 1e9), self._back_ns, self._away_ns)

    def _patience(self, now: float) -> float:
        waits = [w.until if isinstance(w, _Peer) else w.paused_until for w in self._waiting]
        young = [p.since + _HANDSHAKE_S for d in self._doors.values() for p in d.peers if not p.talk.said]
        tell = [self._tell_at] if self._changed else []
        return max(0.0, min([*waits, *young, *tell, now + 60.0]) - now)

    def _wake(self, now: float) -> None:
        for one in [w for w in self._waiting if (w.until if isinstance(w, _Peer) else w.paused_until) <= now]:
            self._waiting.discard(one)
            if isinstance(one, _Peer):
                self._watch(one)
            elif one.open:
                self._selector.register(one.listening, selectors.EVENT_READ, one)
        for door in list(self._doors.values()):
            for peer in [p for p in door.peers if not p.talk.said and p.since + _HANDSHAKE_S <= now]:
                self._cut(peer, f"it said nothing for {_HANDSHAKE_S:g} s")
        if self._changed and now >= self._tell_at:
            self._tell(now)

    def _tell(self, now: float) -> None:
        said = {str(d.number): {"cut": dict(d.cut), "strangers": dict(d.strangers), "peers": len(d.peers)} for d in self._doors.values()}
        self._changed, self._tell_at = False, now + _TELL_S
        with contextlib.suppress(OSError):
            self._control.sendall(json.dumps(said).encode() + b"\n")

    # --- the station's orders ------------------------------------------------------------------------------------

    def _take_order(self, now: float) -> bool:
        """Orders are lines of JSON; one that opens a door brings its listening socket. False at the end."""
        try:
            data, ancillary, _, _ = self._control.recvmsg(_HEAD, socket.CMSG_SPACE(16 * 4))
        except ConnectionResetError:  # it was killed, and had not read all that was told it
            return False
        for level, kind, packed in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i")
                fds.frombytes(packed[: len(packed) - len(packed) % fds.itemsize])
                self._fds += fds
        if not data:
            return False
        *lines, self._orders = (self._orders + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            number = order["door"]
            if order["do"] == "open":
                quota: Any = types.SimpleNamespace(**order["quota"])
                door = _Door(number, socket.socket(fileno=self._fds.pop(0)), order["inner"], quota, now)
                door.listening.setblocking(False)
                self._doors[number] = door
                self._selector.register(door.listening, selectors.EVENT_READ, door)
            elif (door_ := self._doors.get(number)) is not None:
                if order["do"] == "shut":
                    self._shut(door_)
                else:  # "reset": whoever may still come in comes again
                    for peer in list(door_.peers):
                        self._drop(peer)
        return True

    def _shut(self, door: _Door) -> None:
        if door.open:
            door.open = False
            if door not in self._waiting:
                self._selector.unregister(door.listening)
            self._waiting.discard(door)
            door.listening.close()
            self._forget(door)

    def _forget(self, door: _Door) -> None:
        if not door.open and not door.peers:
            self._doors.pop(door.number, None)

    def _last_words(self) -> None:
        until = time.monotonic() + _LAST_WORDS_S
        folders = {os.path.dirname(door.inner) for door in self._doors.values()}  # noqa: PTH120
        for door in list(self._doors.values()):
            self._shut(door)
        while (now := time.monotonic()) < until and any(d.peers for d in self._doors.values()):
            for key, events in self._selector.select(until - now):
                if key.data is None:
                    self._selector.unregister(self._control)
                elif key.data in key.data.door.peers:
                    with self._cutting(key.data):
                        self._serve(key.data, key.fileobj is key.data.outer, events, now)
        for folder in folders:  # where the station was killed, nobody else does
            with contextlib.suppress(OSError):
                for name in os.listdir(folder):  # noqa: PTH208
                    os.unlink(f"{folder}/{name}")  # noqa: PTH108
                os.rmdir(folder)  # noqa: PTH106

    # --- peers ---------------------------------------------------------------------------------------------------

    def _accept(self, door: _Door, now: float) -> None:
        try:
            outer, _ = door.listening.accept()
        except OSError:  # it went away, or there are no descriptors left: somebody else must go first
            self._pause(door, now + 0.1)
            return
        outer.setblocking(False)
        try:
            peer = _Peer(door, outer, now)
        except OSError:  # no descriptors are left
            outer.close()
            self._pause(door, now + 0.1)
            return
        owed = door.connects.take(1, now)
        if owed:
            self._pause(door, now + owed)
        if len(door.peers) >= door.quota.peers:
            # Whoever has said nothing for longest makes room: a connection that is only held keeps nobody out. Ours say that they are there
            # every two seconds (heartbeats), and come again where one was taken from them.
            self._count(door, f"more than {door.quota.peers} connections")
            self._drop(min(door.peers, key=lambda p: p.heard))
        if outer.family != socket.AF_UNIX:
            for level, option, value in (
                (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
                (socket.SOL_SOCKET, socket.SO_SNDBUF, door.quota.backlog),
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3), (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
                (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3), (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_AFTER_MS),
            ):  # fmt: skip
                outer.setsockopt(level, option, value)
        peer.inner.setblocking(False)
        try:
            peer.inner.connect(door.inner)
        except OSError:  # the station closes, or has more to accept than it keeps up with
            outer.close()
            peer.inner.close()
            return
        door.peers.add(peer)
        self._changed = True
        self._watch(peer)

    def _pause(self, door: _Door, until: float) -> None:
        if door not in self._waiting and door.open:
            self._selector.unregister(door.listening)
            door.paused_until = until
            self._waiting.add(door)

    def _serve(self, peer: _Peer, outside: bool, events: int, now: float) -> None:
        quota = peer.door.quota
        if events & selectors.EVENT_READ:
            if outside:
                data = peer.outer.recv(_PATIENT_HEAD if quota.patient else _HEAD)
                if not data:
                    return self._drop(peer)
                self._beat(0.0)
                messages = peer.talk.feed(data)
                if peer.talk.plain and not peer.strange:
                    self._strange(peer, "it spoke without a key")
                peer.hears(len(messages), now)
                owed = peer.allowance.take(len(messages), now)
                if owed > (_MOST_OWED_S if quota.patient else 0):
                    raise Over(f"more than {quota.rate:g} messages a second")
                if not quota.patient and peer.door.all.take(len(messages), now):
                    # Which of them are the line's own, nobody can tell; that the one that sends most is not, is likely.
                    peer.door.all.give(len(messages))  # nor does it pay for what others have sent
                    worst = max(peer.door.peers, key=lambda p: p.busy(now))
                    if worst.busy(now) > quota.rate * _CROWD:
                        if worst is peer:
                            raise Over(f"most of more than {quota.rate:g} messages a second")
                        self._cut(worst, f"most of more than {quota.rate:g} messages a second")
                peer.up += b"".join(messages)
                if owed:
                    peer.until = now + owed
                    self._waiting.add(peer)
            else:
                data = peer.inner.recv(_HEAD)
                peer.closing = peer.closing or not data
                peer.told += len(data)
                peer.down += data
                if not data and quota.curve and peer.talk.commands and peer.told <= _CURVE_HANDSHAKE:
                    self._strange(peer, "it took this station for another: it had not this one's public key")
        for sock, waiting in ((peer.inner, peer.up), (peer.outer, peer.down)):
            if waiting:
                with contextlib.suppress(BlockingIOError):
                    del waiting[: sock.send(waiting)]
        if peer.closing and not peer.down:
            return self._drop(peer)
        self._watch(peer)
        return None

    def _watch(self, peer: _Peer) -> None:
        if peer not in peer.door.peers:
            return
        patient = peer not in self._waiting and len(peer.up) < _HEAD and not peer.closing
        wanted = {
            peer.outer: (selectors.EVENT_READ if patient else 0) | (selectors.EVENT_WRITE if peer.down else 0),
            peer.inner: (selectors.EVENT_READ if len(peer.down) < peer.door.quota.backlog and not peer.closing else 0)
            | (selectors.EVENT_WRITE if peer.up else 0),
        }
        registered = self._selector.get_map()
        for sock, events in wanted.items():
            if not events:
                if sock in registered:
                    self._selector.unregister(sock)
            elif sock not in registered:
                self._selector.register(sock, events, peer)
            elif registered[sock].events != events:
                self._selector.modify(sock, events, peer)

    @contextlib.contextmanager
    def _cutting(self, peer: _Peer) -> "collections.abc.Iterator[None]":
        try:
            yield
        except Over as e:
            self._cut(peer, str(e))
        except OSError:
            self._drop(peer)

    def _cut(self, peer: _Peer, why: str) -> None:
        self._count(peer.door, why)
        self._pause(peer.door, time.monotonic() + _AFTER_CUT_S)
        self._drop(peer)

    def _strange(self, peer: _Peer, why: str) -> None:
        peer.strange = True
        peer.door.strangers[why] += 1
        self._changed = True

    def _count(self, door: _Door, why: str) -> None:
        door.cut[why] += 1
        self._changed = True

    def _drop(self, peer: _Peer) -> None:
        if peer.door.quota.curve and not peer.strange and peer.talk.broke_off and peer.told >= GREETING:
            # libzmq hangs up as soon as it reads of another mechanism than its own, often before it has told which that is.
            self._strange(peer, "it spoke without a key")
        peer.door.peers.discard(peer)
        self._waiting.discard(peer)
        self._changed = True
        registered = self._selector.get_map()
        for sock in (peer.outer, peer.inner):
            if sock in registered:
                self._selector.unregister(sock)
            sock.close()
        self._forget(peer.door)


def main(control: int, clock: int) -> None:
    """Until the station is gone; `control` and `clock` are the descriptors of the control socket and of the memory that both sides see."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    with contextlib.suppress(OSError):
        os.setsid()  # Ctrl-C is for the station, which closes this last
    # Should the station be killed while this is stopped (SIGSTOP), it goes on, sees that, and lets go of the ports.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGCONT), 0, 0, 0)
    Doors(socket.socket(fileno=control), mmap.mmap(clock, CLOCK.size)).run()
