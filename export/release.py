"""Releasing a bundle: a key pair, and the signature that stations with `trusted_keys` ask for (edge_runtime.signature)."""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.bundle import MANIFEST, SIGNATURE, ModelBundle
from edge_runtime.errors import ConfigError, ExportError


def make_keys(private: Path, password: str) -> Path:
    """Write a new private key, encrypted unless `password` is empty, and the public one beside it, whose path is returned.

    Raises ConfigError where a file is there already.
    """
    public = private.with_suffix(".pub")
    for file in (private, public):
        if file.exists():
            raise ConfigError(f"{file}: is there already; a new key would leave every bundle that the old one signed without a signer")
    if public == private:
        raise ConfigError(f"{private}: expected a name for the private key, found that of the public one; call it {private.stem}.key")
    key = Ed25519PrivateKey.generate()
    locked = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    try:
        private.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            f.write(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, locked))
        public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    except OSError as e:
        raise ExportError(f"{e.filename or private}: cannot be written: {e.strerror}") from e
    return public


def load_private(file: Path, ask: Callable[[], str]) -> Ed25519PrivateKey:
    """A private key (PEM); `ask` gives the password of one that is encrypted. Raises ConfigError."""
    try:
        data = file.read_bytes()
    except OSError as e:
        raise ConfigError(f"key: expected an Ed25519 private key (PEM), could not read {file}: {e.strerror}") from e
    password = ask().encode() if b"ENCRYPTED" in data else None
    try:
        key = serialization.load_pem_private_key(data, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        wrong = "its password is another one" if password is not None else f"found something else in {file}"
        raise ConfigError(f"key: expected an Ed25519 private key (PEM), {wrong}") from e
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"key: expected an Ed25519 private key (PEM), found one of another kind in {file}")
    return key


def sign(bundle: Path, key: Ed25519PrivateKey) -> ModelBundle:
    """Sign a sound bundle, folder or zip, and open it again; the signature takes the place of an earlier one.

    Raises BundleError for one that is not sound, ExportError when it cannot be written.
    """
    opened = ModelBundle.open(bundle)
    signature = key.sign((opened.directory / MANIFEST).read_bytes())
    target = bundle / SIGNATURE if bundle.is_dir() else bundle
    part: Path | None = None
    try:
        # Complete under another name first: a full disk or a power cut leaves the bundle as it was. Beside the folder, not in it.
        handle, name = tempfile.mkstemp(prefix=f".{bundle.name}.", dir=bundle.resolve().parent)
        part = Path(name)
        with os.fdopen(handle, "w+b") as f:
            if bundle.is_dir():
                f.write(signature)
            else:
                _with_signature(bundle, f, signature)
            f.flush()
            os.fsync(f.fileno())
        shutil.copymode(bundle / MANIFEST if bundle.is_dir() else bundle, part)
        part.replace(target)
    except OSError as e:
        raise ExportError(f"bundle {bundle}: the signature cannot be written: {e.strerror}") from e
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return ModelBundle.open(bundle)


def _with_signature(bundle: Path, out: IO[bytes], signature: bytes) -> None:
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(out, "w") as new:
        for item in old.infolist():
            if item.filename != SIGNATURE:
                new.writestr(item, old.read(item))
        new.writestr(SIGNATURE, signature)
