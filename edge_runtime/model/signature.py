"""Who released a bundle: its Ed25519 signature (RFC 8032), checked against the keys that a station trusts.

The seal tells damage; anybody can make one. The signature tells who stands for these exact bytes: it is made over manifest.json, which
lists the hash of every other file. 64 raw bytes in manifest.sig, so that OpenSSL can check it as well.

Why: deploy/decisions/0019.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_runtime.errors import BundleError, ConfigError
from edge_runtime.files import read_whole
from edge_runtime.model.bundle import SIGNATURE, ModelBundle


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """Whoever holds its private half may release bundles."""

    name: str
    """The file's, without its ending."""
    public: Ed25519PublicKey


def load_keys(files: Sequence[Path]) -> list[TrustedKey]:
    """PEM files of public keys. Raises ConfigError."""
    return [TrustedKey(file.stem, _load(i, file)) for i, file in enumerate(files)]


def released_by(manifest: bytes, signature: bytes | None, keys: Sequence[TrustedKey], path: Path) -> str | None:
    """The name of the key that signed it; None where no keys are given, for then nobody asks. Raises BundleError for all others.

    `path`: what the user calls the bundle.
    """
    if not keys:
        return None
    expected = f"expected the signature of {' or '.join(key.name for key in keys)} (trusted_keys)"
    if signature is None:
        raise BundleError(f"bundle {path}: {expected}, found none; whoever releases it signs it with `lineside-export sign`")
    for key in keys:
        try:
            key.public.verify(signature, manifest)
        except InvalidSignature:
            continue
        return key.name
    raise BundleError(f"bundle {path}: {expected}, found in {SIGNATURE} one by another key, or for another bundle; do not run it")


def open_released(path: Path, keys: Sequence[TrustedKey], private: bool | None = None) -> tuple[ModelBundle, str | None]:
    """The bundle, and the name of the key that signed it: its signature is looked at before anything of it is unpacked or read.

    `private`: see ModelBundle.open; None: where there are keys. Raises BundleError, DeviceError.
    """
    signer: list[str | None] = [None]

    def admit(manifest: bytes, signature: bytes | None) -> None:
        signer[0] = released_by(manifest, signature, keys, path)

    return ModelBundle.open(path, bool(keys) if private is None else private, admit), signer[0]


def _load(i: int, file: Path) -> Ed25519PublicKey:
    where = f"trusted_keys[{i}]: expected an Ed25519 public key (PEM)"
    try:
        data = read_whole(file)
    except OSError as e:
        raise ConfigError(f"{where}, could not read {file}: {e.strerror}") from e
    if b"PRIVATE KEY" in data:
        raise ConfigError(f"{where}, found a private one in {file}: it does not belong on a station; copy the .pub file beside it")
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as e:
        raise ConfigError(f"{where}, found something else in {file}") from e
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{where}, found one of another kind in {file}; `lineside-export keygen` makes one")
    return key
