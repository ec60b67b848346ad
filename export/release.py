"""Releasing a bundle: a key pair, and the signature that stations with `trusted_keys` ask for (edge_runtime.model.signature)."""

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.errors import BundleError, ConfigError, ExportError
from edge_runtime.files import replacing
from edge_runtime.model.bundle import MANIFEST, SIGNATURE, ModelBundle
from export.package import write_zip

_LONGEST_PASSWORD = 1000
"""OpenSSL takes 1023."""


def make_keys(private: Path, password: str) -> Path:
    """Write a new private key, encrypted unless `password` is empty, and the public one beside it, whose path is returned.

    Raises ConfigError where a file is there already.
    """
    if not private.name:
        raise ConfigError(f"{private}: expected a name for the private key, such as release.key")
    if len(password.encode()) > _LONGEST_PASSWORD:
        raise ConfigError(f"password: expected at most {_LONGEST_PASSWORD} bytes, found {len(password.encode())}")
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
        if not isinstance(e, FileExistsError):  # half a pair of keys is none
            private.unlink(missing_ok=True)
            public.unlink(missing_ok=True)
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
    if bundle.is_dir() and not (bundle / MANIFEST).is_file():
        raise BundleError(f"bundle {bundle}: expected a bundle, which lineside-export makes of a run, found no {MANIFEST} in it")
    opened = ModelBundle.open(bundle, private=True)  # what is signed is what was verified
    real = bundle.resolve()  # a link goes on pointing to the bundle that is signed
    signature = key.sign((opened.directory / MANIFEST).read_bytes())
    try:
        if real.is_dir():
            with replacing(real / SIGNATURE, beside=real) as file:  # nothing else may lie in a bundle
                os.fchmod(file.fileno(), 0o644)
                file.write(signature)
        else:
            (opened.directory / SIGNATURE).write_bytes(signature)
            write_zip(opened.directory, real)
    except OSError as e:
        raise ExportError(f"bundle {bundle}: the signature cannot be written: {e.strerror}") from e
    return ModelBundle.open(bundle)
