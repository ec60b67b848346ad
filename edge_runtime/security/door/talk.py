"""What one peer says, as ZMTP (rfc.zeromq.org/spec/23 and 37) as far as counting needs it. Pure: bytes in, whole messages out.

Before a socket that demands keys (CURVE, rfc.zeromq.org/spec/25) only sizes and numbers are seen here: the handshake passes as it is. Who
speaks in plain there is handed on no further than his version. Whoever connects to a Unix socket is known to the kernel: his user is
written into his handshake, where the station reads it.

Why: deploy/decisions/0040.
"""

TYPE_CHECKING = False  # that of `typing` would cost the bare interpreter a third of its start
if TYPE_CHECKING:
    from edge_runtime.security.door.quota import Quota

GREETING = 64
"""Bytes with which each side begins (ZMTP 3.0)."""
_VERSION = 12
"""So many of them say which version it is; then comes the mechanism."""
MORE, LONG, COMMAND = 1, 2, 4
_MOST_COMMAND = 2048
"""Bytes of a command: of those of a handshake INITIATE, with a peer's metadata, is the longest."""
_CURVE_MORE = 64
"""Bytes by which encryption lengthens a message."""
PEER = ("X-Lineside-Uid", "X-Lineside-Gid", "X-Lineside-Pid")
"""Properties of a connection to a Unix socket: the user behind it, as the kernel says. Of nobody else's handshake are they handed on."""


class Over(Exception):
    """A peer sent more than it may, or no ZMTP; the sentence's end says what."""


class Talk:
    """What one peer says: bytes in, whole messages out, nothing else kept. Pure."""

    def __init__(self, quota: "Quota", user: tuple[int, int, int] | None = None) -> None:
        """`user`: uid, gid, pid of whoever speaks, where the kernel knows them."""
        self._quota = quota
        self._user = user
        self._mechanism = bytearray()
        self._held_back = bytearray()
        self.commands = 0
        self._waiting = bytearray()
        self._message = bytearray()
        self._parts = 0
        self._size = 0
        self._topics: set[bytes] = set()
        self._greeting = 0
        self.said = False
        """Whether a message or a command came."""

    @property
    def plain(self) -> bool:
        """Whether it speaks without a key where one is demanded: of what it says after its greeting, nothing is handed on."""
        return self._quota.curve and self._greeting == GREETING and self._mechanism.rstrip(b"\0") != b"CURVE"

    @property
    def held(self) -> int:
        """Bytes that wait for the rest of their message."""
        return len(self._waiting) + len(self._message)

    @property
    def _foreign(self) -> bool:
        """Its mechanism is not the station's."""
        return self._greeting == GREETING and bytes(self._mechanism).rstrip(b"\0") != (b"CURVE" if self._quota.curve else b"NULL")

    @property
    def broke_off(self) -> bool:
        """Its greeting has begun and not ended: where it has heard the other's whole, it did not like that."""
        return 0 < self._greeting < GREETING

    def feed(self, data: bytes | bytearray) -> list[bytes]:
        """What of the greeting came, as each side waits for parts of the other's; then each message with all of its parts, or command, as
        soon as it is whole. Raises Over."""
        self._waiting += data
        out: list[bytes] = []
        if self._greeting < GREETING:
            begun = bytes(self._waiting[: GREETING - self._greeting])
            self._check_greeting(begun)
            free = max(0, _VERSION - self._greeting)
            self._greeting += len(begun)
            del self._waiting[: len(begun)]
            out.append(begun[:free])
            # A station that is told of another mechanism hangs up, often before it has said its own, and whoever came without a key, or
            # with one where none is asked for, would not learn why.
            self._held_back += begun[free:]
            if self._greeting == GREETING and not self._foreign:
                out.append(bytes(self._held_back))
        if self._foreign:
            self._waiting.clear()
            return out
        at = 0
        while (whole := self._frame(at)) is not None:
            flags, begin, end = whole
            self.said = True
            if flags & COMMAND:
                self.commands += 1
                payload = bytes(self._waiting[begin:end])
                self._command(payload)
                out.append(bytes(self._waiting[at:end]) if payload[:6] != b"\x05READY" else self._ready(payload))
            else:
                self._part(flags, begin, end)
                self._message += self._waiting[at:end]
                if not flags & MORE:
                    out.append(bytes(self._message))
                    self._message.clear()
                    self._parts = self._size = 0
            at = end
        del self._waiting[:at]
        return out

    def _check_greeting(self, begun: bytes) -> None:
        for i, byte in enumerate(begun, start=self._greeting):
            if (i == 0 and byte != 0xFF) or (i == 9 and not byte & 1) or (i == 10 and byte < 3):
                raise Over("what is no ZMTP 3")
            if 12 <= i < 32:
                self._mechanism.append(byte)

    def _frame(self, at: int) -> tuple[int, int, int] | None:
        """Flags, begin and end of the payload of the frame that begins there; None until it is whole. Its size is held against the quota
        before any of it is waited for."""
        seen = self._waiting
        if len(seen) - at < 2:
            return None
        flags = seen[at]
        wide = 8 if flags & LONG else 1
        if flags & ~(MORE | LONG | COMMAND):
            raise Over("what is no ZMTP 3")
        begin = at + 1 + wide
        if len(seen) < begin:
            return None
        size = int.from_bytes(seen[at + 1 : begin], "big")
        curve = self._quota.curve
        if curve and not flags & COMMAND and self.commands < 2:
            raise Over("a message before its handshake")
        whole = self._quota.message_bytes + (_CURVE_MORE if curve else 0)
        what, most, held = ("command", _MOST_COMMAND, 0) if flags & COMMAND else ("message", whole, self._size)
        if held + size > most:
            raise Over(f"a {what} of more than {most:,} bytes")
        return (flags, begin, begin + size) if len(seen) >= begin + size else None

    def _part(self, flags: int, begin: int, end: int) -> None:
        self._parts += 1
        self._size += end - begin
        if self._parts > self._quota.parts:
            raise Over(f"a message of more than {self._quota.parts} parts")
        if self._quota.topics and self._parts == 1 and not flags & MORE and end > begin and self._waiting[begin] in (0, 1):  # ZMTP 3.0
            self._subscribe(bool(self._waiting[begin]), bytes(self._waiting[begin + 1 : end]))

    def _command(self, payload: bytes) -> None:
        name, rest = (payload[1 : 1 + payload[0]], payload[1 + payload[0] :]) if payload else (b"", b"")
        if self._quota.topics and name in (b"SUBSCRIBE", b"CANCEL"):  # ZMTP 3.1
            self._subscribe(name == b"SUBSCRIBE", rest)

    def _ready(self, payload: bytes) -> bytes:
        """What a peer without a key says of itself, with what the kernel says of it in the place of what it may have forged."""
        kept, at, names = b"", 6, {name.lower() for name in PEER}
        while at < len(payload):
            begin, name_end = at, at + 1 + payload[at]
            name = payload[at + 1 : name_end].decode("ascii", "replace").lower()
            at = name_end + 4 + int.from_bytes(payload[name_end : name_end + 4], "big")
            if at > len(payload) or name_end + 4 > len(payload):
                raise Over("what is no ZMTP 3")
            if name not in names:
                kept += payload[begin:at]
        for own, value in zip(PEER, self._user or (), strict=False):
            said = str(value).encode()
            kept += bytes([len(own)]) + own.encode() + len(said).to_bytes(4, "big") + said
        body = b"\x05READY" + kept
        return bytes([COMMAND | LONG]) + len(body).to_bytes(8, "big") + body if len(body) > 255 else bytes([COMMAND, len(body)]) + body

    def _subscribe(self, on: bool, topic: bytes) -> None:
        if len(topic) > self._quota.message_bytes:
            raise Over(f"a subscription of more than {self._quota.message_bytes:,} bytes")
        (self._topics.add if on else self._topics.discard)(topic)
        if len(self._topics) > self._quota.topics:
            raise Over(f"more than {self._quota.topics} subscriptions")


class Allowance:
    """Tokens that come back with time."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst, self._left, self._at = rate, burst, burst, now

    def take(self, count: int, now: float) -> float:
        """Take them, also where there are too few; returns the seconds until none is owed."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - count
        self._at = now
        return max(0.0, -self._left / self._rate)

    def give(self, count: int) -> None:
        """Give back what was not used."""
        self._left += count
