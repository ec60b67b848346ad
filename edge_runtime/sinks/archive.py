"""The archive: lossless pictures of rejected and faulty parts (and some good ones), oldest dropped beyond a quota."""

import errno
import fcntl
import os
import re
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import msgspec

from edge_runtime.config.files import ArchiveConfig
from edge_runtime.errors import SinkError
from edge_runtime.protocols import Sink
from edge_runtime.records import Decision, Frame, Picture, Verdict

_RESERVE_BYTES = 1_000_000_000
_RESERVE_FILES = 1_000
_RESERVE_SHARE = 0.05
_DROPS_FOR_ROOM = 10
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_OURS = re.compile(r"\d{9,}_(?:.*_)?(?:ACCEPT|REJECT|FAULT)\.(?:png|json)")
_LEFT_OVER = re.compile(r"\.\d{9,}_.*\.tmp")


class Archive(Sink):
    """A Sink for the observer's thread: it writes to disk and may take tens of milliseconds.

    Layout: `YYYY-MM-DD/SEQ_PART_VERDICT.png` (the frame as the camera gave it, 8 or 16 bits) and `.json` (the decision) beside it, by UTC
    day. With several cameras, each has such folders in one of its own, `CAMERA/YYYY-MM-DD/…`; a part that is kept is kept from all of
    them, and VERDICT is the view's. The JSON is written last: where it is, the picture is whole. Files that do not look like these are
    neither counted nor dropped.
    """

    def __init__(self, settings: ArchiveConfig) -> None:
        self._settings = settings
        self._quota = int(settings.quota_mb * 1e6)
        self._reserve = 0
        """Bytes of the disk that are left to the journal, which must not lose a decision for a picture."""
        self._reserve_files = 0
        """Inodes to keep free as well: a file system of small pictures runs out of these first. 0 where there is no such limit."""
        self._kept: deque[tuple[Path, int]] = deque()  # (path without suffix, bytes of both files), oldest first
        self._bytes = 0
        self._accepts = 0
        self._lock = threading.Lock()
        self._folder: int | None = None
        """A descriptor that holds the lock."""
        self._failure: str | None = None
        self._not_kept = 0

    def __enter__(self) -> Self:
        """Create the folder, try to write in it, and count what is there. Raises SinkError, also where another station writes there."""
        root = self._settings.path
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=root, prefix=".try-") as probe:
                probe.write(b"\0")
            self._lock_folder()
            disk = os.statvfs(root)
            self._reserve = int(min(_RESERVE_BYTES, _RESERVE_SHARE * disk.f_blocks * disk.f_frsize))
            self._reserve_files = int(min(_RESERVE_FILES, _RESERVE_SHARE * disk.f_files))
            self._scan()
        except BlockingIOError as e:
            self._unlock_folder()
            raise SinkError(
                f"archive {root}: expected to be its only writer, found another station's archive; give [archive] a path of its own"
            ) from e
        except OSError as e:
            self._unlock_folder()
            raise SinkError(
                f"archive {root}: expected a folder to write to, found: {e.strerror}; give [archive] another path"
                + (", or the service that one (ReadWritePaths=, see deploy/it.md)" if e.errno == errno.EROFS else "")
            ) from e
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._unlock_folder()

    def _lock_folder(self) -> None:
        """One station a folder: numbers, and thus names, are a station's own. Raises BlockingIOError where another one has it."""
        self._folder = os.open(self._settings.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a network's file system that locks no folders
            pass

    def _unlock_folder(self) -> None:
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    @property
    def problem(self) -> str | None:
        """A sentence for health while pictures cannot be written; None as soon as one could be again."""
        with self._lock:
            if self._failure is None:
                return None
            return f"archive {self._settings.path}: {self._failure}; {self._not_kept} pictures were not kept"

    def put(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        """Keep the pictures of one part, if it is one of those that are kept.

        A disk that takes nothing shows in `problem`; it never raises.
        """
        if all(picture.frame is None for picture in pictures):
            return
        if decision.verdict is Verdict.ACCEPT:
            self._accepts += 1
            every = self._settings.every_nth_accept
            if every == 0 or self._accepts % every != 0:
                return
        self.keep(decision, pictures)

    def keep(self, decision: Decision, pictures: tuple[Picture, ...], also: Mapping[str, object] | None = None) -> None:
        """Keep the pictures of one part, whatever its verdict; `also` stands in the JSON beside the decision. As `put`."""
        failures = []
        for picture in pictures:
            try:
                if not self._settings.path.is_dir():  # somebody tidied up
                    self._settings.path.mkdir(parents=True)
                    self._unlock_folder()
                    self._lock_folder()
                    self._scan()
                self._make_room()
                if lacking := self._lacking():
                    raise OSError(errno.ENOSPC, f"less than {lacking} of its disk are free, which the journal may need")
                if picture.frame is not None:
                    self._keep(decision, picture.camera, picture.frame, also or {})
                self._drop_oldest()
            except (OSError, cv2.error) as e:
                failures.append((e.strerror or str(e)) if isinstance(e, OSError) else f"the frame cannot be written as PNG: {e}")
        with self._lock:
            self._failure = failures[0] if failures else None
            self._not_kept += len(failures)

    def _keep(self, decision: Decision, camera: str, frame: Frame, also: Mapping[str, object]) -> None:
        seen = decision.views if len(decision.views) > 1 else ()  # of the only camera, the part's: one judged late is found as a FAULT
        verdict = next((view.verdict for view in seen if view.camera == camera), decision.verdict)
        stem = self._settings.path / camera / decision.wall_time[:10] / _name(decision, verdict)
        stem.parent.mkdir(parents=True, exist_ok=True)
        # The lowest level: three times faster than the default for a few per cent of size.
        _, png = cv2.imencode(".png", frame.image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        known = {
            "file": f"{stem.name}.png",
            "frame_source": frame.source,
            **({"camera": camera} if camera else {}),
            **also,
            "decision": decision,
        }
        about = msgspec.json.format(msgspec.json.encode(known))
        picture, text = _with_suffix(stem, ".png"), _with_suffix(stem, ".json")
        replaced = _size(picture) + _size(text)
        try:
            _write_whole(picture, png.tobytes())
            _write_whole(text, about + b"\n")
        except OSError:
            picture.unlink(missing_ok=True)
            raise
        if replaced:  # the numbers began anew today, on the same part
            self._kept = deque(entry for entry in self._kept if entry[0] != stem)
            self._bytes -= replaced
        self._add(stem, _size(picture) + _size(text))

    def _add(self, stem: Path, size: int) -> None:
        self._kept.append((stem, size))
        self._bytes += size

    def _drop_oldest(self) -> None:
        while self._bytes > self._quota and len(self._kept) > 1:
            self._drop()

    def _make_room(self) -> None:
        """A few at a time: where another program fills the disk, what there is must not go all at once."""
        for _ in range(_DROPS_FOR_ROOM):
            if len(self._kept) <= 1 or not self._lacking():
                return
            self._drop()

    def _drop(self) -> None:
        stem, size = self._kept[0]
        _with_suffix(stem, ".json").unlink(missing_ok=True)
        _with_suffix(stem, ".png").unlink(missing_ok=True)
        self._kept.popleft()
        self._bytes -= size
        if stem.parent != self._kept[0][0].parent and not any(stem.parent.iterdir()):
            stem.parent.rmdir()

    def _lacking(self) -> str:
        """What there is too little of to keep another picture; empty where there is room."""
        disk = os.statvfs(self._settings.path)
        if disk.f_bavail * disk.f_frsize < self._reserve:
            return f"{self._reserve / 1e6:.3g} MB"
        return f"{self._reserve_files} inodes" if disk.f_favail < self._reserve_files else ""

    def _scan(self) -> None:
        self._kept.clear()
        self._bytes = 0
        root = self._settings.path
        sizes: dict[Path, int] = {}
        times: dict[Path, float] = {}
        for day in (p for p in (*root.glob("*"), *root.glob("*/*")) if p.is_dir() and _DAY.fullmatch(p.name)):
            for entry in os.scandir(day):
                if _LEFT_OVER.fullmatch(entry.name):
                    Path(entry.path).unlink()  # from a station that was killed while it wrote
                elif _OURS.fullmatch(entry.name):
                    stat = entry.stat()
                    stem = day / entry.name.rpartition(".")[0]
                    sizes[stem] = sizes.get(stem, 0) + stat.st_size
                    times[stem] = max(times.get(stem, 0.0), stat.st_mtime)
        for stem in sorted(sizes, key=lambda s: (s.parent.name, times[s], s.name)):
            self._add(stem, sizes[stem])
        self._drop_oldest()


def _name(decision: Decision, verdict: Verdict) -> str:
    # Part ids come from a PLC or a scanner: nothing of theirs may reach the file system but letters, digits, dash and dot.
    part = re.sub(r"[^A-Za-z0-9.-]+", "-", decision.part_id).strip("-.")[:64]
    return "_".join(word for word in (f"{decision.seq:09d}", part, verdict.value) if word)


def _with_suffix(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _write_whole(path: Path, content: bytes) -> None:
    """The file with all of its content, or no file."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
