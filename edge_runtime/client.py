"""What a subscriber imports: a station's decisions, in order and without gaps.

    with DecisionClient("tcp://station:5560", replay="tcp://station:5561") as decisions:
        for item in decisions:
            if isinstance(item, Gap):
                print("lost:", item)
                continue
            print(item.seq, item.verdict, item.reason)
            for view in item.views:  # one a camera; a station with one camera gives one
                print("  ", view.camera, view.verdict, view.severity)

PUB/SUB alone loses messages: the first ones, while the subscription is on its way, and later ones when a subscriber is slow or a cable
is out. Every decision has a number; the client fetches the missing ones over the replay socket before it hands on the next.
"""

import itertools
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import zmq

from edge_runtime import wire
from edge_runtime.credentials import Admission, Credentials
from edge_runtime.errors import ConfigError, Refused
from edge_runtime.records import Decision, Health

__all__ = ["DecisionClient", "Gap"]

_HELD = 10_000
"""Live decisions held back while older ones are fetched; what does not fit is fetched as well."""
_ASK_AGAIN_S = (0.5, 4.0)
"""Doubled with each question without an answer, and twice what the last answer took: a station that reads its journal slowly must not be
buried under questions."""
_SILENT_S = 1.5
"""A station says how it is once a second: what is longer than this was a time in which it was away."""
_CATCH_UP_S = 0.1
"""After a reply that brought nothing: the station is still busy telling."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Decisions that were made and cannot be had any more.

    >>> gap = Gap(first_seq=7, last_seq=9, reason="not received")
    >>> gap.last_seq - gap.first_seq + 1  # decisions that are lost
    3
    """

    first_seq: int
    """The first that is missing,"""
    last_seq: int
    """and the last."""
    reason: str
    """A sentence: why they cannot be had."""


class DecisionClient:
    """A context manager and an iterator of `Decision | Gap`; for one thread.

    Without `after_seq` it begins where the station is when the client is entered. If the station cannot be reached within `connect_s`, the
    client goes on waiting, and begins with the first decision that the station makes once it starts.
    """

    def __init__(
        self,
        endpoint: str,
        replay: str | None = None,
        after_seq: int | None = None,
        connect_s: float = 1.0,
        give_up_s: float = 5.0,
        key: Credentials | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            endpoint: the station's [publisher] endpoint; `tcp://*:5560` is taken as this machine's.
            replay: its [publisher] replay. None: missed decisions are reported as Gap at once, and the first ones may be missed unnoticed.
            after_seq: the last decision that the subscriber has handled, perhaps days ago: everything later is delivered; needs `replay`.
            connect_s: how long entering waits for the replay socket's first answer.
            give_up_s: how long a gap is asked for when the replay socket does not answer, before it is reported as Gap. Only time in which
                the station is heard counts: one that is away, however long, has its journal when it comes back.
            key: where the station demands one (`edge_runtime.credentials.read_key_file`).
        """
        self._key = key
        self._admissions: list[Admission] = []
        self._endpoint = wire.connectable(endpoint)
        self._replay = wire.connectable(replay) if replay is not None else None
        self._connect_s = connect_s
        self._give_up_s = give_up_s
        self._last = after_seq  # the last seq handed on; None until the client knows where to begin
        self._run: str | None = None
        self._past_runs: set[str] = set()
        self._held: dict[int, Decision] = {}
        self._known = 0  # the largest seq that the station is known to have told
        self._covered = 0  # up to here, what is not held cannot be had
        self._covered_why = ""
        self._gaps: deque[Gap] = deque()
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[float, bool]] = {}
        """Questions without an answer yet: when, and whether one asked for decisions, not where to begin."""
        self._patience_s = _ASK_AGAIN_S[0]
        self._answered = False
        self._ask_at = 0.0
        self._missing_since: float | None = None
        """As `_heard_s`."""
        self._heard_s = 0.0
        """Seconds in which the station was heard: up to _SILENT_S before each message."""
        self._heard_at = 0.0
        self._entered = 0.0
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self.health: Health | None = None
        """The station's last health record that was seen."""

    def __enter__(self) -> Self:
        """Connect. Raises ConfigError for an address that ZeroMQ does not understand, WireError where no station answers, or one of another
        version, Refused where it does not let this client in."""
        self._entered = time.monotonic()
        self._context = zmq.Context()
        self._sub = self._context.socket(zmq.SUB)
        self._dealer = self._context.socket(zmq.DEALER)
        self._poller = zmq.Poller()
        for sock in (self._sub, self._dealer):
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.HEARTBEAT_IVL, 2000)  # a station whose cable was pulled is connected to again
            sock.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
            sock.setsockopt(zmq.RECONNECT_IVL, 50)
            sock.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
            self._poller.register(sock, zmq.POLLIN)
            if self._key is not None:
                self._key.apply(sock)
        self._dealer.setsockopt(zmq.IMMEDIATE, 1)  # no heap of old questions for a station that is away
        for topic in (wire.DECISION, wire.HEALTH):
            self._sub.setsockopt(zmq.SUBSCRIBE, topic)
        try:
            self._connect(self._sub, self._endpoint)
            if self._replay is not None:
                self._connect(self._dealer, self._replay)
            until = self._entered + self._connect_s
            while self._replay is not None and self._last is None and time.monotonic() < until:
                self._work(until)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._context is not None:
            for admission in self._admissions:
                admission.close()
            self._admissions = []
            self._sub.close()
            self._dealer.close()
            self._context.term()
            self._context = None

    def __iter__(self) -> Iterator[Decision | Gap]:
        """Everything, for ever."""
        while True:
            item = self.receive(None)
            if item is not None:
                yield item

    def receive(self, timeout_s: float | None = None) -> Decision | Gap | None:
        """The next decision by seq, or a Gap in its place; None when `timeout_s` passed without one (None waits for ever).

        Raises WireError when the other side is no station, SchemaError when it is one of another version, Refused when it demands a key, or
        does not let this one in any more: nothing comes then until the client is made anew.

        >>> with DecisionClient("ipc:///tmp/nobody-is-there") as decisions:
        ...     print(decisions.receive(timeout_s=0.01))
        None
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            item = self._next()
            if item is not None:
                return item
            self._work(until)
            if until is not None and time.monotonic() >= until:
                return self._next()

    # --- what to hand on -----------------------------------------------------------------------------------------

    def _next(self) -> Decision | Gap | None:
        now = time.monotonic()
        if self._gaps:
            return self._gaps.popleft()
        if self._last is None:
            # No answer about where to begin: begin with what was heard.
            if not self._held or (self._replay is not None and now - self._entered < self._connect_s + self._give_up_s):
                return None
            self._last = min(self._held) - 1
        decision = self._held.pop(self._last + 1, None)
        if decision is not None:
            self._last += 1
            self._missing_since = None
            return decision
        if self._known <= self._last:
            self._missing_since = None
            return None
        if self._missing_since is None:
            self._missing_since = self._heard_s
        heard = min(self._held, default=self._known + 1)
        if self._replay is None:
            return self._gap(heard - 1, "not received, and the client was given no replay socket to ask")
        if self._covered > self._last:
            return self._gap(min(heard - 1, self._covered), self._covered_why)
        if self._heard_s - self._missing_since > self._give_up_s:
            return self._gap(heard - 1, f"not received, and {self._replay} did not give them within {self._give_up_s:g} s")
        return None

    def _gap(self, last: int, reason: str) -> Gap:
        assert self._last is not None
        gap = Gap(self._last + 1, last, reason)
        self._last = last
        self._missing_since = None
        return gap

    # --- the sockets ---------------------------------------------------------------------------------------------

    def _work(self, until: float | None) -> None:
        """Ask if something is missing, wait for a message until `until` at most, and take what came."""
        now = time.monotonic()
        wait = 1.0 if until is None else max(until - now, 0.0)
        if self._replay is not None and (not self._answered or self._last is None or self._known > self._last):
            if now >= self._ask_at:
                self._ask(now)
            wait = min(wait, max(self._ask_at - now, 0.001))
        ready = dict(self._poller.poll(round(min(wait, 1.0) * 1000)))
        for admission in self._admissions:
            if admission.refused:
                raise Refused(admission.refused)
        if ready:
            now = time.monotonic()
            self._heard_s += min(now - self._heard_at, _SILENT_S)
            self._heard_at = now
        if self._dealer in ready:
            self._take_reply(wire.decode_reply(self._dealer.recv_multipart()[-1]))
        if self._sub in ready:
            for _ in range(1000):
                try:
                    self._take(wire.decode(self._sub.recv_multipart(flags=zmq.NOBLOCK)))
                except zmq.Again:
                    break

    def _ask(self, now: float) -> None:
        number = next(self._numbers)
        self._ask_at = now + self._patience_s
        try:
            self._dealer.send(wire.encode_replay(wire.ReplayRequest(request=number, after_seq=self._last)), flags=zmq.NOBLOCK)
        except zmq.Again:
            self._ask_at = now + 0.02  # not connected yet
            return
        self._patience_s = min(2 * self._patience_s, _ASK_AGAIN_S[1])
        self._asked[number] = (now, self._last is not None)

    def _take(self, message: wire.DecisionMessage | wire.HealthMessage | wire.Preview) -> None:
        if isinstance(message, wire.Preview):
            return
        if not self._see_run(message.run, message.first_seq):
            return
        if isinstance(message, wire.HealthMessage):
            self.health = message.health
            self._known = max(self._known, message.health.last_seq)
        else:
            self._hold(message.decision)

    def _take_reply(self, reply: wire.ReplayReply) -> None:
        if reply.request not in self._asked:
            return  # nobody here asked
        asked_at, asked_for_more = self._asked[reply.request]
        self._asked = {number: asked for number, asked in self._asked.items() if number > reply.request}  # answers keep their order
        now = time.monotonic()
        self._patience_s = min(max(2 * (now - asked_at), _ASK_AGAIN_S[0]), _ASK_AGAIN_S[1])
        self._answered = True
        self._ask_at = now + self._patience_s if self._asked else 0.0
        if self._last is not None and not asked_for_more:
            return  # where to begin, which is settled meanwhile
        followed = self._run is not None
        if not self._see_run(reply.run, reply.first_seq):
            return
        if self._last is None:
            # A station that started after the client did: all that it has made since belongs to the client. However long the answer took.
            started_later = asked_at - self._entered > reply.uptime_s
            self._last = reply.first_seq - 1 if started_later else reply.last_seq
            self._last = min(self._last, min(self._held, default=self._last + 1) - 1)
            self._known = max(self._known, reply.last_seq)
            return
        if not followed and reply.last_seq < self._last:
            self._begin_anew(1)
            self._known = reply.last_seq
            return
        for decision in reply.decisions:
            self._hold(decision, fetched=True)
        self._known = max(self._known, reply.last_seq)
        if reply.problem:
            pass  # made from memory alone: what is missing in it may yet come out of the journal
        elif reply.more:
            self._covered = reply.decisions[-1].seq
        else:
            self._covered = max(reply.last_seq, *(d.seq for d in reply.decisions), 0)
        self._covered_why = reply.lost or "the station has them neither in its journal nor in memory"
        if not reply.decisions or reply.problem:
            self._ask_at = time.monotonic() + _CATCH_UP_S

    def _hold(self, decision: Decision, fetched: bool = False) -> None:
        if self._last is not None and decision.seq <= self._last:
            return
        self._known = max(self._known, decision.seq)
        if fetched or len(self._held) < _HELD:
            self._held[decision.seq] = decision

    def _see_run(self, run: str, first_seq: int) -> bool:
        """A station that started again goes on counting where its journal ends; one whose journal is gone begins anew.

        False for what is left in a socket from a run that is over: the replay socket gives it in its place.
        """
        if run == self._run:
            return True
        if run in self._past_runs:
            return False
        if self._run is not None:
            self._past_runs.add(self._run)
            if self._last is not None and first_seq <= self._last:
                self._begin_anew(first_seq)
        self._run = run
        self._covered = 0
        return True

    def _begin_anew(self, first_seq: int) -> None:
        assert self._last is not None
        why = "the station's numbers went back: its journal was replaced, or it had told these without having written them"
        self._gaps.append(Gap(first_seq, self._last, why))
        self._last = first_seq - 1
        self._held.clear()
        self._known = self._covered = 0

    @property
    def doubt(self) -> str:
        """A sentence for whoever has waited in vain: somebody is there, and does not let this client in; empty otherwise."""
        return next((doubt for admission in self._admissions if (doubt := admission.doubt)), "")

    def _connect(self, sock: "zmq.Socket[bytes]", endpoint: str) -> None:
        wire.check_access(endpoint)
        self._admissions.append(Admission(sock, endpoint, self._key))
        try:
            sock.connect(endpoint)
        except zmq.ZMQError as e:
            raise ConfigError(f"expected an address such as tcp://127.0.0.1:5560, found {endpoint!r}: {e}") from e
