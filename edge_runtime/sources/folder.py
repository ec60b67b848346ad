"""Image files of a folder in sorted order, one a trigger: for replays, demonstrations and tests."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from edge_runtime.config.files import FolderSourceConfig
from edge_runtime.errors import DataError, SourceError, SourceExhausted, printable
from edge_runtime.files import opened
from edge_runtime.images.loss import loss_of
from edge_runtime.images.names import SUFFIXES, is_image, suffix_of
from edge_runtime.images.read import read_image
from edge_runtime.images.size import HEAD, size_of
from edge_runtime.images.torn import SUFFIXES as TORN_SUFFIXES
from edge_runtime.images.torn import torn_inside
from edge_runtime.protocols import Source
from edge_runtime.records import Frame

_FIRST_BYTES = 1 << 13
_MOST_HEADS = 5000


def list_images(folder: Path) -> list[Path]:
    """Its image files (not of subfolders, nothing hidden), sorted by name. Raises SourceError when there is none."""
    try:
        files = sorted(p for p in folder.iterdir() if is_image(p) and p.is_file())
    except OSError as e:
        raise SourceError(f"{folder}: expected a folder of images, could not read it: {e.strerror}. Check source.path") from e
    if not files:
        raise SourceError(f"{folder}: expected images ({', '.join(sorted(SUFFIXES))}), found none. Check source.path")
    return files


@dataclass(frozen=True, slots=True)
class Glance:
    """What files say of themselves by their first bytes, without being decoded."""

    sizes: Counter[tuple[int, int]]
    """(width, height), of files that say so."""
    first: Mapping[tuple[int, int], Path]
    """The first file of each size."""
    n_lossy: int
    """Files whose compression loses something."""
    n: int

    @property
    def lossy(self) -> bool | None:
        """None where some are and some are not."""
        return True if self.n_lossy == self.n else False if not self.n_lossy else None


def glance(files: Sequence[Path]) -> Glance:
    """Looks at no more than _MOST_HEADS of the files, spread over all. What cannot be read is left to whoever grabs it."""
    some = [files[i * len(files) // _MOST_HEADS] for i in range(_MOST_HEADS)] if len(files) > _MOST_HEADS else files
    sizes: Counter[tuple[int, int]] = Counter()
    first: dict[tuple[int, int], Path] = {}
    n_lossy = n = 0
    for path in some:
        try:
            with opened(path) as file:
                head = file.read(_FIRST_BYTES)
                wh = size_of(head)
                if wh is None and len(head) == _FIRST_BYTES:
                    head += file.read(HEAD)
                    wh = size_of(head)
        except OSError:
            continue
        n += 1
        n_lossy += loss_of(head) is not None
        if wh is not None:
            sizes[wh] += 1
            first.setdefault(wh, path)
    return Glance(sizes, first, n_lossy, n)


def read_frame(path: Path, seq: int, most_px: int | None = None) -> Frame:
    """An image file as a frame captured now; of more than `most_px` pixels it is not decoded.

    Raises SourceError with its path, also for one that decodes and is torn inside.
    """
    began = time.monotonic_ns()
    try:
        image = read_image(path, most_px)
        if suffix_of(path) in TORN_SUFFIXES and (torn := torn_inside(path.read_bytes())) is not None:
            raise SourceError(f"{path}: {torn}")
    except DataError as e:
        raise SourceError(str(e)) from e
    except OSError as e:
        raise SourceError(f"{path}: cannot be read: {e.strerror}") from e
    image.flags.writeable = False
    return Frame(seq=seq, captured_ns=began, source=printable(str(path)), image=image)


class Folder(Source):
    """Reads the next file at each `grab`. The list is taken on entering: files that come later are not seen."""

    live = False

    def __init__(self, settings: FolderSourceConfig) -> None:
        self._settings = settings
        self._files: list[Path] = []
        self._taken = 0
        self._most_px: int | None = None

    def expect(self, most_px: int) -> None:
        self._most_px = most_px

    def __enter__(self) -> Self:
        self._files = list_images(self._settings.path)
        self._taken = 0
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._files = []

    @property
    def lossy(self) -> bool | None:
        """By the files' first bytes."""
        return glance(self._files).lossy

    @property
    def remaining(self) -> int | None:
        """Files not yet read; None when it loops."""
        return None if self._settings.loop else max(len(self._files) - self._taken, 0)

    def grab(self, timeout_s: float) -> Frame:
        """The next file. One that cannot be read raises SourceError with its path, and costs its own trigger only."""
        if self.remaining == 0:
            raise SourceExhausted(f"{self._settings.path}: no more images, all {len(self._files)} were delivered")
        path = self._files[self._taken % len(self._files)]
        self._taken += 1
        return read_frame(path, self._taken, self._most_px)
