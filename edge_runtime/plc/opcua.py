"""Tags over OPC UA: a subscription reports the inputs, one Write service call tells the outputs.

Addresses are node ids ("ns=2;s=Station.Trigger", "ns=4;i=17"). A node may be of any number type: values are converted to its own and held
at the ends of its range; a bool needs Boolean, a text String. Every change arrives in the order of the server's source timestamps, however
short it was, as long as the server's own sampling sees it; of two tags that change in one tick of its clock either may come first. A
server that samples slower than `publishing_ms` says so, and edges shorter than its sampling interval are lost in the PLC.
"""

import logging
import re
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from edge_runtime.dial import addresses_of
from edge_runtime.errors import ConfigError, MissingExtra
from edge_runtime.plc.opcua_settings import OpcuaTriggerConfig
from edge_runtime.plc.port import Kind, Manual, PlcLost
from edge_runtime.plc.settings import PlcTag
from edge_runtime.plc.signals import INPUTS, OUTPUTS
from edge_runtime.plc.tags import Tag, Value

if TYPE_CHECKING:
    from edge_runtime.plc.opcua_session import Session

_T = TypeVar("_T")
_NODE_ID = re.compile(
    r"(ns=(?P<ns>\d{1,5});)?(i=(?P<i>\d{1,10})|s=.+|g=[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|b=[A-Za-z0-9+/]+={0,2})"
)
_CYCLE_MS = 1.0
"""No PLC's program runs oftener: what it writes a cycle before the trigger is sampled before it."""
_SECURE_S = 3.0
"""A small PLC takes seconds for the public-key half of a secure channel; `timeout_ms` counts from then on."""


def _nodes(signals: Iterable[str]) -> dict[str, PlcTag]:
    return {name: f"ns=2;s=Lineside.{name.title().replace('_', '')}" for name in signals}


MANUAL = Manual(
    4840, _nodes(INPUTS), _nodes(OUTPUTS),
    types={
        "bool": "Boolean", "int16": "Int16", "uint16": "UInt16", "int32": "Int32", "uint32": "UInt32", "float32": "Float", "text": "String",
    },
    reached_at=lambda host, port: {"endpoint": f"opc.tcp://{host}:{port}"},
)  # fmt: skip


class OpcuaPort:
    """TagPort over asyncua, whose client runs on an event loop in a thread of its own while it is connected."""

    pushes = True

    def __init__(self, settings: OpcuaTriggerConfig, tags: Sequence[Tag]) -> None:
        """Raises ConfigError for a node id that is none, one node for two tags, files that are missing; MissingExtra without asyncua."""
        try:
            import asyncua  # noqa: F401
        except ImportError as e:
            raise MissingExtra("the opcua trigger", "plc") from e
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)  # what goes wrong is raised, once, and with the reason
        self._settings = settings
        self.where = f"PLC {settings.endpoint}"
        self._tags = {t.name: t for t in tags}
        check_addresses(tags)
        _check_security(settings)
        self._timeout_s = settings.timeout_ms / 1e3
        self._session: Session | None = None
        self.publishing_ms = settings.publishing_ms
        """What the server has granted, once connected."""
        self.ordered = False
        self.happened_s: Sequence[float] = ()
        self.sampling_ms = 0.0
        """The server's slowest sampling of an input, once connected: shorter edges are not seen."""

    @property
    def note(self) -> str:
        return f"it publishes every {self.publishing_ms:g} ms ({self.sampling_ms:g} ms between samples)"

    def connect(self, changed: Callable[[], None]) -> None:
        from edge_runtime.plc.opcua_session import Session

        self.close()
        open_s = self._timeout_s if self._settings.security == "none" else max(self._timeout_s, _SECURE_S)
        try:  # asyncio would look it up in a thread for which the end of the process waits
            addresses_of(urlsplit(self._settings.endpoint).hostname or "", open_s)
        except socket.gaierror as e:
            raise PlcLost(f"cannot be connected to: {e.strerror}") from e
        self._session = session = Session(self._settings, self._tags, self.where, changed, open_s)
        try:
            session.run(session.open(), 4 * open_s)
        except BaseException:
            self.close()
            raise
        self.publishing_ms, self.sampling_ms = session.publishing_ms, session.sampling_ms
        self.ordered = session.sampling_ms <= _CYCLE_MS

    @property
    def missing(self) -> Mapping[str, str]:
        return self._session.missing if self._session is not None else {}

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def read(self, names: Sequence[str]) -> dict[str, Value]:
        return self._run(lambda s: s.read(names))

    def poll(self, names: Sequence[str]) -> Sequence[dict[str, Value]]:
        session = self._connected()
        self.happened_s = ()
        if not session.subscribed(names):
            return [self.read(names)]  # an output, which only people look at
        snapshots = session.snapshots(names)
        self.happened_s = session.happened_s
        if not snapshots and session.failure is not None:
            raise PlcLost(session.failure)
        return snapshots

    def write(self, values: Mapping[str, Value], within_s: float | None = None) -> None:
        self._run(lambda s: s.write(values, within_s))

    def trips(self, names: Sequence[str]) -> int:
        limit = self._session.read_limit if self._session is not None else 0
        return -(-len(names) // limit) if limit else 1

    def _connected(self) -> "Session":
        if self._session is None:
            raise PlcLost("not connected")
        return self._session

    def _run(self, ask: "Callable[[Session], Coroutine[Any, Any, _T]]") -> _T:
        session = self._connected()
        if session.failure is not None:
            raise PlcLost(session.failure)
        return session.run(ask(session), self._timeout_s)


def check_addresses(tags: Sequence[Tag]) -> None:
    """Raises ConfigError for what is no node id, and for a node of two tags one of which is written."""
    seen: dict[str, Tag] = {}
    for tag in tags:
        match = _NODE_ID.fullmatch(tag.address)
        if match is None or int(match["ns"] or 0) > 0xFFFF or int(match["i"] or 0) > 0xFFFFFFFF:
            raise ConfigError(f'{tag.key}: expected a node id such as "ns=2;s=Station.Trigger" or "ns=4;i=17", found "{tag.address}"')
        node = tag.address.removeprefix("ns=0;")
        other = seen.setdefault(node, tag)
        if other is not tag and (tag.writable or other.writable):
            raise ConfigError(f'{tag.key}: expected a node of its own, found "{tag.address}", which {other.key} has as well')


def _check_security(s: OpcuaTriggerConfig) -> None:
    if s.security == "none":
        for key in ("certificate", "private_key", "server_certificate"):
            if getattr(s, key) is not None:
                raise ConfigError(f'trigger.{key}: means nothing with trigger.security = "none"; choose a policy, such as "Basic256Sha256"')
    else:
        for key in ("certificate", "private_key"):
            if getattr(s, key) is None:
                raise ConfigError(f'trigger.{key}: expected a file, found none; trigger.security = "{s.security}" needs one')
    if (s.user is None) != (s.password_file is None):
        found, missing = ("user", "password_file") if s.password_file is None else ("password_file", "user")
        raise ConfigError(f"trigger.{missing}: expected beside trigger.{found}, found none")


KIND = Kind(OpcuaTriggerConfig, OpcuaPort, MANUAL, "edge_runtime.sim.opcua_server:OpcuaServer")
