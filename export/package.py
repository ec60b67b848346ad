"""Writes a bundle: chooses golden samples, hashes every file, and puts the whole in its place in one step."""

import contextlib
import errno
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import openvino as ov

from edge_runtime.errors import ConfigError, DataError, ExportError
from edge_runtime.files import replacing
from edge_runtime.model.bundle import MANIFEST, ModelBundle, file_sha256, write_manifest
from edge_runtime.model.manifest import Manifest
from edge_runtime.records import Image
from training.core import places
from training.core.places import bring_back, nearest_folder

GOLDEN_TOLERANCE = {"fp32": 1e-3, "int8": 1e-2}
"""Relative. Rounding in float32 differs between CPUs by about 1e-5: 1e-3 passes every sound device and no other model. An INT8 value
on the edge of two steps may land on either side of it on another kind of device (GPU, ARM): hence 1e-2. CPUs with and without VNNI
agree to the bit (see quantize.py); a device that saturates or computes in half precision is far outside and is refused."""

_FULL_BYTES = 1 << 16
"""A disk with less room than that, after a failure to write, is full."""
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def save_ir(model: ov.Model, path: Path) -> None:
    """Write `path` (.xml) and the weights beside it (.bin), every number in the precision it has in the graph. Raises OSError."""
    try:
        ov.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as e:  # "iostream error" is all that it says of a full disk
        full = shutil.disk_usage(path.parent).free < _FULL_BYTES
        why = f"OpenVINO could not save {path.name} ({str(e).strip().splitlines()[-1]})"
        raise OSError(errno.ENOSPC if full else errno.EIO, f"no space left on the disk: {why}" if full else why) from e


def check_out(out: Path, zipped: bool, force: bool) -> None:
    """Refuse a place that is taken, before any work. With `force`, only a bundle is replaced, nothing else. Raises ConfigError."""
    nearest_folder(out)
    bring_back(out)
    for path in (out, zip_path(out)) if zipped else (out,):
        if not path.exists():
            continue
        if not force:
            raise ConfigError(f"out: {path} exists already; choose another place or add --force to replace it")
        if path == out and not (out / MANIFEST).is_file():
            raise ConfigError(
                f"out: {path} exists and is no bundle ({MANIFEST} is missing), so --force does not replace it; choose another place"
            )


@contextlib.contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """A folder to work in, beside `out` and thus on its file system. Afterwards it is gone, and so is what stood above `out` for it alone.

    Raises ExportError, also for an OSError of whoever works there.
    """
    try:
        with places.workplace(out) as place:
            yield place
    except OSError as e:
        raise ExportError(f"out: {out} cannot be written: {e.strerror or e}; free some space or choose another place") from e


def zip_path(out: Path) -> Path:
    """Where the zip of a bundle goes."""
    return out.with_name(out.name + ".zip")


def choose_golden(scores: npt.NDArray[np.float64], good: npt.NDArray[np.bool_], threshold: float) -> list[int]:
    """Positions of the samples that say most about a device: ordinary good parts, good and bad ones next to the threshold, an ordinary
    bad one.

    Of four good ones half lie nearest to the median of good scores, the others nearest to the threshold; so it is with two bad ones.
    Raises DataError when there are fewer than 4 images in all.
    """
    if len(scores) < 4:
        raise DataError(f"golden samples: expected at least 4 images, found {len(scores)}")
    picks: list[int] = []
    for of, count in ((good, 4), (~good, 2)):
        where = np.flatnonzero(of)
        if not len(where):
            continue
        middle = float(np.median(scores[where]))
        for centre, share in ((middle, count - count // 2), (threshold, count // 2)):
            nearest = where[np.argsort(np.abs(scores[where] - centre), kind="stable")]
            picks += [int(i) for i in nearest if int(i) not in picks][:share]
    # Hardly any good images (or none): whatever there is.
    rest = [i for i in range(len(scores)) if i not in picks]
    return picks + rest[: max(0, 4 - len(picks))]


def write_golden(directory: Path, frames: Sequence[Image]) -> list[str]:
    """Frames as the camera gives them, as lossless PNG (16 bits stay 16 bits). Returns their names in the bundle."""
    (directory / "golden").mkdir()
    names = []
    for i, frame in enumerate(frames):
        names.append(f"golden/{i:03d}.png")
        write_png(directory / names[-1], frame)
    return names


def write_png(path: Path, image: Image) -> None:
    """Lossless. Raises ExportError."""
    ok, data = cv2.imencode(".png", image)
    if not ok:
        raise ExportError(f"{path.name}: {image.dtype} {image.shape} could not be written as PNG")
    path.write_bytes(data.tobytes())


def seal(directory: Path, manifest: Manifest) -> ModelBundle:
    """Fill in the hashes of all files in `directory`, write the manifest, and open the result as a device would. Raises BundleError."""
    files = {p.relative_to(directory).as_posix(): file_sha256(p) for p in sorted(directory.rglob("*")) if p.is_file()}
    write_manifest(directory, msgspec.structs.replace(manifest, files=files))
    return ModelBundle.open(directory)


def write_zip(directory: Path, path: Path) -> None:
    """One file; the same bundle gives the same bytes: names sorted, no dates, no owners."""
    with replacing(path) as out, zipfile.ZipFile(out, "w") as archive:
        for file in sorted(p for p in directory.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(directory).as_posix(), _ZIP_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, file.read_bytes())


def size_bytes(directory: Path) -> int:
    """Bytes of all files together."""
    return sum(p.stat().st_size for p in directory.rglob("*") if p.is_file())
