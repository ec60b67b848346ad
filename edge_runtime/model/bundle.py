"""Bundles: an immutable directory (or one zip file) with a model, its manifest and golden samples; read and verified here.

Layout: manifest.json, manifest.sha256, model.xml, model.bin, golden/*.png, optionally ignore_mask.png and reference.png. The manifest lists
the sha256 of every other file; the bundle's id is the sha256 of the manifest's bytes, so that one id names one exact model with one exact
calibration. manifest.sha256 (`sha256sum -c` reads it) holds that id, so that damage to the manifest itself is seen too. A bundle that was
released has manifest.sig as well (edge_runtime.model.signature).
"""

import errno
import hashlib
import lzma
import os
import shutil
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from edge_runtime.errors import BundleError, DeviceError
from edge_runtime.files import opened
from edge_runtime.model.manifest import READABLE, SCHEMA, Manifest

MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
SIGNATURE = "manifest.sig"

MOST_BYTES = {MANIFEST: 64 << 20, SEAL: 1 << 10, SIGNATURE: 1 << 10}
"""What is read of a bundle before anything is known of it; the manifest lists up to some million training images."""
_HEAD = (MANIFEST, SEAL, SIGNATURE)
_NO_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, UnicodeDecodeError, EOFError, NotImplementedError, RuntimeError)
_MOST_FOLDERS = 1000
"""A bundle has one, `golden`, and may have some that its manifest names."""
_AT_ONCE_BYTES = 4 << 20
_PACKED, _PACKED_LESS_BYTES = 100, 64 << 20
"""Weights and pictures hardly pack: whatever packs a hundredfold, and is large, was made to fill a disk."""
Admit = Callable[[bytes, bytes | None], object]


class ModelBundle:
    """A verified bundle on disk. Opening one checks every byte; what does not match is refused with the file named."""

    def __init__(self, directory: Path, manifest: Manifest, bundle_id: str) -> None:
        """Use `ModelBundle.open`."""
        self.directory = directory
        self.manifest = manifest
        self.id = bundle_id
        self.signature = _read_head(directory, SIGNATURE)
        """As it is in the file, not yet compared with any key; None where there is none."""

    @property
    def model_xml(self) -> Path:
        """The IR's topology; its weights lie beside it."""
        return self.directory / "model.xml"

    @classmethod
    def open(cls, path: Path, private: bool = False, admit: Admit | None = None) -> "ModelBundle":
        """Verify and open the directory or zip file at `path`. Raises BundleError, and DeviceError where a copy finds no room.

        `private`: a copy that nobody else writes to, as it is of a zip file in any case, so that what was verified is what is run.
        `admit`: takes the manifest's bytes and the signature (None: there is none), and raises BundleError for one that may not be run:
        asked before anything else of the bundle is copied, unpacked or read.
        """
        if path.is_dir() and not private:
            return cls._verified(path, admit)
        if not path.exists():
            raise BundleError(f"bundle: expected a directory or a zip file, found nothing at {path}")
        try:
            scratch = Path(tempfile.mkdtemp(prefix="lineside-bundle-"))
        except OSError as e:
            raise _no_room(path, Path(tempfile.gettempdir()), e) from e
        bundle = cls.copied(path, scratch, admit)
        weakref.finalize(bundle, shutil.rmtree, scratch, ignore_errors=True)  # lives as long as the bundle's object
        return bundle

    @classmethod
    def copied(cls, path: Path, folder: Path, admit: Admit | None = None) -> "ModelBundle":
        """Copy or unpack the one at `path` into a new, empty folder, verified; on failure the folder is taken away. Raises as `open`."""
        try:
            if path.is_dir():
                _copy(path, folder, admit)
            else:
                _unzip(path, folder, admit)
            return cls._verified(folder, admit)
        except BundleError as e:  # whoever gave it knows it by its own name
            shutil.rmtree(folder, ignore_errors=True)
            raise type(e)(str(e).replace(str(folder), str(path))) from e
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    @classmethod
    def _verified(cls, directory: Path, admit: Admit | None) -> "ModelBundle":
        manifest, bundle_id = _admitted(directory, admit)
        _verify_files(directory, manifest)
        return cls(directory, manifest, bundle_id)


def write_manifest(directory: Path, manifest: Manifest) -> str:
    """Write manifest.json and its seal into a bundle that holds all other files; returns the bundle's id."""
    raw = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    bundle_id = hashlib.sha256(raw).hexdigest()
    (directory / MANIFEST).write_bytes(raw)
    (directory / SEAL).write_text(f"{bundle_id}  {MANIFEST}\n", encoding="ascii")
    return bundle_id


def read_manifest(directory: Path) -> tuple[Manifest, str]:
    """The manifest of an unpacked bundle and the bundle's id, without verifying the files it lists. Raises BundleError."""
    return _admitted(directory, None)


def id_of(path: Path) -> str:
    """The id that a bundle at `path` (directory or zip file) would have, unverified; empty where there is none that can be read."""
    try:
        if path.is_dir():
            raw = _read_head(path, MANIFEST)
        else:
            with opened(path) as packed, zipfile.ZipFile(packed) as archive, archive.open(MANIFEST) as file:
                raw = file.read(MOST_BYTES[MANIFEST])
    except (BundleError, OSError, KeyError, *_NO_ZIP):
        return ""
    return hashlib.sha256(raw).hexdigest() if raw is not None else ""


def _admitted(directory: Path, admit: Admit | None) -> tuple[Manifest, str]:
    raw = _read_head(directory, MANIFEST)
    if raw is None:
        raise BundleError(f"bundle {directory}: {MANIFEST} is missing: this is no bundle, or half of one")
    path = directory / MANIFEST
    try:
        schema = msgspec.json.decode(raw, type=dict[str, Any]).get("schema")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        schema = SCHEMA  # whatever is wrong with it, the seal tells
    if schema not in READABLE:  # its seal may be another one, too
        wanted = " or ".join(map(str, READABLE))
        raise BundleError(f"{path}: expected schema {wanted}, found {schema!r}: built by another version of Lineside; build it again")
    bundle_id = _check_seal(directory, raw)
    if admit is not None:
        admit(raw, _read_head(directory, SIGNATURE))
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise BundleError(f"{path}: is not a valid manifest: {e}") from e
    if manifest.schema == 1:
        manifest = msgspec.structs.replace(manifest, input=msgspec.structs.replace(manifest.input, shrink="area"))
    return manifest, bundle_id


def _read_head(directory: Path, name: str) -> bytes | None:
    """A small file that stands for the others; None where it is missing. Raises BundleError."""
    path = directory / name
    try:
        with opened(path) as f:
            raw = f.read(MOST_BYTES[name] + 1)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise BundleError(f"bundle {directory}: {name} is unreadable ({e.strerror}); copy the bundle again") from e
    if len(raw) > MOST_BYTES[name]:
        raise BundleError(f"bundle {directory}: {name}: expected at most {MOST_BYTES[name]:,} bytes, found more: this is no bundle")
    return raw


def _check_seal(directory: Path, manifest: bytes) -> str:
    bundle_id = hashlib.sha256(manifest).hexdigest()
    seal = _read_head(directory, SEAL)
    if seal is None:
        raise BundleError(f"bundle {directory}: {SEAL} is missing; copy the bundle again")
    if seal != f"{bundle_id}  {MANIFEST}\n".encode():
        raise BundleError(f"bundle {directory}: {MANIFEST} or {SEAL} was altered: they do not belong together; copy the bundle again")
    return bundle_id


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, as hex."""
    with opened(path) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _verify_files(directory: Path, manifest: Manifest) -> None:
    needed = {"model.xml", "model.bin", *(g.image for g in manifest.golden)}
    if manifest.input.ignore_mask:
        needed.add(manifest.input.ignore_mask)
    if manifest.envelope is not None and manifest.envelope.placement is not None:
        needed.add(manifest.envelope.placement.reference)
    unlisted = sorted(needed - set(manifest.files))
    if unlisted:
        raise BundleError(f"bundle {directory}: the manifest lists no hash for {unlisted[0]}: it cannot be trusted; build it again")
    for name, expected in sorted(manifest.files.items()):
        if not _is_inside(name):
            raise _outside(directory, name)
        path = directory / name
        if not path.is_file():
            raise BundleError(f"bundle {directory}: {name} is missing; copy the bundle again")
        try:
            found = file_sha256(path)
        except OSError as e:
            raise BundleError(f"bundle {directory}: {name} cannot be read ({e.strerror}): let this user read it") from e
        if found != expected:
            raise BundleError(
                f"bundle {directory}: {name} was altered: expected sha256 {expected[:16]}…, found {found[:16]}…; copy the bundle again"
            )
    _check_listed(directory, _others(directory), manifest)


def entries_of(directory: Path) -> Iterator[os.DirEntry[str]]:
    """All in it that is no folder; what a link leads to is not looked into.

    Raises BundleError for what cannot be looked at, and after many more folders than a bundle has: whoever hands one over decides how many.
    """
    left, folders = [str(directory)], 0
    while left:
        try:
            with os.scandir(left.pop()) as found:
                for entry in found:
                    if not entry.is_dir():
                        yield entry
                    elif not entry.is_symlink():
                        left.append(entry.path)
                        folders += 1
                    if folders > _MOST_FOLDERS:
                        raise BundleError(f"bundle {directory}: expected at most {_MOST_FOLDERS} folders, found more: this is no bundle")
        except OSError as e:
            raise BundleError(f"bundle {directory}: cannot be looked at: {e.strerror} ({e.filename})") from e


def _others(directory: Path) -> Iterator[str]:
    """Names of all files but those that stand for them."""
    names = (Path(entry.path).relative_to(directory).as_posix() for entry in entries_of(directory))
    return (name for name in names if name not in _HEAD)


def _check_listed(path: Path, names: Iterable[str], manifest: Manifest) -> None:
    extra = next((name for name in names if name not in manifest.files), None)
    if extra is not None:
        raise BundleError(f"bundle {path}: {extra} is not listed in the manifest; a bundle holds nothing else: remove it")


def _is_inside(name: str) -> bool:
    pure = PurePosixPath(name)
    sound = name != "" and name.isprintable() and max(map(len, pure.parts), default=0) < 256 and len(name) < 1024
    return sound and not pure.is_absolute() and ".." not in pure.parts and "\\" not in name


def _copy(path: Path, directory: Path, admit: Admit | None) -> None:
    """What the manifest lists, and nothing before it has been admitted."""
    try:
        for name in _HEAD:
            if (raw := _read_head(path, name)) is not None:
                (directory / name).write_bytes(raw)
        manifest, _ = _admitted(directory, admit)
        _check_listed(path, _others(path), manifest)
        for name in sorted(manifest.files):
            _copy_file(path, name, directory)
    except OSError as e:
        raise _no_room(path, directory.parent, e) from e


def _copy_file(path: Path, name: str, directory: Path) -> None:
    """No more of it than it says that it has: a file that grows as fast as it is read would have no end. Raises BundleError, OSError."""
    if not _is_inside(name):
        raise _outside(path, name)
    try:
        file = opened(path / name)
    except FileNotFoundError:
        raise BundleError(f"bundle {path}: {name} is missing; copy the bundle again") from None
    except OSError as e:
        raise BundleError(f"bundle {path}: {name} cannot be read: {e.strerror}") from e
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    with file, (directory / name).open("wb") as copy:
        left = os.fstat(file.fileno()).st_size
        while left > 0 and (some := file.read(min(left, _AT_ONCE_BYTES))):
            copy.write(some)
            left -= len(some)


def _outside(path: Path, name: str) -> BundleError:
    return BundleError(f"bundle {path}: the manifest names {name!r}, which is no file inside of the bundle; refused")


def _no_room(path: Path, folder: Path, why: object) -> DeviceError:
    """Not the bundle's fault, and over when the disk has room again."""
    return DeviceError(f"bundle {path}: could not be copied to {folder}, where it is verified: {getattr(why, 'strerror', None) or why}")


def _unzip(path: Path, directory: Path, admit: Admit | None) -> None:
    """The manifest, its seal and its signature; then, of a manifest that was admitted, what it lists."""
    try:
        with opened(path) as packed, zipfile.ZipFile(packed) as archive:
            entries = archive.infolist()
            names = [e.filename for e in entries if not e.filename.endswith("/")]  # is_dir() cannot take an empty name
            bad = next((n for n in names if not _is_inside(n)), None)
            if bad is not None:
                raise BundleError(f"bundle {path}: holds {bad!r}, which would be unpacked outside of it; refused")
            if len(set(names)) != len(names):
                raise BundleError(f"bundle {path}: holds a file twice; refused")
            for entry in entries:
                if entry.filename in _HEAD:
                    if entry.file_size > MOST_BYTES[entry.filename]:
                        most = f"{MOST_BYTES[entry.filename]:,} bytes, found {entry.file_size:,}"
                        raise BundleError(f"bundle {path}: {entry.filename}: expected at most {most}: this is no bundle")
                    archive.extract(entry, directory)
            manifest, _ = _admitted(directory, admit)
            listed = [e for e in entries if e.filename in manifest.files]
            _check_listed(path, (n for n in names if n not in _HEAD), manifest)
            for entry in listed:
                if entry.file_size > _PACKED_LESS_BYTES and entry.file_size > _PACKED * entry.compress_size:
                    sizes = f"{entry.file_size / 1e6:,.0f} MB, of which {entry.compress_size / 1e6:,.1f} MB are in the zip file"
                    raise BundleError(f"bundle {path}: {entry.filename} takes {sizes}: no model packs so well; not unpacked")
            wanted, free = sum(e.file_size for e in listed), shutil.disk_usage(directory).free
            if wanted > free:
                raise _no_room(path, directory.parent, f"it takes {wanted / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free")
            archive.extractall(directory, listed)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise _no_room(path, directory.parent, e) from e
        raise BundleError(f"bundle {path}: expected a directory or a zip file, could not unpack it: {e}") from e
    except _NO_ZIP as e:
        raise BundleError(f"bundle {path}: expected a directory or a zip file, could not unpack it: {e}") from e
