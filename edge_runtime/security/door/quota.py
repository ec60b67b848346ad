"""What a peer may send before the door cuts it. For the station's side: the bare interpreter takes it as the order says it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quota:
    """What one peer, or all of a socket, may send."""

    message_bytes: int
    """Bytes of all parts of a message together."""
    parts: int = 4
    rate: float = 100.0
    """Messages and commands a second."""
    burst: float = 500.0
    """So many at once after a pause."""
    patient: bool = False
    """True: whoever sends more often is read later, and nothing is lost. False: is cut. For messages that lose their meaning with time."""
    topics: int = 0
    """Subscriptions of a peer; 0 where messages are none."""
    peers: int = 64
    backlog: int = 1 << 18
    """Bytes kept for a peer that does not read; libzmq then keeps, and drops, what its own limits say."""
    curve: bool = False
    """The socket demands keys: parts and subscriptions are not seen here, each part counts as a message."""
