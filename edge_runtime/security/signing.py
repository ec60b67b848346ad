"""The station's own Ed25519 key, which signs the journal's chain: made once, beside the journal, readable by its user alone.

Why: deploy/decisions/0045.
"""

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_runtime.errors import ConfigError, SinkError
from edge_runtime.files import opened, read_whole


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What tells whether a signature is the station's."""

    raw: bytes
    """32 bytes."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the 32 bytes, the first half of it in hex: enough to compare two by telephone.

        >>> PublicKey(bytes(32)).fingerprint
        '66687aadf862bd776c8fc18b8e9f8e20'
        """
        return hashlib.sha256(self.raw).hexdigest()[:32]

    @property
    def pem(self) -> bytes:
        """As OpenSSL reads it."""
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def verifies(self, signature: bytes, text: bytes) -> bool:
        """Whether its private half signed this."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, text)
        except (InvalidSignature, TypeError):
            return False
        return True


class SigningKey:
    """The private half; it never leaves its file and this process."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public = PublicKey(raw)

    def sign(self, text: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(text)


def open_key(path: Path) -> SigningKey:
    """The key of this file; made, with its public half in `.pub` beside it, where there is none.

    Raises SinkError for one that cannot be read or made, is another kind of key, or may be read by others.
    """
    with contextlib.suppress(FileExistsError):
        _make(path)
    try:
        with opened(path) as held:
            if (mode := os.fstat(held.fileno()).st_mode & 0o077) != 0:
                raise SinkError(f"{path}: expected a key that its owner alone may read, found mode {mode | 0o600:o}; chmod 600 {path}")
            key = serialization.load_pem_private_key(held.read(), password=None)
    except OSError as e:
        raise SinkError(f"{path}: the journal's signing key cannot be read: {e.strerror}") from e
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise _no_key(path) from e
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path)
    return SigningKey(key)


def read_public(path: Path) -> PublicKey:
    """A public key's PEM file. Raises ConfigError."""
    try:
        key = serialization.load_pem_public_key(read_whole(path))
    except OSError as e:
        raise ConfigError(f"{path}: expected an Ed25519 public key (PEM), could not read it: {e.strerror}") from e
    except (ValueError, UnsupportedAlgorithm) as e:
        raise ConfigError(f"{path}: expected an Ed25519 public key (PEM), found something else") from e
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path}: expected an Ed25519 public key (PEM), found one of another kind")
    return PublicKey(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))


def _make(path: Path) -> None:
    """Raises FileExistsError, SinkError. Whole or not at all: a station that is killed meanwhile must not find half a key."""
    if path.exists():
        raise FileExistsError(path)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        for file, mode, data in ((path.with_suffix(path.suffix + ".pub"), 0o644, SigningKey(key).public.pem), (path, 0o600, pem)):
            opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            try:
                os.write(opened, data)
                os.fsync(opened)
            finally:
                os.close(opened)
            part.replace(file)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise SinkError(f"{path}: the journal's signing key cannot be made: {e.strerror}") from e


def _no_key(path: Path) -> SinkError:
    return SinkError(
        f"{path}: expected the Ed25519 key (PEM) that signs the journal, found something else; bring it back from a backup, or move it "
        "aside: the station makes a new one, and says so in the journal"
    )
