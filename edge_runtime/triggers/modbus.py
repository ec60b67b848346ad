"""A PLC over Modbus TCP (the PLC is the server): the rising edge of a coil is a trigger, results are written back.

Result of a part: if result_valid is still high it falls first; then the five result registers; then the four coils in one request, so
that result_valid rises only over a complete result. It falls again at the next trigger. Addresses: edge_runtime.config.ModbusTrigger.
"""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from edge_runtime.config import ModbusTrigger
from edge_runtime.errors import MissingExtra, SinkError, TriggerError
from edge_runtime.records import Decision, Picture, Trigger, Verdict

_log = logging.getLogger(__name__)
_BACKOFF_S = (0.1, 5.0)
VERDICT_CODES = {Verdict.ACCEPT: 1, Verdict.REJECT: 2, Verdict.FAULT: 3}


class _PlcLost(Exception):
    """One request got no good answer; the reason as text."""


class ModbusLine:
    """TriggerLine and Sink over one connection: `wait` belongs to the trigger thread, `put` to the loop; a lock lets them take turns."""

    exhausted = False

    def __init__(self, settings: ModbusTrigger, first_seq: int) -> None:
        """Raises MissingExtra without pymodbus."""
        try:
            from pymodbus.client import ModbusTcpClient
        except ImportError as e:
            raise MissingExtra("the modbus trigger", "plc") from e
        logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)  # `problem` and our own log say it once, and with the reason
        self._settings = settings
        self._seq = first_seq
        self._where = f"PLC {settings.host}:{settings.port} unit {settings.unit}"
        self._timeout_s = settings.timeout_ms / 1e3
        self._client: Any = ModbusTcpClient(settings.host, port=settings.port, timeout=self._timeout_s, retries=0)
        self._lock = threading.RLock()
        self._coil_was_high = True
        self._valid_may_be_high = True
        self._polled_at = 0.0
        self._retry_at = 0.0
        self._retry_pause = _BACKOFF_S[0]
        self.problem: str | None = None

    def __enter__(self) -> Self:
        """Connect, read and clear every address once: a wrong one is found here and not at the first part."""
        s = self._settings
        try:
            self._connect()
            with self._lock:
                until = time.monotonic() + 4 * self._timeout_s
                self._read_part_id(until)
                self._write_coils([False] * 4, until)
                self._write_registers([0] * 5, until)
                self._valid_may_be_high = False
        except _PlcLost as e:
            self._client.close()
            raise TriggerError(
                f"{self._where}: {e}. Expected trigger coil {s.trigger_coil}, part id registers from {s.part_id_register} (2), "
                f"result coils from {s.result_coil} (4), result registers from {s.result_register} (5); "
                "check [trigger] and the PLC's address table"
            ) from e
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        with self._lock:
            self._client.close()

    def wait(self, timeout_s: float) -> Trigger | None:
        """The next rising edge. A lost PLC is reconnected to; a coil that is high already at that moment is no edge."""
        until = time.monotonic() + timeout_s
        while (now := time.monotonic()) < until:
            due = self._polled_at + self._settings.poll_ms / 1e3 if self._client.connected else self._retry_at
            if due > now:
                time.sleep(min(due, until) - now)
                continue
            try:
                if not self._client.connected:
                    self._connect()
                trigger = self._poll()
            except _PlcLost as e:
                self._lost(e)
                continue
            if trigger is not None:
                return trigger
        return None

    def put(self, decision: Decision, pictures: tuple[Picture, ...] = ()) -> None:
        """Write one result; waits no longer than `timeout_ms`. Raises SinkError: the PLC then sees no result_valid for this part."""
        until = time.monotonic() + self._timeout_s
        part = f"the result of part {decision.part_id or '(no id)'}, seq {decision.seq}, was not written"
        if self.problem is not None:  # known to be lost: do not wait for the thread that tries to reconnect
            raise SinkError(f"{self.problem}; {part}")
        if not self._lock.acquire(timeout=self._timeout_s):
            raise SinkError(f"{self._where}: does not answer; {part}")
        try:
            if not self._client.connected:
                raise SinkError(f"{self._where}: not connected; {part}")
            if self._valid_may_be_high:
                self._write_coils([False] * 4, until)
            self._write_registers(_result_registers(decision), until)
            self._valid_may_be_high = True
            verdict = decision.verdict
            self._write_coils([verdict is Verdict.ACCEPT, verdict is Verdict.REJECT, verdict is Verdict.FAULT, True], until)
        except _PlcLost as e:
            self._lost(e)
            raise SinkError(f"{self._where}: {e}; {part}") from e
        finally:
            self._lock.release()

    def _poll(self) -> Trigger | None:
        with self._lock:
            self._polled_at = time.monotonic()
            high = bool(self._coils(self._polled_at + self._timeout_s)[0])
            fired = time.monotonic_ns()
            edge, self._coil_was_high = high and not self._coil_was_high, high
            if not edge:
                return None
            part_id = ""
            try:
                part_id = self._read_part_id(time.monotonic() + self._timeout_s)
                if self._valid_may_be_high:
                    self._write_coils([False] * 4, time.monotonic() + self._timeout_s)
                    self._valid_may_be_high = False
            except _PlcLost as e:
                self._lost(e)  # the part was announced all the same: it gets its decision, without a name
        trigger = Trigger(seq=self._seq, fired_ns=fired, part_id=part_id)
        self._seq += 1
        return trigger

    def _connect(self) -> None:
        with self._lock:
            self._client.comm_params.timeout_connect = self._timeout_s
            if not self._client.connect():
                raise _PlcLost("does not answer; it may be off, or at another address")
            self._coil_was_high = bool(self._coils(time.monotonic() + self._timeout_s)[0])
            self._valid_may_be_high = True  # whatever a lost connection left there
        if self.problem is not None:
            _log.warning("%s: connected again", self._where)
        self.problem, self._retry_pause = None, _BACKOFF_S[0]

    def _lost(self, why: _PlcLost) -> None:
        message = f"{self._where}: {why}; reconnecting"
        with self._lock:
            self._client.close()
            if self.problem is None:
                _log.warning("%s", message)
            self.problem = message
            self._retry_at = time.monotonic() + self._retry_pause
            self._retry_pause = min(self._retry_pause * 2, _BACKOFF_S[1])

    def _coils(self, until: float) -> list[bool]:
        answer = self._request(self._client.read_coils, self._settings.trigger_coil, until, count=1)
        return list(answer.bits)

    def _read_part_id(self, until: float) -> str:
        high, low = self._request(self._client.read_holding_registers, self._settings.part_id_register, until, count=2).registers
        return str(high << 16 | low)

    def _write_coils(self, values: list[bool], until: float) -> None:
        self._request(self._client.write_coils, self._settings.result_coil, until, values=values)

    def _write_registers(self, values: list[int], until: float) -> None:
        self._request(self._client.write_registers, self._settings.result_register, until, values=values)

    def _request(self, function: Callable[..., Any], address: int, until: float, **more: Any) -> Any:
        """One request under the lock, answered before `until`. Raises _PlcLost."""
        from pymodbus.exceptions import ModbusException

        left = until - time.monotonic()
        if left <= 0:
            raise _PlcLost("did not answer in time")
        if not self._client.connected:
            raise _PlcLost("not connected")
        self._client.comm_params.timeout_connect = left
        try:
            answer = function(address, device_id=self._settings.unit, **more)
        except (ModbusException, OSError) as e:
            raise _PlcLost("stopped answering" if isinstance(e, ModbusException) else f"connection lost: {e.strerror or e}") from e
        if answer.isError():
            raise _PlcLost(f"refused {function.__name__} at address {address}: {answer}")
        return answer


def _result_registers(decision: Decision) -> list[int]:
    """Part number (2, high word first), seq modulo 65536, verdict code, severity x 100 capped; 0 where there is none."""
    number = int(decision.part_id) if decision.part_id.isascii() and decision.part_id.isdigit() else 0
    number = number if number < 1 << 32 else 0
    severity = 0 if decision.severity is None else max(0, min(round(decision.severity * 100), 65_535))
    return [number >> 16, number & 0xFFFF, decision.seq % 65_536, VERDICT_CODES[decision.verdict], severity]
