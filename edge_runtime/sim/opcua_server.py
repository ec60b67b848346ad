"""A PLC that is an OPC UA server, for simulation and tests: the nodes of a station file, in memory, behind asyncua's server."""

import datetime
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlparse

from edge_runtime.errors import MissingExtra
from edge_runtime.plc.opcua_settings import OpcuaTriggerConfig
from edge_runtime.plc.tags import Tag, Value, from_plc, to_plc
from edge_runtime.sim.loop_server import LoopServer

_TYPES = {
    "bool": "Boolean", "int16": "Int16", "uint16": "UInt16", "int32": "Int32", "uint32": "UInt32", "float32": "Float", "text": "String",
}  # fmt: skip
_URI = "urn:lineside:simulated-plc"
_standard: dict[Any, Any] = {}
"""Namespace 0, which every server has: built once, since that takes seconds."""


class OpcuaServer(LoopServer):
    """TagServer. With security in the settings it offers that policy alone, with a certificate that it makes itself, and trusts no
    client certificate but the one of the settings; with a user, nobody else and no other password."""

    def __init__(self, settings: OpcuaTriggerConfig, tags: Sequence[Tag]) -> None:
        """Raises MissingExtra without asyncua."""
        try:
            import asyncua  # noqa: F401
        except ImportError as e:
            raise MissingExtra("the simulated OPC UA server", "plc") from e
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
        super().__init__(settings.endpoint, tags)
        self._settings = settings
        self._certificate, self._key = self_signed(_URI) if settings.security != "none" else (b"", b"")
        self._server: Any = None

    @property
    def certificate(self) -> bytes:
        """What the server shows, DER; empty without security."""
        return self._certificate

    async def _get(self, names: Sequence[str]) -> dict[str, Value]:
        from asyncua import ua

        found = {}
        for name in names:
            node = ua.NodeId.from_string(self._tags[name].address)
            data = self._server.iserver.aspace.read_attribute_value(node, ua.AttributeIds.Value)
            found[name] = from_plc(self._tags[name], data.Value.Value)
        return found

    async def _set(self, values: Mapping[str, Value]) -> None:
        """One source timestamp for all, and nothing is published in between: no await here gives way to the loop."""
        from asyncua import ua

        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        for name, value in values.items():
            tag = self._tags[name]
            data = ua.DataValue(ua.Variant(to_plc(tag, value), ua.VariantType[_TYPES[tag.type]]), SourceTimestamp=now, ServerTimestamp=now)
            node = ua.NodeId.from_string(tag.address)
            (await self._server.iserver.aspace.write_attribute_value(node, ua.AttributeIds.Value, data)).check()

    async def _listen(self) -> None:
        await self._server.start()

    async def _hang_up(self) -> None:
        for transport in list(self._server.iserver.asyncio_transports):
            transport.abort()
        await self._server.stop()

    async def _build(self) -> None:
        from asyncua import Server, ua
        from asyncua.server.internal_server import InternalServer
        from asyncua.server.internal_session import InternalSession

        mine = self

        class Session(InternalSession):  # type: ignore[misc]
            def touch(self) -> None:  # called for each request of a client
                mine._requests += 1
                super().touch()

        class Internal(InternalServer):  # type: ignore[misc]
            async def load_standard_address_space(self, shelf_file: Any = None) -> None:
                if not _standard:
                    await super().load_standard_address_space(shelf_file)
                    _standard.update({key: _copy(self.aspace[key]) for key in list(self.aspace.keys())})
                    return
                for key, node in _standard.items():
                    self.aspace[key] = _copy(node)

            def create_session(self, name: str, user: Any = None, external: bool = False) -> Any:
                if not external:
                    return super().create_session(name, user) if user is not None else super().create_session(name)
                return Session(self, self.aspace, self.subscription_service, name, external=True)

        s = self._settings
        server = Server(iserver=Internal(user_manager=_Users(s) if s.user is not None else None))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            await server.init()
        server.set_endpoint(s.endpoint)
        await server.set_application_uri(_URI)
        place = urlparse(s.endpoint)
        server.socket_address = (place.hostname or "127.0.0.1", place.port or 4840)
        if s.user is not None:
            server.set_identity_tokens([ua.UserNameIdentityToken])
        if s.security == "none":
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        else:
            server.set_security_policy([ua.SecurityPolicyType[f"{s.security}_{s.mode}"]])
            await server.load_certificate(self._certificate, "der")
            await server.load_private_key(self._key, format="der")
            server.iserver.certificate_validator = self._trusts
        for index in range(2, 1 + max([1, *(ua.NodeId.from_string(t.address).NamespaceIndex for t in self._tags.values())])):
            await server.register_namespace(f"{_URI}:{index}")
        for tag in self._tags.values():
            empty: Value = "" if tag.type == "text" else False if tag.type == "bool" else 0.0 if tag.type == "float32" else 0
            node = await server.nodes.objects.add_variable(
                ua.NodeId.from_string(tag.address), f"{ua.NodeId.from_string(tag.address).NamespaceIndex}:{tag.name}", empty,
                ua.VariantType[_TYPES[tag.type]],
            )  # fmt: skip
            if tag.writable:
                await node.set_writable()
        self._server = server

    async def _trusts(self, certificate: Any, _description: Any) -> None:
        from asyncua import ua
        from asyncua.common.utils import ServiceError

        from edge_runtime.plc.opcua_security import load_certificate

        path = self._settings.certificate
        if path is None or not path.exists() or load_certificate("certificate", path) != certificate:
            raise ServiceError(ua.StatusCodes.BadCertificateUntrusted)


def _copy(node: Any) -> Any:
    """A copy of asyncua's NodeData: what a server changes is its own."""
    from asyncua.server.address_space import AttributeValue, NodeData

    copy = NodeData(node.nodeid)
    copy.attributes = {key: AttributeValue(a.value) for key, a in node.attributes.items()}
    copy.references, copy.call = list(node.references), node.call
    return copy


class _Users:
    """asyncua's UserManager: one user, or nobody."""

    def __init__(self, settings: OpcuaTriggerConfig) -> None:
        self._settings = settings

    def get_user(self, iserver: Any, username: str | None = None, password: str | None = None, certificate: Any = None) -> Any:
        from asyncua.crypto.permission_rules import User, UserRole

        s = self._settings
        wanted = s.password_file.read_text(encoding="utf-8").rstrip("\r\n") if s.password_file is not None else None
        return User(role=UserRole.User, name=username) if (username, password) == (s.user, wanted) else None


def self_signed(uri: str, days: int = 365) -> tuple[bytes, bytes]:
    """A certificate and its RSA key, both DER, for an OPC UA application of that URI."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, uri.rpartition(":")[2])])
    now = datetime.datetime.now(datetime.UTC)
    usage = {"digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_cert_sign"}
    all_usages = (*usage, "key_agreement", "crl_sign", "encipher_only", "decipher_only")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=False)
        .add_extension(x509.KeyUsage(**{u: u in usage for u in all_usages}), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    der, form = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8
    return certificate.public_bytes(der), key.private_bytes(der, form, serialization.NoEncryption())
