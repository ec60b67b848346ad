"""A PLC that plays a line over Modbus TCP: announces parts, holds the trigger, reads the results back, keeps the score."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from edge_runtime.config import ModbusTrigger
from edge_runtime.errors import MissingExtra, TriggerError
from edge_runtime.records import Verdict
from edge_runtime.triggers.modbus import VERDICT_CODES

_VERDICTS = {code: verdict for verdict, code in VERDICT_CODES.items()}
_READ_COILS, _READ_HOLDING, _WRITE_COIL, _WRITE_COILS, _WRITE_REGISTERS = 1, 3, 5, 15, 16
_POLLS_BEFORE_START = 5
"""The line starts when a station polls: what was announced to nobody would be a part without a verdict."""


@dataclass(frozen=True, slots=True)
class PartResult:
    """What the PLC knows of one part."""

    part: int
    verdict: Verdict | None = None
    """None: no result came (yet)."""
    seq: int | None = None
    """The decision's seq modulo 65536."""
    severity: float | None = None
    latency_ms: float | None = None
    """From raising the trigger coil to result_valid."""


class SimulatedPlc:
    """A Modbus TCP server in its own thread; `layout` says where it listens and which coil and register means what."""

    def __init__(
        self,
        layout: ModbusTrigger,
        *,
        parts_per_minute: float = 60.0,
        count: int | None = None,
        first_part: int = 1,
        wait_for_result: bool = True,
        result_timeout_ms: float = 1000.0,
        hold_ms: float = 20.0,
        told: Callable[[PartResult], None] | None = None,
    ) -> None:
        """Prepare a line.

        Args:
            layout: the same settings as the station's [trigger].
            parts_per_minute: the pace; with `wait_for_result` a slow station slows the line down.
            count: parts to announce; None goes on for ever, 0 announces none (write the trigger coil from outside then).
            first_part: number of the first part.
            wait_for_result: hold the trigger until the result is there or late; otherwise keep the pace, come what may.
            result_timeout_ms: after that the part counts as unanswered and the line goes on.
            hold_ms: the trigger is high, and low again, for at least that long.
            told: called in the PLC's thread with each result, and with each part that got none in time.

        Raises:
            MissingExtra: without pymodbus.
        """
        try:
            import pymodbus.server  # noqa: F401
        except ImportError as e:
            raise MissingExtra("the simulated PLC", "plc") from e
        logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
        self._layout = layout
        self._pace_s = 60.0 / parts_per_minute
        self._count = count
        self._first_part = first_part
        self._wait_for_result = wait_for_result
        self._timeout_s = result_timeout_ms / 1e3
        self._hold_s = hold_ms / 1e3
        self._told = told or (lambda result: None)
        self.results: dict[int, PartResult] = {}
        """Part -> result, in the order announced; a part stands here from the moment of its trigger."""
        self._raised: dict[int, float] = {}
        self._polls = 0
        self._valid = False
        self._finished = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._answered: asyncio.Event | None = None
        self._stop: asyncio.Event | None = None
        self._server: Any = None
        self._failure: str | None = None

    def __enter__(self) -> Self:
        """Listens when it returns. Raises TriggerError when it cannot."""
        up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(up)), name="simulated-plc", daemon=True)
        self._thread.start()
        up.wait()
        if self._failure is not None:
            self._thread.join()
            raise TriggerError(self._failure)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Stops like a PLC that loses power: connections are cut."""
        if self._loop is not None and self._stop is not None and self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def wait_finished(self, timeout_s: float | None = None) -> bool:
        """True when all of `count` parts were announced and answered, or are late."""
        return self._finished.wait(timeout_s)

    async def _serve(self, up: threading.Event) -> None:
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        s = self._layout
        coils = max(s.trigger_coil + 1, s.result_coil + 4)
        registers = max(s.part_id_register + 2, s.result_register + 5)
        memory = (
            [SimData(0, count=coils + -coils % 16, values=False, datatype=DataType.BITS)],
            [SimData(0, count=16, values=False, datatype=DataType.BITS)],
            [SimData(0, count=registers, values=0, datatype=DataType.REGISTERS)],
            [SimData(0, count=1, values=0, datatype=DataType.REGISTERS)],
        )
        self._loop, self._stop, self._answered = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        self._server = ModbusTcpServer(SimDevice(id=s.unit, simdata=memory, action=self._seen), address=(s.host, s.port))
        try:
            await self._server.serve_forever(background=True)
        except RuntimeError:
            self._failure = f"simulated PLC: cannot listen on {s.host}:{s.port}: is the port in use, or below 1024? Choose another"
            return
        finally:
            up.set()
        line = asyncio.create_task(self._line())
        await self._stop.wait()
        line.cancel()
        await asyncio.gather(line, return_exceptions=True)
        await self._server.shutdown()

    async def _seen(
        self, function: int, start: int, address: int, count: int, memory: list[int], values: list[int] | list[bool] | None
    ) -> None:
        """Called by the server before each access to its memory."""
        s = self._layout
        if function == _READ_COILS and address <= s.trigger_coil:
            self._polls += 1
        if function not in (_WRITE_COIL, _WRITE_COILS) or values is None:
            return
        at = s.result_coil + 3 - address
        if not 0 <= at < len(values):
            return
        was, self._valid = self._valid, bool(values[at])
        if self._valid and not was:
            await self._take_result()

    async def _take_result(self) -> None:
        now = time.monotonic()
        s = self._layout
        high, low, seq, code, severity = await self._server.async_getValues(s.unit, _READ_HOLDING, s.result_register, 5)
        part = high << 16 | low
        if part not in self.results or self.results[part].verdict is not None or code not in _VERDICTS:
            return  # not of this line's parts, or told already: a real PLC would ignore it too
        verdict = _VERDICTS[code]
        result = PartResult(
            part, verdict, seq, None if verdict is Verdict.FAULT else severity / 100, (now - self._raised[part]) * 1e3
        )  # fmt: skip
        self.results[part] = result
        if self._answered is not None:
            self._answered.set()
        self._told(result)

    async def _line(self) -> None:
        while self._polls < _POLLS_BEFORE_START:
            await asyncio.sleep(0.002)
        s, loop = self._layout, asyncio.get_running_loop()
        due = loop.time()
        part = self._first_part
        while self._count is None or part < self._first_part + self._count:
            await asyncio.sleep(max(due - loop.time(), 0))
            due = max(due, loop.time() - self._pace_s) + self._pace_s
            await self._server.async_setValues(s.unit, _WRITE_REGISTERS, s.part_id_register, [part >> 16, part & 0xFFFF])
            assert self._answered is not None
            self._answered.clear()
            self.results[part] = PartResult(part)
            self._raised[part] = time.monotonic()
            await self._server.async_setValues(s.unit, _WRITE_COIL, s.trigger_coil, [True])
            await asyncio.sleep(self._hold_s)
            if self._wait_for_result:
                await self._wait_for(part)
            await self._server.async_setValues(s.unit, _WRITE_COIL, s.trigger_coil, [False])
            await asyncio.sleep(self._hold_s)
            part += 1
        if not self._wait_for_result:
            for announced in list(self.results):
                await self._wait_for(announced)
        self._finished.set()

    async def _wait_for(self, part: int) -> None:
        """Until this part has its result, or is late."""
        assert self._answered is not None
        until = self._raised.get(part, 0.0) + self._timeout_s
        while part in self.results and self.results[part].verdict is None:
            left = until - time.monotonic()
            if left <= 0:
                self._told(self.results[part])
                return
            self._answered.clear()
            try:
                await asyncio.wait_for(self._answered.wait(), left)
            except TimeoutError:
                continue


def run_sim_plc(
    layout: ModbusTrigger,
    *,
    parts_per_minute: float = 30.0,
    count: int | None = None,
    wait_for_result: bool = True,
    result_timeout_ms: float = 1000.0,
    told: Callable[[PartResult], None] | None = None,
) -> dict[int, PartResult]:
    """Play a line until `count` parts are through, or until Ctrl-C. Returns part -> result. Raises TriggerError, MissingExtra."""
    plc = SimulatedPlc(
        layout, parts_per_minute=parts_per_minute, count=count, wait_for_result=wait_for_result,
        result_timeout_ms=result_timeout_ms, told=told,
    )  # fmt: skip
    with plc:
        try:
            while not plc.wait_finished(0.2):
                pass
        except KeyboardInterrupt:
            pass
    return plc.results
