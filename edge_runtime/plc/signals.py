"""The handshake's signals (name, direction, type, meaning, in the field's words), its fault codes, and the tags out of a station file."""

import enum
from dataclasses import dataclass

import msgspec

from edge_runtime.errors import ConfigError
from edge_runtime.plc.settings import PlcConfig, PlcInputs, PlcOutputs, PlcTag, TagConfig, TagType
from edge_runtime.plc.tags import RANGES, Tag


@dataclass(frozen=True, slots=True)
class Signal:
    """What a name means to both sides."""

    type: TagType
    meaning: str
    """For the PLC programmer's table."""
    scale: float = 1.0


INPUTS = {
    "trigger": Signal("bool", "Rises once a part. May be held until trigger_acknowledge is seen."),
    "acknowledge": Signal("bool", "High: the result has been taken. result_valid falls, and this may fall then."),
    "reset_fault": Signal("bool", "Its rise clears overrun and the station's own fault; results that wait for their acknowledge stay."),
    "enable": Signal("bool", "Low: the station is not to be triggered; ready is low and a trigger means nothing."),
    "part_id": Signal("uint32", "The part's number or name; valid before the trigger rises and until trigger_acknowledge."),
    "recipe": Signal("uint16", "Which recipe the next parts are judged by; ready is low until it is prepared."),
    "encoder": Signal("uint32", "A count that grows as the belt moves, and may wrap round."),
}
"""PLC -> station, in the order in which they are read."""

OUTPUTS = {
    "result_part_id": Signal("uint32", "The part_id of this result."),
    "result_count": Signal("uint16", "Results so far, modulo 65536: a result that was missed shows as a gap."),
    "severity": Signal("uint16", "100 x score / threshold: 100 is the border on every product. 0 with a fault.", 100.0),
    "fault_code": Signal("uint16", "Why there is a fault; 0 without one."),
    "accept": Signal("bool", "The part is good. Valid with result_valid."),
    "reject": Signal("bool", "The part is bad. Valid with result_valid."),
    "fault": Signal("bool", "The part could not be judged, never an accept; or the station itself has a fault until reset_fault."),
    "trigger_acknowledge": Signal("bool", "The trigger was seen. Falls when the trigger has fallen."),
    "busy": Signal("bool", "A part is being judged."),
    "ready": Signal("bool", "A trigger now will be judged."),
    "overrun": Signal("bool", "A trigger came while ready was low: that part has its own fault result. Until reset_fault."),
    "heartbeat": Signal("bool", "Toggles while the station works. Stop the line when it stands still."),
    "result_valid": Signal("bool", "Rises over a complete result; falls after acknowledge, or at the next trigger where none is mapped."),
}
"""Station -> PLC, in the order in which they are written: result_valid last."""

_WHOLE = ("recipe", "encoder", "result_count", "fault_code")


class StationFault(enum.IntEnum):
    """`fault_code` of the station itself; those of a part are `records.Cause`."""

    ACKNOWLEDGE_TIMEOUT = 101
    """The PLC did not acknowledge a result in time."""
    UNKNOWN_RECIPE = 102
    """The station has no recipe of that number, or it cannot be prepared."""
    LATE_FOR_PULSE = 103
    """A verdict came after its part had passed the ejector; the part was ejected."""
    PASSED_UNTOLD = 104
    """The connection broke, or the station stood still, while parts were between trigger and ejector: no pulse came for them."""


def tags_of(settings: PlcConfig) -> tuple[list[Tag], list[Tag]]:
    """The mapped inputs and outputs of a station file's [trigger], each in the order of the tables here.

    Raises ConfigError for what no protocol would find: a type that the signal cannot have, a map that cannot work.
    """
    inputs = [_tag(settings, "inputs", name, INPUTS[name], tag) for name, tag in _mapped(settings.inputs, INPUTS)]
    outputs = [_tag(settings, "outputs", name, OUTPUTS[name], tag) for name, tag in _mapped(settings.outputs, OUTPUTS)]
    names = {t.name for t in outputs}
    if not names & {"accept", "reject"}:
        raise ConfigError("trigger.outputs: expected at least accept or reject, found neither: the PLC could not act on a verdict")
    _same_names(inputs, outputs)
    pulse = settings.pulse
    if pulse is None:
        if "reject" not in names and not names & {"fault", "result_valid"}:
            raise ConfigError(
                "trigger.outputs: expected result_valid beside accept: without it the PLC cannot tell a reject from no result"
            )
        return inputs, outputs
    if (pulse.delay_ms is None) == (pulse.encoder_counts is None):
        raise ConfigError("trigger.pulse: expected delay_ms or encoder_counts, found " + ("neither" if pulse.delay_ms is None else "both"))
    if pulse.encoder_counts is not None and settings.inputs.encoder is None:
        raise ConfigError("trigger.pulse.encoder_counts: expected inputs.encoder beside it, found none")
    if pulse.encoder_counts is not None:
        encoder = next(t for t in inputs if t.name == "encoder")
        half = (RANGES[encoder.type][1] - RANGES[encoder.type][0] + 1) // 2
        if encoder.scale != 1.0:
            raise ConfigError(
                f"{encoder.key}: expected no scale, found {encoder.scale:g}: give trigger.pulse.encoder_counts as the PLC counts"
            )
        if pulse.encoder_counts >= half:
            raise ConfigError(
                f"trigger.pulse.encoder_counts: expected less than {half}, half of what {encoder.type} counts until it wraps round, found "
                f"{pulse.encoder_counts}"
            )
    if settings.inputs.acknowledge is not None:
        raise ConfigError("trigger.inputs.acknowledge: a line with [trigger.pulse] has none; remove one of the two")
    return inputs, outputs


def _same_names(inputs: list[Tag], outputs: list[Tag]) -> None:
    """Raises ConfigError where a part's name cannot come back as it was told."""
    told, back = (next((t for t in tags if t.name == name), None) for tags, name in ((inputs, "part_id"), (outputs, "result_part_id")))
    if told is None or back is None or told.type != "text":
        return
    if back.type != "text":
        raise ConfigError(f'{back.key}: expected a text, as {told.key} is one, found "{back.type}"')
    if back.length < told.length:
        raise ConfigError(f"{back.key}: expected a length of at least {told.length}, as {told.key} has, found {back.length}")


def _mapped(table: PlcInputs | PlcOutputs, signals: dict[str, Signal]) -> list[tuple[str, PlcTag]]:
    given = msgspec.structs.asdict(table)
    return [(name, given[name]) for name in signals if given[name] is not None]


def _tag(settings: PlcConfig, table: str, name: str, signal: Signal, given: PlcTag) -> Tag:
    t = TagConfig(address=given) if isinstance(given, str) else given
    kind: TagType = t.type or signal.type
    key = f"trigger.{table}.{name}"
    if (signal.type == "bool") != (kind == "bool"):
        wanted = 'type "bool"' if signal.type == "bool" else "a number or a text"
        raise ConfigError(f'{key}: expected {wanted}, found "{kind}"')
    if name in _WHOLE and kind not in RANGES:
        raise ConfigError(f'{key}: expected a whole number type ({", ".join(RANGES)}), found "{kind}"')
    scale = t.scale if t.scale is not None else signal.scale
    length = t.length or settings.text_length
    return Tag(
        name, key, t.address, kind, table == "outputs", t.order or settings.order,
        scale if kind not in ("bool", "text") else 1.0, length if kind == "text" else 0, wraps=name in ("encoder", "result_count"),
    )  # fmt: skip
