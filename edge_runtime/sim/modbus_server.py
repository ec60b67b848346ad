"""The memory of a Modbus PLC with pymodbus' server in front of it: what simulated PLCs and tests write to and read from."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from edge_runtime.errors import MissingExtra
from edge_runtime.plc.cells import Place, decode, encode
from edge_runtime.plc.modbus import ModbusTriggerConfig, parse
from edge_runtime.plc.tags import Tag, Value
from edge_runtime.sim.loop_server import LoopServer

_READ_CODES = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}


class ModbusServer(LoopServer):
    """A TagServer. Each area reaches from 0 to the last tag in it (coils and discrete inputs to the next multiple of 16)."""

    def __init__(self, settings: ModbusTriggerConfig, tags: Sequence[Tag]) -> None:
        """Raises ConfigError for a tag's address, MissingExtra without pymodbus."""
        try:
            import pymodbus.server  # noqa: F401
        except ImportError as e:
            raise MissingExtra("the simulated PLC", "plc") from e
        logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
        super().__init__(f"{settings.host}:{settings.port}", tags)
        self._settings = settings
        self._places = {tag.name: parse(tag) for tag in tags}
        self._server: Any = None

    async def _cells(self, place: Place) -> list[int]:
        cells: list[int] = await self._server.async_getValues(self._settings.unit, _READ_CODES[place.area], place.start, place.count)
        return cells

    async def _get(self, names: Sequence[str]) -> dict[str, Value]:
        return {n: decode(self._tags[n], self._places[n], await self._cells(self._places[n]), 2) for n in names}

    async def _set(self, values: Mapping[str, Value]) -> None:
        for name, value in values.items():
            place = self._places[name]
            cells: list[Any] = encode(self._tags[name], place, value, await self._cells(place), 2)
            if place.area in ("coil", "discrete"):
                cells = [bool(c) for c in cells]
            await self._server.async_setValues(self._settings.unit, _READ_CODES[place.area], place.start, cells)

    async def _build(self) -> None:
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        ends = {area: max((p.end for p in self._places.values() if p.area == area), default=1) for area in _READ_CODES}
        memory = tuple(
            [SimData(0, values=[False] * (ends[area] + -ends[area] % 16), datatype=DataType.BITS)]
            if area in ("coil", "discrete")
            else [SimData(0, values=[0] * ends[area], datatype=DataType.REGISTERS)]
            for area in ("coil", "discrete", "holding", "input")
        )
        s = self._settings
        device = SimDevice(id=s.unit, simdata=(memory[0], memory[1], memory[2], memory[3]))
        self._server = ModbusTcpServer(device, address=(s.host, s.port), trace_pdu=self._count)

    async def _listen(self) -> None:
        await self._server.serve_forever(background=True)

    async def _hang_up(self) -> None:
        await self._server.shutdown()

    def _count(self, sending: bool, pdu: Any) -> Any:
        self._requests += not sending
        return pdu
