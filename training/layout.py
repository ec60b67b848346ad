"""Where a folder keeps its images: MVTec's layout, or good ones, bad ones and masks in folders of their own."""

from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import ConfigError, DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".jp2"})
GOOD = "good"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image file."""

    path: Path
    kind: str
    """"good", or the name of the defect (MVTec's folder), or "bad" where the folder names no kind."""
    is_good: bool
    mask_path: Path | None
    """Where the defect's mask lies; None for good images and where there is none."""
    split: str
    """"train", "test", or "bad" (given with --bad)."""


def find(path: Path, bad: Path | None, masks: Path | None) -> tuple[tuple[Sample, ...], tuple[Sample, ...], tuple[Sample, ...]]:
    """(train, test, bad) images of MVTec's layout or of a plain folder. Raises DataError, ConfigError."""
    if not path.is_dir():
        raise DataError(f"data: expected a folder of images, found {'a file' if path.exists() else 'nothing'} at {path}")
    if masks is not None and bad is None:
        raise ConfigError("masks: they belong to the images of --bad, which is not given")
    train_dir, test_dir = path / "train" / GOOD, path / "test"
    test: list[Sample] = []
    if train_dir.is_dir() or test_dir.is_dir():
        train = [Sample(p, GOOD, True, None, "train") for p in _images(train_dir)] if train_dir.is_dir() else []
        where = train_dir
        for folder in sorted(p for p in test_dir.glob("*") if p.is_dir()):
            is_good = folder.name == GOOD
            mask_dir = None if is_good else path / "ground_truth" / folder.name
            test += [Sample(p, folder.name, is_good, _mask_of(p, mask_dir), "test") for p in _images(folder)]
    else:
        train, where = [Sample(p, GOOD, True, None, "train") for p in _images(path)], path
    if not train and not test:
        kinds = ", ".join(sorted(SUFFIXES))
        raise DataError(f"data: expected images ({kinds}) in {where}, or MVTec's layout (train/good, test/…); found none")
    return tuple(train), tuple(test), tuple(find_bad(bad, masks))


def find_bad(bad: Path | None, masks: Path | None) -> list[Sample]:
    """The defective images in `bad`, subfolders naming kinds; `masks` may lie inside. Raises DataError."""
    if bad is None:
        return []
    if not bad.is_dir():
        raise DataError(f"bad images: expected a folder, found {'a file' if bad.exists() else 'nothing'} at {bad}")
    if masks is not None and not masks.is_dir():
        raise DataError(f"masks: expected a folder, found {'a file' if masks.exists() else 'nothing'} at {masks}")
    found = [Sample(p, "bad", False, _mask_of(p, masks), "bad") for p in _images(bad)]
    for folder in sorted(p for p in bad.iterdir() if p.is_dir() and (masks is None or p.resolve() != masks.resolve())):
        inner = masks / folder.name if masks is not None and (masks / folder.name).is_dir() else masks
        found += [Sample(p, folder.name, False, _mask_of(p, inner), "bad") for p in _images(folder)]
    if not found:
        raise DataError(f"bad images: expected images in {bad}, found none")
    if masks is not None and all(s.mask_path is None for s in found):
        raise DataError(f"masks: expected files such as {found[0].path.stem}_mask.png in {masks}, found none for any image of {bad}")
    return found


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith("."))


def _mask_of(image: Path, folder: Path | None) -> Path | None:
    if folder is None:
        return None
    names = [f"{image.stem}{tail}{suffix}" for tail in ("_mask", "") for suffix in (".png", *sorted(SUFFIXES - {".png"}))]
    return next((folder / n for n in names if (folder / n).is_file()), None)
