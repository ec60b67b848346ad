"""What a station writes after what: rows that somebody else adds at the chain's end, where no signature is yet, keep no such order.

Why: deploy/decisions/0045.
"""

import json
import sqlite3
from collections.abc import Callable, Collection
from typing import Any

from edge_runtime.records import Outcome, Verdict
from edge_runtime.sinks.journal_rows import AMENDED, COLUMNS
from edge_runtime.sinks.journal_said import said

AMENDED_WITHIN = 1000
"""Rows: what is told instead of a decision follows it at once, behind the batch that was written meanwhile."""


class Order:
    """Is shown the rows one after the other; says what no station would write there."""

    def __init__(self, connection: sqlite3.Connection, say: Callable[[str], None]) -> None:
        self._connection, self._say = connection, say
        self._was: dict[int, dict[str, Any]] | None = None
        self._after_stop = self._starts_signed = False
        self._decided_at: dict[int, int] = {}
        """By seq: the row of a decision that was amended."""
        self._amended_once: set[Any] = set()
        self._accepted_at: dict[int, int] = {}
        """By seq, of a decision that was amended: the row that says that the PLC was told ACCEPT."""
        self._before_start = 0
        """The last row of the run before."""
        self.left_unsigned: list[str] = []
        """Rows that a kill has left without a signature, "first to last"."""

    def was(self, seq: int) -> dict[str, Any] | None:
        """What was written first of a decision that was amended."""
        if self._was is None:
            amended = ((s, body.get("was")) for s, body in said(self._connection, "amended"))
            self._was = {s: was for s, was in amended if isinstance(s, int) and isinstance(was, dict) and was.keys() == set(AMENDED)}
        return self._was.get(seq)

    def row(self, n: int, kind: Any, seq: Any, body: Any, *, headed: Collection[int], signed_n: int) -> None:
        """`headed`: rows near it that have a signature; `signed_n`: the last row before it that a signature covers."""
        if self._after_stop and kind not in ("begun", "damaged", "started"):
            self._say(f"row {n} ({kind}) follows a stop, and no station had started: it was put there")
        if kind == "started":
            signed = isinstance(body, str) and '"signed":true' in body
            if (signed or self._starts_signed) and n not in headed:
                self._say(f"row {n} says that a station started, and no signature by it covers that: it was put there")
            if signed_n < self._before_start:
                self.left_unsigned.append(f"{signed_n + 1} to {self._before_start}")
            self._starts_signed |= signed
        if kind == "decision" and isinstance(seq, int) and self.was(seq) is not None:
            self._decided_at[seq] = n
        if kind == "delivery" and isinstance(seq, int) and self.was(seq) is not None and _says_accept(body):
            self._accepted_at[seq] = n
            if seq in self._amended_once:
                self._contradiction(seq, n)
        self._after_stop = kind == "stopped"
        if self._after_stop and isinstance(body, str) and '"signed":true' in body and n not in headed:
            self._say(f"row {n} says that the station stopped, and no signature by it covers that: rows up to it were written anew")
        if kind not in ("begun", "damaged"):
            self._before_start = n

    def amendment(self, n: int, seq: Any, body: Any, values: tuple[Any, ...], start: int) -> None:
        """All that a station ever amends is an ACCEPT whose row was not there in time: it was told as a FAULT, at once and once.

        `values`: what the decision's row says now; `start`: the row before the first that is looked at.
        """
        decided, again = self._decided_at.get(seq), seq in self._amended_once
        self._amended_once.add(seq)
        if decided is None and start == 0:
            return self._say(f"row {n} says that another verdict than decision {seq} was told, and no row before it is that decision's")
        after = n - (start if decided is None else decided)
        if after > AMENDED_WITHIN:
            return self._say(f"row {n} says that another verdict than decision {seq} was told, {after} rows after it: too late")
        try:
            was = json.loads(body)["was"]
            before, now = was["verdict"], values[COLUMNS.index("verdict")]
            whole = was.keys() == set(AMENDED)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return self._say(f"row {n} does not say what decision {seq} was before: no station writes that")
        if again:
            return self._say(f"row {n} amends decision {seq}, which was amended before: no station does that")
        if not whole or (before, now) != ("ACCEPT", "FAULT"):
            return self._say(
                f"row {n} makes decision {seq} {now!s:.20}, which was {before!s:.20}: a station makes a FAULT of an ACCEPT, no more"
            )
        if seq in self._accepted_at:
            self._contradiction(seq, self._accepted_at[seq])
        return None

    def _contradiction(self, seq: int, n: int) -> None:
        """What is told instead is told to the PLC as well."""
        self._say(f"decision {seq} was amended to FAULT, and row {n} says that the PLC was told ACCEPT: no station does that")


def _says_accept(body: Any) -> bool:
    try:
        said = json.loads(body)
        return bool((said["to"], said["outcome"], said["detail"]) == ("plc", Outcome.TOLD.value, Verdict.ACCEPT.value))
    except (ValueError, TypeError, KeyError, RecursionError):
        return False  # the chain has its own finding for it
