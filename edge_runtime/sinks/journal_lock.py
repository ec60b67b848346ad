"""One writer a journal: a lock beside the file, whichever name it is opened by."""

import fcntl
import os
from pathlib import Path
from typing import IO

from edge_runtime.errors import SinkError


def is_held(journal: Path) -> bool:
    """Whether a station writes it now."""
    real = journal.resolve()
    try:
        with real.with_name(real.name + ".lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class WriterLock:
    """Held until `release`, or the end of the process."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._file: IO[bytes] | None = None

    def take(self) -> None:
        """Raises SinkError where another holds it, or no file can be made beside the journal."""
        # Beside the database, not on it: closing any handle on the database itself would drop SQLite's own locks.
        real = self._journal.resolve()  # by whatever link it is named
        path = real.with_name(real.name + ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC, 0o644), "ab")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise SinkError(
                f"journal {self._journal}: expected to be its only writer, found another station writing it; "
                "stop that one or give [journal] another path"
            ) from e
        except OSError as e:
            raise SinkError(
                f"journal {self._journal}: cannot be created or opened: {e.strerror}; give [journal] a path that the station may write to"
            ) from e

    def release(self) -> None:
        """Let others write."""
        if self._file is not None:
            self._file.close()
            self._file = None
