"""The replay socket: gives listeners the decisions that they missed, out of the journal and the last ones in memory."""

import threading
import time
from collections import deque
from pathlib import Path

import zmq

from edge_runtime import wire
from edge_runtime.errors import SchemaError, SinkError, WireError
from edge_runtime.records import Decision
from edge_runtime.security.access import Access
from edge_runtime.security.doorkeeper import Quota
from edge_runtime.sinks import journal_file
from edge_runtime.sockets import Served

REMEMBERED = 10_000
"""Decisions kept in memory, for a journal that is late or on a full disk (as many as the journal itself holds back)."""
_POLL_MS = 50
_LISTENERS = Quota(message_bytes=4096, parts=4, rate=20, burst=40, patient=True)
"""Whoever asks more often waits: a page is a hundred decisions, and the loop wants the processor."""


class ReplayServer:
    """Answers listeners that missed decisions: a ROUTER in a thread of its own.

    A listener that asks a lot costs the loop nothing but its share of the processor.
    """

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, run: str, first_seq: int, journal: Path | None,
        access: Access | None = None,
    ) -> None:  # fmt: skip
        self._access = access
        self._run = run
        self._first_seq = first_seq
        self._journal = journal
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._recent: deque[Decision] = deque(maxlen=REMEMBERED)
        self._last_seq = first_seq - 1
        self._problem: str | None = None
        # Replies to one that asks and never reads are dropped, for that one alone.
        self._served = Served(
            "replay", zmq.ROUTER, endpoint, "[publisher] replay", _LISTENERS, self._serve, access=access, context=context,
            options={zmq.LINGER: 0, zmq.SNDHWM: 20, zmq.RCVHWM: 100},
        )  # fmt: skip

    def start(self) -> None:
        """Bind and serve. Raises SinkError naming the endpoint, ConfigError where keys are missing."""
        self._served.open()

    def stop(self) -> None:
        """End the thread and close the socket."""
        self._served.close()

    @property
    def problem(self) -> str | None:
        """A sentence for health while the journal cannot be read or its thread has ended; None when all is well."""
        return self._problem or self._served.problem

    def remember(self, decision: Decision) -> None:
        """Keep a decision at hand for listeners; called in the loop, before it is published."""
        with self._lock:
            self._recent.append(decision)
            self._last_seq = decision.seq

    def _serve(self, sock: "zmq.Socket[bytes]") -> None:
        while not self._served.stopping.is_set():
            if not sock.poll(_POLL_MS):
                continue
            frames = sock.recv_multipart(copy=False)
            if self._access is not None and self._served.door is not None and not self._access.admits(frames[-1], self._served.door):
                continue
            sender, *parts = [frame.bytes for frame in frames]
            try:
                reply = wire.encode_replay(self._answer(wire.decode_request(parts[-1] if len(parts) == 1 else b"")))
            except SchemaError:
                reply = wire.encode_refusal()
            except WireError:
                continue  # not a listener of ours; an answer would mean nothing to it
            try:
                sock.send_multipart([sender, reply], flags=zmq.NOBLOCK)
            except zmq.Again:
                continue  # it asks again when it wants it

    def _answer(self, request: wire.ReplayRequest) -> wire.ReplayReply:
        page: list[Decision] = []
        found: dict[int, Decision] = {}
        lost = ""
        with self._lock:
            # Taken before the journal is read: what is at most this is in one of the two, or lost.
            last_seq = self._last_seq
            recent = list(self._recent)
        if request.after_seq is not None:
            if self._journal is not None:
                try:
                    page, lost = journal_file.read_page(self._journal, request.after_seq, wire.REPLAY_PAGE + 1)
                    self._problem = f"replay: {lost}" if lost else None
                except SinkError as e:
                    self._problem = f"replay: {e}"
            # What was told counts: a row that nobody was told of yet may still be amended.
            found = {d.seq: d for d in page if d.seq <= last_seq}
            found.update((d.seq, d) for d in recent if d.seq > request.after_seq)
        chosen = [found[seq] for seq in sorted(found)]
        return wire.ReplayReply(
            run=self._run, first_seq=self._first_seq, request=request.request, uptime_s=time.monotonic() - self._started,
            last_seq=last_seq, decisions=chosen[: wire.REPLAY_PAGE], more=len(chosen) > wire.REPLAY_PAGE,
            problem="" if lost else self._problem or "", lost=lost,
        )  # fmt: skip
