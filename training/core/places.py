"""Places that a command writes: proved before its work, filled beside them, put there in one step; what was there stays whole.

Why: deploy/decisions/0030.
"""

import contextlib
import ctypes
import errno
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from edge_runtime.errors import ConfigError
from edge_runtime.files import begin, sweep

RUN_FILE = "run.json"
"""What makes a folder a run (training.runs)."""
_AT_FDCWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def nearest_folder(out: Path) -> Path:
    """The closest folder above `out` that is there already. Raises ConfigError where nothing can be written below it."""
    place = next(p for p in out.absolute().parents if p.exists())
    prove(place)
    return place


def prove(folder: Path, what: str = "out") -> None:
    """Write something into `folder`, and take it away: what permissions promise, /proc and a full disk do not keep. Raises ConfigError."""
    if not folder.is_dir():
        state = "a file" if folder.exists() else "not there"
        raise ConfigError(f"{what}: expected a place that can be written, found {folder}, which is {state}")
    probe = folder / f".lineside-{uuid.uuid4().hex[:8]}"
    try:
        try:
            probe.write_bytes(b"x")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as e:
        raise ConfigError(
            f"{what}: expected a place that can be written, found {folder} ({e.strerror or e}); choose another, or make this one writable"
        ) from e


def check_file(out: Path, *suffixes: str) -> None:
    """Refuse a place where no file with one of these suffixes can be written. Raises ConfigError."""
    if out.suffix.lower() not in suffixes:
        raise ConfigError(f"out: expected a file that ends in {suffixes[0]}, found {out}")
    if out.is_dir():
        raise ConfigError(f"out: expected a file, found a folder at {out}")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"out: expected a folder that can be written, found none at {out.absolute().parent}; make it first")
    prove(out.absolute().parent)


def check_free(out: Path, force: bool) -> None:
    """Refuse a place that is taken or cannot be written, before any work. Raises ConfigError."""
    nearest_folder(out)
    bring_back(out)
    if not out.exists():
        return
    if not force:
        raise ConfigError(f"out: {out} exists already; choose another place or add --force to replace it")
    if not (out / RUN_FILE).is_file():
        raise ConfigError(f"out: {out} exists and is no run ({RUN_FILE} is missing), so --force does not replace it; choose another place")


@contextlib.contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """A folder to work in, beside `out` and thus on its file system. Afterwards it is gone, and so is what stood above `out` for it alone.

    Whatever commands that were killed have left for the same `out` is swept first. Raises OSError.
    """
    above = out.absolute().parent
    made = [p for p in (above, *above.parents) if not p.exists()]
    place, owned = None, None
    try:
        above.mkdir(parents=True, exist_ok=True)
        sweep(out)
        place, owned = begin(out.absolute(), folder=True)
        yield place
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
        if owned is not None:
            os.close(owned)
        with contextlib.suppress(OSError):  # one that holds something stays, and so do those above it
            for folder in made:
                folder.rmdir()


def move_into_place(folder: Path, out: Path) -> None:
    """Bring a finished folder to `out`, on the same file system; what stood there goes only then. Raises OSError.

    Whoever looks at `out` meanwhile, or after an end at any moment, finds the old or the new one, whole.
    """
    if not out.exists():
        folder.rename(out)
        return
    old = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.old")
    if exchange(folder, out):
        folder.rename(old)
    else:  # NFS, FAT: `out` is away for a moment, and `bring_back` finds it where that moment was the last
        out.rename(old)
        folder.rename(out)
    if old.is_symlink():  # it pointed elsewhere, and what is there is not ours to take away
        old.unlink()
    shutil.rmtree(old, ignore_errors=True)


def exchange(a: Path, b: Path) -> bool:
    """Let two names change places at once; False where the file system cannot. Raises OSError for any other reason."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), ctypes.c_uint(_EXCHANGE)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(a))


def bring_back(out: Path) -> None:
    """Where `put` was ended between its two renames, what stood at `out` stands there again."""
    if out.exists() or not out.absolute().parent.is_dir():
        return
    left = [p for p in out.absolute().parent.glob(f".{glob.escape(out.name)}.????????.old") if p.is_dir()]
    if len(left) == 1:
        left[0].rename(out)
