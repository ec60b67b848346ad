"""A station's own bundles: copies of what was deployed to it, whole or not there at all, a folder an id; old ones go by count."""

import contextlib
import getpass
import os
import shutil
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from edge_runtime.errors import BundleError, DeviceError
from edge_runtime.model.bundle import ModelBundle, entries_of, id_of
from edge_runtime.model.signature import TrustedKey, released_by

_BEGUN, _GONE = ".begun-", ".gone-"
_RESERVE_BYTES = 1_000_000_000
_RESERVE_SHARE = 0.05


class BundleStore:
    """Belongs to one station, and to one of its threads; what was verified when it was taken in is verified again when it is opened."""

    def __init__(self, folder: Path, keep: int, keys: Sequence[TrustedKey]) -> None:
        """`keep`: how many bundles stay; `keys`: whose signature is asked for, nobody's where there are none."""
        self.folder = folder
        self._keep, self._keys = keep, keys

    def path_of(self, bundle_id: str) -> Path:
        """Where the copy of a bundle lies, or would lie."""
        return self.folder / bundle_id

    def sweep(self) -> None:
        """Take away what a kill left half done."""
        for prefix in (_BEGUN, _GONE):
            for left in self.folder.glob(f"{prefix}*"):
                shutil.rmtree(left, ignore_errors=True)

    def take_in(self, path: Path) -> tuple[ModelBundle, str | None]:
        """Copy the bundle at `path` (its signature is looked at before anything of it is read) and verify the copy.

        One that is here already, whole, is not copied again. Returns it with the name of the key that signed it; the disk has all of it by
        then. Raises BundleError, and DeviceError where there is no room.
        """
        _readable(path)
        if (known := id_of(path)) and self.path_of(known).is_dir():
            with contextlib.suppress(BundleError):  # else it is copied anew: damaged, or signed since
                found = self.open(known)
                os.utime(self.path_of(known))
                return found
        signer: str | None = None

        def admit(manifest: bytes, signature: bytes | None) -> None:
            nonlocal signer
            signer = released_by(manifest, signature, self._keys, path)

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if known:  # else it is none, and refused before anything is copied
                self._check_room(path)
            begun = Path(tempfile.mkdtemp(prefix=_BEGUN, dir=self.folder))
        except OSError as e:
            raise DeviceError(f"{self.folder}: expected a folder to keep bundles in ([models] path), found: {e.strerror}") from e
        bundle = ModelBundle.copied(path, begun, admit)
        try:
            return self._put(begun, bundle.id), signer
        except OSError as e:
            raise DeviceError(f"{self.folder}: bundle {path} could not be kept here: {e.strerror}; make room") from e
        finally:
            shutil.rmtree(begun, ignore_errors=True)

    def open(self, bundle_id: str) -> tuple[ModelBundle, str | None]:
        """The copy of a bundle that was taken in before. Raises BundleError."""
        path, signer = self.path_of(bundle_id), None

        def admit(manifest: bytes, signature: bytes | None) -> None:
            nonlocal signer
            signer = released_by(manifest, signature, self._keys, path)

        bundle = ModelBundle.open(path, admit=admit)
        if bundle.id != bundle_id:
            raise BundleError(
                f"bundle {path}: expected the bundle of that id, found {bundle.id}: somebody put another one there; deploy it again"
            )
        return bundle, signer

    def prune(self, needed: Collection[str]) -> None:
        """Delete the oldest beyond `keep`, and none of those `needed`."""
        ours = [p for p in self.folder.iterdir() if p.is_dir() and len(p.name) == 64]
        ours.sort(key=lambda p: p.stat().st_mtime, reverse=True)
        for path in ours[self._keep :]:
            if path.name not in needed:
                gone = path.with_name(_GONE + path.name)
                path.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)

    def _put(self, begun: Path, bundle_id: str) -> ModelBundle:
        """The copy under its name, in place of an earlier one that is damaged. Raises OSError."""
        path = self.path_of(bundle_id)
        for file in begun.rglob("*"):
            _sync(file)
        _sync(begun)
        with contextlib.suppress(BundleError):
            bundle, _ = self.open(bundle_id)
            os.utime(path)
            return bundle
        if path.exists():
            path.rename(path.with_name(_GONE + path.name))
        begun.chmod(0o750)
        begun.rename(path)
        os.utime(path)
        _sync(self.folder)
        self.sweep()
        return ModelBundle.open(path)

    def _check_room(self, path: Path) -> None:
        """The journal lies on the same disk as a rule, and must not lose a row for a model. Raises DeviceError."""
        try:
            wanted = sum(e.stat().st_size for e in entries_of(path)) if path.is_dir() else path.stat().st_size
        except OSError as e:
            raise BundleError(f"bundle {path}: cannot be looked at: {e.strerror} ({e.filename})") from e
        disk = os.statvfs(self.folder)
        reserve = int(min(_RESERVE_BYTES, _RESERVE_SHARE * disk.f_blocks * disk.f_frsize))
        free = disk.f_bavail * disk.f_frsize
        if free - wanted < reserve:
            raise DeviceError(
                f"{self.folder}: bundle {path} takes {wanted / 1e6:,.1f} MB of a disk that keeps {reserve / 1e6:,.0f} MB for the journal,"
                f" found {free / 1e6:,.1f} MB free; make room"
            )


def _readable(path: Path) -> None:
    """Raises BundleError where this process cannot see or read it: whoever asks may see what a service is kept from."""
    try:
        there = path.exists()
        readable = there and os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK)
    except OSError:
        there, readable = True, False
    if not readable:
        raise BundleError(
            f"bundle {path}: expected a directory or a zip file that the station's user ({getpass.getuser()}) may read, found "
            f"{'one that he may not' if there else 'nothing there'}; a service sees neither /home nor your"
            " /tmp: put it below /etc/lineside/bundles"
        )


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
