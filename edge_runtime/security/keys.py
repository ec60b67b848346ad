"""A station's keys: a folder with its own pair, and a file for each key that may come in, with what its holder may do.

    server.key            the station's pair; secret (0600)
    server.pub            its public half: for whoever connects
    allowed/NAME.pub      a key that may come in: name, roles, public half
    revoked/NAME-….pub    one that may not any more, kept for the record

Pure: what is read and written here is asked about at the sockets by access.py. Why: deploy/decisions/0046.
"""

import contextlib
import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import zmq
from zmq.utils import z85

from edge_runtime.credentials import Role, is_key, read_secret
from edge_runtime.errors import ConfigError
from edge_runtime.files import opened

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MOST_KEYS = 1000
_MOST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Key:
    """A public key that may come in."""

    name: str
    roles: frozenset[Role]
    """As its file says; `may` says what follows."""
    public: str

    @property
    def fingerprint(self) -> str:
        """Sixteen letters that tell keys apart, for people."""
        return fingerprint(self.public)


def fingerprint(public: str) -> str:
    """The first 64 bits of the SHA-256 of a public key (Z85), in hexadecimal."""
    return hashlib.sha256(z85.decode(public)).hexdigest()[:16]


class Keyring:
    """The folder. Nothing of it is kept in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server_secret, self.server_public = folder / "server.key", folder / "server.pub"
        self.allowed, self.revoked = folder / "allowed", folder / "revoked"

    def server(self) -> tuple[str, str]:
        """The station's public and secret key. Raises ConfigError where there is none, or others may read it."""
        if not self.server_secret.exists():
            raise ConfigError(f"{self.server_secret}: expected the station's key, found none; make it: lineside keys make STATION.toml")
        found = read_secret(self.server_secret, "server")
        return found["public"], found["secret"]

    def listed(self) -> list[Key]:
        """Who may come in, by name. Raises ConfigError for a file that is no key, and for a folder into which anybody may put one."""
        keys, wrong = self.readable()
        if wrong:
            raise ConfigError(wrong[0])
        return keys

    def readable(self) -> tuple[list[Key], list[str]]:
        """As `listed`, and a sentence for each file that is none: that one does not come in, the others do."""
        try:
            if self.allowed.stat().st_mode & stat.S_IWOTH:
                return [], [f"{self.allowed}: expected a folder that not everybody may write to, so nobody comes in: chmod o-w"]
            files = sorted(self.allowed.glob("*.pub"))
        except OSError as e:
            return [], [f"{self.allowed}: expected the folder of keys that may come in, found none ({e.strerror}), so nobody comes in"]
        if len(files) > MOST_KEYS:
            return [], [f"{self.allowed}: expected at most {MOST_KEYS} keys, found {len(files)}, so nobody comes in"]
        keys, wrong = [], []
        for file in files:
            try:
                keys.append(_read(file))
            except ConfigError as e:
                wrong.append(str(e))
        return keys, wrong

    def stamp(self) -> object:
        """What differs once a key was added, revoked or changed."""
        try:
            own = self.allowed.stat()
            with os.scandir(self.allowed) as entries:
                files = sorted((e.name, s.st_mtime_ns, s.st_size, s.st_mode) for e in entries if (s := e.stat()))
        except OSError:  # gone, or one of them just now
            return None
        return own.st_mode, own.st_ino, files

    def make_server(self) -> str:
        """Make the station's pair; its public half. Raises ConfigError where there is one."""
        if self.server_secret.exists():
            raise ConfigError(
                f"{self.server_secret}: is there already, and whoever connects knows the station by it. To make another, move it away, and "
                "hand out the new one"
            )
        public, secret = new_pair()
        with _explained(self.folder):
            _folder(self.folder, 0o755)
            _folder(self.allowed, 0o755)
            head = "# This station's key. Whoever has this file can pass for the station: keep it secret.\n"
            _write(self.server_secret, f'{head}kind = "server"\npublic = "{public}"\nsecret = "{secret}"\n', 0o600)
            _write(self.server_public, f'# The public half of a station\'s key: for whoever connects to it.\npublic = "{public}"\n', 0o644)
        return public

    def add(self, name: str, roles: Iterable[Role], public: str) -> Key:
        """Let a key in. Raises ConfigError where the name or the key is there already."""
        key = Key(name, frozenset(roles), public)
        if not _NAME.fullmatch(name):
            raise ConfigError(f"expected a name of letters, digits, '.', '_' and '-' (64 at most), found {name!r}")
        if not key.roles:
            raise ConfigError(f"{name}: expected a role: {', '.join(Role)}")
        if not is_key(public):
            raise ConfigError(f"{name}: expected a public key of 40 letters (Z85), found {public!r}")
        with _explained(self.folder):
            _folder(self.folder, 0o755)
            _folder(self.allowed, 0o755)
            for other in self.listed():
                if other.public == public or other.name == name:
                    which = "the name is taken" if other.name == name else f"the same key is there as {other.name}"
                    raise ConfigError(f"{name}: {which}; revoke that one first, or choose another name")
            listed = ", ".join(f'"{role}"' for role in sorted(key.roles))
            _write(self.allowed / f"{name}.pub", f'name = "{name}"\nroles = [{listed}]\npublic = "{public}"\n', 0o644)
        return key

    def revoke(self, which: str) -> Key:
        """Let a key in no more: by its name, or its fingerprint. Raises ConfigError where there is no such key."""
        keys, wrong = self.readable()  # what cannot be read keeps no key in
        found = [key for key in keys if which in (key.name, key.fingerprint)]
        if not found:
            known = ", ".join(key.name for key in keys) or "none"
            more = f"; {wrong[0]}" if wrong else ""
            raise ConfigError(f"expected the name or fingerprint of a key that may come in ({known}), found {which!r}{more}")
        with _explained(self.folder):
            _folder(self.revoked, 0o755)
            at = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            (self.allowed / f"{found[0].name}.pub").replace(self.revoked / f"{found[0].name}-{at}-{found[0].fingerprint}.pub")
        return found[0]

    def gone(self) -> list[tuple[str, Key]]:
        """Those that were revoked, with when (UTC)."""
        keys = []
        for file in sorted(self.revoked.glob("*.pub")):
            with contextlib.suppress(ConfigError):
                keys.append((file.stem.rsplit("-", 2)[-2], _read(file, named=False)))
        return keys


def new_pair() -> tuple[str, str]:
    """A public and a secret CURVE key."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def write_client(path: Path, key: Key, secret: str, server: str) -> None:
    """The file that a key's holder keeps. Raises ConfigError where it is there already, or cannot be written."""
    listed = ", ".join(f'"{role}"' for role in sorted(key.roles))
    with _explained(path):
        _write(
            path,
            f'# Whoever has this file is "{key.name}" to the station: keep it secret (mode 0600).\nkind = "client"\nname = "{key.name}"\n'
            f"roles = [{listed}]  # what the station said when it was made; its own list counts\n"
            f'public = "{key.public}"\nsecret = "{secret}"\nserver = "{server}"  # the station that it is for\n',
            0o600,
        )


def _read(file: Path, named: bool = True) -> Key:
    try:
        if file.stat().st_mode & stat.S_IWOTH:
            raise ConfigError(f"{file}: expected a file that not everybody may write to: chmod o-w")
        with opened(file) as held:
            text = held.read(_MOST_BYTES).decode()
        found = tomllib.loads(text)
    except OSError as e:
        raise ConfigError(f"{file}: expected a public key, could not read it: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ConfigError(f"{file}: expected a public key as `lineside keys add` writes it, found what is no TOML: {e}") from e
    name, roles, public = found.get("name"), found.get("roles"), found.get("public")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or (named and name != file.stem):
        raise ConfigError(f"{file}: name: expected that of the file, found {name!r}")
    if not isinstance(roles, list) or not roles or not set(roles) <= set(Role):
        raise ConfigError(f"{file}: roles: expected some of {', '.join(Role)}, found {roles!r}")
    if not is_key(public):
        raise ConfigError(f"{file}: public: expected a key of 40 letters (Z85), found {public!r}")
    return Key(name, frozenset(map(Role, roles)), str(public))


def _folder(path: Path, mode: int) -> None:
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(mode)
        _give(path)


def _write(path: Path, text: str, mode: int) -> None:
    """A new file with its mode from its first byte on, on the disk when this returns."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    if path.exists():
        raise FileExistsError(17, "it is there already", str(path))
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _give(part)
    part.replace(path)


def _give(path: Path) -> None:
    """What root makes in a folder of the station's user belongs to that user: a secret of root's, the station could not read."""
    if os.geteuid() == 0:
        above = path.parent.stat()
        os.chown(path, above.st_uid, above.st_gid)


@contextlib.contextmanager
def _explained(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise ConfigError(f"{e.filename or where}: expected to write a key here, could not: {e.strerror}") from e
