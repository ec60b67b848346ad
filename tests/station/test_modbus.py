"""The Modbus line against PLCs that lose power, hang, or hold the coil, with an independent client looking into the PLC's memory."""

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from pymodbus.client import ModbusTcpClient

from edge_runtime.config import ModbusTrigger
from edge_runtime.errors import SinkError, TriggerError
from edge_runtime.records import Decision, Stamps, Trigger, Verdict
from edge_runtime.sim.plc import PartResult, SimulatedPlc, run_sim_plc
from edge_runtime.triggers import ModbusLine


def decide(trigger: Trigger, verdict: Verdict = Verdict.ACCEPT, severity: float | None = 0.5) -> Decision:
    return Decision(
        station="s", seq=trigger.seq, part_id=trigger.part_id, verdict=verdict, reason="", score=None, threshold=1.0, severity=severity,
        regions=(), frame_wh=(0, 0), bundle_id="", recipe="", stamps=Stamps(trigger.fired_ns), wall_time="",
    )  # fmt: skip


@pytest.fixture
def settings() -> ModbusTrigger:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return ModbusTrigger(port=s.getsockname()[1], timeout_ms=300, unit=7)


@pytest.fixture
def memory(settings: ModbusTrigger) -> Iterator[ModbusTcpClient]:
    """An independent client: reads and writes what the PLC holds."""
    client = ModbusTcpClient("127.0.0.1", port=settings.port, retries=0)
    yield client
    client.close()


def answer(line: ModbusLine, plc: SimulatedPlc, verdicts: list[Verdict]) -> None:
    while not plc.wait_finished(0):
        trigger = line.wait(0.05)
        if trigger is not None:
            verdict = verdicts[trigger.seq % len(verdicts)]
            line.put(decide(trigger, verdict, None if verdict is Verdict.FAULT else 1.25))


def wait_for_trigger(line: ModbusLine, within_s: float = 5.0) -> Trigger:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        trigger = line.wait(0.05)
        if trigger is not None:
            return trigger
    raise AssertionError(f"no trigger within {within_s} s: {line.problem}")


def test_every_part_of_a_simulated_line_gets_its_own_verdict(settings: ModbusTrigger) -> None:
    verdicts = [Verdict.ACCEPT, Verdict.REJECT, Verdict.FAULT]
    with SimulatedPlc(settings, parts_per_minute=2000, count=30, first_part=69_990, hold_ms=8) as plc, ModbusLine(settings, 65_530) as line:
        answer(line, plc, verdicts)
    assert list(plc.results) == list(range(69_990, 70_020))
    for i, result in enumerate(plc.results.values()):
        assert result.verdict is verdicts[(65_530 + i) % 3]
        assert result.seq == (65_530 + i) % 65_536
        assert result.severity == (None if result.verdict is Verdict.FAULT else 1.25)
        assert result.latency_ms is not None and 0 < result.latency_ms < 1000


def test_a_part_that_is_never_answered_stands_as_unanswered(settings: ModbusTrigger) -> None:
    told: list[PartResult] = []
    with (
        SimulatedPlc(settings, parts_per_minute=2000, count=2, result_timeout_ms=60, told=told.append) as plc,
        ModbusLine(settings, 1) as line,
    ):
        while not plc.wait_finished(0):
            line.wait(0.02)
    assert [(r.part, r.verdict, r.latency_ms) for r in told] == [(1, None, None), (2, None, None)]


def test_the_line_keeps_its_pace_when_it_does_not_wait(settings: ModbusTrigger) -> None:
    with SimulatedPlc(settings, parts_per_minute=1200, count=5, wait_for_result=False, hold_ms=10) as plc, ModbusLine(settings, 1) as line:
        triggers = [wait_for_trigger(line) for _ in range(5)]
        for trigger in triggers:
            line.put(decide(trigger))
        assert plc.wait_finished(2)
        assert all(r.verdict is Verdict.ACCEPT for r in plc.results.values())
    gaps = [(b.fired_ns - a.fired_ns) / 1e6 for a, b in itertools.pairwise(triggers)]
    assert sum(gaps) / len(gaps) == pytest.approx(50, abs=15)


def test_result_valid_falls_at_the_next_trigger_and_rises_over_a_whole_result(settings: ModbusTrigger, memory: ModbusTcpClient) -> None:
    with SimulatedPlc(settings, count=0), ModbusLine(settings, 300) as line:
        assert line.wait(0.01) is None
        memory.write_registers(0, [1, 2], device_id=7)
        memory.write_coil(0, True, device_id=7)
        trigger = wait_for_trigger(line)
        assert trigger.part_id == str(65_538)
        line.put(decide(trigger, Verdict.REJECT, 900.0))
        assert memory.read_coils(16, count=4, device_id=7).bits[:4] == [False, True, False, True]
        assert memory.read_holding_registers(16, count=5, device_id=7).registers == [1, 2, 300, 2, 65_535]
        assert line.wait(0.02) is None, "a coil that stays high is one trigger"
        memory.write_coil(0, False, device_id=7)
        assert line.wait(0.03) is None
        memory.write_coil(0, True, device_id=7)
        wait_for_trigger(line)
        assert memory.read_coils(16, count=4, device_id=7).bits[:4] == [False] * 4
        assert memory.read_holding_registers(16, count=5, device_id=7).registers == [1, 2, 300, 2, 65_535]


def test_a_coil_that_is_high_already_when_connecting_is_no_trigger(settings: ModbusTrigger, memory: ModbusTcpClient) -> None:
    with SimulatedPlc(settings, count=0):
        memory.write_coil(0, True, device_id=7)
        with ModbusLine(settings, 1) as line:
            assert line.wait(0.1) is None
            memory.write_coil(0, False, device_id=7)
            assert line.wait(0.05) is None
            memory.write_coil(0, True, device_id=7)
            assert wait_for_trigger(line).seq == 1


def test_results_of_an_earlier_run_are_cleared_at_start(settings: ModbusTrigger, memory: ModbusTcpClient) -> None:
    with SimulatedPlc(settings, count=0):
        memory.write_coils(16, [True, False, False, True], device_id=7)
        with ModbusLine(settings, 1):
            assert memory.read_coils(16, count=4, device_id=7).bits[:4] == [False] * 4


def test_a_plc_that_loses_power_is_reported_and_found_again(settings: ModbusTrigger) -> None:
    plc = SimulatedPlc(settings, parts_per_minute=1200, first_part=1)
    with contextlib.ExitStack() as stack:
        with plc:
            line = stack.enter_context(ModbusLine(settings, 1))
            trigger = wait_for_trigger(line)
        assert line.wait(0.1) is None
        assert line.problem is not None and str(settings.port) in line.problem
        began = time.monotonic()
        with pytest.raises(SinkError, match=f"part {trigger.part_id}, seq 1, was not written"):
            line.put(decide(trigger))
        assert time.monotonic() - began < 0.35
        with SimulatedPlc(settings, parts_per_minute=1200, count=3, first_part=50, hold_ms=10) as again:
            answer(line, again, [Verdict.ACCEPT])
            assert line.problem is None
            assert [r.verdict for r in again.results.values()] == [Verdict.ACCEPT] * 3
            assert [r.seq for r in again.results.values()] == [2, 3, 4]


class HangingProxy:
    """Stands between station and PLC; `hang` swallows whatever passes, as a PLC does whose CPU has stopped."""

    def __init__(self, target: int) -> None:
        self.hang = threading.Event()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection(("127.0.0.1", self._target))
                self._open += [here, there]
                for a, b in ((here, there), (there, here)):
                    self._threads.append(threading.Thread(target=self._pump, args=(a, b)))
                    self._threads[-1].start()

    def _pump(self, a: socket.socket, b: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := a.recv(4096):
                if not self.hang.is_set():
                    b.sendall(data)
            b.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for s in self._open:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()
        for t in self._threads:
            t.join()


@pytest.mark.parametrize("polling", [True, False])
def test_a_plc_that_hangs_delays_a_result_no_longer_than_the_timeout(
    settings: ModbusTrigger, memory: ModbusTcpClient, polling: bool
) -> None:
    with SimulatedPlc(settings, count=0):
        proxy = HangingProxy(settings.port)
        through = ModbusTrigger(port=proxy.port, timeout_ms=300, unit=7)
        try:
            with ModbusLine(through, 1) as line:
                assert line.wait(0.01) is None
                memory.write_coil(0, True, device_id=7)
                trigger = wait_for_trigger(line)
                proxy.hang.set()
                poller = threading.Thread(target=line.wait, args=(1.0,))
                if polling:  # the other thread is in the middle of a request then
                    poller.start()
                    time.sleep(0.05)
                began = time.monotonic()
                with pytest.raises(SinkError, match="was not written"):
                    line.put(decide(trigger))
                assert time.monotonic() - began < 0.45
                if polling:
                    poller.join()
                assert line.problem is not None
                proxy.hang.clear()
                memory.write_coil(0, False, device_id=7)
                until = time.monotonic() + 5
                while line.problem is not None and time.monotonic() < until:
                    assert line.wait(0.05) is None
                memory.write_coil(0, True, device_id=7)
                assert wait_for_trigger(line).seq == 2
        finally:
            proxy.close()


def test_an_address_that_the_plc_does_not_have_is_named_on_entering(settings: ModbusTrigger) -> None:
    other = ModbusTrigger(port=settings.port, unit=7, timeout_ms=300, result_register=900)
    with SimulatedPlc(settings, count=0), pytest.raises(TriggerError, match="result registers from 900"), ModbusLine(other, 1):
        pass


def test_a_port_in_use_is_an_error_of_the_simulated_plc(settings: ModbusTrigger) -> None:
    with SimulatedPlc(settings, count=0), pytest.raises(TriggerError, match=str(settings.port)):
        run_sim_plc(settings, count=1)
