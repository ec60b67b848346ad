"""The OPC UA port without a server: node ids, security settings, types and values of nodes, the order of changes."""

import datetime
import sys
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua

from edge_runtime.config.files import PlcInputs
from edge_runtime.errors import ConfigError, MissingExtra, TagError
from edge_runtime.plc.opcua import OpcuaPort
from edge_runtime.plc.opcua_session import Session
from edge_runtime.plc.opcua_settings import OpcuaTriggerConfig
from edge_runtime.plc.opcua_values import NoValue, from_node, to_node, type_of
from edge_runtime.plc.port import PlcLost
from edge_runtime.plc.tags import Tag

SETTINGS = OpcuaTriggerConfig(endpoint="opc.tcp://127.0.0.1:4840", inputs=PlcInputs(trigger="i=1"))


def tag(address: str, kind: Any = "bool", writable: bool = False, name: str = "trigger", **more: Any) -> Tag:
    return Tag(name, f"trigger.{'outputs' if writable else 'inputs'}.{name}", address, kind, writable, **more)


@pytest.mark.parametrize(
    "address",
    ["ns=2;s=Station.Trigger", "ns=4;i=17", "i=2258", "s=A;B=C", 'ns=3;s="DB"."Trigger"', "ns=1;b=AQID",
     f"g={'0' * 8}-0000-0000-0000-{'0' * 12}"]
)  # fmt: skip
def test_node_ids_of_all_kinds_are_taken(address: str) -> None:
    assert OpcuaPort(SETTINGS, [tag(address)]).trips(["trigger"]) == 1


@pytest.mark.parametrize(
    "address", ["", "Trigger", "coil:0", "ns=2", "ns=2;i=x", "ns=70000;i=1", "i=4294967296", "ns=2;s=", "ns=a;s=X", "g=12"]
)
def test_what_is_no_node_id_is_named_with_its_key(address: str) -> None:
    with pytest.raises(ConfigError, match=r"trigger\.inputs\.trigger: expected a node id") as caught:
        OpcuaPort(SETTINGS, [tag(address)])
    assert f'found "{address}"' in str(caught.value)


def test_a_node_of_two_outputs_is_named_with_both_keys() -> None:
    with pytest.raises(ConfigError, match=r"trigger\.outputs\.reject.*trigger\.outputs\.accept"):
        OpcuaPort(SETTINGS, [tag("ns=2;i=1", writable=True, name="accept"), tag("ns=2;i=1", writable=True, name="reject")])
    with pytest.raises(ConfigError, match=r"trigger\.outputs\.accept.*trigger\.inputs\.trigger"):
        OpcuaPort(SETTINGS, [tag("ns=0;i=1"), tag("i=1", writable=True, name="accept")])
    OpcuaPort(SETTINGS, [tag("i=1"), tag("i=1", name="enable")])  # two inputs may read one node


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"security": "Basic256Sha256"}, r"trigger\.certificate: expected a file"),
        ({"security": "Basic256Sha256", "certificate": Path("a")}, r"trigger\.private_key: expected a file"),
        ({"certificate": Path("a")}, r"trigger\.certificate: means nothing"),
        ({"server_certificate": Path("a")}, r"trigger\.server_certificate: means nothing"),
        ({"user": "a"}, r"trigger\.password_file: expected beside trigger\.user"),
        ({"password_file": Path("a")}, r"trigger\.user: expected beside trigger\.password_file"),
    ],
)
def test_security_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], message: str) -> None:
    settings = OpcuaTriggerConfig(endpoint="opc.tcp://127.0.0.1:4840", inputs=PlcInputs(trigger="i=1"), **changes)
    with pytest.raises(ConfigError, match=message):
        OpcuaPort(settings, [tag("i=1")])


def test_without_asyncua_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncua", None)
    with pytest.raises(MissingExtra, match=r"lineside\[plc\]"):
        OpcuaPort(SETTINGS, [tag("i=1")])


def test_a_port_that_is_not_connected_says_so() -> None:
    port = OpcuaPort(SETTINGS, [tag("i=1")])
    for ask in (lambda: port.read(["trigger"]), lambda: port.poll(["trigger"]), lambda: port.write({"trigger": True})):
        with pytest.raises(PlcLost, match="not connected"):
            ask()
    port.close()


def data(value: Any, kind: ua.VariantType | None = None, status: int = 0) -> ua.DataValue:
    return ua.DataValue(ua.Variant(value, kind), StatusCode=ua.StatusCode(status))


@pytest.mark.parametrize(
    ("kind", "node", "value", "held"),
    [
        ("uint32", ua.VariantType.Byte, 300, 255), ("uint32", ua.VariantType.Int16, 40_000, 32_767),
        ("int32", ua.VariantType.UInt16, -1, 0),
        ("int16", ua.VariantType.SByte, -200, -128), ("uint32", ua.VariantType.Int64, 2**32 - 1, 2**32 - 1),
        ("float32", ua.VariantType.Float, 1e300, 3.4028234663852886e38), ("float32", ua.VariantType.UInt64, 1.6, 2),
        ("float32", ua.VariantType.Int32, float("nan"), 0), ("uint16", ua.VariantType.Double, 7, 7.0),
        ("bool", ua.VariantType.Boolean, 1, True),
        ("text", ua.VariantType.String, "ABCDE", "ABC"),
    ],
)  # fmt: skip
def test_a_value_is_written_in_the_nodes_own_type_and_held_in_its_range(kind: Any, node: ua.VariantType, value: Any, held: Any) -> None:
    written = to_node(tag("i=1", kind, True, length=3), node, value)
    assert (written.Value.Value, written.Value.VariantType) == (held, node)
    assert (written.StatusCode, written.SourceTimestamp, written.ServerTimestamp) == (None, None, None)


def test_a_node_that_holds_nothing_reads_as_zero_and_a_bad_one_has_no_value() -> None:
    assert from_node(tag("i=1", "text"), data(None)) == ""
    assert from_node(tag("i=1"), data(None)) is False
    assert from_node(tag("i=1", "uint16"), data(3.6)) == 4
    assert from_node(tag("i=1", "uint16", scale=10.0), data(36)) == 3.6
    with pytest.raises(NoValue, match="BadNoCommunication"):
        from_node(tag("i=1"), data(None, status=ua.StatusCodes.BadNoCommunication))


@pytest.mark.parametrize("held", [ua.VariantType.UInt16, ua.VariantType.Double])
def test_a_count_that_wraps_round_elsewhere_than_its_tag_is_refused(held: Any) -> None:
    with pytest.raises(TagError, match=rf"expected a whole number of at least the range .* found {held.name}"):
        type_of(tag("i=1", "uint32", wraps=True), "PLC", data(0, held), READABLE, NO_TYPE)
    assert type_of(tag("i=1", "uint32", wraps=True), "PLC", data(0, ua.VariantType.Int64), READABLE, NO_TYPE) is ua.VariantType.Int64


READABLE, WRITABLE = data(1, ua.VariantType.Byte), data(3, ua.VariantType.Byte)
UINT16, NO_TYPE = data(ua.NodeId(5)), data(ua.NodeId(3001, 4))


def test_the_type_of_a_node_comes_from_its_value_or_else_from_its_declaration() -> None:
    assert type_of(tag("i=1", "uint32", True), "PLC", data(0, ua.VariantType.Int64), WRITABLE, NO_TYPE) is ua.VariantType.Int64
    assert type_of(tag("i=1", "uint32"), "PLC", data(None), READABLE, UINT16) is ua.VariantType.UInt16


@pytest.mark.parametrize(
    ("kind", "value", "access", "message"),
    [
        ("bool", data(None, status=ua.StatusCodes.BadNodeIdUnknown), WRITABLE, "found none"),
        ("bool", data(None, status=ua.StatusCodes.BadAttributeIdInvalid), WRITABLE, "expected a variable"),
        ("bool", data(0, ua.VariantType.UInt16), WRITABLE, "expected Boolean .* found UInt16"),
        ("uint16", data(False), WRITABLE, "expected a number .* found Boolean"),
        ("uint16", data("x"), WRITABLE, "expected a number .* found String"),
        ("text", data(0, ua.VariantType.UInt16), WRITABLE, "expected String .* found UInt16"),
        ("uint16", data([1, 2], ua.VariantType.UInt16), WRITABLE, "found an array of UInt16"),
        ("uint16", data(None), WRITABLE, "found Null"),
        ("bool", data(False), READABLE, "may write, .* read-only"),
    ],
)
def test_a_node_that_does_not_fit_is_told_with_its_key_and_both_types(kind: Any, value: Any, access: Any, message: str) -> None:
    with pytest.raises(TagError, match=rf"^trigger\.outputs\.accept: .*{message}"):
        type_of(tag("ns=2;i=1", kind, True, name="accept"), "PLC", value, access, NO_TYPE)


class TestOrder:
    """How one notification becomes snapshots; no server is asked, only the loop's thread runs."""

    T0 = datetime.datetime(2026, 1, 1)  # noqa: DTZ001  # as asyncua gives them

    @pytest.fixture
    def session(self) -> Any:
        tags = {n: tag(f"i={i}", k, name=n) for i, (n, k) in enumerate([("trigger", "bool"), ("enable", "bool"), ("part_id", "uint32")], 1)}
        session = Session(SETTINGS, tags, "PLC", lambda: None, 1.0)
        self.notify(session, ("trigger", False, 0), ("enable", False, 0), ("part_id", 1, 0))
        session._told = session._now
        yield session
        session.close()

    def notify(self, session: Session, *changes: tuple[str, Any, float | None], status: int = 0) -> None:
        items = []
        for name, value, ms in changes:
            stamp = None if ms is None else self.T0 + datetime.timedelta(milliseconds=ms)
            value = ua.DataValue(ua.Variant(value), StatusCode=ua.StatusCode(status), SourceTimestamp=stamp)
            items.append(ua.MonitoredItemNotification(ClientHandle=session._inputs.index(name), Value=value))
        session._take(items)

    def polled(self, session: Session) -> list[tuple[Any, ...]]:
        return [tuple(s.values()) for s in session.snapshots(["trigger", "enable", "part_id"])]

    def test_changes_that_come_item_by_item_stand_in_the_order_of_their_timestamps(self, session: Session) -> None:
        self.notify(session, ("trigger", True, 2), ("trigger", False, 3), ("trigger", True, 5), ("part_id", 2, 1), ("part_id", 3, 4))
        assert self.polled(session) == [(False, False, 2), (True, False, 2), (False, False, 2), (False, False, 3), (True, False, 3)]

    def test_changes_of_one_timestamp_are_one_snapshot(self, session: Session) -> None:
        self.notify(session, ("trigger", True, 1), ("part_id", 2, 1))
        assert self.polled(session) == [(True, False, 2)]

    def test_a_pulse_without_timestamps_is_seen(self, session: Session) -> None:
        self.notify(session, ("trigger", True, None), ("trigger", False, None), ("part_id", 2, None))
        assert [t for t, *_ in self.polled(session)] == [True, False]

    def test_what_a_slow_sampling_saw_in_one_round_is_one_snapshot(self, session: Session) -> None:
        session._skew = datetime.timedelta(milliseconds=50)
        self.notify(session, ("trigger", True, 1), ("part_id", 2, 3), ("trigger", False, 51))
        assert self.polled(session) == [(True, False, 2), (False, False, 2)]

    def test_only_changes_of_the_names_asked_for_are_told(self, session: Session) -> None:
        self.notify(session, ("enable", True, 1))
        self.notify(session, ("trigger", True, 2))
        assert session.snapshots(["trigger"]) == [{"trigger": True}]
        assert session.snapshots(["trigger"]) == []

    def test_a_dropped_change_of_a_bit_is_a_failure(self, session: Session) -> None:
        self.notify(session, ("trigger", True, 1), status=0x480)
        assert session.failure is not None and "dropped changes of trigger.inputs.trigger" in session.failure

    def test_a_value_that_the_plc_calls_bad_is_left_out_until_it_is_good_again(self, session: Session) -> None:
        self.notify(session, ("part_id", 1, 1), status=ua.StatusCodes.BadSensorFailure)
        self.notify(session, ("trigger", True, 2))
        names = ["trigger", "enable", "part_id"]
        assert session.snapshots(names) == [{"trigger": False, "enable": False}, {"trigger": True, "enable": False}]
        assert session.missing == {"part_id": "BadSensorFailure"}
        self.notify(session, ("part_id", 2, 3))
        assert session.snapshots(names) == [{"trigger": True, "enable": False, "part_id": 2}]
        assert (session.missing, session.failure) == ({}, None)

    def test_stamps_with_a_zone_and_without_one_and_none_at_all_are_put_in_order(self, session: Session) -> None:
        items = [
            ua.MonitoredItemNotification(
                ClientHandle=session._inputs.index(name), Value=ua.DataValue(ua.Variant(value), SourceTimestamp=stamp)
            )
            for name, value, stamp in (
                ("trigger", True, self.T0.replace(tzinfo=datetime.UTC) + datetime.timedelta(milliseconds=2)),
                ("part_id", 2, self.T0 + datetime.timedelta(milliseconds=1)), ("enable", True, None),
            )
        ]  # fmt: skip
        session._take(items)
        assert self.polled(session) == [(False, True, 1), (False, True, 2), (True, True, 2)]

    @pytest.mark.parametrize("value", [[1, 2], b"1", "1", True])
    def test_a_node_that_has_become_of_another_type_is_left_out(self, session: Session, value: Any) -> None:
        self.notify(session, ("part_id", value, 1))
        assert session.snapshots(["part_id"]) == [{}]
        assert session.missing == {"part_id": f"is {type(value).__name__}, expected uint32"}

    @pytest.mark.parametrize("item", [ua.MonitoredItemNotification(ClientHandle=99, Value=data(1)), None])
    def test_a_report_that_is_none_is_a_failure(self, session: Session, item: Any) -> None:
        """asyncua would log it, and the change that it brought would be lost."""
        result = ua.PublishResult()
        result.NotificationMessage.NotificationData = [ua.DataChangeNotification(MonitoredItems=[item])]
        session._published(result)
        assert session.failure is not None and "not OPC UA" in session.failure
