"""Replacing a whole file: who reads it finds the old or the new one, whole, also after a power cut. Reading one that is a file indeed."""

import contextlib
import errno
import fcntl
import glob
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

MOST_TEXT_BYTES = 16 << 20
"""Bytes of anything that people write: settings, keys, recipes, tables."""
_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def what_is(path: Path) -> str:
    """What stands there, for a sentence: "a file", "a folder", "nothing", or why that cannot be known."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode), "something else")
    except FileNotFoundError:
        return "nothing"
    except OSError as e:
        return f"what cannot be looked at ({e.strerror})"


def opened(path: Path) -> BufferedReader:
    """A file, for reading. Raises OSError, also for what is none: a named pipe would keep whoever opens it waiting for ever."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(file).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, f"expected a file, found {_KINDS.get(stat.S_IFMT(mode), 'something else')}", str(path))
        return os.fdopen(file, "rb")
    except BaseException:
        os.close(file)
        raise


def read_whole(path: Path, most_bytes: int = MOST_TEXT_BYTES) -> bytes:
    """All of a file. Raises OSError, also for what is none, and for one of more bytes, of which no more are read."""
    with opened(path) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes:,} bytes", str(path))
    return data


def sweep(out: Path) -> None:
    """Take away what was begun beside `out`, or set aside for it, by commands that are no longer there.

    A command holds a lock (flock) on what it works in, and the kernel lets go of it with the process, however that ends.
    """
    above, name = out.absolute().parent, glob.escape(out.name)
    left = list(above.glob(f".{name}.????????.part"))
    if out.exists():  # else `bring_back` needs it
        left += above.glob(f".{name}.????????.old")
    for path in left:
        with contextlib.suppress(OSError):  # a living process's, or gone meanwhile
            owned = _lock(path)
            try:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            finally:
                os.close(owned)


def _lock(path: Path) -> int:
    """A descriptor that holds the lock of a file or folder until it is closed. Raises OSError where another holds it."""
    owned = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(owned, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(owned)
        raise
    return owned


def begin(place: Path, *, folder: bool = False) -> tuple[Path, int]:
    """A new file or folder to work in beside `place`, and the descriptor that holds its lock. Raises OSError.

    Between being made and being locked it is nobody's, so another command's `sweep` may take it away: then it is made anew.
    """
    while True:
        part = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.part")
        if folder:
            part.mkdir(0o700)
        else:
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            owned = os.open(part, os.O_RDONLY if folder else os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(owned, fcntl.LOCK_EX)  # waits for whoever sweeps it
            if os.path.samestat(part.stat(), os.fstat(owned)):
                return part, owned
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(owned)
            raise
        os.close(owned)


@contextlib.contextmanager
def replacing(out: Path, beside: Path | None = None) -> Iterator[BinaryIO]:
    """An empty file to write to, which becomes `out` when the block ends well: whole, or not at all. Raises OSError.

    It is begun in the folder of `beside`, of the same file system, where nothing else may lie next to `out`. What is no file stays:
    a device that root names would be gone for everybody.
    """
    if (found := what_is(out)) not in ("a file", "nothing"):
        raise OSError(errno.EINVAL, f"expected a file or nothing there, found {found}", str(out))
    place = beside or out
    sweep(place)
    part, owned = begin(place)
    try:
        with os.fdopen(owned, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a full disk that another computer holds tells of it only now
            part.replace(out)
        _sync(out.parent)
    finally:
        part.unlink(missing_ok=True)


def put_file(out: Path, data: bytes) -> None:
    """Write a file, whole or not at all. Raises OSError."""
    with replacing(out) as file:
        file.write(data)


def _sync(folder: Path) -> None:
    """The new name, too, is there after a power cut."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network shares know no such thing
            os.fsync(opened)
    finally:
        os.close(opened)
