"""Keeps the door's process (door/) for this one: binds the listening sockets, hands them over, starts the process again should it end.

Why: deploy/decisions/0040.
"""

import contextlib
import dataclasses
import errno
import fcntl
import ipaddress
import json
import logging
import mmap
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from edge_runtime.security.door.clock import CLOCK
from edge_runtime.security.door.quota import Quota

__all__ = ["Door", "Quota", "address_of", "open_door"]

log = logging.getLogger(__name__)

_RUN = Path(__file__).parent / "door" / "__main__.py"
_ROOT = Path(__file__).parents[2]
"""Where `edge_runtime` lies."""
_BACKLOG = 128
_SIOCGIFADDR = 0x8915
_SHOWN_S = 60.0
_CALM_S = 5.0
"""A process that lived shorter than that is started again later each time."""
_CLOSE_S = 1.0
_LOOK_S = 0.5
_STANDS_STILL_S = 2.0
"""A process that has not come round for so long, twice in a row, is ended and started again."""
_AFTER_AWAY_S = 2.0
"""What is read within that after the process came back from standing still may have waited in it."""


class Door:
    """One listening socket of the station, before a ZeroMQ socket that is bound to `inner`."""

    def __init__(self, keeper: "_Keeper", number: int, listening: socket.socket, name: str, quota: Quota) -> None:
        self._keeper, self.number, self.listening, self.name, self.quota = keeper, number, listening, name, quota
        self.inner = keeper.folder / f"{number}.sock"
        self.peers = 0
        """Connected by now."""
        self.cut: dict[str, int] = {}
        """Peers that were cut since the process was started last, by reason."""
        self.total = 0
        """Peers that were cut in all."""
        self.strange: dict[str, int] = {}
        """Strangers that the process has counted since it was started last, by reason."""
        self.strangers = 0
        """Connections without a key, or with one that may not come in, in all."""
        self.shut = False
        self._cut_at = self._refused_at = float("-inf")
        self._why = self._refused_why = ""
        self._lock = threading.Lock()

    @property
    def problem(self) -> str | None:
        """A sentence for health, for a minute after a peer was cut or refused."""
        now = time.monotonic()
        if now - self._cut_at < _SHOWN_S:
            return f"{self.name}: {self.total} connections were cut; the last sent, or held, {self._why}"
        if now - self._refused_at < _SHOWN_S:
            return f"{self.name}: {self.strangers} strangers were refused; of the last, {self._refused_why}"
        return self._keeper.problem

    def noted(self, cut: dict[str, int], strange: dict[str, int], peers: int) -> None:
        """What the process counted."""
        for why, count in cut.items():
            if (more := count - self.cut.get(why, 0)) > 0:
                self.total += more
                self._cut_at, self._why = time.monotonic(), why
        for why, count in strange.items():
            if (more := count - self.strange.get(why, 0)) > 0:
                self.refused(why, more)
        self.cut, self.strange, self.peers = cut, strange, peers

    def refused(self, why: str, count: int = 1) -> None:
        """Strangers came, who neither read nor wrote anything; from any thread."""
        with self._lock:
            new = why != self._refused_why
            self.strangers += count
            self._refused_at, self._refused_why = time.monotonic(), why
        if new:
            log.warning("%s: a stranger was refused: %s", self.name, why)

    def waited_s(self) -> float:
        """How long what is read now may have waited in the process, because that stood still; 0 as a rule."""
        return self._keeper.waited_s()

    def reset(self) -> None:
        """End all connections: whoever may still come in comes again."""
        self._keeper.reset(self)

    def shut_out(self) -> None:
        """Nobody connects any more; those who have stay."""
        self._keeper.shut(self)

    def close(self) -> None:
        """What the station has sent may still leave. Call it when its ZeroMQ socket is closed."""
        _close(self)


class _Keeper:
    """Keeps all doors of this process."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lineside-doors-"))  # 0700: none but this user comes in by the back door
        self.problem: str | None = None
        self._lock = threading.Lock()
        self._doors: dict[int, Door] = {}
        self._count = 0
        self._ended = threading.Event()
        self._stood_still = False
        self._clock = mmap.mmap(-1, CLOCK.size)
        self._control, self._process = self._start()
        self._thread = threading.Thread(target=self._listen, name="doors", daemon=True)
        self._thread.start()

    def add(self, listening: socket.socket, name: str, quota: Quota) -> Door:
        with self._lock:
            self._count += 1
            door_ = Door(self, self._count, listening, name, quota)
            self._doors[door_.number] = door_
            self._open(door_)
        return door_

    def shut(self, door_: Door) -> None:
        with self._lock:
            if door_.listening.family == socket.AF_UNIX and not door_.shut:
                self._unlink(door_.listening)
            door_.shut = True
            door_.listening.close()
            self._order({"do": "shut", "door": door_.number})

    def reset(self, door_: Door) -> None:
        with self._lock:
            self._order({"do": "reset", "door": door_.number})

    def waited_s(self) -> float:
        _, back_ns, away_ns = CLOCK.unpack_from(self._clock, 0)
        since_s = (time.monotonic_ns() - back_ns) / 1e9
        return away_ns / 1e9 if back_ns and since_s < _AFTER_AWAY_S else 0.0

    def remove(self, door_: Door) -> None:
        with self._lock:
            self._doors.pop(door_.number, None)
            self._order({"do": "shut", "door": door_.number})  # its peers end when they have what was sent
            if door_.listening.family == socket.AF_UNIX and not door_.shut:
                self._unlink(door_.listening)
            door_.listening.close()
        door_.inner.unlink(missing_ok=True)

    @staticmethod
    def _unlink(listening: socket.socket) -> None:
        path = listening.getsockname()
        if isinstance(path, str) and path:
            Path(path).unlink(missing_ok=True)

    @property
    def unused(self) -> bool:
        return not self._doors

    def end(self) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._thread.join(_CLOSE_S)
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._control.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> "tuple[socket.socket, subprocess.Popen[bytes]]":
        """From the main thread or this keeper's own: the kernel tells the process of the end of the thread that started it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        memory = os.memfd_create("lineside-door", os.MFD_CLOEXEC)
        try:
            os.ftruncate(memory, CLOCK.size)
            clock = mmap.mmap(memory, CLOCK.size)
            CLOCK.pack_into(clock, 0, time.monotonic_ns(), 0, 0)
            with theirs:
                # -S: no site-packages, so that it starts in a moment and holds little.
                command = [sys.executable, "-I", "-S", str(_RUN), str(_ROOT), str(theirs.fileno()), str(memory)]
                process = subprocess.Popen(command, pass_fds=[theirs.fileno(), memory], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(memory)
        self._clock = clock
        return ours, process

    def _open(self, door_: Door) -> None:
        if not door_.shut:
            order = {"do": "open", "door": door_.number, "inner": str(door_.inner), "quota": dataclasses.asdict(door_.quota)}
            self._order(order, [door_.listening.fileno()])

    def _order(self, order: dict[str, object], fds: list[int] | None = None) -> None:
        with contextlib.suppress(OSError):  # the process has just ended: the next one is told all of it
            socket.send_fds(self._control, [json.dumps(order).encode() + b"\n"], fds or [])

    def _listen(self) -> None:
        started, short = time.monotonic(), 0
        while True:
            self._hear()
            if self._ended.is_set():
                return
            lived = time.monotonic() - started
            short = 0 if lived > _CALM_S else short + 1
            self._process.wait()
            how = "stood still" if self._stood_still else f"ended ({self._process.returncode})"
            self.problem = f"the process that guards the sockets {how} and was started again"
            log.warning("%s", self.problem)
            if self._ended.wait(min(0.05 * 2**short, _CALM_S)):
                return
            with self._lock:
                self._control.close()
                try:
                    self._control, self._process = self._start()
                except OSError as e:
                    self.problem = f"the process that guards the sockets cannot be started: {e.strerror}"
                    continue
                for door_ in self._doors.values():
                    door_.cut, door_.strange = {}, {}
                    self._open(door_)
            started = time.monotonic()

    def _hear(self) -> None:
        rest, late = b"", 0
        control = self._control
        self._stood_still = False
        while True:
            try:
                if not select.select([control], [], [], _LOOK_S)[0]:
                    beat_ns, _, _ = CLOCK.unpack_from(self._clock, 0)
                    late = late + 1 if time.monotonic_ns() - beat_ns > _STANDS_STILL_S * 1e9 else 0
                    if late == 2 and not self._ended.is_set():
                        self._stood_still = True
                        self._process.kill()
                    continue
                data = control.recv(1 << 16)
            except (OSError, ValueError):  # it was closed
                return
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                for number, said in json.loads(line).items():
                    if (door_ := self._doors.get(int(number))) is not None:
                        door_.noted(said["cut"], said["strangers"], said["peers"])


_guard = threading.Lock()
_keeper: _Keeper | None = None


def open_door(endpoint: str, name: str, quota: Quota) -> Door:
    """Listen at `tcp://ADDRESS:PORT` or `ipc://PATH`; `name` is what the station file calls it. Raises OSError, as bind does."""
    global _keeper
    listening = _listen(endpoint)
    try:
        with _guard:
            _keeper = _keeper or _Keeper()
            return _keeper.add(listening, name, quota)
    except BaseException:
        listening.close()
        raise


def _close(door_: Door) -> None:
    global _keeper
    with _guard:
        if _keeper is not None:
            _keeper.remove(door_)
            if _keeper.unused:
                _keeper.end()
                _keeper = None


def _listen(endpoint: str) -> socket.socket:
    if endpoint.startswith("ipc://"):
        path = endpoint.removeprefix("ipc://")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        where: str | tuple[str, int] = "\0" + path[1:] if path.startswith("@") else path
        if not path.startswith("@") and Path(path).is_socket():
            Path(path).unlink()  # of a station that was killed: whoever binds looks first whether one answers
    else:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        address = address_of(host)
        listening = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        where = (address, int(port))
    try:
        listening.bind(where)
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def address_of(host: str) -> str:
    """The address for `*`, an address, one in brackets, or a network interface's name. Raises OSError where this machine has no such
    interface."""
    if host == "*":
        return "0.0.0.0"
    bare = host.removeprefix("[").removesuffix("]")
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(bare))
    if not 0 < len(host) < 16:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return socket.inet_ntoa(fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", host.encode()))[20:24])
