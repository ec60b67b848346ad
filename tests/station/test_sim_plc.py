"""The simulated PLC: it sees what a station does wrong. The station's side is written into its memory by hand here."""

import socket
import time

import pytest

from edge_runtime.config.files import PlcTrigger, PulseConfig
from edge_runtime.errors import TriggerError
from edge_runtime.plc.defaults import default_trigger
from edge_runtime.plc.modbus import ModbusTriggerConfig
from edge_runtime.plc.tags import Value
from edge_runtime.records import Verdict
from edge_runtime.sim.plc import PartResult, SimulatedPlc, run_sim_plc
from tests.support.ports import free_port
from tests.support.waiting import until


@pytest.fixture
def settings() -> PlcTrigger:
    return default_trigger("s7", port=free_port())


def scans(plc: SimulatedPlc, seconds: float = 0.03) -> None:
    time.sleep(seconds)


def tag(plc: SimulatedPlc, name: str) -> Value:
    return plc.server.get([name])[name]


def announced(plc: SimulatedPlc) -> int:
    """Play the station up to the judging of one part. Returns its number."""
    plc.server.set({"ready": True})
    until(lambda: tag(plc, "trigger"))
    plc.server.set({"ready": False, "busy": True, "trigger_acknowledge": True})
    until(lambda: not tag(plc, "trigger"))
    plc.server.set({"trigger_acknowledge": False})
    return int(tag(plc, "part_id"))


def show(plc: SimulatedPlc, part: int, count: int, **more: Value) -> None:
    result: dict[str, Value] = {"result_part_id": part, "result_count": count, "accept": True, "busy": False, "result_valid": True}
    plc.server.set(result | more)


def taken(plc: SimulatedPlc) -> None:
    until(lambda: tag(plc, "acknowledge"))
    plc.server.set({"result_valid": False, "accept": False, "reject": False, "fault": False})
    until(lambda: not tag(plc, "acknowledge"))


def test_a_station_that_keeps_the_handshake_is_not_objected_to(settings: PlcTrigger) -> None:
    told: list[PartResult] = []
    with SimulatedPlc(settings, parts_per_minute=6000, count=3, first_part=70_000, result_timeout_ms=5000, told=told.append) as plc:
        for count, more in enumerate([{"severity": 0.4}, {"accept": False, "reject": True, "severity": 2.5},
                                      {"accept": False, "fault": True, "fault_code": 3}], 1):  # fmt: skip
            show(plc, announced(plc), count, **more)
            taken(plc)
        assert plc.wait_finished(5)
        assert plc.violations == []
    assert list(plc.results.values()) == told
    assert [(r.part, r.verdict, r.severity, r.fault_code, r.count) for r in told] == [
        (70_000, Verdict.ACCEPT, 0.4, 0, 1), (70_001, Verdict.REJECT, 2.5, 0, 2), (70_002, Verdict.FAULT, None, 3, 3),
    ]  # fmt: skip
    assert all(r.latency_ms is not None and 0 < r.latency_ms < 5000 for r in told)


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        ({"part": 99}, "a result came for part 99, which was not announced"),
        ({"count": 7}, "result_count went from 0 to 7"),
        ({"reject": True}, "accept and reject are both high over the result of part 1"),
        ({"accept": False}, "neither accept, reject nor fault is high over the result of part 1"),
    ],
)
def test_a_wrong_result_is_a_violation(settings: PlcTrigger, shown: dict[str, Value], sentence: str) -> None:
    with SimulatedPlc(settings, count=1) as plc:
        part, count = announced(plc), 1
        show(plc, int(shown.pop("part", part)), int(shown.pop("count", count)), **shown)
        taken(plc)
        assert len(plc.violations) == 1
        assert sentence in plc.violations[0]


def test_a_result_told_twice_is_a_violation(settings: PlcTrigger) -> None:
    with SimulatedPlc(settings, count=1) as plc:
        part = announced(plc)
        for count in (1, 2):
            show(plc, part, count)
            taken(plc)
        assert plc.violations == ["a result came twice for part 1"]


def test_a_result_that_changes_while_it_is_valid_is_a_violation(settings: PlcTrigger) -> None:
    with SimulatedPlc(settings, count=1, acknowledges="never") as plc:
        show(plc, announced(plc), 1)
        scans(plc)
        plc.server.set({"accept": False, "reject": True})
        until(lambda: plc.violations)
        assert plc.violations == ["the result changed under result_valid: accept, reject"]


@pytest.mark.alone
def test_a_heartbeat_that_stands_still_is_a_violation(settings: PlcTrigger) -> None:
    import msgspec

    with SimulatedPlc(msgspec.structs.replace(settings, heartbeat_ms=50.0), count=0) as plc:
        scans(plc, 0.3)
        assert plc.violations == [], "no station yet"
        for beat in (True, False, True):
            plc.server.set({"heartbeat": beat})
            scans(plc, 0.03)
        assert plc.violations == []
        until(lambda: plc.violations)
        assert plc.violations == ["heartbeat has stood still for more than 0.15 s"]


def test_ready_beside_busy_is_a_violation_said_once(settings: PlcTrigger) -> None:
    with SimulatedPlc(settings, count=0) as plc:
        plc.server.set({"ready": True, "busy": True})
        scans(plc, 0.3)
        assert plc.violations == ["ready and busy are high together, for more than 50 ms"]


def test_a_part_without_a_result_is_late_and_the_line_goes_on(settings: PlcTrigger) -> None:
    told: list[PartResult] = []
    with SimulatedPlc(settings, parts_per_minute=6000, count=2, result_timeout_ms=60, told=told.append) as plc:
        announced(plc)
        plc.server.set({"busy": False})
        announced(plc)
        assert plc.wait_finished(5)
    assert [(r.part, r.verdict, r.latency_ms) for r in told] == [(1, None, None), (2, None, None)]


def test_acknowledge_can_be_withheld_or_stuck_and_a_fault_reset(settings: PlcTrigger) -> None:
    with SimulatedPlc(settings, count=1, acknowledges="never") as plc:
        show(plc, announced(plc), 1)
        scans(plc)
        assert not tag(plc, "acknowledge")
        plc.acknowledges = "stuck"
        until(lambda: tag(plc, "acknowledge"))
        plc.server.set({"result_valid": False})
        scans(plc)
        assert tag(plc, "acknowledge")
        plc.reset_fault()
        until(lambda: tag(plc, "reset_fault"))
        until(lambda: not tag(plc, "reset_fault"))


def test_a_part_can_be_announced_while_the_one_before_is_judged(settings: PlcTrigger) -> None:
    with SimulatedPlc(settings, parts_per_minute=60, count=2, busy_parts={2}) as plc:
        announced(plc)
        until(lambda: tag(plc, "trigger"), 0.5)  # neither ready nor the pace
        assert tag(plc, "part_id") == 2


def test_a_recipe_is_written_before_its_part_and_waited_for(settings: PlcTrigger) -> None:
    with SimulatedPlc(settings, parts_per_minute=6000, count=1, recipe_of=lambda part: 7) as plc:
        plc.server.set({"ready": True})
        until(lambda: tag(plc, "recipe") == 7)
        plc.server.set({"ready": False})
        scans(plc, 0.3)
        assert not tag(plc, "trigger")
        assert announced(plc) == 1


def test_a_plc_that_was_off_goes_on_where_it_was(settings: PlcTrigger) -> None:
    with SimulatedPlc(settings, parts_per_minute=6000, count=2, result_timeout_ms=100) as plc:
        plc.server.set({"ready": True, "result_count": 41})
        until(lambda: tag(plc, "trigger"))
        port = int(getattr(settings, "port"))  # noqa: B009
        plc.power_off(0.3)
        until(lambda: not listens(port))
        until(lambda: listens(port))
        until(lambda: tag(plc, "result_count") == 41)
        until(lambda: tag(plc, "part_id") == 2)
        assert plc.violations == []


@pytest.mark.alone
def test_pulses_are_measured() -> None:
    pulsed = default_trigger("modbus", port=free_port(), pulse=PulseConfig(width_ms=100, delay_ms=200))
    with SimulatedPlc(pulsed, parts_per_minute=6000, count=1) as plc:
        part = announced(plc)
        scans(plc, 0.1)
        show(plc, part, 1, accept=False, reject=True)
        scans(plc, 0.1)
        plc.server.set({"result_valid": False, "reject": False})
        until(lambda: plc.pulses)
        (pulse,) = plc.pulses
        assert (pulse.signal, pulse.part) == ("reject", 1)
        assert pulse.began_ms is not None and pulse.began_ms > 90
        assert 70 < pulse.width_ms < 600
        assert plc.results[1].verdict is Verdict.REJECT


def test_without_optional_signals_results_are_read_in_turn() -> None:
    full = default_trigger("modbus", port=free_port())
    few = ModbusTriggerConfig(
        inputs=type(full.inputs)(trigger="coil:0"), outputs=type(full.outputs)(accept="coil:16", reject="coil:17"), port=full.port
    )
    from pymodbus.client import ModbusTcpClient

    with SimulatedPlc(few, count=1, hold_ms=30) as plc, ModbusTcpClient("127.0.0.1", port=full.port) as client:
        scans(plc, 0.1)
        assert not tag(plc, "trigger"), "nobody polls yet"
        until(lambda: client.read_coils(0).bits[0])
        until(lambda: not client.read_coils(0).bits[0])
        client.write_coil(17, True)
        assert plc.wait_finished(5)
        assert plc.results[1].verdict is Verdict.REJECT


def test_a_port_in_use_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TriggerError, match=str(port)):
            run_sim_plc(default_trigger("modbus", port=port), count=1)


def listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0
