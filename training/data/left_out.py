"""What lies in a data set and is not read: formats, links to nothing, further pages of a file. Counted and named, never passed over."""

import os
import struct
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from edge_runtime.images.names import NOT_READ, SUFFIXES, is_image, is_of_system, suffix_of

_MOST_FILES = 500_000
_REDUCED = 1
"""TIFF's NewSubfileType of a smaller copy of another page."""
_QUIET = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
_PAPERS = ("readme", "license", "licence", "copying", "~$")
"""What systems and archives put beside pictures, by how its name begins: of no interest to anybody who teaches."""
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"RIFF", b"GIF8")
_MOST_PAGES = 10_000


def say_left_out(root: Path) -> list[str]:
    """Sentences about files at or below the folder `root` that look like pictures and are not read."""
    if not root.is_dir():
        return []
    other: dict[str, list[Path]] = {}
    dead: list[Path] = []
    nameless: list[Path] = []
    no_files: list[Path] = []
    seen = 0
    for place, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not is_of_system(f))
        for name in sorted(files):
            seen += 1
            path = Path(place, name)
            if name.startswith(".") or seen > _MOST_FILES:
                continue
            suffix = suffix_of(path)
            if suffix in NOT_READ:
                other.setdefault(suffix, []).append(path)
            elif not path.exists():
                dead.append(path)
            elif not path.is_file():
                no_files += [path] if suffix in SUFFIXES else []
            elif not suffix and is_picture(path):
                nameless.append(path)
        dead += [Path(place, f) for f in folders if not Path(place, f).exists()]
        no_files += [path for f in folders if suffix_of(path := Path(place, f)) in SUFFIXES and path.exists()]
    notes = []
    if other:
        counts = ", ".join(f"{n} {s}" for s, n in Counter({s: len(p) for s, p in other.items()}).most_common())
        first = min(p[0] for p in other.values())
        notes.append(f"left out, as their formats are not read: {counts} (the first: {first}); convert pictures to PNG")
    if dead:
        notes.append(f"left out: {len(dead)} links that lead to nothing (the first: {dead[0]} to {_target(dead[0])})")
    if no_files:
        notes.append(f"{len(no_files)} folders, pipes or devices are called as pictures are and are none (the first: {no_files[0]})")
    if nameless:
        notes.append(
            f"left out: {len(nameless)} pictures whose names end in no suffix (the first: {nameless[0]}); name them"
            f" {nameless[0].name}.png or as they are"
        )
    odd = [p for p in root.iterdir() if p.is_file() and suffix_of(p) in SUFFIXES and p.suffix != p.suffix.rstrip()]
    if odd:
        notes.append(f"{len(odd)} names end in a blank (the first: {odd[0].name!r}); they are read all the same")
    return notes


def say_no_pictures(root: Path, labels: Collection[str], said: Sequence[str] = ()) -> list[str]:
    """A sentence about files at or below `root` that lie beside pictures and are none.

    Args:
        root: a folder.
        labels: suffixes of tables and annotations that were read.
        said: sentences about the same folder; what they name is not named again.
    """
    found: list[Path] = []
    named, seen = " ".join(said), 0
    for place, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not is_of_system(f))
        stems = {Path(n).stem for n in files if is_image(Path(n))}
        for name in sorted(files) if stems else ():
            path, seen = Path(place, name), seen + 1
            suffix = suffix_of(path)
            known = suffix in SUFFIXES or suffix in NOT_READ or suffix in labels or name.startswith(".") or path.stem in stems
            quiet = name.lower() in _QUIET or name.lower().startswith(_PAPERS)
            if not (known or quiet) and seen <= _MOST_FILES and name not in named and path.is_file() and (suffix or not is_picture(path)):
                found.append(path)
    if not found:
        return []
    counts = ", ".join(f"{n} {s or 'without a suffix'}" for s, n in Counter(map(suffix_of, found)).most_common())
    return [f"left out, as they are not pictures: {counts} (the first: {found[0]})"]


def say_pages(paths: list[Path], pages: list[int]) -> list[str]:
    """A sentence where files hold more than the one picture that is read."""
    more = [(p, n) for p, n in zip(paths, pages, strict=True) if n > 1]
    if not more:
        return []
    path, count = more[0]
    return [
        f"{len(more)} files hold further pictures (the first: {path}, {count} pages): only the first of each is read; save the others as"
        " files of their own where they are parts, too"
    ]


def pages_in(path: Path) -> int:
    """How many pictures a TIFF, PNG or WebP holds, smaller copies of a page apart; 1 where nothing else is said. 2 stands for "several"."""
    with path.open("rb") as file:
        head = file.read(64)
        if head[:4] in (b"II*\0", b"MM\0*"):
            return _tiff_pages(path.read_bytes())
        if head.startswith(b"\x89PNG"):
            rest = head + file.read(4096)
            at = rest.find(b"acTL")
            return struct.unpack(">I", rest[at + 4 : at + 8])[0] if 0 <= at < len(rest) - 8 else 1
        if head[:4] == b"RIFF" and head[12:16] == b"VP8X" and head[20] & 0x02:
            return max(2, (head + file.read()).count(b"ANMF"))
    return 1


def _tiff_pages(raw: bytes) -> int:
    order = "<" if raw[:2] == b"II" else ">"
    count, seen = 0, set()
    try:
        (at,) = struct.unpack_from(f"{order}I", raw, 4)
        while at and at not in seen and count < _MOST_PAGES:
            seen.add(at)
            (entries,) = struct.unpack_from(f"{order}H", raw, at)
            reduced = False
            for i in range(entries):
                tag, _, _, value = struct.unpack_from(f"{order}HHII", raw, at + 2 + 12 * i)
                reduced |= tag == 254 and bool(value & _REDUCED)
            count += not reduced
            (at,) = struct.unpack_from(f"{order}I", raw, at + 2 + 12 * entries)
    except struct.error:
        pass
    return max(count, 1)


def is_picture(path: Path) -> bool:
    """Whether a file begins as those of a common format do; False for what cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4).startswith(_MAGIC)
    except OSError:
        return False


def _target(link: Path) -> str:
    return str(link.readlink()) if link.is_symlink() else "?"
