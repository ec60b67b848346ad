"""What may be taken of a machine's memory, and the disk for what is more."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import DataError

IN_MEMORY_BYTES = 256 << 20
"""Arrays beyond this lie in a file."""


def check_memory(needed: int) -> None:
    """Refuse a fit that this machine cannot hold. Raises DataError."""
    free = available_memory()
    if free is not None and needed > free:
        raise DataError(
            f"fit: needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB is available."
            " Use --preset fast, a smaller --image-size or fewer images"
        ) from MemoryError()


def available_memory() -> int | None:
    """Bytes that may still be taken without swapping; None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def array_file(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> "np.memmap[Any, Any]":
    """An .npy file of that shape, to be written in place. Raises OSError where the disk has no room for all of it."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:
        _reserve(file.fileno(), array.offset + _bytes(shape, dtype))
    return array


def _bytes(shape: tuple[int, ...], dtype: type[np.generic]) -> int:
    return int(np.prod(shape)) * np.dtype(dtype).itemsize


def _reserve(descriptor: int, size: int) -> None:
    """Take the room now: a mapped file of holes ends the process with SIGBUS when the disk is full at its first write."""
    if size:
        os.posix_fallocate(descriptor, 0, size)


def room(
    shape: tuple[int, ...], dtype: type[np.generic], scratch: Path | None = None, *, budget: int = IN_MEMORY_BYTES
) -> npt.NDArray[Any]:
    """An empty array: in memory up to `budget` bytes, else in a file of `scratch` (default: the system's) that has no name.

    Raises DataError where the disk has no room.
    """
    size = _bytes(shape, dtype)
    if size <= budget:
        return np.empty(shape, dtype=dtype)
    try:
        with tempfile.TemporaryFile(dir=scratch, prefix="lineside-features-") as file:
            _reserve(file.fileno(), size)
            return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
    except OSError as e:
        raise DataError(f"fit: no room for {size / 1e9:.1f} GB in {scratch or tempfile.gettempdir()}: {e.strerror or e}") from e
