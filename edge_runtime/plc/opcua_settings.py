"""What a station file says of a PLC that is an OPC UA server."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from edge_runtime.plc.settings import PlcConfig
from edge_runtime.values import HOST_PATTERN, PORT_PATTERN, Positive

_ENDPOINT = rf"^opc\.tcp://{HOST_PATTERN}:{PORT_PATTERN}(/.*)?$"


class OpcuaTriggerConfig(PlcConfig, frozen=True, kw_only=True, tag="opcua", tag_field="kind"):
    """A PLC that is an OPC UA server. Addresses are node ids: "ns=2;s=Station.Trigger", "ns=4;i=17"."""

    text_length: ClassVar[int] = 200
    endpoint: Annotated[str, Meta(pattern=_ENDPOINT, description='an address such as "opc.tcp://192.168.0.10:4840"')]
    """"opc.tcp://192.168.0.10:4840"."""
    security: Literal["none", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"] = "none"
    """The security policy of the connection."""
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    """With `security`: sign messages, or encrypt them as well."""
    certificate: Path | None = None
    """This station's own certificate (DER or PEM), which the PLC must trust."""
    private_key: Path | None = None
    """To `certificate`; readable by the station's user only."""
    server_certificate: Path | None = None
    """The PLC's certificate: with it, no other server is spoken to."""
    user: str | None = None
    """None: anonymous."""
    password_file: Path | None = None
    """A file that holds the password alone, readable by the station's user only."""
    publishing_ms: Positive = 1.0
    """Asked of the server's subscription; it may grant a longer one, which `lineside check` tells."""
