"""Data sets: every image of a folder is found, looked at and checked, or the folder is refused by name."""

import dataclasses
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError, DataError, FrameError
from edge_runtime.images.read import read_mask
from edge_runtime.model import manifest
from edge_runtime.model.manifest import InputSpec, TileSpec
from edge_runtime.model.preprocess import Preprocessor
from edge_runtime.records import Image
from training.core.progress import Progress, silent
from training.data.annotations import with_marks
from training.data.duplicates import refuse_copies
from training.data.facts import Facts, facts_of, load_frame, refuse, say_turned
from training.data.formats import find
from training.data.input_spec import Bayer, TilesFor, depth_of, derive
from training.data.layout import Sample, find_bad, say_orphans
from training.data.left_out import say_left_out, say_pages
from training.data.masks import beyond, say_sizes, settle, size_of_truth
from training.data.promise import compression_of, say_alike, say_cameras, say_drawn, say_file_kinds, say_flat, say_lacking, say_loss
from training.data.taught import taught_on


@dataclass(frozen=True, slots=True)
class Dataset:
    """A checked folder: every image was decoded once and fits."""

    path: Path
    name: str
    train: tuple[Sample, ...]
    """Good images; of a plain folder, all of it."""
    test: tuple[Sample, ...]
    """The data's own test split; empty for a plain folder."""
    bad: tuple[Sample, ...]
    """Bad images of the data's own training split (`split` "train"), then the images of --bad (`split` "bad")."""
    spec: InputSpec
    ignore: npt.NDArray[np.uint8] | None
    """(H, W) of the frame's size, 255 = ignored."""
    sha256: tuple[str, ...]
    """sha256 of each file of `train`, in its order."""
    notes: tuple[str, ...]
    """Sentences that a user should read."""
    format: str = ""
    """The layout that was found, for people."""
    copies: tuple[Sample, ...] = ()
    """Good images that are not in `train`, since they show what another one of it shows."""
    losses: tuple[int | None, ...] = ()
    """What compression took away, of each of `train` in its order: see `edge_runtime.images.loss.loss_of`."""
    doubts: tuple[str, ...] = ()
    """Those of `notes` that may be why good parts are rejected: several cameras, files of two kinds."""

    @property
    def record(self) -> manifest.Dataset:
        """For the manifest."""
        digest = hashlib.sha256("".join(sorted(self.sha256)).encode()).hexdigest()
        short = tuple(sorted(s[: manifest.SHORT_SHA256] for s in self.sha256))
        n_lossy, quality = compression_of(self.losses)
        return manifest.Dataset(
            name=self.name, fingerprint=digest, n_good=len(self.train), good_sha256=short, n_lossy=n_lossy, quality=quality
        )  # fmt: skip

    @property
    def scored(self) -> tuple[Sample, ...]:
        """What an evaluation scores: the test split with --bad's images; where there is no test split, everything.

        Bad images of a training split that has a test split beside it are for teaching: to score them would make the figures' test set
        another one than the data's own.
        """
        if self.test:
            known = {s.path.resolve() for s in self.test}  # whoever names the bad folder of the data itself by --bad adds none
            return (*self.test, *(s for s in self.bad if s.split == "bad" and s.path.resolve() not in known))
        return (*self.train, *self.bad)

    def name_of(self, sample: Sample) -> str:
        """Its path relative to the data's folder where it lies in it, else in full."""
        root, full = self.path.parent if self.path.is_file() else self.path, sample.path.resolve()
        return full.relative_to(root).as_posix() if full.is_relative_to(root) else full.as_posix()

    def preprocessor(self) -> Preprocessor:
        """From frames to model inputs."""
        return Preprocessor(self.spec, self.ignore)

    def leave_out(self, names: Collection[str]) -> "Dataset":
        """Without these good images, named as `name_of` does; names that are not among them are passed over."""
        gone = set(names)
        kept = [i for i, s in enumerate(self.train) if self.name_of(s) not in gone] if gone else range(len(self.train))
        return dataclasses.replace(
            self, train=tuple(self.train[i] for i in kept), sha256=tuple(self.sha256[i] for i in kept),
            losses=tuple(self.losses[i] for i in kept),
        )  # fmt: skip


def load_dataset(
    path: Path,
    *,
    roi: tuple[int, int, int, int] | None = None,
    ignore_mask: Path | None = None,
    bad: Path | None = None,
    masks: Path | None = None,
    image_size: str = "256",
    spec: InputSpec | None = None,
    ignore: npt.NDArray[np.uint8] | None = None,
    allow_duplicates: bool = False,
    few_good: bool = False,
    tiles: TileSpec | TilesFor | None = None,
    bayer: Bayer | None = None,
    bits: int | None = None,
    known: Mapping[Path, Facts] | None = None,
    taught: manifest.Dataset | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Find and check all images at `path`, in any of the layouts of training/data/formats.py.

    Gray and colour: the number of channels is the files'. One gray image among colour ones (or the other way round) is refused, with one
    exception: colour files whose three channels are equal everywhere count as gray where other files are gray, because some programs
    save gray pictures so. Where all are such, they are gray. Depth of 16-bit files: `bits`, or the smallest of 10, 12, 14, 16 that holds
    the brightest pixel of all images.

    Args:
        path: the folder, or a .csv file.
        roi: (x, y, width, height) in frame pixels.
        ignore_mask: image file of the frames' size, non-zero = ignored; all images must then have one size.
        bad: folder of defective images, for calibration or evaluation; subfolders name kinds.
        masks: folder of `<name>_mask.*` or `<name>.*` for the images of `bad`.
        image_size: `N`, `WxH` or `auto`, see `input_spec.parse_image_size`.
        spec, ignore: of a run or bundle, to check `path` against; training images are then not read where there is a test split,
            but to be compared with it, and `roi`, `ignore_mask`, `image_size`, `tiles`, `bayer` and `bits` do not count.
        allow_duplicates: make a note of training images that are test or bad images too, instead of refusing them.
        few_good: fewer good images than bad ones are meant so: learn from labels that may be swapped (`Found.reversed`), too.
        tiles: how a large region is cut, or what says so once the region's size is known; `image_size` is then that of one tile.
        bayer: the files are raw mosaics of this pattern.
        bits: significant bits of 16-bit files, as the camera states them.
        known: what `inspect_data` has found of these very files, which are then not decoded again.
        taught: what the detector of `spec` learnt from. Good images that came without a split, and of which it learnt none, all test.
        progress: told of each image.

    Raises:
        DataError: nothing there, or images that cannot be read or do not fit together, up to five named by path.
        ConfigError: an impossible region, mask or size.
    """
    if masks is not None and bad is None:
        raise ConfigError("masks: they belong to the images of --bad, which is not given")
    found = find(path)
    unmarked, orphans = find_bad(bad, masks)
    given = tuple(with_marks(unmarked, bad))
    swapped = [found.reversed] if found.reversed and spec is None and not few_good else []
    refuse([*found.problems, *swapped], "things are wrong with this data set", inspected=True)
    if taught is not None and found.own_split and not taught_on(found.train, taught):
        test = (*(dataclasses.replace(s, split="test") for s in found.train), *found.test)
        remark = f"none of these was taught: all {sum(s.is_good for s in test)} good images test"
        found = dataclasses.replace(found, train=(), test=test, notes=(*found.notes, remark))
    notes = [found.sentence, *found.notes, *say_orphans(masks or path, [], orphans)[1]]
    notes += say_left_out(bad) if bad is not None else []
    test = found.test
    learns = spec is None or not test
    own = (*found.train, *found.bad) if learns else ()
    samples = (*own, *test, *given)
    facts = _inspect(samples, progress, known or {})
    if spec is None and (drawn := say_drawn(samples, facts)) is not None:
        raise DataError(f"data: {drawn}")
    if spec is None:
        ignore = None if ignore_mask is None else read_mask(ignore_mask)
        depth = depth_of(facts, bits)
        spec, remarks = derive(found.train, facts[: len(found.train)], depth, roi, ignore_mask, image_size, tiles, bayer)
        notes += remarks
    notes += say_turned([s.path for s in samples], facts)
    notes += say_pages([s.path for s in samples], [f.pages for f in facts])
    _check_fit(samples, facts, spec, ignore)
    samples, said = _check_masks(samples, facts)
    notes += said
    own, test, given = samples[: len(own)], samples[len(own) : len(own) + len(test)], samples[len(own) + len(test) :]
    doubles, said = _check_copies(found.train, samples, facts, learns, allow_duplicates, progress)
    notes += said
    doubts: list[str] = []
    if learns:
        # Of all good images, as --leave-out is told by what stands here.
        taught_on_loss = say_loss([f.loss for f in facts[: len(found.train)]])
        doubts = [n for n in (say_cameras([f.wh for f in facts[: len(found.train)]]), say_file_kinds(samples)) if n]
        notes += [n for n in (say_flat(facts[: len(found.train)]), *doubts, taught_on_loss, *say_lacking(test, given)) if n]
    single = [i for i in range(len(found.train)) if i not in doubles] if learns else []
    train, copies = tuple(own[i] for i in single), tuple(own[i] for i in sorted(doubles))
    hashes, losses = tuple(facts[i].sha256 for i in single), tuple(facts[i].loss for i in single)
    bad_samples = (*own[len(found.train) :], *given)
    path = path.resolve()
    return Dataset(
        path, path.stem if path.is_file() else path.name, train, test, bad_samples, spec, ignore, hashes, tuple(notes), found.format,
        copies, losses, tuple(doubts),
    )  # fmt: skip


def load_bad(
    folder: Path, spec: InputSpec, ignore: npt.NDArray[np.uint8] | None, *, masks: Path | None = None, progress: Progress = silent
) -> tuple[Sample, ...]:
    """Find and check the defective images in `folder` against a run's input. Raises DataError."""
    samples = with_marks(find_bad(folder, masks)[0], folder)
    facts = _inspect(samples, progress)
    _check_fit(samples, facts, spec, ignore)
    return _check_masks(samples, facts)[0]


def inputs(samples: Sequence[Sample], prepare: Preprocessor) -> Iterator[npt.NDArray[np.uint8]]:
    """(height, width, 3) uint8 BGR model inputs, `prepare.views` an image; one image in memory at a time. DataError names the path."""
    for sample in samples:
        try:
            yield from prepare.split(load_frame(sample.path, prepare.spec))
        except FrameError as e:
            raise DataError(f"{sample.path}: {e}") from e


def _inspect(samples: Sequence[Sample], progress: Progress, known: Mapping[Path, Facts] | None = None) -> list[Facts]:
    known = known or {}
    new = [s.path for s in samples if s.path not in known]
    looked = dict(zip(new, facts_of(new, lambda done: progress("check images", done, len(new))), strict=True))
    found = [known.get(s.path) or looked[s.path] for s in samples]
    refuse([str(f) for f in found if isinstance(f, DataError)], inspected=True)
    return [f for f in found if isinstance(f, Facts)]


def _check_copies(
    train: Sequence[Sample], samples: Sequence[Sample], facts: Sequence[Facts], learns: bool, allowed: bool, progress: Progress
) -> tuple[frozenset[int], list[str]]:
    """(Which training images are copies of others of them, where they are learnt from; notes on pictures that are there twice).

    Raises DataError where a training image is a test or bad image too, unless `allowed`.
    """
    paths, seen, known = [s.path for s in samples], list(facts), len(train)
    if not learns:  # a run or a bundle is evaluated: its training images are of interest for this alone, and may be unusable otherwise
        if allowed:
            return frozenset(), []
        looked = facts_of([s.path for s in train], lambda done: progress("compare with training images", done, len(train)))
        usable = [(s.path, f) for s, f in zip(train, looked, strict=True) if isinstance(f, Facts)]
        paths, seen, known = [p for p, _ in usable] + paths, [f for _, f in usable] + seen, len(usable)
    good = [s.is_good for s in samples] if learns else ()
    return refuse_copies(paths, seen, known, learns, allowed, good)


def _check_fit(samples: Sequence[Sample], facts: Sequence[Facts], spec: InputSpec, ignore: npt.NDArray[np.uint8] | None) -> None:
    """Refuse images that the preprocessor would refuse, all at once and before any work."""
    prepare = Preprocessor(spec, ignore)
    if not prepare.valid_cells((spec.height, spec.width)).any():
        raise ConfigError("ignore mask: covers the whole region of interest; nothing would be left to judge")
    problems: list[str] = []
    for sample, fact in zip(samples, facts, strict=True):
        channels = 1 if spec.channels == 1 and fact.colourless else fact.channels
        shape = fact.wh[::-1] if channels == 1 else (*fact.wh[::-1], channels)
        pixel = np.arange(channels, dtype=fact.dtype)  # a view of one pixel, in colour where there are three channels
        try:
            prepare.check(cast(Image, np.broadcast_to(pixel, shape)))
        except FrameError as e:
            problems.append(f"{sample.path}: {e}")
    refuse(problems)


def _check_masks(samples: Sequence[Sample], facts: Sequence[Facts]) -> tuple[tuple[Sample, ...], list[str]]:
    """The samples with their masks read beside their siblings, and notes. Raises DataError for masks that cannot be what they should."""
    settled, found = settle(samples)
    problems: list[str] = []
    sizes = []
    for sample, fact in zip(samples, facts, strict=True):
        size = size_of_truth(sample, found)
        if isinstance(size, DataError):
            problems.append(str(size))
        elif size is not None and size != fact.wh:
            sizes.append((sample, size, fact.wh))
        elif (outside := beyond(sample, fact.wh)) is not None:
            problems.append(outside)
    refuse([*say_sizes(sizes), *problems, *found.problems], inspected=True)
    return settled, list(found.notes)


def refuse_none_left(dataset: Dataset) -> None:
    """Raises DataError where every good image was left out."""
    if not dataset.train:
        raise DataError("leave out: expected good images to learn from, found none left; name only those that are not to be learnt")


def refuse_alike(dataset: Dataset) -> None:
    """Raises DataError where so many good images are copies of others that hardly any differ."""
    if (sentence := say_alike(len(dataset.train) + len(dataset.copies), len(dataset.copies))) is not None:
        raise DataError(f"data: {sentence}")


def read_names(path: Path, dataset: Dataset) -> tuple[str, ...]:
    """Names of good images of `dataset`, a line each, as a run's odd.txt has them; empty lines, those that begin with #, and what stands
    behind a # with blanks around it do not count.

    Raises DataError for a file that cannot be read, or a name that is none of these images'.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"leave out: expected a text file with an image's name a line, {path} cannot be read ({e})") from e
    wanted = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    known = {dataset.name_of(s) for s in (*dataset.train, *dataset.copies)}
    by_name = {Path(name).name: name for name in known}
    # A file's name may have a # in it, too.
    wanted = tuple(name if name in known or Path(name).name in by_name else re.split(r"\s+#\s", name)[0] for name in wanted)
    unknown = [name for name in wanted if name not in known and Path(name).name not in by_name]
    if unknown:
        raise DataError(
            f"leave out: {path} names {unknown[0]}, which is none of the {len(known)} good images of {dataset.path};"
            f" expected names such as {min(known, default='train/good/1.png')}"
        )
    return tuple(name if name in known else by_name[Path(name).name] for name in wanted)
