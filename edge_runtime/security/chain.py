"""The journal's hash chain: a row's hash covers what stands in it and the hash of the row before it. Pure.

    hash(n) = SHA-256( hash(n - 1) || MessagePack([n, kind, seq, at_s, body, values…]) ),   hash(0) = 32 zero bytes

`values` are those of the decision's row, in the order of its columns; none for a row of another kind. A head is a row's number and hash,
signed (Ed25519, RFC 8032) as the text that `signed_text` gives: whoever holds the station's public key can tell what it wrote, and that
nothing of it is missing.

Why: deploy/decisions/0045.
"""

import enum
import hashlib
from collections.abc import Iterable

import msgspec

Value = int | float | str | None
"""What stands in a column."""

GENESIS = bytes(32)
"""The hash before the first row."""

_encode = msgspec.msgpack.Encoder().encode


def hash_of(previous: bytes, n: int, kind: str, seq: int | None, at_s: int, body: str, values: Iterable[Value] = ()) -> bytes:
    """The hash of a row after one with the hash `previous`. Raises ValueError for text that UTF-8 cannot hold.

    >>> hash_of(GENESIS, 1, "begun", None, 0, "{}").hex()[:16]
    '83e42ad97b99e28a'
    """
    return hashlib.sha256(previous + _encode([n, kind, seq, at_s, body, *values])).digest()


class Purpose(enum.StrEnum):
    """What a signature says of a row."""

    HEAD = "head"
    """It was written, after all before it."""
    ANCHOR = "anchor"
    """It and all before it were deleted because of their age or number: the chain begins after it."""


def signed_text(purpose: Purpose, n: int, hash_: bytes) -> bytes:
    """What is signed.

    >>> signed_text(Purpose.HEAD, 100, bytes(32))[:32]
    b'lineside journal head 100 000000'
    """
    return f"lineside journal {purpose} {n} {hash_.hex()}".encode()
