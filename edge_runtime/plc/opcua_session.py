"""One connection of the OPC UA port: its event loop, session and subscription. Imported where asyncua is known to be there."""

import asyncio
import concurrent.futures
import contextlib
import datetime
import logging
import math
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from asyncua import Client, ua

from edge_runtime.errors import LinesideError, TagError
from edge_runtime.plc.deadline import ASK_AGAIN_S, Deadline
from edge_runtime.plc.link import before_close, delivered, tune
from edge_runtime.plc.opcua_security import identify, refusal
from edge_runtime.plc.opcua_settings import OpcuaTriggerConfig
from edge_runtime.plc.opcua_values import NoValue, from_node, to_node, type_of
from edge_runtime.plc.port import PlcLost, TooLate
from edge_runtime.plc.report_age import ReportAges
from edge_runtime.plc.tags import Tag, Value

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_READ_LIMIT, _WRITE_LIMIT = 11705, 11707
"""Server.ServerCapabilities.OperationLimits.MaxNodesPerRead and MaxNodesPerWrite."""
_MISREAD = (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error)
"""What asyncua makes of an answer that is none."""
_OVERFLOW = 0x480
"""Info bits of a data value's status: the item's queue was full and a change was dropped."""
_LONG_AGO = datetime.datetime.min  # noqa: DTZ901
_NO_YEAR = 1971
"""What servers without a clock say begins in 1601 or 1970."""
_SESSION_S = 10.0
"""How long the PLC keeps a session of a station that died; small PLCs have few."""
_QUEUE = 1000
_BEHIND = 10_000


class Session:
    """Lives from one connect to the next close. `open`, `read` and `write` are coroutines for `run`; the rest is for any thread."""

    def __init__(
        self, settings: OpcuaTriggerConfig, tags: Mapping[str, Tag], where: str, changed: Callable[[], None], open_s: float
    ) -> None:
        self._settings, self._tags, self._where, self._changed, self._open_s = settings, tags, where, changed, open_s
        self._nodes = {name: ua.NodeId.from_string(t.address) for name, t in tags.items()}
        self._inputs = [name for name, t in tags.items() if not t.writable]
        self._types: dict[str, ua.VariantType] = {}
        self._client: Any = None
        self._now: dict[str, Value | None] = {}
        """The inputs as they were reported last; None where the PLC has no value."""
        self._told: dict[str, Value | None] = {}
        self._bad: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        """As in TagPort."""
        self._all_known: asyncio.Event | None = None
        self._changes: deque[tuple[dict[str, Value | None], float]] = deque()
        """Each with when it came to be, in seconds of the monotonic clock."""
        self.happened_s: list[float] = []
        """As `_changes`, of the snapshots that were handed out last."""
        self._ages = ReportAges(settings.publishing_ms / 1e3)
        self._heard = time.monotonic()
        self._silence_s = math.inf
        self._skew = datetime.timedelta(0)
        self.failure: str | None = None
        self.read_limit = self._write_limit = 0
        self.publishing_ms = self.sampling_ms = 0.0
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._loop.set_exception_handler(lambda _, context: _log.debug("%s: %s", where, context.get("message")))
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="opcua", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _T], timeout_s: float) -> _T:
        """Run on the loop and wait for it. Raises PlcLost after `timeout_s` or for whatever asyncua says; the session is over then."""
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout_s), self._loop)
        try:
            return future.result(timeout_s + 1)
        except LinesideError:
            raise
        except _MISREAD as e:
            self.failure = f"answered with something that is not OPC UA: {e}"
            raise PlcLost(self.failure) from e
        except (PlcLost, OSError, ua.UaError, asyncio.CancelledError, concurrent.futures.CancelledError) as e:
            future.cancel()
            reason = _reason(e, timeout_s)
            if self.failure is None or not isinstance(e, asyncio.CancelledError | concurrent.futures.CancelledError | ConnectionError):
                self.failure = reason
            raise PlcLost(self.failure) from e

    def close(self) -> None:
        """Say goodbye if the server still listens, then cut; never raises, and takes no longer than the timeouts allow."""
        if self._client is not None:
            with contextlib.suppress(PlcLost, LinesideError):  # it is gone already
                self.run(self._leave(), self._settings.timeout_ms / 1e3)
        try:
            self._loop.call_soon_threadsafe(self._stopped.set)
        except RuntimeError:
            return  # the loop has ended
        self._thread.join(2.0)

    def subscribed(self, names: Sequence[str]) -> bool:
        return all(name in self._now for name in names)

    def snapshots(self, names: Sequence[str]) -> list[dict[str, Value]]:
        """What has changed since the last call, oldest first, of the subscribed `names`; without those that have no value."""
        self._look_at_clock()  # from here as well: an answer that asyncua takes long to read holds the loop
        out = []
        self.happened_s = []
        while self._changes:
            snapshot, happened_s = self._changes.popleft()
            if any(snapshot[n] != self._told[n] for n in names):
                out.append({n: v for n in names if (v := snapshot[n]) is not None})
                self.happened_s.append(happened_s)
            self._told = snapshot
        self.missing = {n: self._bad.get(n, "no value") for n in names if self._told[n] is None}
        return out

    async def open(self) -> None:
        """Connect, look at every node, subscribe to the inputs and wait for their first values."""
        client = Client(self._settings.endpoint, timeout=self._open_s, watchdog_intervall=self._settings.timeout_ms / 1e3)
        client.session_timeout = int(_SESSION_S * 1e3)
        client.connection_lost_callback = self._on_lost
        self._client = client
        try:
            await identify(client, self._settings)
            await client.connect()
        except TimeoutError as e:
            raise PlcLost(_reason(e, self._open_s)) from e
        except (ua.UaError, OSError, AssertionError) as e:  # asyncua asserts that a channel is not answered with a fault
            problem = await refusal(e, self._settings, self._open_s)
            if problem is not None:
                raise problem from e
            if isinstance(e, AssertionError):
                raise PlcLost("refused to open a channel") from e
            raise
        if (sock := self._socket()) is not None:
            tune(sock, self._settings.timeout_ms / 1e3)
        await self._look()
        await self._subscribe()

    async def read(self, names: Sequence[str]) -> dict[str, Value]:
        answers = await self._read_attributes([(self._nodes[n], ua.AttributeIds.Value) for n in names])
        values: dict[str, Value] = {}
        missing: dict[str, str] = {}
        for name, answer in zip(names, answers, strict=True):
            try:
                values[name] = from_node(self._tags[name], answer)
            except NoValue as e:
                missing[name] = str(e)
        self.missing = missing
        return values

    async def write(self, values: Mapping[str, Value], within_s: float | None) -> None:
        """What is refused, though it could be written when the connection was made, is asked for again, and what stands behind it."""
        timeout_s = self._settings.timeout_ms / 1e3
        deadline = Deadline(timeout_s, within_s)
        watch = None if within_s is None or within_s >= timeout_s else self._loop.call_later(within_s, self._drop_undelivered)
        try:
            await self._write(values, deadline)
        finally:
            if watch is not None:
                watch.cancel()

    async def _write(self, values: Mapping[str, Value], deadline: Deadline) -> None:
        left = dict(values)
        while True:
            if deadline.forbids_sending:
                raise TooLate
            refused = await self._write_once(left)
            if refused is None:
                return
            name, said = refused
            if not deadline.allows_another:
                raise PlcLost(f"refused to write {self._tags[name].key} ({self._tags[name].address}): {said}")
            names = list(left)
            left = {n: left[n] for n in names[names.index(name) :]}
            await asyncio.sleep(ASK_AGAIN_S)

    async def _write_once(self, values: Mapping[str, Value]) -> tuple[str, str] | None:
        """In their order, until one is refused: which, and why."""
        items = [
            ua.WriteValue(
                NodeId=self._nodes[name], AttributeId=ua.AttributeIds.Value, Value=to_node(self._tags[name], self._types[name], value)
            )
            for name, value in values.items()
        ]
        size = self._write_limit or max(len(items), 1)
        names = list(values)
        for start in range(0, len(items), size):
            statuses = await self._client.uaclient.write(ua.WriteParameters(NodesToWrite=items[start : start + size]))
            for name, status in zip(names[start : start + size], statuses, strict=True):
                if not status.is_good():
                    return name, status.name
        return None

    async def _look(self) -> None:
        """Limits, then every node: there, of a type that fits, readable, and writable where it is an output."""
        limits = await self._read_attributes([(ua.NodeId(i), ua.AttributeIds.Value) for i in (_READ_LIMIT, _WRITE_LIMIT)])
        self.read_limit, self._write_limit = (_limit(answer) for answer in limits)
        wanted = (ua.AttributeIds.Value, ua.AttributeIds.UserAccessLevel, ua.AttributeIds.DataType)
        answers = await self._read_attributes([(node, attribute) for node in self._nodes.values() for attribute in wanted])
        for at, tag in enumerate(self._tags.values()):
            self._types[tag.name] = type_of(tag, self._where, *answers[3 * at : 3 * at + 3])

    async def _subscribe(self) -> None:
        s, client = self._settings, self._client.uaclient
        self._all_known = asyncio.Event()
        granted = await client.create_subscription(ua.CreateSubscriptionParameters(**self._pace(s.publishing_ms)), self._published)
        interval_ms, keep_alives = granted.RevisedPublishingInterval, granted.RevisedMaxKeepAliveCount
        if interval_ms > s.publishing_ms:  # keep-alives are counted in intervals
            pace = self._pace(interval_ms)
            pace.pop("PublishingEnabled")
            modified = await client.update_subscription(ua.ModifySubscriptionParameters(SubscriptionId=granted.SubscriptionId, **pace))
            interval_ms, keep_alives = modified.RevisedPublishingInterval, modified.RevisedMaxKeepAliveCount
        self.publishing_ms = interval_ms
        items = [
            ua.MonitoredItemCreateRequest(
                ItemToMonitor=ua.ReadValueId(NodeId=self._nodes[name], AttributeId=ua.AttributeIds.Value),
                MonitoringMode=ua.MonitoringMode.Reporting,
                RequestedParameters=ua.MonitoringParameters(ClientHandle=at, SamplingInterval=0.0, QueueSize=_QUEUE, DiscardOldest=False),
            )
            for at, name in enumerate(self._inputs)
        ]
        results = await client.create_monitored_items(
            ua.CreateMonitoredItemsParameters(
                SubscriptionId=granted.SubscriptionId, TimestampsToReturn=ua.TimestampsToReturn.Both, ItemsToCreate=items
            )
        )
        for name, result in zip(self._inputs, results, strict=True):
            if not result.StatusCode.is_good():
                tag = self._tags[name]
                raise TagError(f'{tag.key}: expected "{tag.address}" to be monitored, the {self._where} said {result.StatusCode.name}')
            self.sampling_ms = max(self.sampling_ms, result.RevisedSamplingInterval)
        if self.sampling_ms > s.publishing_ms:  # what it saw in one round of sampling has no order
            self._skew = datetime.timedelta(milliseconds=self.sampling_ms)
        self._ages = ReportAges((interval_ms + self.sampling_ms) / 1e3)
        await asyncio.wait_for(self._all_known.wait(), self._open_s + interval_ms / 1e3)
        if self.failure is not None:
            raise PlcLost(self.failure)
        self._told = self._now
        self._silence_s = interval_ms * keep_alives / 1e3 + s.timeout_ms / 1e3
        self._watching = asyncio.create_task(self._watch())

    def _pace(self, interval_ms: float) -> dict[str, Any]:
        """A server that has nothing to tell says so twice in `timeout_ms`."""
        return {
            "RequestedPublishingInterval": interval_ms,
            "RequestedLifetimeCount": math.ceil(_SESSION_S * 1e3 / interval_ms),
            "RequestedMaxKeepAliveCount": max(1, round(self._settings.timeout_ms / 2 / interval_ms)),
            "MaxNotificationsPerPublish": 0,
            "PublishingEnabled": True,
        }

    def _published(self, result: Any) -> None:
        self._heard = time.monotonic()
        try:
            self._take_all(result)
        except _MISREAD as e:  # asyncua would log it, and the change would be lost
            self._fail(f"reported something that is not OPC UA: {e}")

    def _take_all(self, result: Any) -> None:
        self._ages.heard(self._heard, _seconds(result.NotificationMessage.PublishTime))
        for notification in result.NotificationMessage.NotificationData or []:
            if isinstance(notification, ua.DataChangeNotification):
                self._take(notification.MonitoredItems)
            elif isinstance(notification, ua.StatusChangeNotification):
                self._fail(f"ended the subscription: {notification.Status.name}")

    def _take(self, items: Sequence[Any]) -> None:
        """One notification lists its changes item by item; the source's timestamps put them in order again."""
        seen = []
        for item in items:
            name, data = self._inputs[item.ClientHandle], item.Value
            value: Value | None
            try:
                value = from_node(self._tags[name], data)
            except NoValue as e:
                value, self._bad[name] = None, str(e)
            if data.StatusCode is not None and data.StatusCode.value & _OVERFLOW == _OVERFLOW and self._tags[name].type == "bool":
                self._fail(f"dropped changes of {self._tags[name].key}: they came faster than it could tell them")
                return
            seen.append((_stamp(data), name, value))
        seen.sort(key=lambda s: s[0])
        change: dict[str, Value | None] = {}
        since = _LONG_AGO
        for stamp, name, value in seen:
            if name in change or (change and stamp - since > self._skew):
                self._put(change, since)
                change = {}
            if not change:
                since = stamp
            change[name] = value
        self._put(change, since)
        if self._all_known is not None and len(self._now) == len(self._inputs):
            self._all_known.set()
        if self._told:
            self._changed()

    def _put(self, change: dict[str, Value | None], since: datetime.datetime) -> None:
        self._now = self._now | change
        if self._told:
            self._changes.append((self._now, self._heard - self._ages.age_s(_seconds(since))))
            if len(self._changes) > _BEHIND:
                self._fail(f"changed {_BEHIND} times while nobody looked")

    async def _watch(self) -> None:
        while self.failure is None:
            await asyncio.sleep(self._silence_s / 8)
            self._look_at_clock()

    def _look_at_clock(self) -> None:
        if time.monotonic() - self._heard > self._silence_s:
            self._fail("stopped reporting")

    async def _on_lost(self, e: Exception) -> None:
        self._fail(_reason(e))

    def _fail(self, why: str) -> None:
        if self.failure is None:
            self.failure = why
            if self._all_known is not None:
                self._all_known.set()
            self._changed()

    async def _read_attributes(self, wanted: Sequence[tuple[Any, Any]]) -> list[Any]:
        size = self.read_limit or max(len(wanted), 1)
        answers: list[Any] = []
        for start in range(0, len(wanted), size):
            items = [ua.ReadValueId(NodeId=node, AttributeId=attribute) for node, attribute in wanted[start : start + size]]
            answers += await self._client.uaclient.read(ua.ReadParameters(MaxAge=0.0, NodesToRead=items))
        return answers

    def _socket(self) -> socket.socket | None:
        """That of the connection, if there is one; asyncio hands out one that cannot be closed, with the same options."""
        protocol = self._client.uaclient.protocol
        return None if protocol is None or protocol.transport is None else protocol.transport.get_extra_info("socket")

    def _drop_undelivered(self) -> None:
        """What the PLC's side has not confirmed by now is not sent again."""
        protocol, sock = self._client.uaclient.protocol, self._socket()
        if sock is not None and (protocol.transport.get_write_buffer_size() or not delivered(sock)):
            self._fail("did not receive what was written in time")
            protocol.transport.abort()

    async def _leave(self) -> None:
        protocol = self._client.uaclient.protocol
        if (sock := self._socket()) is not None:
            before_close(sock)
        if self.failure is None:
            await self._client.disconnect()
        if protocol is not None and protocol.transport is not None:
            protocol.transport.abort()

    def _serve(self) -> None:
        with self._runner:
            self._runner.run(self._stopped.wait())


def _stamp(data: Any) -> datetime.datetime:
    """When the value came to be; without a zone, as asyncua gives some with it and some without."""
    stamp: datetime.datetime = data.SourceTimestamp or data.ServerTimestamp or _LONG_AGO
    return stamp.replace(tzinfo=None)


def _seconds(stamp: datetime.datetime | None) -> float | None:
    """None for a stamp that is none."""
    return None if stamp is None or stamp.year < _NO_YEAR else stamp.replace(tzinfo=datetime.UTC).timestamp()


def _limit(answer: Any) -> int:
    """0: none."""
    value = answer.Value.Value if answer.Value is not None and (answer.StatusCode is None or answer.StatusCode.is_good()) else 0
    return value if isinstance(value, int) else 0


def _reason(e: BaseException, timeout_s: float = 0.0) -> str:
    if isinstance(e, PlcLost):
        return str(e)
    if isinstance(e, TimeoutError):
        return f"did not answer in {timeout_s * 1e3:g} ms" if timeout_s else "did not answer in time"
    if isinstance(e, ConnectionRefusedError):
        return "refused the connection: no OPC UA server there, or its port is another"
    if isinstance(e, ua.UaStatusCodeError):
        return f"said {ua.StatusCode(e.code).name}"
    return f"connection lost: {(e.strerror if isinstance(e, OSError) else None) or str(e) or type(e).__name__}"
