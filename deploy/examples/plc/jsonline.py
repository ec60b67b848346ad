"""Tags of a PLC that takes lines of JSON over TCP: made up, as a pattern for a protocol's file (deploy/developing/plc.md).

{"get": ["press.trigger", "press.part"]}      {"press.trigger": 1, "press.part": 17}
{"set": {"press.ready": true}}                {}
{"get": ["press.trugger"]}                    {"unknown": "press.trugger"}
"""

import json
import re
import socket
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from edge_runtime.errors import ConfigError, TagError
from edge_runtime.plc.deadline import Deadline
from edge_runtime.plc.link import hang_up, tune
from edge_runtime.plc.port import Kind, Manual, PlcLost
from edge_runtime.plc.settings import PlcConfig, TagType
from edge_runtime.plc.signals import INPUTS, OUTPUTS
from edge_runtime.plc.tags import Tag, Value, from_plc, to_plc
from edge_runtime.values import Host, Port

_ADDRESS = re.compile(r"[a-z_]+(\.[a-z0-9_]+)+")


class JsonlineTriggerConfig(PlcConfig, frozen=True, kw_only=True, tag="jsonline", tag_field="kind"):
    """A PLC that takes lines of JSON. Addresses are names in small letters: "press.trigger"."""

    text_length: ClassVar[int] = 40
    host: Host
    """The PLC's address or name."""
    port: Port = 9100
    """TCP."""


MANUAL = Manual(
    9100,
    {name: f"lineside.{name}" for name in INPUTS},
    {name: f"lineside.{name}" for name in OUTPUTS},
    types={t: {"bool": "true or false", "text": "string"}.get(t, "number") for t in typing.get_args(TagType)},
)


class JsonlinePort:
    """A TagPort. All tags are one request, and there is one at a time: a connection on which it failed is dropped."""

    pushes = False
    happened_s: Sequence[float] = ()
    ordered = False
    note = ""

    def __init__(self, settings: JsonlineTriggerConfig, tags: Sequence[Tag]) -> None:
        """Raises ConfigError for what is no name, and for one of two tags one of which is written."""
        self.where = f"PLC {settings.host}:{settings.port}"
        self._address = (settings.host, settings.port)
        self._timeout_s = settings.timeout_ms / 1e3
        self._socket: socket.socket | None = None
        self.missing: Mapping[str, str] = {}
        self._tags = {tag.name: tag for tag in tags}
        seen: dict[str, Tag] = {}
        for tag in tags:
            if not _ADDRESS.fullmatch(tag.address):
                raise ConfigError(f'{tag.key}: expected a name such as "press.trigger", found "{tag.address}"')
            other = seen.setdefault(tag.address, tag)
            if other is not tag and (tag.writable or other.writable):
                raise ConfigError(f'{tag.key}: expected a name of its own, found "{tag.address}", which {other.key} has as well')

    def connect(self, changed: Callable[[], None]) -> None:
        self.close()
        try:
            self._socket = socket.create_connection(self._address, self._timeout_s)
            tune(self._socket, self._timeout_s)
        except OSError as e:
            why = "does not answer" if isinstance(e, TimeoutError) else e.strerror or str(e)
            raise PlcLost(f"cannot be connected to: {why}") from e
        for tag in self._tags.values():
            found = self._ask({"get": [tag.address]})
            if tag.writable and "unknown" not in found:
                found = self._ask({"set": found})
            if "unknown" in found:
                self.close()
                raise TagError(f'{tag.key}: expected the tag "{tag.address}" in the {self.where}, found none')

    def close(self) -> None:
        if self._socket is not None:
            hang_up(self._socket)
        self._socket = None

    def read(self, names: Sequence[str]) -> dict[str, Value]:
        found = self._ask({"get": [self._tags[n].address for n in names]})
        return {n: from_plc(self._tags[n], found[self._tags[n].address]) for n in names}

    def poll(self, names: Sequence[str]) -> Sequence[dict[str, Value]]:
        return [self.read(names)]

    def write(self, values: Mapping[str, Value], within_s: float | None = None) -> None:
        self._ask({"set": {self._tags[n].address: to_plc(self._tags[n], v) for n, v in values.items()}}, within_s)

    def trips(self, names: Sequence[str]) -> int:
        return 1

    def _ask(self, request: dict[str, Any], within_s: float | None = None) -> dict[str, Any]:
        if self._socket is None:
            raise PlcLost("not connected")
        deadline = Deadline(self._timeout_s, within_s)
        try:
            deadline.send(self._socket, json.dumps(request).encode() + b"\n")
            line = b""
            while not line.endswith(b"\n"):
                line += deadline.receive(self._socket)
            answer: dict[str, Any] = json.loads(line)
            return answer
        except (OSError, ValueError) as e:
            self.close()
            late = f"did not answer in {self._timeout_s * 1e3:g} ms"
            raise PlcLost(late if isinstance(e, TimeoutError) else f"the connection was lost: {e}") from e


KIND = Kind(JsonlineTriggerConfig, JsonlinePort, MANUAL, "edge_runtime.sim.jsonline_server:JsonlineServer")
