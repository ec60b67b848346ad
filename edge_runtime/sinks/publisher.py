"""The publisher: tells every decision and the station's health on a PUB socket, and lets listeners fetch what they missed."""

import dataclasses
import threading
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq

from edge_runtime import wire
from edge_runtime.config.files import PublisherConfig
from edge_runtime.errors import LinesideError, SinkError
from edge_runtime.protocols import Sink
from edge_runtime.records import Decision, Health, Picture
from edge_runtime.security.access import Access
from edge_runtime.security.doorkeeper import Door
from edge_runtime.sinks.journal_numbers import last_seq
from edge_runtime.sinks.replay_server import ReplayServer
from edge_runtime.sockets import SUBSCRIBERS, bind

SNDHWM = 1000
"""Messages (about 1 kB each) kept for one subscriber that does not read; then PUB drops the newest for that one alone, without a word.
The sequence number shows the gap to it, and the replay socket fills it."""
LINGER_MS = 250
"""At the end: long enough for the last decision to leave, short enough for a subscriber that never reads."""


class Publisher(Sink):
    """A Sink that never blocks. Give it to the loop after the journal: what is published is then already in the journal."""

    def __init__(self, settings: PublisherConfig, station: str, journal_path: Path | None, access: Access | None = None) -> None:
        """`access`: who may listen; None where nobody beyond this machine can."""
        self._settings = settings
        self._access = access
        self._station = station
        self._journal_path = journal_path
        self._run = uuid.uuid4().hex
        self._first_seq = 1
        self._told_seq = 0
        self._lock = threading.Lock()  # decisions come from the loop, health may come from another thread
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._replay: ReplayServer | None = None
        self._door: Door | None = None

    def __enter__(self) -> Self:
        """Bind both sockets. Raises SinkError naming the endpoint that is in use or impossible, or a journal that cannot be read;
        ConfigError where keys are missing."""
        if self._journal_path is not None:
            self._told_seq = last_seq(self._journal_path)
            self._first_seq = self._told_seq + 1
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, SNDHWM)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        try:
            self._door = bind(self._socket, self._settings.endpoint, "[publisher] endpoint", SUBSCRIBERS, self._access)
            if self._settings.replay is not None:
                self._replay = ReplayServer(
                    self._context, self._settings.replay, self._run, self._first_seq, self._journal_path, self._access
                )
                self._replay.start()
        except LinesideError:
            self._close()
            raise
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._close()

    @property
    def problem(self) -> str | None:
        """A sentence for health while missed decisions cannot be fetched or peers are cut off; None when all is well."""
        replay = self._replay.problem if self._replay is not None else None
        return replay or (self._door.problem if self._door is not None else None)

    def put(self, decision: Decision, pictures: tuple[Picture, ...] = ()) -> None:
        """Publish one decision. Raises SinkError when the socket is closed."""
        if self._replay is not None:
            self._replay.remember(decision)
        with self._lock:
            self._send(wire.encode_decision(decision, self._run, self._first_seq))
            self._told_seq = decision.seq

    def send_health(self, health: Health) -> None:
        """Publish the station's health; from any thread. Raises SinkError when the socket is closed.

        `last_seq` is set to the last decision that was published before it: a listener takes a larger one for a loss.
        """
        with self._lock:
            health = dataclasses.replace(health, last_seq=self._told_seq)
            self._send(wire.encode_health(health, self._run, self._first_seq))

    def _send(self, parts: list[bytes]) -> None:
        if self._socket is None:
            raise SinkError(f"[publisher] endpoint: {self._settings.endpoint} is closed; nothing was published")
        try:
            self._socket.send_multipart(parts, flags=zmq.NOBLOCK)
        except zmq.ZMQError as e:
            raise SinkError(f"[publisher] endpoint: {self._settings.endpoint}: could not publish: {e}") from e

    def _close(self) -> None:
        if self._replay is not None:
            self._replay.stop()
            self._replay = None
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
        if self._context is not None:
            self._context.term()  # waits for LINGER_MS at most
            self._context = None
        if self._door is not None:
            self._door.close()
            self._door = None
