"""The line's side of the handshake, on a raw socket: a Modbus TCP server and a PLC program. Nothing of Lineside is imported here.

It writes down each edge that it made and each result that it saw, with CLOCK_MONOTONIC, the only honest witness of what the line was told.
Orders come on standard input, a line each: `off SECONDS`, `busy REQUESTS`, `stop` (announce no more), `end`.
"""

import json
import os
import selectors
import socket
import struct
import sys
import time
from collections.abc import Iterator

TRIGGER, ACKNOWLEDGE, ENABLE = 0, 1, 2
TAKEN, BUSY, READY, ACCEPT, REJECT, FAULT, VALID, HEARTBEAT = range(10, 18)
PART_ID, RESULT_PART_ID, FAULT_CODE, RESULT_COUNT = 0, 10, 12, 13
TAKEN_WITHIN_S, RESULT_WITHIN_S, DEAD_AFTER_S = 1.5, 2.0, 0.6
MAP = """
inputs = { trigger = "coil:0", acknowledge = "coil:1", enable = "coil:2", part_id = "holding:0" }
[trigger.outputs]
trigger_acknowledge = "coil:10"
busy = "coil:11"
ready = "coil:12"
accept = "coil:13"
reject = "coil:14"
fault = "coil:15"
result_valid = "coil:16"
heartbeat = "coil:17"
result_part_id = "holding:10"
fault_code = "holding:12"
result_count = "holding:13"
"""
"""[trigger] of the station file, but for where the PLC is."""


class Plc:
    """Memory, server and program; one thread, one `step` a millisecond or a request."""

    def __init__(self, port: int, log: str, pace_s: float) -> None:
        self.coils, self.words = [False] * 64, [0] * 64
        self.coils[ENABLE] = True
        self._address = ("127.0.0.1", port)
        self._pace_s = pace_s
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._selector = selectors.DefaultSelector()
        self._peers: dict[socket.socket, bytearray] = {}
        self._listener: socket.socket | None = None
        self._off_until = 0.0
        self._busy_answers = 0
        self.going, self.over = True, False
        self._counted = 0
        self._beat_at, self._beat = 0.0, False
        self._program = self._line()

    def note(self, event: str, **more: object) -> None:
        os.write(self._log, json.dumps({"event": event, "ns": time.monotonic_ns(), **more}).encode() + b"\n")

    # --- the program -----------------------------------------------------------------------------------------------

    def _line(self) -> Iterator[None]:
        part, due = 0, time.monotonic()
        while True:
            while not (self.going and self.coils[READY] and not self.coils[VALID] and self._alive and time.monotonic() >= due):
                # Of a part that was given up a moment ago: the station waits until it is acknowledged. What a killed one has left stands.
                if self.coils[VALID] and self.words[RESULT_COUNT] != self._counted:
                    yield from self._results(part)
                yield
            part += 1
            due = max(due + self._pace_s, time.monotonic() - self._pace_s)
            self.words[PART_ID : PART_ID + 2] = part >> 16, part & 0xFFFF
            yield
            self.coils[TRIGGER] = True
            self.note("raised", part=part)
            yield from self._until(lambda: self.coils[TAKEN], TAKEN_WITHIN_S)
            taken = self.coils[TAKEN]
            self.coils[TRIGGER] = False
            self.note("taken" if taken else "not taken", part=part)
            yield from self._until(lambda: self.coils[VALID], RESULT_WITHIN_S if taken else 0.0)
            yield from self._results(part)

    def _results(self, part: int) -> Iterator[None]:
        """That of the part; one of another part is written down and acknowledged like it."""
        if not self.coils[VALID]:
            self.note("no result", part=part)
            return
        verdicts = [name for name, at in (("ACCEPT", ACCEPT), ("REJECT", REJECT), ("FAULT", FAULT)) if self.coils[at]]
        of = self.words[RESULT_PART_ID] << 16 | self.words[RESULT_PART_ID + 1]
        self._counted = self.words[RESULT_COUNT]
        self.note("result", part=of, verdicts=verdicts, code=self.words[FAULT_CODE], count=self.words[RESULT_COUNT])
        self.coils[ACKNOWLEDGE] = True
        yield from self._until(lambda: not self.coils[VALID], RESULT_WITHIN_S)
        self.coils[ACKNOWLEDGE] = False
        if of != part:
            yield from self._until(lambda: self.coils[VALID], RESULT_WITHIN_S)
            yield from self._results(part)

    def _until(self, true: object, seconds: float) -> Iterator[None]:
        end = time.monotonic() + seconds
        while not true() and time.monotonic() < end:  # type: ignore[operator]
            yield

    @property
    def _alive(self) -> bool:
        """Whether the heartbeat moves, as deploy/plc/README.md asks the line to look."""
        now = time.monotonic()
        if self.coils[HEARTBEAT] != self._beat:
            self._beat, self._beat_at = self.coils[HEARTBEAT], now
        return now - self._beat_at < DEAD_AFTER_S

    # --- the server ------------------------------------------------------------------------------------------------

    def step(self) -> None:
        if self._listener is None and time.monotonic() >= self._off_until:
            self._listener = socket.create_server(self._address)
            self._listener.setblocking(False)
            self._selector.register(self._listener, selectors.EVENT_READ)
        for key, _ in self._selector.select(0.001):
            sock = key.fileobj
            if sock is self._listener:
                peer, _ = self._listener.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._peers[peer] = bytearray()
                self._selector.register(peer, selectors.EVENT_READ)
            elif sock == sys.stdin:
                self._order(sys.stdin.readline())
            elif isinstance(sock, socket.socket):
                self._serve(sock)
        _ = self._alive
        next(self._program)

    def _serve(self, peer: socket.socket) -> None:
        try:
            data = peer.recv(4096)
            if not data:
                raise ConnectionError
            waiting = self._peers[peer]
            waiting += data
            while len(waiting) >= 8 and len(waiting) >= (size := 6 + struct.unpack_from(">H", waiting, 4)[0]):
                request = bytes(waiting[:size])
                del waiting[:size]
                body = self._answer(request[7:])
                peer.sendall(request[:4] + struct.pack(">HB", len(body) + 1, request[6]) + body)
        except (OSError, KeyError):
            self._forget(peer)

    def _answer(self, pdu: bytes) -> bytes:
        function = pdu[0]
        if self._busy_answers:
            self._busy_answers -= 1
            return bytes([function | 0x80, 6])
        at, count = struct.unpack_from(">HH", pdu, 1)
        if function in (1, 2):
            bits = sum(int(bit) << i for i, bit in enumerate(self.coils[at : at + count]))
            size = (count + 7) // 8
            return bytes([function, size]) + bits.to_bytes(size, "little")
        if function in (3, 4):
            return bytes([function, 2 * count]) + struct.pack(f">{count}H", *self.words[at : at + count])
        if function == 5:
            self.coils[at] = count == 0xFF00
        elif function == 6:
            self.words[at] = count
        elif function == 15:
            bits = int.from_bytes(pdu[6:], "little")
            self.coils[at : at + count] = [bool(bits >> i & 1) for i in range(count)]
        elif function == 16:
            self.words[at : at + count] = struct.unpack_from(f">{count}H", pdu, 6)
        else:
            return bytes([function | 0x80, 1])
        return pdu[:5]

    def _forget(self, peer: socket.socket) -> None:
        if self._peers.pop(peer, None) is not None:
            self._selector.unregister(peer)
            peer.close()

    def _order(self, line: str) -> None:
        match line.split():
            case ["off", seconds]:
                self._off_until = time.monotonic() + float(seconds)
                self.note("off", seconds=float(seconds))
                if self._listener is not None:
                    self._selector.unregister(self._listener)
                    self._listener.close()
                    self._listener = None
                for peer in list(self._peers):
                    self._forget(peer)
            case ["busy", requests]:
                self._busy_answers = int(requests)
            case ["stop"]:
                self.going = False
            case _:
                self.over = True


def main() -> None:
    port, log, pace_ms = sys.argv[1:]
    plc = Plc(int(port), log, float(pace_ms) / 1e3)
    plc._selector.register(sys.stdin, selectors.EVENT_READ)
    while not plc.over:
        plc.step()


if __name__ == "__main__":
    main()
