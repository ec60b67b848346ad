"""Who may come in at a station's sockets: keys made, listed and revoked in the folder that its file names."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge_runtime.config.files import load_station
from edge_runtime.credentials import Role
from edge_runtime.errors import ConfigError
from edge_runtime.security.keys import Key, Keyring, new_pair, write_client


def ring_of(station: Path) -> Keyring:
    """The keys of a station file. Raises ConfigError where it names no folder for them."""
    folder = load_station(station).security.keys
    if folder is None:
        raise ConfigError(f'{station}: security.keys: missing: write [security] and keys = "keys", a folder beside the file or elsewhere')
    return Keyring(folder)


def control_of(station: Path) -> str:
    """The address of a station's control socket. Raises ConfigError where its file opens none."""
    control = load_station(station).control
    if control is None:
        raise ConfigError(f"{station}: control: missing: this station has no control socket; add [control] to its file, and restart it")
    return control.endpoint


def add_key(station: Path, name: str, roles: Iterable[str], out: Path, public: str | None = None) -> tuple[Path | None, Key]:
    """Let a key in; the file with its secret, unless its holder made it (`public`), and the key. Raises ConfigError."""
    wrong = [role for role in roles if role not in set(Role)]
    if wrong:
        raise ConfigError(f"--role: expected {', '.join(Role)}, found {wrong[0]!r}")
    ring = ring_of(station)
    server, _ = ring.server()
    if public is not None:
        return None, ring.add(name, map(Role, roles), public)
    if out.exists():
        raise ConfigError(f"{out}: is there already, and may be somebody's key; choose another file with --out")
    made, secret = new_pair()
    key = ring.add(name, map(Role, roles), made)
    try:
        write_client(out, key, secret, server)
    except ConfigError:
        ring.revoke(name)  # a key whose secret nobody has
        raise
    return out, key


def listed(station: Path) -> tuple[list[dict[str, Any]], list[str], str]:
    """A row a key, those that were revoked at the end; what is no key, as sentences; the station's public key. Raises ConfigError."""
    ring = ring_of(station)
    public, _ = ring.server()
    keys, wrong = ring.readable()
    rows = [
        {"name": key.name, "roles": sorted(key.roles), "fingerprint": key.fingerprint, "public": key.public, "revoked": at}
        for at, key in [*(("", key) for key in keys), *ring.gone()]
    ]
    return rows, wrong, public
