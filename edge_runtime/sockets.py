"""Binding a ZeroMQ socket behind a door, so that a user is told in one sentence why it failed; and serving one in a thread of its own."""

import contextlib
import dataclasses
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import zmq

from edge_runtime.credentials import Role
from edge_runtime.errors import LinesideError, SinkError
from edge_runtime.security.access import Access
from edge_runtime.security.doorkeeper import Door, Quota, open_door

_HINTS = {
    errno.EADDRINUSE: "it is in use by another process: stop that one (another station?) or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address: use one of its own, or tcp://*:PORT for all of them",
    errno.ENODEV: "this machine has no such network interface: use an address of its own, or tcp://*:PORT for all of them",
    errno.EACCES: "permission denied: choose a port above 1023, or a folder that the station may write to",
    errno.ENOENT: "its folder does not exist: create it",
    errno.EINVAL: "it is not an address: write tcp://ADDRESS:PORT with a port from 1 to 65535",
}


SUBSCRIBERS = Quota(message_bytes=256, parts=1, rate=20, burst=200, patient=True, topics=100)
"""What subscribers may send. libzmq keeps a node for each byte of a subscription."""


def bind(
    sock: zmq.Socket[Any], endpoint: str, key: str, quota: Quota, access: Access | None = None, roles: Iterable[Role] = (Role.OBSERVE,)
) -> Door | None:
    """Bind, with a door before it that keeps peers within `quota` (deploy/decisions/0040); close it after the socket. None: inproc.

    `access` says whether peers must show a key, and `roles` which ones; without it none is asked for, and a socket that others than this
    machine may reach is refused (deploy/decisions/0046).

    Raises SinkError naming the endpoint and the station file's `key` that holds it; ConfigError where keys are missing.
    """
    access = access or Access()
    curve = access.demands(endpoint, key)
    try:
        if endpoint.startswith("tcp://") and not _is_port(endpoint.rpartition(":")[2]):
            # libzmq would take port 70000 for 4464, and * for any free one that no subscriber could guess.
            raise zmq.ZMQError(errno.EINVAL)
        if endpoint.startswith("ipc://") and answers(endpoint.removeprefix("ipc://")):
            # libzmq unlinks an existing ipc file before it binds, and would silently take a running station's subscribers away.
            raise zmq.ZMQError(errno.EADDRINUSE)
        if not endpoint.startswith(("tcp://", "ipc://")):
            sock.bind(endpoint)
            return None
        door = open_door(endpoint, key, dataclasses.replace(quota, curve=curve))
        try:
            if curve:
                access.secure(sock, door, roles, tells=sock.type in (zmq.PUB, zmq.XPUB))
            sock.bind(f"ipc://{door.inner}")
        except zmq.ZMQError:
            door.close()
            raise
        if endpoint.startswith("ipc:///"):
            Path(endpoint.removeprefix("ipc://")).chmod(0o660)  # the station's group may listen, whatever the service's umask
    except OSError as e:  # ZMQError has an errno, too, and is none
        raise SinkError(f"{key}: expected to bind {endpoint}, could not: {_HINTS.get(e.errno or 0, e.strerror or str(e))}") from e
    except zmq.ZMQError as e:
        raise SinkError(f"{key}: expected to bind {endpoint}, could not: {_HINTS.get(e.errno or 0, str(e))}") from e
    return door


class Served:
    """A bound socket, its door, and the thread that alone touches it: what the station's servers have in common."""

    def __init__(
        self, name: str, kind: int, endpoint: str, key: str, quota: Quota, serve: "Callable[[zmq.Socket[bytes]], None]", *,
        options: Mapping[int, int], access: Access | None = None, roles: Iterable[Role] = (Role.OBSERVE,),
        context: "zmq.Context[zmq.Socket[bytes]] | None" = None,
    ) -> None:  # fmt: skip
        """`name`: the thread's, and what health calls it. `kind`, `options`: the socket's. `serve`: runs in the thread until `stopping`.
        `context`: another's, which ends it; None for one of its own. The rest as for `bind`."""
        self.name, self.endpoint = name, endpoint
        self.stopping = threading.Event()
        self.door: Door | None = None
        self._kind, self._options, self._serve = kind, options, serve
        self._bound = (key, quota, access, frozenset(roles))
        self._given = context
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Bind, and start the thread. Raises SinkError naming the endpoint, ConfigError where keys are missing."""
        self._context = self._given or zmq.Context()
        sock = self._context.socket(self._kind)
        for option, value in self._options.items():
            sock.setsockopt(option, value)
        try:
            self.door = bind(sock, self.endpoint, *self._bound)
        except LinesideError:
            sock.close()
            self.close()
            raise
        self.stopping.clear()
        self._thread = threading.Thread(target=self._run, args=(sock,), name=self.name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, then the socket and its door; may be called twice."""
        self.stopping.set()
        if self._thread is not None:
            self._thread.join()
        if self._context is not None and self._given is None:
            self._context.term()
        if self.door is not None:
            self.door.close()
        self._thread = self._context = self.door = None

    @property
    def problem(self) -> str | None:
        """A sentence for health while nobody is served, or peers are cut off."""
        if self._thread is not None and not self._thread.is_alive() and not self.stopping.is_set():
            return f"{self.name} {self.endpoint}: its thread ended unexpectedly; restart the station"
        return self.door.problem if self.door is not None else None

    def _run(self, sock: "zmq.Socket[bytes]") -> None:
        with sock:
            self._serve(sock)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text) <= 65535


def answers(path: str) -> bool:
    """Whether somebody listens on this Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect("\0" + path[1:] if path.startswith("@") else path)
        except OSError:
            return False
        return True


def bindable(endpoints: dict[str, str]) -> str:
    """Bind all of them at once, let go, and say so. Raises SinkError naming key and endpoint of the first that cannot be bound."""
    with zmq.Context() as context, contextlib.ExitStack() as stack:
        for key, endpoint in endpoints.items():
            if endpoint.startswith("ipc://"):
                _ipc_free(key, endpoint)  # binding would take the file away from a station that runs
                continue
            try:
                stack.enter_context(context.socket(zmq.PUB)).bind(endpoint)
            except zmq.ZMQError as e:
                in_use = e.errno == zmq.EADDRINUSE
                why = "is in use: does the station run already, or another one with the same port?" if in_use else f"cannot be bound: {e}"
                raise SinkError(f"{key}: {endpoint} {why}") from e
    return ", ".join(endpoints.values()) + " can be bound"


def _ipc_free(key: str, endpoint: str) -> None:
    path = endpoint.removeprefix("ipc://")
    if answers(path):
        raise SinkError(f"{key}: {endpoint} is in use: does the station run already, or another one with the same socket?")
    folder = Path(path).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise SinkError(f"{key}: {endpoint}: expected a folder {folder} that this user may write to")
