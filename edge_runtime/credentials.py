"""A key file: who its holder is to a station, and how he knows that station. What a client of a station with keys needs.

Why: deploy/decisions/0046.
"""

import enum
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq
from zmq.utils import z85

from edge_runtime.errors import ConfigError

__all__ = ["Credentials", "Role", "read_key_file"]

_Z85 = 40
"""Letters of a CURVE key."""


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
        found = tomllib.loads(path.read_text(encoding="utf-8"))
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
        found = tomllib.loads(path.read_text(encoding="utf-8")).get("public", "")
    except OSError as e:
        raise ConfigError(f"{path}: expected a station's public key, could not read it: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        found = ""
    if not is_key(found):
        raise ConfigError(f"{path}: expected a station's public key (server.pub of its keys), found none in it")
    return str(found)
