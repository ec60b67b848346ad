"""The memory of a Modbus PLC with pymodbus' server in front of it: what simulated PLCs and tests write to and read from."""

import asyncio
import logging
import threading
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from edge_runtime.config import ModbusTrigger
from edge_runtime.errors import MissingExtra, TriggerError
from edge_runtime.plc.areas import Place, decode, encode
from edge_runtime.plc.modbus import parse
from edge_runtime.plc.tags import Tag, Value

_T = TypeVar("_T")
_READ_CODES = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}


class ModbusServer:
    """A TagServer. Each area reaches from 0 to the last tag in it (coils and discrete inputs to the next multiple of 16)."""

    def __init__(self, settings: ModbusTrigger, tags: Sequence[Tag]) -> None:
        """Raises ConfigError for a tag's address, MissingExtra without pymodbus."""
        try:
            import pymodbus.server  # noqa: F401
        except ImportError as e:
            raise MissingExtra("the simulated PLC", "plc") from e
        logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
        self._settings = settings
        self._tags = {tag.name: tag for tag in tags}
        self._places = {tag.name: parse(tag) for tag in tags}
        self._requests = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Any = None
        self._stop: asyncio.Event | None = None
        self._failure: str | None = None

    def __enter__(self) -> Self:
        """Listens when it returns. Raises TriggerError when it cannot."""
        up = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(up)), name="modbus-server", daemon=True)
        self._thread.start()
        up.wait()
        if self._failure is not None:
            self._thread.join()
            raise TriggerError(self._failure)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Connections are cut, like those of a PLC that loses power."""
        if self._loop is not None and self._stop is not None and self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    @property
    def requests(self) -> int:
        """Requests of clients so far."""
        return self._requests

    def get(self, names: Sequence[str]) -> dict[str, Value]:
        """These tags at one moment."""
        return self._run(self._get(names))

    def set(self, values: Mapping[str, Value]) -> None:
        """All of them at one moment."""
        self._run(self._set(values))

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """In the server's thread: nothing in `work` waits, so no request comes between its steps."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

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

    async def _serve(self, up: threading.Event) -> None:
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
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        device = SimDevice(id=s.unit, simdata=(memory[0], memory[1], memory[2], memory[3]))
        self._server = ModbusTcpServer(device, address=(s.host, s.port), trace_pdu=self._count)
        try:
            await self._server.serve_forever(background=True)
        except RuntimeError:
            self._failure = f"simulated PLC: cannot listen on {s.host}:{s.port}: is the port in use, or below 1024? Choose another"
            return
        finally:
            up.set()
        await self._stop.wait()
        await self._server.shutdown()

    def _count(self, sending: bool, pdu: Any) -> Any:
        self._requests += not sending
        return pdu
