"""A key file: who its holder is to a station, and how he knows that station. What a client of a station with keys needs.

Why: deploy/decisions/0046.
"""

import enum
import stat
import struct
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq
from zmq.utils import z85

from edge_runtime.errors import ConfigError
from edge_runtime.files import read_whole

__all__ = ["Admission", "Credentials", "Role", "read_key_file"]

_Z85 = 40
"""Letters of a CURVE key."""
_EVENT = struct.Struct("=HI")
"""The first part of what a ZeroMQ monitor says: event and value. pyzmq's own way to read it loads asyncio and ssl, 60 modules."""


class Role(enum.StrEnum):
    """What the holder of a key may do; a key has one or several."""

    OBSERVE = "observe"
    """Decisions, health, previews, replays, and the control socket's `status`. Whoever has any role but `trigger` alone may observe."""
    TRIGGER = "trigger"
    """Announce parts; nothing else."""
    OPERATE = "operate"
    """Acknowledge alarms, say that a verdict was wrong."""
    ENGINEER = "engineer"
    """Thresholds and recipes, and what `operate` may."""
    DEPLOY = "deploy"
    """Bundles: another one, or the one before."""


_IMPLIES = {
    Role.OBSERVE: {Role.OBSERVE},
    Role.TRIGGER: {Role.TRIGGER},
    Role.OPERATE: {Role.OPERATE, Role.OBSERVE},
    Role.ENGINEER: {Role.ENGINEER, Role.OPERATE, Role.OBSERVE},
    Role.DEPLOY: {Role.DEPLOY, Role.OBSERVE},
}


def may(roles: Iterable[Role]) -> frozenset[Role]:
    """All that the holder of these roles may do: an engineer operates, whoever does anything but announce parts observes."""
    return frozenset(implied for role in roles for implied in _IMPLIES[role])


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key pair of ours, and the public key of the station that is expected at the other end."""

    name: str
    public: str
    """Z85, 40 letters."""
    secret: str = field(repr=False)
    """Z85, 40 letters."""
    server: str
    """The station's public key, Z85."""

    def apply(self, sock: "zmq.Socket[Any]") -> None:
        """Have a socket speak CURVE from now on; before it connects."""
        sock.curve_publickey, sock.curve_secretkey = self.public.encode(), self.secret.encode()
        sock.curve_serverkey = self.server.encode()


class Admission:
    """Whether the other end let a client's socket in, as far as ZeroMQ can tell. One that was refused does not connect again by itself."""

    _TRIES = 2
    """Handshakes that end without a word before it is said that the keys differ: a station that is just starting ends some as well."""

    def __init__(self, sock: "zmq.Socket[Any]", endpoint: str, key: Credentials | None) -> None:
        """Before the socket connects; `close` before it is closed."""
        self._sock, self._endpoint, self._key = sock, endpoint, key
        self._failed = 0
        self._refused = ""
        self._ended = 0
        self._monitor = sock.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        )  # fmt: skip

    def close(self) -> None:
        """Ends the watching."""
        self._sock.disable_monitor()
        self._monitor.close(0)

    @property
    def refused(self) -> str:
        """A sentence where the other end does not let this client in; empty where it did, or nobody was there yet."""
        while self._monitor.poll(0):
            event, value = _EVENT.unpack(self._monitor.recv_multipart()[0])
            self._note(event, value)
        return self._refused

    @property
    def ended(self) -> int:
        """How many connections that stood have ended."""
        _ = self.refused
        return self._ended

    @property
    def doubt(self) -> str:
        """As `refused`, and a sentence where handshakes end without a word, for whoever waits in vain."""
        if not self.refused and self._failed >= self._TRIES and self._key is not None:
            return (
                f"{self._endpoint}: somebody answers, and cannot read what the key {self._key.name} says: this is not the station that "
                "it is for (its public key is another), or no station"
            )
        return self._refused

    def _note(self, event: int, value: int) -> None:
        name = self._key.name if self._key else ""
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._failed, self._refused = 0, ""
        elif event == zmq.EVENT_DISCONNECTED:
            self._ended += 1
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._failed += 1
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH and value == 500:
            self._refused = f"{self._endpoint}: the station knows the key {name}, and it may not do this here: it lacks the role for it"
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refused = f"{self._endpoint}: the station does not let the key {name} in: it never did, or it was revoked"
        elif self._key is None:
            self._refused = f"{self._endpoint}: the station demands a key: --key FILE, as `lineside keys add` writes it"
        else:
            self._refused = f"{self._endpoint}: the station asks for no key here, so it cannot be known for the right one: leave --key out"


def read_key_file(path: Path, server: Path | str | None = None) -> Credentials:
    """A client's key file, as `lineside keys add` writes it. `server`: the station's public key, or a file that holds it, where the key
    file names none or another one.

    Raises ConfigError for one that cannot be read, that others may read, or that is none.
    """
    found = read_secret(path, "client")
    station = _station_of(server) if server is not None else found.get("server", "")
    if not is_key(station):
        raise ConfigError(
            f"{path}: expected the station's public key in it (server), found none; name it with --server-key, as a file or as its {_Z85} "
            "letters, which `lineside keys list STATION.toml` shows"
        )
    return Credentials(str(found.get("name", "")), found["public"], found["secret"], station)


def read_secret(path: Path, kind: str) -> dict[str, Any]:
    """What a file with a secret in it says. Raises ConfigError, also for one that others may read: who has read it is not known."""
    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise ConfigError(
                f"{path}: expected a secret that its owner alone may read (mode 0600), found mode {stat.S_IMODE(mode):04o}: whoever could "
                "read it may have it. Make a new key and revoke this one; or, if nobody else has been here: chmod 600"
            )
        found = tomllib.loads(read_whole(path).decode())
    except OSError as e:
        raise ConfigError(f"{path}: expected a key file, could not read it: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ConfigError(f"{path}: expected a key file as `lineside keys` writes it, found what is no TOML: {e}") from e
    wrong = [key for key in ("public", "secret") if not is_key(found.get(key))]
    if wrong or found.get("kind") != kind:
        what = f"no {wrong[0]} key of {_Z85} letters" if wrong else f"kind = {found.get('kind')!r}"
        raise ConfigError(f"{path}: expected a {kind}'s key file as `lineside keys` writes it, found {what}")
    if zmq.curve_public(found["secret"].encode()).decode() != found["public"]:
        raise ConfigError(f"{path}: expected a public key that belongs to the secret one, found another: the file was altered")
    return found


def is_key(value: object) -> bool:
    """Whether it is a CURVE key in Z85."""
    if not isinstance(value, str) or len(value) != _Z85:
        return False
    try:
        return len(z85.decode(value)) == 32
    except (KeyError, ValueError):
        return False


def _station_of(server: Path | str) -> str:
    if is_key(str(server)):
        return str(server)
    path = Path(server)
    try:
        found = tomllib.loads(read_whole(path).decode()).get("public", "")
    except OSError as e:
        raise ConfigError(f"{path}: expected a station's public key, could not read it: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        found = ""
    if not is_key(found):
        raise ConfigError(f"{path}: expected a station's public key (server.pub of its keys), found none in it")
    return str(found)
