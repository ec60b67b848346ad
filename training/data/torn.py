"""JPEG files that decode and are torn inside, many at once: in a process of its own, beside those that decode them whole."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_runtime.errors import DataError
from edge_runtime.images.names import suffix_of
from edge_runtime.images.torn import SUFFIXES, left_over, says_torn, warning_in

_HABIT = 0.1
"""Share of the files from which on it is one."""
# A process of its own: libjpeg writes to its stderr, which belongs to the whole process. At an eighth of the size every code is read.
_CHILD = """
import sys
import cv2, numpy as np
for i, path in enumerate(sys.stdin.buffer.read().split(b"\\0")):
    try:
        cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_IGNORE_ORIENTATION)
    except (cv2.error, OSError):
        pass
    sys.stderr.write(f"\\n={i}\\n")
    sys.stderr.flush()
"""
_KNOWN: dict[tuple[str, int, int], str] = {}
"""By path, time and size: what was warned of, empty for nothing."""


def torn(paths: Sequence[Path]) -> dict[Path, DataError]:
    """The files that decode although a part of their data is missing or wrong.

    Few bytes that are left over are damage where few files have them, and a camera's habit where many do. Raises DataError where the
    process that looks at them ends before it is done.
    """
    keys = {p: key for p in paths if suffix_of(p) in SUFFIXES and (key := _key(p)) is not None}
    new = [p for p, key in keys.items() if key not in _KNOWN]
    if new:
        _KNOWN.update({keys[p]: warning for p, warning in zip(new, _warnings(new), strict=True)})
    found = {p: _KNOWN[key] for p, key in keys.items() if _KNOWN[key]}
    few = [p for p, warning in found.items() if left_over(warning)]
    habit = frozenset(few if len(few) > _HABIT * len(keys) else ())
    return {p: DataError(f"{p}: {says_torn(warning)}") for p, warning in found.items() if p not in habit}


def _key(path: Path) -> tuple[str, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return str(path), stat.st_mtime_ns, stat.st_size


def _warnings(paths: Sequence[Path]) -> list[str]:
    done = subprocess.run([sys.executable, "-I", "-c", _CHILD], input=b"\0".join(bytes(p) for p in paths), capture_output=True, check=False)
    text = done.stderr.decode(errors="replace")
    parts = re.split(r"\n=\d+\n", text)
    if len(parts) != len(paths) + 1:
        where = paths[min(len(parts), len(paths)) - 1]
        raise DataError(f"{where}: could not be decoded, and the process that tried ended ({done.returncode}): {text[-200:].strip()}")
    return [warning_in(part) for part in parts[:-1]]
