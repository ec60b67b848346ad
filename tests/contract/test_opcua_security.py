"""OPC UA with certificates and passwords, against a server that trusts one client and shows a certificate of its own."""

import datetime
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_runtime.config.files import PlcInputs
from edge_runtime.errors import ConfigError, TriggerError
from edge_runtime.plc.opcua import OpcuaPort
from edge_runtime.plc.opcua_security import application_uri
from edge_runtime.plc.opcua_settings import OpcuaTriggerConfig
from edge_runtime.plc.tags import Tag
from edge_runtime.sim.opcua_server import OpcuaServer, self_signed
from tests.support.ports import free_port

TAGS = [
    Tag("trigger", "trigger.inputs.trigger", "ns=2;s=Trigger", "bool", False),
    Tag("accept", "trigger.outputs.accept", "ns=2;s=Accept", "bool", True),
]


@pytest.fixture
def settings(tmp_path: Path) -> OpcuaTriggerConfig:
    """A station's settings, with a certificate (DER) and its key, and a user with a password."""
    port = free_port()
    _identity(tmp_path, "station")
    (tmp_path / "password").write_text("pass wörd\n", encoding="utf-8")
    return OpcuaTriggerConfig(
        endpoint=f"opc.tcp://127.0.0.1:{port}", security="Basic256Sha256", certificate=tmp_path / "station.der",
        private_key=tmp_path / "station.key", user="line", password_file=tmp_path / "password", timeout_ms=2000,
        inputs=PlcInputs(trigger="i=1"),
    )  # fmt: skip


def _identity(directory: Path, name: str, days: int = 365) -> None:
    certificate, key = self_signed(f"urn:lineside:{name}", days)
    (directory / f"{name}.der").write_bytes(certificate)
    (directory / f"{name}.key").write_bytes(key)


def changed(settings: OpcuaTriggerConfig, **changes: Any) -> OpcuaTriggerConfig:
    return msgspec.structs.replace(settings, **changes)


def works(settings: OpcuaTriggerConfig, server: OpcuaServer) -> None:
    port = OpcuaPort(settings, TAGS)
    port.connect(lambda: None)
    try:
        port.write({"accept": True})
        assert server.get(["accept"]) == {"accept": True}
        assert port.read(["trigger"]) == {"trigger": False}
    finally:
        port.close()


def refused(settings: OpcuaTriggerConfig, message: str) -> str:
    port = OpcuaPort(settings, TAGS)
    with pytest.raises((ConfigError, TriggerError), match=message) as caught:
        port.connect(lambda: None)
    return str(caught.value)


@pytest.mark.parametrize(
    ("policy", "mode"),
    [("Basic256Sha256", "SignAndEncrypt"), ("Aes128Sha256RsaOaep", "Sign"), ("Aes256Sha256RsaPss", "SignAndEncrypt")],
)
def test_a_trusted_station_reads_and_writes_under_every_policy(
    settings: OpcuaTriggerConfig, tmp_path: Path, policy: str, mode: str
) -> None:
    settings = changed(settings, security=policy, mode=mode)
    with OpcuaServer(settings, TAGS) as server:
        (tmp_path / "plc.der").write_bytes(server.certificate)
        works(changed(settings, server_certificate=tmp_path / "plc.der"), server)


def test_pem_files_are_taken_as_well(settings: OpcuaTriggerConfig, tmp_path: Path) -> None:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    certificate = x509.load_der_x509_certificate((tmp_path / "station.der").read_bytes())
    key: Any = serialization.load_der_private_key((tmp_path / "station.key").read_bytes(), None)
    (tmp_path / "c.pem").write_bytes(certificate.public_bytes(encoding))
    (tmp_path / "k.pem").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    (tmp_path / "locked.pem").write_bytes(key.private_bytes(encoding, form, serialization.BestAvailableEncryption(b"x")))
    settings = changed(settings, certificate=tmp_path / "c.pem", private_key=tmp_path / "k.pem")
    with OpcuaServer(settings, TAGS) as server:
        works(settings, server)
        refused(changed(settings, private_key=tmp_path / "locked.pem"), r"trigger\.private_key: expected a key without a password")


def test_who_is_refused_and_why_is_told(settings: OpcuaTriggerConfig, tmp_path: Path) -> None:
    _identity(tmp_path, "stranger")
    (tmp_path / "wrong").write_text("guess")
    stranger = {"certificate": tmp_path / "stranger.der", "private_key": tmp_path / "stranger.key"}
    with OpcuaServer(settings, TAGS) as server:
        found = refused(changed(settings, **stranger), r"^trigger\.certificate: .*refused .*stranger\.der .*BadCertificateUntrusted")
        assert "trusts" in found
        found = refused(changed(settings, password_file=tmp_path / "wrong"), r'^trigger\.user: .*refused the user "line"')
        assert "guess" not in found and "password_file" in found
        refused(changed(settings, user=None, password_file=None), r"^trigger\.user: .*anonymous")
        found = refused(changed(settings, security="Aes256Sha256RsaPss", mode="Sign"), r"^trigger\.security: .*does not offer")
        assert 'It offers: security = "Basic256Sha256", mode = "SignAndEncrypt"' in found
        found = refused(
            changed(settings, security="none", certificate=None, private_key=None),
            r'^trigger\.security: .*does not offer security = "none"',
        )
        assert 'It offers: security = "Basic256Sha256", mode = "SignAndEncrypt"' in found
        pinned = changed(settings, server_certificate=tmp_path / "stranger.der")
        found = refused(pinned, r"^trigger\.server_certificate: expected .*stranger.* found .*simulated-plc")
        assert "another machine" in found
        works(settings, server)  # and it was not the server that had enough


@pytest.mark.parametrize(
    ("key", "content", "message"),
    [
        ("certificate", None, "could not read"), ("certificate", b"nonsense", "expected a PEM or DER file, found something else"),
        ("private_key", None, "could not read"), ("private_key", b"nonsense", "expected a PEM or DER file"),
        ("server_certificate", None, "could not read"), ("password_file", None, "expected a password, could not read"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_named(
    settings: OpcuaTriggerConfig, tmp_path: Path, key: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / "other"
    if content is not None:
        path.write_bytes(content)
    assert str(path) in refused(changed(settings, **{key: path}), rf"^trigger\.{key}: .*{message}")


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


@needs_openssl
def test_what_a_certificate_lacks_is_said_when_it_is_refused(settings: OpcuaTriggerConfig, tmp_path: Path) -> None:
    _identity(tmp_path, "expired", days=0)
    subprocess.run(
        shlex.split(f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout {tmp_path}/bare.key -out {tmp_path}/bare.der"),
        check=True, capture_output=True,
    )  # fmt: skip
    with OpcuaServer(settings, TAGS):
        for name, lack in (("expired", "expired on 20"), ("bare", "names no application URI")):
            own = changed(settings, certificate=tmp_path / f"{name}.der", private_key=tmp_path / f"{name}.key")
            refused(own, lack)
            with pytest.raises(TriggerError):  # tried again: it may be the PLC's clock that is wrong, as after a power cut
                OpcuaPort(own, TAGS).connect(lambda: None)


@needs_openssl
def test_the_command_in_the_documentation_makes_a_certificate_that_a_server_takes(settings: OpcuaTriggerConfig, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "deploy/plc/README.md").read_text(encoding="utf-8")
    command = next(block for block in page.split("```") if "openssl req" in block).removeprefix("sh\n")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, capture_output=True)
    own = changed(settings, certificate=tmp_path / "station.pem", private_key=tmp_path / "station.key")
    with OpcuaServer(own, TAGS) as server:
        works(own, server)
    names = application_uri(x509.load_pem_x509_certificate((tmp_path / "station.pem").read_bytes()))
    assert names is not None


def test_a_key_of_another_certificate_is_found(settings: OpcuaTriggerConfig, tmp_path: Path) -> None:
    _identity(tmp_path, "stranger")
    refused(changed(settings, private_key=tmp_path / "stranger.key"), r"^trigger\.private_key: expected the key of .*station\.der")


def test_a_key_that_is_not_rsa_is_named(settings: OpcuaTriggerConfig, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "station")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    certificate = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    (tmp_path / "ec.pem").write_bytes(certificate.public_bytes(pem))
    (tmp_path / "ec.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    curve = changed(settings, certificate=tmp_path / "ec.pem", private_key=tmp_path / "ec.key")
    refused(curve, r"^trigger\.private_key: expected an RSA key, the only kind that Basic256Sha256 takes")
