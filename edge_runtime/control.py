"""What asks a station's control socket: one question, one answer.

    with ControlClient("ipc:///run/lineside/line-1/control.sock") as control:
        print(control.ask("status")["state"])

Over TCP beyond the machine, with a key: `ControlClient("tcp://station:5563", key=read_key_file(Path("me.key")))`.
"""

import itertools
import time
from types import TracebackType
from typing import Any, Self

import zmq

from edge_runtime import wire
from edge_runtime.credentials import Admission, Credentials
from edge_runtime.errors import ConfigError, Refused, WireError, printable

__all__ = ["ControlClient"]

_DOUBT = "it may have done it all the same: `lineside status` and `check` tell"


class ControlClient:
    """A context manager; for one thread."""

    def __init__(self, endpoint: str, key: Credentials | None = None, timeout_s: float = 5.0) -> None:
        """Nothing is opened yet.

        Args:
            endpoint: the station's [control] endpoint; `tcp://*:5563` is taken as this machine's.
            key: where the station demands one.
            timeout_s: how long an answer is waited for, unless `ask` says otherwise.
        """
        self._endpoint, self._key, self._timeout_s = wire.connectable(endpoint), key, timeout_s
        self._numbers = itertools.count(1)
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None

    def __enter__(self) -> Self:
        """Connect. Raises ConfigError for an address that ZeroMQ does not understand, or that this user may not connect to."""
        wire.check_access(self._endpoint)
        self._context = zmq.Context()
        self._dealer = self._context.socket(zmq.DEALER)
        self._dealer.setsockopt(zmq.LINGER, 0)
        self._dealer.setsockopt(zmq.IMMEDIATE, 1)
        self._dealer.setsockopt(zmq.RECONNECT_IVL, 50)
        self._dealer.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        if self._key is not None:
            self._key.apply(self._dealer)
        self._admission = Admission(self._dealer, self._endpoint, self._key)
        try:
            self._dealer.connect(self._endpoint)
        except zmq.ZMQError as e:
            self.__exit__(None, None, None)
            raise ConfigError(f"expected an address such as tcp://127.0.0.1:5563, found {self._endpoint!r}: {e}") from e
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._context is not None:
            self._admission.close()
            self._dealer.close()
            self._context.term()
            self._context = None

    def ask(
        self, verb: str, arguments: dict[str, Any] | None = None, *, why: str = "", person: str = "", timeout_s: float | None = None
    ) -> dict[str, Any]:
        """What the station answers. Asked once: a question whose answer does not come may have been done all the same.

        Raises Refused where the station does not let this client in, or refuses; WireError where nobody answers in time, or it
        ends meanwhile; ConfigError for words longer than a station reads.
        """
        number = next(self._numbers)
        asked = wire.ControlRequest(request=number, verb=verb, arguments=arguments or {}, why=why, person=person)
        try:
            question = wire.encode_control(asked)
            wire.decode_control(question)
        except UnicodeEncodeError as e:
            raise ConfigError(f"{verb}: expected text in UTF-8, found bytes that are none in {printable(e.object)!r}") from e
        except WireError as e:
            raise ConfigError(f"{verb}: expected what a station reads, found what it refuses: {e.__cause__}") from e
        until = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        sent, since = False, 0
        while (left := until - time.monotonic()) > 0:
            if self._admission.refused:
                raise Refused(self._admission.refused)
            wait_ms = max(round(min(left, 0.1) * 1e3), 1)
            if not sent:
                if self._dealer.poll(wait_ms, zmq.POLLOUT):
                    try:
                        since = self._admission.ended
                        self._dealer.send(question, flags=zmq.NOBLOCK)
                        sent = True
                    except zmq.Again:
                        continue
            elif self._dealer.poll(wait_ms):
                reply = wire.decode_control_reply(self._dealer.recv_multipart()[-1])
                if reply.request != number:
                    continue  # an answer that came too late for whoever waited for it
                if reply.refused:
                    raise Refused(reply.refused, reply.code or Refused.exit_code)
                return reply.result
            elif self._admission.ended > since:  # it does not come back to whoever asked over that connection
                raise WireError(f"{self._endpoint}: the station ended the connection before it answered: {_DOUBT}")
        if doubt := self._admission.doubt:
            raise Refused(doubt)
        missing = f"it was asked, and {_DOUBT}" if sent else "nobody answers there"
        raise WireError(f"{self._endpoint}: expected an answer of the station's control socket, found none: {missing}")
