"""Signatures over the chain's rows, in the file and beside it: whose they are, and how far they count.

Why: deploy/decisions/0045.
"""

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge_runtime.errors import SinkError
from edge_runtime.files import read_whole
from edge_runtime.security.chain import Purpose, signed_text
from edge_runtime.security.signing import PublicKey
from edge_runtime.sinks.journal_rows import AHEAD, MOST

_HEADS_LOOKED_AT = 100
"""Signatures that are not the station's are passed over; who puts there more has the station sign anew."""
_HASH = re.compile("[0-9a-f]{64}").fullmatch
_SIGNATURE = re.compile("[0-9a-f]{128}").fullmatch


class OutsideHead(msgspec.Struct, frozen=True):
    """The last head, in a file beside the journal: what is missing at its end is missed all the same. Hex."""

    n: int
    hash: str
    signature: str

    def is_by(self, keys: Sequence[PublicKey]) -> bool:
        """Whether one of the keys has signed it."""
        try:
            return vouched(keys, Purpose.HEAD, self.n, bytes.fromhex(self.hash), bytes.fromhex(self.signature))
        except ValueError:
            return False


def vouched(keys: Sequence[PublicKey], purpose: Purpose, n: Any, hash_: Any, signature: Any) -> bool:
    """Whether one of the keys has signed that, whatever stands in the file."""
    if not (isinstance(n, int) and isinstance(hash_, bytes) and isinstance(signature, bytes)):
        return False
    return any(key.verifies(signature, signed_text(purpose, n, hash_)) for key in keys)


def newest_signed(connection: sqlite3.Connection, keys: Sequence[PublicKey]) -> int:
    """The last row that one of the keys has signed; 0 where none has. Numbers that somebody else has put there are passed over."""
    heads = connection.execute(
        "SELECT purpose, n, hash, signature FROM heads WHERE n BETWEEN 1 AND ? ORDER BY n DESC LIMIT ?", (MOST, _HEADS_LOOKED_AT)
    )
    return next((int(n) for purpose, n, *signed in heads if purpose in list(Purpose) and vouched(keys, Purpose(purpose), n, *signed)), 0)


def highest(signed_n: int) -> int:
    """The largest number that a row may have: `signed_n` is the last that is signed, 0 where none is."""
    return min(signed_n + AHEAD, MOST) if signed_n else MOST


def other_head(head: OutsideHead) -> str:
    """A finding."""
    return f"the head beside the journal, of row {head.n}, was changed, or is not by a key that is given"


def beside(journal: Path, what: str) -> Path:
    """A file that belongs to a journal: "key", "key.pub", "head"."""
    return journal.with_name(f"{journal.name}.{what}")


def outside_head(journal: Path) -> OutsideHead | None:
    """The head in the file beside the journal; None where there is none. Raises SinkError for a file that is none."""
    path = beside(journal, "head")
    try:
        head = msgspec.json.decode(read_whole(path), type=OutsideHead)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as e:
        raise SinkError(f"{path}: expected the journal's last signed head, cannot be read: {e}") from e
    if not (1 <= head.n <= MOST and _HASH(head.hash) and _SIGNATURE(head.signature)):
        raise SinkError(f"{path}: expected the journal's last signed head, found none: its number, hash or signature is no station's")
    return head
