"""What the short cuts past the protocol libraries' own ways save of a poll: `python -m tests.bench_polls` (deploy/decisions/0038).

Paired: one poll of all inputs by each way, in turns of random order, over one connection each to one simulated PLC in a process of its own.
"""

import multiprocessing
import os
import random
import socket
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import typer

from edge_runtime.console import run_app
from edge_runtime.plc.cells import Span
from edge_runtime.plc.defaults import default_trigger
from edge_runtime.plc.ethernetip import EthernetipPort
from edge_runtime.plc.modbus import ModbusPort
from edge_runtime.plc.port import bits_first
from edge_runtime.plc.s7 import S7Port
from edge_runtime.plc.signals import tags_of
from edge_runtime.sim.plc import server_of
from tests.support.ports import free_port

app = typer.Typer(add_completion=False)


class DecodingModbus(ModbusPort):
    """Decodes each answer, also one that it has had before."""

    def _ask(self, request: Any) -> Any:
        request.received = b""
        return super()._ask(request)


class ClientModbus(ModbusPort):
    """pymodbus' own client."""

    client: Any = None

    def _open(self) -> None:
        from pymodbus.client import ModbusTcpClient

        self.client = ModbusTcpClient(self._settings.host, port=self._settings.port, timeout=self._timeout_s, retries=0)
        assert self.client.connect()
        self.client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        if self.client is not None:
            self.client.close()

    def _read_cells(self, spans: Sequence[Any]) -> Sequence[Sequence[int]]:
        (span,) = spans
        c = self.client
        read = {
            "coil": c.read_coils,
            "discrete": c.read_discrete_inputs,
            "holding": c.read_holding_registers,
            "input": c.read_input_registers,
        }
        answer = read[span.area](span.start, count=span.count, device_id=self._settings.unit)
        return [answer.bits[: span.count] if span.area in ("coil", "discrete") else answer.registers]

    def _write_cells(self, span: Any, cells: Sequence[int]) -> None:
        if span.area == "coil":
            self.client.write_coils(span.start, [bool(c) for c in cells], device_id=self._settings.unit)
        else:
            self.client.write_registers(span.start, list(cells), device_id=self._settings.unit)


class DecodingEthernetip(EthernetipPort):
    """Decodes each answer, also one that it has had before."""

    def read(self, names: Sequence[str]) -> Any:
        assert self._plc is not None
        self._plc._reads.clear()
        return super().read(names)


class PlainEthernetip(EthernetipPort):
    """pylogix' Read on pylogix' own sending and receiving."""

    plain: Any = None

    def connect(self, changed: Callable[[], None]) -> None:
        from pylogix import PLC

        self.plain = PLC(self._settings.host, port=self._settings.port, timeout=self._timeout_s)
        self.plain.StringEncoding = "latin-1"
        assert self.plain.conn.connect()[0]
        self.plain.conn.Socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        if self.plain is not None:
            self.plain.Close()

    def read(self, names: Sequence[str]) -> Any:
        answers = self.plain.Read([self._tags[n].address for n in names])
        return {n: self._value(n, a) for n, a in zip(names, answers, strict=True)}


class DecodingS7(S7Port):
    """Decodes each answer, also one that it has had before."""

    def _read_cells(self, spans: Sequence[Span]) -> Any:
        for asked in self._asked.values():
            asked.received = b""
        return super()._read_cells(spans)


class ClientS7(S7Port):
    """python-snap7's own client."""

    client: Any = None

    def _open(self) -> None:
        from snap7.client import Client

        self.client = Client()
        s = self._settings
        self.client.connect(s.host, s.rack, s.slot, s.port)

    def close(self) -> None:
        if self.client is not None:
            self.client.disconnect()

    def _read_cells(self, spans: Sequence[Span]) -> Any:
        (span,) = spans
        return [bytes(self.client.db_read(int(span.area[2:]), span.start, span.count))]

    def _write_cells(self, span: Any, cells: Sequence[int]) -> None:
        self.client.db_write(int(span.area[2:]), span.start, bytearray(cells))


WAYS: dict[str, dict[str, Any]] = {
    "modbus": {"ours": ModbusPort, "decoding each": DecodingModbus, "pymodbus' client": ClientModbus},
    "ethernetip": {"ours": EthernetipPort, "decoding each": DecodingEthernetip, "pylogix' Read": PlainEthernetip},
    "s7": {"ours": S7Port, "decoding each": DecodingS7, "python-snap7's client": ClientS7},
}


def _serve(kind: str, port: int, up: Any) -> None:
    settings = default_trigger(kind, port=port)
    inputs, outputs = tags_of(settings)
    with server_of(settings, [*inputs, *outputs]):
        up.set()
        time.sleep(3600)


@app.command()
def main(
    polls: Annotated[int, typer.Option(min=100, help="By each way.")] = 3000,
    only: Annotated[str | None, typer.Option(help="One protocol.")] = None,
) -> None:
    """The tables' rows, as Markdown: round trip and the thread's own CPU time, in microseconds."""
    print("| PLC | way | round trip p50 µs | p99 | CPU p50 µs | ours saves, paired | of its CPU |\n|---|---|---|---|---|---|---|")
    for kind, ways in ((k, w) for k, w in WAYS.items() if only in (None, k)):
        number, up = free_port(), multiprocessing.get_context("spawn").Event()
        plc = multiprocessing.get_context("spawn").Process(target=_serve, args=(kind, number, up), daemon=True)
        plc.start()
        assert up.wait(60)
        settings = msgspec.structs.replace(default_trigger(kind, port=number), timeout_ms=10_000)  # the machine may be busy
        inputs, outputs = tags_of(settings)
        names = bits_first(inputs)
        ports = {way: new(settings, [*inputs, *outputs]) for way, new in ways.items()}
        for port in ports.values():
            port.connect(lambda: None)
        first, *others = [port.read(names) for port in ports.values()]
        assert all(other == first for other in others)
        took: dict[str, list[tuple[float, float]]] = {way: [] for way in ports}
        for _ in range(polls):
            for way in random.sample(list(ports), len(ports)):
                time.sleep(0.002)
                cpu, began = time.thread_time(), time.perf_counter()
                ports[way].read(names)
                took[way].append((time.perf_counter() - began, time.thread_time() - cpu))
        us = {way: 1e6 * np.array(times) for way, times in took.items()}
        for way, times in us.items():
            saved = np.median(times - us["ours"], axis=0) / np.median(times, axis=0)
            (trip, cpu), late = np.median(times, axis=0), np.percentile(times[:, 0], 99)
            print(f"| {kind} | {way} | {trip:.0f} | {late:.0f} | {cpu:.0f} | {saved[0]:.0%} | {saved[1]:.0%} |", flush=True)
        for port in ports.values():
            port.close()
        plc.kill()
        plc.join()
    print(f"\nload {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    run_app(app)
