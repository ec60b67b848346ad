"""Who the station and the PLC are to each other over OPC UA: certificates, policies, passwords, and what a refusal means.

What a file here lacks is a ConfigError. What the PLC refuses is a TriggerError, which is tried again: after a power cut its clock may stand
years back, or its trust list not be loaded yet.
"""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from asyncua import Client, ua
from asyncua.crypto import security_policies
from asyncua.crypto.uacrypto import CertProperties
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from edge_runtime.errors import ConfigError, TriggerError
from edge_runtime.files import read_whole
from edge_runtime.plc.opcua_settings import OpcuaTriggerConfig

_T = TypeVar("_T")
_POLICIES: dict[str, Any] = {
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128Sha256RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256Sha256RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
}
_CERTIFICATE = (
    "BadSecurityChecksFailed", "BadCertificateUntrusted", "BadCertificateInvalid", "BadCertificateTimeInvalid", "BadCertificateUriInvalid",
    "BadCertificateUseNotAllowed", "BadCertificateRevoked", "BadCertificateChainIncomplete", "BadCertificatePolicyCheckFailed",
    "BadCertificateRevocationUnknown", "BadCertificateIssuerRevocationUnknown", "BadCertificateHostNameInvalid", "BadNoValidCertificates",
)  # fmt: skip
_USER = ("BadIdentityTokenRejected", "BadIdentityTokenInvalid", "BadUserAccessDenied", "BadUserSignatureInvalid")
_POLICY = ("BadSecurityPolicyRejected", "BadSecurityModeRejected", "BadSecurityModeInsufficient")


async def identify(client: Client, s: OpcuaTriggerConfig) -> None:
    """Give the client its certificate, key, policy and password, and the PLC's certificate. Raises ConfigError, and what asyncua raises."""
    if s.user is not None and s.password_file is not None:
        client.set_user(s.user)
        client.set_password(_read("password_file", s.password_file, lambda data: data.decode("utf-8").rstrip("\r\n")))
    if s.security == "none" or s.certificate is None or s.private_key is None:
        return
    certificate = load_certificate("certificate", s.certificate)
    key = _read("private_key", s.private_key, _private_key)
    if certificate.public_key() != key.public_key():
        raise ConfigError(f"trigger.private_key: expected the key of {s.certificate}, found another one in {s.private_key}")
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ConfigError(
            f"trigger.private_key: expected an RSA key, the only kind that {s.security} takes, found another in {s.private_key}"
        )
    client.application_uri = application_uri(certificate) or client.application_uri  # the PLC compares the two
    pinned = load_certificate("server_certificate", s.server_certificate) if s.server_certificate is not None else None
    server = await _server_certificate(client, s)
    if pinned is not None and server != pinned:
        raise TriggerError(
            f"trigger.server_certificate: expected the PLC {s.endpoint} to show {_named(pinned)}, found {_named(server)}. "
            "If its certificate was renewed, put the new one there; if not, this is another machine"
        )
    encoding, form = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8
    await client.set_security(
        _POLICIES[s.security],
        certificate=CertProperties(certificate.public_bytes(encoding), "der"),
        private_key=CertProperties(key.private_bytes(encoding, form, serialization.NoEncryption()), "der"),
        server_certificate=CertProperties(server.public_bytes(encoding), "der"),
        mode=ua.MessageSecurityMode[s.mode],
    )


async def refusal(e: Exception, s: OpcuaTriggerConfig, timeout_s: float) -> TriggerError | None:
    """What is wrong in the station file or in the PLC's trust list if connecting failed with `e`; None where it is neither."""
    name = ua.StatusCode(e.code).name if isinstance(e, ua.UaStatusCodeError) else ""
    if name in _USER:
        who = f'the user "{s.user}"' if s.user is not None else "anonymous users (no trigger.user is set)"
        return TriggerError(f"trigger.user: the PLC {s.endpoint} refused {who} ({name}). Check trigger.user and trigger.password_file")
    if s.security != "none" and name in _CERTIFICATE:
        return _untrusted(s, name)
    if name in _POLICY or (type(e) is ua.UaError and "endpoints" in str(e)):
        return await _not_offered(s, timeout_s)
    if type(e) is ua.UaError and "certificate mismatch" in str(e):
        return TriggerError(f"trigger.server_certificate: the PLC {s.endpoint} changed its certificate while it was connected to")
    cut = isinstance(e, ConnectionError | AssertionError) and not isinstance(e, ConnectionRefusedError)
    if cut and await _offers(s, timeout_s) is not None:
        # It talks to us, but not on this channel: servers that do not trust a certificate may hang up without a word.
        return _untrusted(s, "it opened no channel") if s.security != "none" else await _not_offered(s, timeout_s)
    return None


def load_certificate(key: str, path: Path) -> x509.Certificate:
    """PEM or DER. Raises ConfigError."""
    return _read(key, path, lambda d: x509.load_pem_x509_certificate(d) if b"-----BEGIN" in d else x509.load_der_x509_certificate(d))


def application_uri(certificate: x509.Certificate) -> str | None:
    """The URI of an OPC UA application, which its certificate carries as an alternative name."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if uris else None


def _read(key: str, path: Path, parse: Callable[[bytes], _T]) -> _T:
    what = "password" if key == "password_file" else "PEM or DER file"
    try:
        return parse(read_whole(path))
    except OSError as e:
        raise ConfigError(f"trigger.{key}: expected a {what}, could not read {path}: {e.strerror}") from e
    except TypeError as e:  # what cryptography raises for a key that needs a password
        raise ConfigError(f"trigger.{key}: expected a key without a password, found {path}, which has one") from e
    except ValueError as e:
        raise ConfigError(f"trigger.{key}: expected a {what}, found something else in {path}") from e


def _private_key(data: bytes) -> Any:
    return (serialization.load_pem_private_key if b"-----BEGIN" in data else serialization.load_der_private_key)(data, None)


async def _server_certificate(client: Client, s: OpcuaTriggerConfig) -> x509.Certificate:
    """The PLC's certificate on the endpoint that the station file asks for. Raises TriggerError if there is none."""
    for offer in await client.connect_and_get_server_endpoints():
        if offer.SecurityPolicyUri == _POLICIES[s.security].URI and offer.SecurityMode.name == s.mode and offer.ServerCertificate:
            der = bytes(offer.ServerCertificate)
            return x509.load_der_x509_certificate(der[: int.from_bytes(der[2:4], "big") + 4])  # a chain may follow
    raise await _not_offered(s, client.uaclient._timeout)


async def _offers(s: OpcuaTriggerConfig, timeout_s: float) -> list[str] | None:
    """What the PLC offers, as the station file would write it; None if it does not say."""
    try:
        offers = await Client(s.endpoint, timeout=timeout_s).connect_and_get_server_endpoints()
    except (ua.UaError, OSError):
        return None
    return sorted({_offer(o) for o in offers})


def _offer(o: Any) -> str:
    policy = (o.SecurityPolicyUri or "").rpartition("#")[2]
    for ours, theirs in _POLICIES.items():
        policy = ours if o.SecurityPolicyUri == theirs.URI else policy
    return 'security = "none"' if policy == "None" else f'security = "{policy}", mode = "{o.SecurityMode.name}"'


async def _not_offered(s: OpcuaTriggerConfig, timeout_s: float) -> TriggerError:
    offers = await _offers(s, timeout_s)
    wanted = 'security = "none"' if s.security == "none" else f'security = "{s.security}", mode = "{s.mode}"'
    return TriggerError(
        f"trigger.security: the PLC {s.endpoint} does not offer {wanted}. It offers: {'; '.join(offers or ['nothing that it tells'])}"
    )


def _untrusted(s: OpcuaTriggerConfig, why: str) -> TriggerError:
    advice = "Add it to the certificates that the PLC trusts"
    if s.certificate is not None:
        own, now, wrong = load_certificate("certificate", s.certificate), datetime.datetime.now(datetime.UTC), []
        if now >= own.not_valid_after_utc:
            wrong.append(f"expired on {own.not_valid_after_utc:%Y-%m-%d}")
        if now < own.not_valid_before_utc:
            wrong.append(f"is valid only from {own.not_valid_before_utc:%Y-%m-%d %H:%M} UTC (is this machine's clock right?)")
        if application_uri(own) is None:
            wrong.append("names no application URI (a subjectAltName of the kind URI)")
        if wrong:
            advice = f"It {' and '.join(wrong)}: make a new one, and add that to the certificates that the PLC trusts"
    return TriggerError(f"trigger.certificate: the PLC {s.endpoint} refused {s.certificate} ({why}). {advice}")


def _named(certificate: x509.Certificate) -> str:
    print_ = certificate.fingerprint(hashes.SHA256()).hex()[:16]
    return f"{certificate.subject.rfc4514_string() or 'a certificate'} (SHA-256 {print_}…)"
