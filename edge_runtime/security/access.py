"""Who comes in at a station's sockets: beyond loopback a key is asked for, at each handshake and again with each message.

The handshake is ZeroMQ's CURVE, and the answer to who comes in ZAP's (rfc.zeromq.org/spec/25 and 27).

Why: deploy/decisions/0046.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq
from zmq.utils import z85

from edge_runtime.credentials import Role, may
from edge_runtime.errors import ConfigError
from edge_runtime.security.doorkeeper import Door, address_of

if TYPE_CHECKING:
    from edge_runtime.security.keys import Key, Keyring

log = logging.getLogger(__name__)

_ZAP = "inproc://zeromq.zap.01"
_LOOK_S = 0.5
_LOOK_MS = 500
_HANDSHAKE_MS = 10_000
_REFUSED, _LACKS_ROLE = b"400", b"500"
"""libzmq hands on whole hundreds alone: a client tells by the second that its key is known."""


def beyond_loopback(endpoint: str) -> bool:
    """Whether others than this machine may reach it. An address that is not known is taken to be reached."""
    if not endpoint.startswith("tcp://"):
        return False
    host = endpoint.removeprefix("tcp://").rpartition(":")[0]
    try:
        return not ip_address(address_of(host)).is_loopback
    except (OSError, ValueError):
        return True


class Access:
    """One station: which of its sockets demand keys, and who holds which. Safe from any thread."""

    def __init__(self, keys: Path | None = None, plain: bool = False, everywhere: bool = False) -> None:
        """As `[security]` says. Raises ConfigError where there is a folder without the station's key."""
        self._ring = _ring_of(keys) if keys is not None else None
        self._plain, self._everywhere = plain, everywhere
        self._pair = self._ring.server() if self._ring is not None else None
        self._lock = threading.Lock()
        self._known: dict[str, Key] = {}
        self._stamp: object = object()
        self._looked = 0.0
        self._wrong: str | None = None
        self._doors: dict[bytes, tuple[Door, frozenset[Role], bool]] = {}
        self._guarded: set[int] = set()
        self._look()

    @property
    def problem(self) -> str | None:
        """A sentence for health while a key's file cannot be read: its holder does not come in."""
        return self._wrong

    @property
    def tallies(self) -> Mapping[str, int]:
        """`strangers`: connections without a key, with another station's, or with one that may not come in, since the start."""
        strangers = sum(door.strangers for door, _, _ in tuple(self._doors.values()))
        return {"strangers": strangers} if self._doors else {}

    def demands(self, endpoint: str, name: str) -> bool:
        """Whether a socket at `endpoint` demands keys; `name` is its key in the station file.

        Raises ConfigError for one that others than this machine may reach where neither keys are there nor `plain` is said.
        """
        beyond = beyond_loopback(endpoint)
        if beyond and self._ring is None and not self._plain:
            raise ConfigError(refusal(endpoint, name))
        return self._ring is not None and (beyond or self._everywhere)

    def secure(self, sock: "zmq.Socket[Any]", door: Door, roles: Iterable[Role], tells: bool) -> None:
        """Have a socket demand a key with one of `roles`; before it is bound, and only one that `demands` them.

        `tells`: it tells without being asked, so who may not listen any more has to be cut; of others each message is looked at (`holder`).
        """
        assert self._pair is not None, "a socket demands keys, and there are none"
        domain = f"{door.number} {door.name}".encode()
        sock.curve_server = True
        sock.curve_publickey, sock.curve_secretkey = (key.encode() for key in self._pair)
        sock.zap_domain = domain
        sock.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without an answer to who somebody is, nobody comes in
        sock.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        with self._lock:
            self._doors[domain] = (door, frozenset(roles), tells)
            context = sock.context
            if id(context) not in self._guarded:
                self._guarded.add(id(context))
                asked = context.socket(zmq.REP)
                asked.linger = 0
                asked.bind(_ZAP)
                threading.Thread(target=self._answer, args=(asked, id(context)), name="keys", daemon=True).start()

    def holder(self, frame: zmq.Frame) -> "Key | None":
        """Whose key a message came with, as the folder says now; None for one that was revoked since its connection was made."""
        return self._known.get(str(frame.get("User-Id")))

    def admits(self, frame: zmq.Frame, door: Door) -> bool:
        """Whether a message may still come in through a door. One that may not is counted as a stranger's."""
        if not door.quota.curve:
            return True
        roles = next((roles for known, roles, _ in tuple(self._doors.values()) if known is door), frozenset[Role]())
        key = self.holder(frame)
        if key is not None and may(key.roles) & roles:
            return True
        door.refused("its key was revoked, and its connection stood")
        return False

    # --- ZAP ---------------------------------------------------------------------------------------------------------

    def _answer(self, asked: "zmq.Socket[bytes]", context: int) -> None:
        """Until the context ends."""
        try:
            with asked:
                while True:
                    if asked.poll(_LOOK_MS):
                        asked.send_multipart(self._judge(asked.recv_multipart()))
                    self._look()
        except zmq.ContextTerminated:
            pass
        finally:
            with self._lock:
                self._guarded.discard(context)

    def _judge(self, request: list[bytes]) -> list[bytes]:
        version, number, domain, _, _, mechanism, *credentials = [*request, *[b""] * 7][: max(len(request), 7)]
        door, roles, _ = self._doors.get(domain, (None, frozenset[Role](), False))
        self._look(now=True)  # a peer that is refused once does not come again by itself: its key may have been added a moment ago
        public = z85.encode(credentials[0]).decode() if mechanism == b"CURVE" and credentials and len(credentials[0]) == 32 else ""
        key = self._known.get(public)
        if version == b"1.0" and door is not None and key is not None and may(key.roles) & roles:
            log.info("%s: %s (%s) came in", door.name, key.name, key.fingerprint)
            return [version, number, b"200", b"", public.encode(), b""]
        if door is not None:
            wanted = " or ".join(sorted(roles))
            door.refused(f"the key {key.name} may not: it lacks the role {wanted}" if key else "its key is none of this station's")
        return [b"1.0", number, _LACKS_ROLE if key else _REFUSED, b"", b"", b""]

    # --- the folder --------------------------------------------------------------------------------------------------

    def _look(self, now: bool = False) -> None:
        """Read the folder again where it has changed; who may come in no more is cut."""
        if self._ring is None:
            return
        with self._lock:
            if not now and time.monotonic() - self._looked < _LOOK_S:
                return
            self._looked = time.monotonic()
            if (stamp := self._ring.stamp()) == self._stamp:
                return
            keys, wrong = self._ring.readable()
            before, self._known, self._stamp = self._known, {key.public: key for key in keys}, stamp
            self._wrong = wrong[0] if wrong else None
            less = [key for key in before.values() if key.public not in self._known or may(key.roles) - may(self._known[key.public].roles)]
            told = [door for door, _, tells in self._doors.values() if tells] if less else []
        for key in less:
            log.warning("the key %s (%s) was revoked, or may do less", key.name, key.fingerprint)
        for door in told:
            door.reset()


def refusal(endpoint: str, name: str) -> str:
    """Why a socket that others may reach is not opened without keys, and what to do."""
    return (
        f"{name}: {endpoint} can be reached from beyond this machine, and would let anybody in. Expected keys: write [security] with "
        'keys = "keys" into the station file, run `lineside keys make STATION.toml`, and for each who may come in '
        "`lineside keys add STATION.toml NAME --role observe`. If the network itself keeps strangers out, write plain = true there instead"
    )


def _ring_of(folder: Path) -> "Keyring":
    from edge_runtime.security.keys import Keyring  # only a station with keys loads it

    return Keyring(folder)
