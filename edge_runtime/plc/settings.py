"""[trigger] of a station file whose trigger is a PLC: the tags, the times and the pulse that all protocols have in common."""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from edge_runtime.values import NonNegative, Positive, PositiveInt, Settings

TagType = Literal["bool", "int16", "uint16", "int32", "uint32", "float32", "text"]
ByteOrder = Literal["ABCD", "CDAB", "BADC", "DCBA"]
"""Bytes of a 32-bit value, A the most significant: big-endian, words swapped, bytes swapped, little-endian. A 16-bit value follows (AB, AB,
BA, BA), and so does each pair of characters of a text."""


class TagConfig(Settings, frozen=True, kw_only=True):
    """One signal of the handshake in the PLC. `"coil:0"` is short for `{ address = "coil:0" }`."""

    address: str
    """As the protocol writes it; `edge_runtime.plc` has a file each."""
    type: TagType | None = None
    """None: the signal's own (`edge_runtime.plc.signals`)."""
    order: ByteOrder | None = None
    """Byte order of 16 and 32-bit values, A the most significant byte. None: the trigger's `order`."""
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
    """High: a trigger now will be judged."""
    trigger_acknowledge: PlcTag | None = None
    """High: the trigger was seen; falls when the trigger has fallen."""
    busy: PlcTag | None = None
    """High: a part is being judged."""
    result_valid: PlcTag | None = None
    """Rises over a complete result; falls after the acknowledge, or at the next trigger where none is mapped."""
    accept: PlcTag | None = None
    """High: the part is good."""
    reject: PlcTag | None = None
    """High: the part is bad."""
    fault: PlcTag | None = None
    """High: the part could not be judged, or the station is at fault; never means accept."""
    fault_code: PlcTag | None = None
    """Why, as a number: `edge_runtime.records.Cause`, above 100 the station's own."""
    result_part_id: PlcTag | None = None
    """The part that the result is of, as `inputs.part_id` named it."""
    result_count: PlcTag | None = None
    """Grows by one with each result."""
    severity: PlcTag | None = None
    """score / threshold: 1.0 is the border."""
    overrun: PlcTag | None = None
    """High: a part was announced while the station was not ready; until `inputs.reset_fault`."""
    heartbeat: PlcTag | None = None
    """Toggles while the station works."""


class PulseConfig(Settings, frozen=True, kw_only=True):
    """For lines without acknowledge: the verdict's output is high for a while, some time or way behind the trigger."""

    width_ms: Positive = 50.0
    """How long the output is high."""
    delay_ms: NonNegative | None = None
    """From the trigger's edge to the pulse. Exactly one of this and `encoder_counts`."""
    encoder_counts: PositiveInt | None = None
    """From the trigger's edge to the pulse, as inputs.encoder counts."""


class PlcConfig(Settings, frozen=True, kw_only=True):
    """Common to all PLCs: the handshake of edge_runtime.plc.handshake over named tags. Each protocol adds how its PLC is reached."""

    text_length: ClassVar[int] = 16
    """Characters of a text whose tag says none: as many as the protocol's own strings hold, 16 where memory must be set aside."""
    inputs: PlcInputs
    """What the PLC tells the station."""
    outputs: PlcOutputs = PlcOutputs()
    """What the station tells the PLC."""
    poll_ms: Positive = 2.0
    """How often the inputs are read."""
    timeout_ms: Positive = 500.0
    """Timeout of one request; a PLC that does not answer for that long counts as lost and is reconnected to."""
    acknowledge_timeout_ms: Positive = 5000.0
    """A result that is not acknowledged for that long is a fault; only with inputs.acknowledge."""
    results: Annotated[int, Meta(ge=1, le=8)] = 8
    """Results that may wait for their acknowledge; with so many `ready` is low."""
    heartbeat_ms: Positive = 500.0
    """outputs.heartbeat toggles that often, while the station works."""
    order: ByteOrder = "ABCD"
    """Byte order of tags that say none."""
    pulse: PulseConfig | None = None
    """For lines without acknowledge."""
