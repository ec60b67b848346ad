"""What a person asks of a journal: whether it is whole, by which key it is signed, and that what was found has been seen."""

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edge_runtime.config.files import JournalConfig, load_station
from edge_runtime.control import ControlClient
from edge_runtime.credentials import Credentials
from edge_runtime.errors import ConfigError, SinkError
from edge_runtime.files import put_file, what_is
from edge_runtime.security.signing import PublicKey, open_key, read_public
from edge_runtime.sinks.journal import Journal
from edge_runtime.sinks.journal_file import expect_journal, reading
from edge_runtime.sinks.journal_heads import OutsideHead, beside, outside_head
from edge_runtime.sinks.journal_lock import is_held
from edge_runtime.sinks.journal_rows import MOST
from edge_runtime.sinks.journal_verify import Verified, head_of, verify

_AT_ONCE = 10_000
"""Characters of findings in one request to a station."""
_UNWRITTEN = {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE,
}  # fmt: skip
"""What SQLite says of a disk that takes nothing."""


def journal_of(path: Path) -> JournalConfig:
    """The journal of a station file, or the one at this path. Raises ConfigError for a file that is not there."""
    if path.suffix == ".toml":
        return load_station(path).journal
    if (found := what_is(path)) != "a file":
        raise ConfigError(f"{path}: expected a station file (.toml) or a journal, found {found}")
    return JournalConfig(path=path)


def keys_of(journal: Path, given: Sequence[Path] = ()) -> list[PublicKey]:
    """The keys that may have signed it: those given, else the one beside it. Raises ConfigError without any, SinkError."""
    if given:
        return [read_public(file) for file in given]
    if beside(journal, "key.pub").exists():
        return [read_public(beside(journal, "key.pub"))]
    if beside(journal, "key").exists():
        return [open_key(beside(journal, "key")).public]
    expect_journal(journal)  # what is none has no key either, and needs none
    raise ConfigError(f"{journal}: expected {beside(journal, 'key.pub').name} beside it, found none; name the station's with --public-key")


def verified(journal: Path, given: Sequence[Path] = (), head: str | None = None, tail: int | None = None) -> Verified:
    """All that is to be said of it, also by the head beside it, and by `head`, "N:HASH". Raises ConfigError, SinkError."""
    keys = keys_of(journal, given)
    try:
        outside = outside_head(journal)
        unreadable = ""
    except SinkError as e:
        outside, unreadable = None, str(e)
    found = verify(journal, keys, outside, tail)
    found.findings += [unreadable] if unreadable else []
    if outside is None and not unreadable and head is None:
        found.notes.append(
            f"no {beside(journal, 'head').name} lies beside it: rows that were cut off its end are not missed without --head"
        )
    if head is not None:
        try:
            noted = head_of(head)
            if not 0 <= noted.n <= MOST:
                raise ValueError("no row has that number")
        except ValueError as e:
            raise ConfigError(f"--head: expected N:HASH as a station logs it when it stops, found {head!r}") from e
        found.findings += [f for f in verify(journal, keys, noted, tail).findings if f not in found.findings]
    return found


def acknowledge(path: Path, who: str, why: str, key: Credentials | None = None) -> list[str]:
    """Write into the chain that somebody has seen what is wrong with the journal; what that is.

    `path`: the station's file, or the journal. While the station runs it is asked to, over its control socket, with `key`.
    Raises SinkError, ConfigError; Refused and WireError of a station that runs.
    """
    settings = journal_of(path)
    if is_held(settings.path):
        control = load_station(path).control if path.suffix == ".toml" else None
        if control is None:
            raise ConfigError(
                f"{settings.path}: its station runs: name the station's file, with [control] in it; or stop the station first"
            )
        try:
            findings = verified(settings.path).unacknowledged
        except (SinkError, ConfigError):  # who may not read the journal acknowledges what the station shows
            findings = []
        return _acknowledge_over(control.endpoint, key, who, why, findings)
    with Journal(settings, "") as journal:
        findings = verified(settings.path).unacknowledged
        journal.acknowledge(who, why, findings)
    return findings


def _acknowledge_over(endpoint: str, key: Credentials | None, who: str, why: str, findings: list[str]) -> list[str]:
    done: list[str] = []
    with ControlClient(endpoint, key) as control:
        while True:
            some: list[str] = []
            while findings and sum(map(len, some)) < _AT_ONCE:
                some.append(findings.pop(0))
            done += control.ask("acknowledge_journal", {"findings": some}, why=why, person=who)["findings"]
            if not findings:
                return done


def backup(journal: Path, out: Path) -> Verified:
    """Copy a journal, also while its station writes, and verify the copy; its public key and last head lie beside it.

    Raises ConfigError where `out`, or a file that is laid beside it, is there already, SinkError for a copy that could not be made: nothing
    stays of it.
    """
    part = out.with_name(f".{out.name}.part")
    mine = [beside(out, "key.pub"), beside(out, "head")]
    for there in [out] if os.path.lexists(part) else [out, *mine]:  # one that was killed may have left those two, and its part with them
        if os.path.lexists(there):
            raise ConfigError(f"{there}: expected the name of a new file, found one; a backup replaces none")
    expect_journal(journal)
    keys = keys_of(journal)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)  # of one that was killed
        with reading(journal) as connection, contextlib.closing(sqlite3.connect(part)) as copy:
            connection.execute("BEGIN")  # of one moment: a copy of what changes meanwhile would begin anew at each part
            connection.execute("SELECT max(n) FROM heads").fetchone()
            try:
                connection.backup(copy, pages=1000, sleep=0.01)
                copy.execute("PRAGMA journal_mode = DELETE").fetchone()  # one file, which also lies well on a disk that cannot be written
            except sqlite3.Error as e:
                if e.sqlite_errorcode in _UNWRITTEN:  # the copy's disk; all else is the journal's
                    raise SinkError(_not_copied(out, e)) from e
                raise
            if (sound := copy.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise SinkError(f"journal {journal}: its copy is damaged: {sound}")
            head = copy.execute("SELECT n, hash, signature FROM heads WHERE purpose = 'head' ORDER BY n DESC LIMIT 1").fetchone()
        found = verify(part, keys)
        put_file(beside(out, "key.pub"), b"".join(key.pem for key in keys[:1]))
        if head is not None:
            put_file(beside(out, "head"), msgspec.json.encode(OutsideHead(head[0], head[1].hex(), head[2].hex())) + b"\n")
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(out)  # last: what has this name is whole, with all that belongs to it
    except BaseException as e:
        with contextlib.suppress(OSError):
            for laid in mine:
                laid.unlink(missing_ok=True)
        if isinstance(e, OSError | sqlite3.Error):
            raise SinkError(_not_copied(out, e)) from e
        raise
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return found


def _not_copied(out: Path, e: Exception) -> str:
    return f"{out}: the journal could not be copied there: {e}; make room there, or name another place"
