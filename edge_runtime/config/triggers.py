"""[trigger] of a station file: a table a kind of trigger, and the tags of a PLC."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from edge_runtime.config.explain import OPCUA_ENDPOINT
from edge_runtime.config.values import Endpoint, Host, NonNegative, Port, Positive, PositiveInt, Settings

TagType = Literal["bool", "int16", "uint16", "int32", "uint32", "float32", "text"]
ByteOrder = Literal["ABCD", "CDAB", "BADC", "DCBA"]
"""Of a 32-bit value, A the most significant byte: big-endian, words swapped, bytes swapped, little-endian. A 16-bit value follows (AB, AB,
BA, BA), and so does each pair of characters of a text."""


class TimerTriggerConfig(Settings, frozen=True, kw_only=True, tag="timer", tag_field="kind"):
    """A trigger every `period_ms`; for benches and demonstrations."""

    period_ms: Positive = 1000.0
    count: PositiveInt | None = None
    """End the station cleanly after that many."""


class ZeromqTriggerConfig(Settings, frozen=True, kw_only=True, tag="zeromq", tag_field="kind"):
    """A PULL socket that binds; each message is JSON such as {"part_id": "A-17"}, with "recipe" where it is to be another one.

    A trigger counts from when its message is read. A message may have waited in the sender while the station was down: with "sent" (RFC
    3339, such as 2026-03-01T06:30:00.125Z) such a one is known by its age. Or have the sender keep none (ZMQ_IMMEDIATE, and NOBLOCK).
    """

    endpoint: Endpoint = "tcp://127.0.0.1:5555"
    max_age_ms: Positive = 250.0
    """A message that was sent longer ago, or as far in the future, is a FAULT: its part is no longer before the camera."""


class TagConfig(Settings, frozen=True, kw_only=True):
    """One signal of the handshake in the PLC. `"coil:0"` is short for `{ address = "coil:0" }`."""

    address: str
    """As the protocol writes it; `edge_runtime.plc` has a page each."""
    type: TagType | None = None
    """None: the signal's own (`edge_runtime.plc.signals`)."""
    order: ByteOrder | None = None
    """Of 16 and 32-bit values, A the most significant byte. None: the trigger's `order`."""
    scale: Positive | None = None
    """The PLC holds the value times this. None: the signal's own, 100 for severity and 1 for the rest."""
    length: Annotated[int, Meta(ge=1, le=200)] | None = None
    """Characters of a text. None: 16 where the PLC's memory must have room for them (Modbus, S7), as many as its strings hold elsewhere
    (EtherNet/IP 82, OPC UA 200)."""


PlcTag = str | TagConfig


class PlcInputs(Settings, frozen=True, kw_only=True):
    """What the PLC tells the station. What is not mapped is not used."""

    trigger: PlcTag
    """Rises once a part."""
    part_id: PlcTag | None = None
    """The part's number or name, valid before the trigger rises."""
    recipe: PlcTag | None = None
    """Which of [recipes] the next parts are judged by."""
    acknowledge: PlcTag | None = None
    """High: the PLC has taken the result."""
    reset_fault: PlcTag | None = None
    """Its rise clears fault and overrun."""
    enable: PlcTag | None = None
    """Low: the station is not to be triggered, and a trigger means nothing."""
    encoder: PlcTag | None = None
    """A count that grows as the belt moves; for [trigger.pulse]."""


class PlcOutputs(Settings, frozen=True, kw_only=True):
    """What the station tells the PLC. What is not mapped is not told."""

    ready: PlcTag | None = None
    trigger_acknowledge: PlcTag | None = None
    busy: PlcTag | None = None
    result_valid: PlcTag | None = None
    accept: PlcTag | None = None
    reject: PlcTag | None = None
    fault: PlcTag | None = None
    fault_code: PlcTag | None = None
    result_part_id: PlcTag | None = None
    result_count: PlcTag | None = None
    severity: PlcTag | None = None
    overrun: PlcTag | None = None
    heartbeat: PlcTag | None = None


class PulseConfig(Settings, frozen=True, kw_only=True):
    """For lines without acknowledge: the verdict's output is high for a while, some time or way behind the trigger."""

    width_ms: Positive = 50.0
    delay_ms: NonNegative | None = None
    """From the trigger's edge to the pulse. Exactly one of this and `encoder_counts`."""
    encoder_counts: PositiveInt | None = None
    """From the trigger's edge to the pulse, as inputs.encoder counts."""


class PlcConfig(Settings, frozen=True, kw_only=True):
    """Common to all PLCs: the handshake of edge_runtime.plc.handshake over named tags."""

    inputs: PlcInputs
    outputs: PlcOutputs = PlcOutputs()
    poll_ms: Positive = 2.0
    timeout_ms: Positive = 500.0
    """Of one request; a PLC that does not answer for that long counts as lost and is reconnected to."""
    acknowledge_timeout_ms: Positive = 5000.0
    """A result that is not acknowledged for that long is a fault; only with inputs.acknowledge."""
    results: Annotated[int, Meta(ge=1, le=8)] = 8
    """Results that may wait for their acknowledge; with so many `ready` is low."""
    heartbeat_ms: Positive = 500.0
    """outputs.heartbeat toggles that often, while the station works."""
    order: ByteOrder = "ABCD"
    """Byte order of tags that say none."""
    pulse: PulseConfig | None = None


class ModbusTriggerConfig(PlcConfig, frozen=True, kw_only=True, tag="modbus", tag_field="kind"):
    """A PLC that is a Modbus TCP server. Addresses: "coil:0", "discrete:0", "holding:0", "input:0", and "holding:0.3" for a bit (0 is the
    least significant); counted from 0, as they go over the wire."""

    host: Host = "127.0.0.1"
    port: Port = 502
    unit: Annotated[int, Meta(ge=0, le=255)] = 1


class OpcuaTriggerConfig(PlcConfig, frozen=True, kw_only=True, tag="opcua", tag_field="kind"):
    """A PLC that is an OPC UA server. Addresses are node ids: "ns=2;s=Station.Trigger", "ns=4;i=17"."""

    endpoint: Annotated[str, Meta(pattern=OPCUA_ENDPOINT)]
    """"opc.tcp://192.168.0.10:4840"."""
    security: Literal["none", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"] = "none"
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    certificate: Path | None = None
    """This station's own certificate (DER or PEM), which the PLC must trust."""
    private_key: Path | None = None
    server_certificate: Path | None = None
    """The PLC's certificate: with it, no other server is spoken to."""
    user: str | None = None
    password_file: Path | None = None
    """A file that holds the password alone, readable by the station's user only."""
    publishing_ms: Positive = 1.0
    """Asked of the server's subscription; it may grant a longer one, which `lineside check` tells."""


class S7TriggerConfig(PlcConfig, frozen=True, kw_only=True, tag="s7", tag_field="kind"):
    """A Siemens S7 PLC (300, 400, 1200, 1500 with PUT/GET allowed, data blocks without optimized access). Addresses: "DB10.DBX0.0",
    "DB10.DBW2", "DB10.DBD4", "DB10.DBB8" (texts), "M0.0", "MW2", "MD4", "I0.0", "Q0.0"."""

    host: Host
    port: Port = 102
    rack: Annotated[int, Meta(ge=0, le=7)] = 0
    slot: Annotated[int, Meta(ge=0, le=31)] = 1
    """1 for S7-1200 and S7-1500, 2 for S7-300."""


class EthernetipTriggerConfig(PlcConfig, frozen=True, kw_only=True, tag="ethernetip", tag_field="kind"):
    """A Rockwell ControlLogix or CompactLogix PLC over EtherNet/IP. Addresses are tag names: "Vision.Trigger", "Program:Main.Trigger"."""

    host: Host
    port: Port = 44818
    slot: Annotated[int, Meta(ge=0, le=17)] = 0


OPCUA_FILES = ("certificate", "private_key", "server_certificate", "password_file")
PlcTrigger = ModbusTriggerConfig | OpcuaTriggerConfig | S7TriggerConfig | EthernetipTriggerConfig
Trigger = TimerTriggerConfig | ZeromqTriggerConfig | ModbusTriggerConfig | OpcuaTriggerConfig | S7TriggerConfig | EthernetipTriggerConfig
