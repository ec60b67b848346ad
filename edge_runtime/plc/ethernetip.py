"""Tags over EtherNet/IP, of ControlLogix and CompactLogix PLCs: all inputs in one packet, all outputs in one.

Addresses are tag names as the PLC's program has them: "Vision.Trigger", "Program:Main.Trigger", "Parts[3].Id", and "Vision.Flags.3" for a
bit of an integer. A bool needs a BOOL, an element of a BOOL array or a bit; a number any of SINT to LINT, their unsigned kin, REAL and
LREAL, in whose range it is held; a text a STRING (82 characters).
"""

import functools
import math
import re
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from edge_runtime.errors import ConfigError, MissingExtra, TagError
from edge_runtime.plc.cells import batches
from edge_runtime.plc.deadline import ASK_AGAIN_S, Deadline
from edge_runtime.plc.port import Kind, Manual, PlcLost, TooLate
from edge_runtime.plc.pylogix_packets import MISREAD, SMALL, Answer, Controller
from edge_runtime.plc.settings import PlcConfig, PlcTag, TagConfig
from edge_runtime.plc.signals import INPUTS, OUTPUTS, Signal
from edge_runtime.plc.tags import FLOAT_MAX, RANGES, Tag, Value, from_plc, is_of_type, to_plc, whole
from edge_runtime.values import Host, Port

_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,39}"
_PART = rf"{_NAME}(\[\d+(,\d+){{0,2}}\])?"
_ADDRESS = re.compile(rf"(?P<base>(Program:{_NAME}\.)?{_PART}(\.{_PART})*)(\.(?P<bit>\d+))?")

_BOOL, _BOOLS, _STRUCT = 0xC1, 0xD3, 0xA0
_WHOLE = {
    0xC2: (-(2**7), 2**7 - 1), 0xC3: RANGES["int16"], 0xC4: RANGES["int32"], 0xC5: (-(2**63), 2**63 - 1), 0xC6: (0, 2**8 - 1),
    0xC7: RANGES["uint16"], 0xC8: RANGES["uint32"], 0xC9: (0, 2**64 - 1),
}  # fmt: skip
_REAL, _LREAL = 0xCA, 0xCB
_SHORT_STRINGS = (0xDA, 0xD0)
_TEXT = 82

_NO_TAG = ("Path segment error", "Path destination unknown", "Object does not exist", "Invalid member ID")
_NOT_NOW = ("Resource unavailable", "Device state conflict", "Object state conflict")
_NO_WRITE = ("Privilege violation", "Attribute not settable", "Member not settable", "Object state conflict")
_OVERHEAD = 12
"""Bytes of a request beside the tag's name, about."""


class EthernetipTriggerConfig(PlcConfig, frozen=True, kw_only=True, tag="ethernetip", tag_field="kind"):
    """A Rockwell ControlLogix or CompactLogix PLC over EtherNet/IP. Addresses are tag names: "Vision.Trigger", "Program:Main.Trigger"."""

    text_length: ClassVar[int] = _TEXT
    host: Host
    """The PLC's address or name."""
    port: Port = 44818
    """TCP."""
    slot: Annotated[int, Meta(ge=0, le=17)] = 0
    """The CPU's slot in the chassis; 0 for CompactLogix."""


def _named(signals: Mapping[str, Signal]) -> dict[str, PlcTag]:
    """Most Logix controllers have no unsigned types."""
    addresses = {name: f"LS_{name.title().replace('_', '')}" for name in signals}
    return {n: a if signals[n].type == "bool" else TagConfig(address=a, type="int32") for n, a in addresses.items()}


MANUAL = Manual(
    44818, _named(INPUTS), _named(OUTPUTS),
    types={
        "bool": "BOOL", "int16": "INT", "uint16": "UINT", "int32": "DINT", "uint32": "UDINT", "float32": "REAL", "text": "STRING",
    },
)  # fmt: skip


class EthernetipPort:
    """TagPort over pylogix. A connection that failed once is dropped, so that a late answer is never taken for another's."""

    pushes = False
    happened_s: Sequence[float] = ()
    ordered = False
    note = ""

    def __init__(self, settings: EthernetipTriggerConfig, tags: Sequence[Tag]) -> None:
        """Raises ConfigError for a name that is none, a bit that is no bool, and a place of two tags; MissingExtra without pylogix."""
        try:
            import pylogix  # noqa: F401
        except ImportError as e:
            raise MissingExtra("the ethernetip trigger", "plc") from e
        self._settings = settings
        self.where = f"PLC {settings.host}:{settings.port} slot {settings.slot}"
        self._tags = {t.name: t for t in tags}
        check_addresses(tags)
        self._types: dict[str, int] = {}
        self._plc: Controller | None = None
        self._values: dict[tuple[str, ...], tuple[Sequence[Answer], Mapping[str, Value], Mapping[str, str]]] = {}
        self.missing: Mapping[str, str] = {}
        self._timeout_s = settings.timeout_ms / 1e3
        self._late = f"did not answer in {settings.timeout_ms:g} ms"

    def connect(self, changed: Callable[[], None]) -> None:
        self.close()
        s = self._settings
        self._plc = plc = Controller(s.host, s.port, s.slot, self._timeout_s)
        self._values.clear()
        self.missing = {}
        try:
            self._open(plc)
            self._look(plc)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        plc, self._plc = self._plc, None
        if plc is not None:
            plc.close()

    def read(self, names: Sequence[str]) -> dict[str, Value]:
        if not names:
            return {}
        key = tuple(names)
        answers = self._ask(lambda plc: plc.read([self._tags[n].address for n in names]), len(names))
        known = self._values.get(key)
        if known is None or known[0] is not answers:
            missing = {n: why for n, a in zip(names, answers, strict=True) if (why := self._says_nothing(n, a))}
            there = {n: a for n, a in zip(names, answers, strict=True) if n not in missing}
            known = answers, {name: self._value(name, answer) for name, answer in there.items()}, missing
            self._values[key] = known
        self.missing = known[2]
        return dict(known[1])

    def poll(self, names: Sequence[str]) -> Sequence[dict[str, Value]]:
        return [self.read(names)]

    def write(self, values: Mapping[str, Value], within_s: float | None = None) -> None:
        deadline = Deadline(self._timeout_s, within_s)
        left = {n: self._raw(n, v) for n, v in values.items()}
        while left:
            answers = self._write_all(left, deadline)
            refused = next((n for n, answer in answers.items() if answer.Status != "Success"), None)
            if refused is None:
                return
            if not deadline.allows_another:
                self._drop()
                raise PlcLost(f"refused to write {self._tags[refused].key} ({self._tags[refused].address}): {answers[refused].Status}")
            time.sleep(ASK_AGAIN_S)  # it could be written when the connection was made
            names = list(left)
            left = {n: left[n] for n in names[names.index(refused) :]}  # in their order, also those behind it that were taken

    def trips(self, names: Sequence[str]) -> int:
        size = self._plc.size if self._plc is not None else SMALL
        return max(1, math.ceil(sum(len(self._tags[n].address) + _OVERHEAD + self._tags[n].length for n in names) / size))

    def _connected(self) -> Controller:
        if self._plc is None or not self._plc.connected:
            raise PlcLost("not connected")
        return self._plc

    def _open(self, plc: Controller) -> None:
        s = self._settings
        try:
            connected, why = plc.open()
        except (OSError, struct.error) as e:
            raise PlcLost(f"answered with something that is not EtherNet/IP: {e}") from e
        if connected:
            return
        if isinstance(why, ConnectionRefusedError):
            raise PlcLost("refused the connection: no EtherNet/IP there, or its port is another") from why
        if isinstance(why, OSError):
            raise PlcLost(
                "did not answer in time" if isinstance(why, TimeoutError) else f"cannot be reached: {why.strerror or why}"
            ) from why
        if "open" in str(why) and not plc.late:
            raise PlcLost(f"has no controller in slot {s.slot} that accepts a connection; check trigger.slot, and its connections in use")
        raise PlcLost(self._late)

    def _look(self, plc: Controller) -> None:
        """Read every tag, which tells its type, and write the outputs' own values back: Logix says in no other way what may be written."""
        names, addresses = list(self._tags), [t.address for t in self._tags.values()]
        enough_s = self._timeout_s * (len(names) + 1)  # pylogix asks for the type of each by itself
        deadline = Deadline(self._timeout_s)
        answers = self._ask(lambda plc: plc.read(addresses, enough_s), len(names))
        while any(a.Status in _NOT_NOW for a in answers) and deadline.allows_another:
            time.sleep(ASK_AGAIN_S)
            answers = self._ask(lambda plc: plc.read(addresses, enough_s), len(names))
        found = {}
        for name, answer in zip(names, answers, strict=True):
            tag = self._tags[name]
            if answer.Status in _NO_TAG:
                raise TagError(f'{tag.key}: expected the tag "{tag.address}" in the {self.where}, found none ({answer.Status})')
            if answer.Status != "Success":
                raise TagError(f'{tag.key}: the {self.where} does not tell "{tag.address}": {answer.Status}')
            self._types[name] = self._type_of(plc, tag, answer.Value)
            found[name] = answer.Value
        outputs = [name for name in names if self._tags[name].writable]
        if not outputs:
            return
        for name, answer in self._write_all({n: found[n] for n in outputs}, Deadline(self._timeout_s)).items():
            if answer.Status != "Success":
                tag = self._tags[name]
                why = "its External Access is not Read/Write" if answer.Status in _NO_WRITE else answer.Status
                raise TagError(f'{tag.key}: expected a tag that may be written, found "{tag.address}" in the {self.where}: {why}')

    def _write_all(self, values: Mapping[str, Any], deadline: Deadline) -> dict[str, Answer]:
        """In their order, a packet for as many as fit into one, until one of them is refused. Raises PlcLost."""
        plc = self._connected()

        def fits(names: Sequence[str]) -> bool:
            return plc.fits([(self._tags[n].address, self._tags[n].type == "text") for n in names])

        answers: dict[str, Answer] = {}
        for group in batches(list(values), fits):
            if deadline.forbids_sending:
                raise TooLate
            pairs = [(self._tags[n].address, values[n]) for n in group]
            answers |= zip(group, self._ask(functools.partial(Controller.write, pairs=pairs, deadline=deadline), len(group)), strict=True)
            if any(answers[n].Status != "Success" for n in group):
                break
        return answers

    def _type_of(self, plc: Controller, tag: Tag, value: Any) -> int:
        """Raises TagError for a type that does not fit the tag."""
        code, name = plc.type_of(tag.address)
        if code == _STRUCT:
            name = "STRING" if isinstance(value, str) else "a structure"
        elif code in _SHORT_STRINGS:
            name = "a string of another kind"
        found = f'{name}, the tag "{tag.address}" in the {self.where}'
        has_bit = _match(tag)["bit"] is not None
        if tag.type == "bool":
            fits = code in _WHOLE if has_bit else code == _BOOL or (code == _BOOLS and tag.address.endswith("]"))
            if not fits:
                expected = "an integer for a bit of it" if has_bit else "a BOOL"
                raise TagError(f"{tag.key}: expected {expected}, found {found}")
        elif tag.type == "text":
            if code != _STRUCT or not isinstance(value, str):
                raise TagError(f'{tag.key}: expected a STRING for type "text", found {found}')
        elif code not in (*_WHOLE, _REAL, _LREAL):
            raise TagError(f'{tag.key}: expected a number for type "{tag.type}", found {found}')
        elif not tag.counts_in(_WHOLE.get(code)):
            raise TagError(
                f'{tag.key}: expected a whole number of at least the range of "{tag.type}", in which it wraps round, found {found}'
            )
        return code

    def _ask(self, request: Callable[[Controller], Sequence[Answer]], count: int) -> Sequence[Answer]:
        """`count` answers to the request. Raises PlcLost, and drops the connection, for anything less."""
        plc = self._connected()
        try:
            answers = request(plc)
        except MISREAD as e:
            self._drop()
            raise PlcLost(f"answered with something else than was asked: {e}") from e
        if not plc.connected:
            self._drop()
            raise PlcLost(plc.why or (self._late if plc.late else "closed the connection"))
        if len(answers) != count:
            self._drop()
            raise PlcLost(f"answered for {len(answers)} tags of {count}")
        return answers

    def _drop(self) -> None:
        plc, self._plc = self._plc, None
        if plc is not None:
            plc.drop()

    def _says_nothing(self, name: str, answer: Answer) -> str:
        """Why there is no value in it; empty where there is."""
        if answer.Status != "Success":
            return str(answer.Status)
        tag, raw = self._tags[name], answer.Value
        fits = is_of_type(tag, raw) or (tag.type == "bool" and raw in (0, 1))
        return "" if fits else f"is {type(raw).__name__}, expected {tag.type}"

    def _value(self, name: str, answer: Answer) -> Value:
        tag, raw = self._tags[name], answer.Value
        if isinstance(raw, float) and tag.type in RANGES:
            raw = round(raw) if math.isfinite(raw) else 0
        return from_plc(tag, raw)

    def _raw(self, name: str, value: Value) -> Value:
        tag, code = self._tags[name], self._types.get(name, 0)
        raw = to_plc(tag, value)
        if isinstance(raw, str):
            return raw.encode("ascii", "replace").decode()[:_TEXT]
        if code in _WHOLE and not isinstance(raw, bool):
            return whole(tag, raw, _WHOLE[code])
        return min(max(float(raw), -FLOAT_MAX), FLOAT_MAX) if code == _REAL and math.isfinite(raw) else raw


def check_addresses(tags: Sequence[Tag]) -> None:
    """Raises ConfigError for what is no tag name, a bit that is no bool, and a place of two tags one of which is written."""
    seen: list[tuple[str, str | None, Tag]] = []
    for tag in tags:
        match = _match(tag)
        base, bit = match["base"].lower(), match["bit"]
        if bit is not None and tag.type != "bool":
            raise ConfigError(f'{tag.key}: expected type "bool" for the bit "{tag.address}", found "{tag.type}"')
        for other_base, other_bit, other in seen:
            shared = base == other_base and (bit == other_bit or bit is None or other_bit is None)
            if shared and (tag.writable or other.writable):
                raise ConfigError(
                    f'{tag.key}: expected a tag of its own, found "{tag.address}", which shares memory with {other.key} ("{other.address}")'
                )
        seen.append((base, bit, tag))


def _match(tag: Tag) -> re.Match[str]:
    match = _ADDRESS.fullmatch(tag.address)
    if match is None or int(match["bit"] or 0) > 31:
        raise ConfigError(
            f'{tag.key}: expected a tag name such as "Vision.Trigger", "Program:Main.Trigger" or, for a bit, "Vision.Flags.3" (0 to 31), '
            f'found "{tag.address}"'
        )
    return match


KIND = Kind(EthernetipTriggerConfig, EthernetipPort, MANUAL, "edge_runtime.sim.ethernetip_server:EthernetipServer")
