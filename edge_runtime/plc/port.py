"""What every PLC protocol offers the handshake: named tags, read and written in batches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from edge_runtime.plc.settings import PlcConfig, PlcTag, TagType
from edge_runtime.plc.tags import Tag, Value


class PlcLost(Exception):
    """The PLC did not answer, or the connection broke; the reason as text. Never reaches a user: the line reconnects."""


class TooLate(Exception):
    """The PLC did not take a write in the time that was given for it; it is not asked again. Some of the values may be there."""


class TagPort(Protocol):
    """The tags of one PLC. One thread uses a port; constructing it touches no network.

    The constructor takes the trigger's settings and its tags, parses every address and raises ConfigError with the tag's key for one that
    the protocol does not have, a type that does not fit the address, or two tags that share a place of the PLC where one of them is an
    output. It raises MissingExtra without its package.
    """

    where: str
    """For messages: "PLC 192.168.0.10:502 unit 1"."""

    pushes: bool
    """True when the PLC reports changes by itself (a subscription): `poll` then returns all of them, however short, and costs no round
    trip. False: `poll` is one read."""

    ordered: bool
    """For a port that pushes, once connected: a snapshot shows every tag as it was at that change, and none has to be read again."""

    @property
    def happened_s(self) -> Sequence[float]:
        """For a port that pushes, of each snapshot of the last `poll`, when it came to be as far as is known (time.monotonic())."""

    @property
    def missing(self) -> Mapping[str, str]:
        """Which names the last `read` or snapshot left out, and why: the PLC answers, but has no value for them just now."""

    @property
    def note(self) -> str:
        """For `lineside check`, once connected: what else is to be known of this PLC; empty where nothing is."""

    def connect(self, changed: Callable[[], None]) -> None:
        """Connect and see that every tag is there, of its type, readable, and writable where it is an output (without changing its value
        where the protocol can tell so).

        `changed` may be called from any thread when `poll` has something new; only a port that pushes does so.

        Raises:
            PlcLost: nobody answers in `timeout_ms`, or the PLC refuses the connection (the reason says which, e.g. rack or slot), or it
                says "not now" to an output for so long.
            TagError: a tag is not there, of another type, or not writable; the message begins with the tag's key.
            ConfigError: a certificate, key or password that cannot be used or is refused.
        """

    def close(self) -> None:
        """Disconnect; never raises, may be called at any time and twice. Leaves no thread and no socket."""

    def read(self, names: Sequence[str]) -> dict[str, Value]:
        """These tags now, in one round trip where the protocol can. A tag is read no earlier than those named before it. What the PLC has
        no value for just now (it is busy, the value is bad) is left out, and stands in `missing`: ask again.

        Raises PlcLost: no whole answer within `timeout_ms` for all of it, in however many pieces or requests.
        """

    def poll(self, names: Sequence[str]) -> Sequence[dict[str, Value]]:
        """What these tags were since the last call, oldest first: snapshots of all of them, each one change on from the one before.

        A port that does not push returns one snapshot, read now. Raises PlcLost.
        """

    def write(self, values: Mapping[str, Value], within_s: float | None = None) -> None:
        """All of them, in as few round trips as the protocol can. No value reaches the PLC before one that stands earlier in the mapping;
        what shares a request with others arrives together with them.

        Returns when the PLC has confirmed; one that says "not now" is asked again, on the same connection. `within_s`: nothing is sent, or
        sent again by the system, later than that.

        Raises:
            PlcLost: it has not confirmed all within `timeout_ms`, or received nothing within `within_s`.
            TooLate: it says "not now", or needs more requests, beyond `within_s`.
        """

    def trips(self, names: Sequence[str]) -> int:
        """Round trips that `read(names)` takes."""


def bits_first(tags: Sequence[Tag]) -> list[str]:
    """Names of the tags, bools before the rest: the order in which they should be read, so that a number is never older than its bit."""
    return [t.name for t in tags if t.type == "bool"] + [t.name for t in tags if t.type != "bool"]


class TagServer(Protocol):
    """The PLC's side, for simulation and tests: a memory of named tags with a real server of the protocol in front of it.

    Constructed from the same settings and tags as the port. `__enter__` returns when it listens and raises TriggerError when it cannot;
    `__exit__` cuts all connections, like a PLC that loses power, and frees the port at once; the memory is kept, as with a battery. What a
    client writes is seen by `get`; what `set` writes is seen by clients together (for subscriptions: each call is one change). Both may be
    called from any thread.
    """

    where: str
    """For messages, what it listens on: "127.0.0.1:1502"."""

    def __enter__(self) -> Self: ...
    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None: ...

    @property
    def requests(self) -> int:
        """Requests that clients have made so far (reads, writes, publishes): grows while a station is connected."""

    def get(self, names: Sequence[str]) -> dict[str, Value]:
        """These tags at one moment."""

    def set(self, values: Mapping[str, Value]) -> None:
        """The PLC program's own write."""


def _host_and_port(host: str, port: int) -> dict[str, object]:
    return {"host": host, "port": port}


@dataclass(frozen=True, slots=True)
class Manual:
    """What a PLC programmer is told of a protocol; a simulated PLC without a station file begins with it, too."""

    tcp_port: int
    """The port on which the protocol's PLCs listen."""
    inputs: Mapping[str, PlcTag]
    outputs: Mapping[str, PlcTag]
    """An address for every signal of `plc.signals`, as the example stations and programs have them."""
    types: Mapping[TagType, str]
    """What the PLC's own tool calls them."""
    byte_order: bool = False
    """The tags' `order` means something: the protocol moves bytes and does not say what is in them."""
    reached_at: Callable[[str, int], Mapping[str, object]] = _host_and_port
    """Host and port as the settings name them."""


class Kind(NamedTuple):
    """One protocol: what its module says of it, as `KIND`, to `edge_runtime.plc.kinds`."""

    settings: type[PlcConfig]
    """[trigger] of a station file; its tag is the row's name."""
    port: Callable[[Any, Sequence[Tag]], TagPort]
    """Built as port(settings, tags). Its package is imported then and not before."""
    manual: Manual
    server: str | None = None
    """The simulated PLC, a TagServer built as server(settings, tags): "module:class", as nothing here may see `edge_runtime.sim`."""
