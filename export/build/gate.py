"""The images of the gate: written once, run by torch and by every IR, and counted as an evaluation counts them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import openvino as ov
import torch

from edge_runtime.images.read import read_mask
from export import package
from export.build import noise
from export.build.noise import PixelImage
from export.child import ChildRun, race_in_child, run_in_child
from training.calibrate.rules import Scores
from training.core.base import Progress
from training.core.memory import array_file
from training.data.dataset import Dataset
from training.data.layout import Sample
from training.data.taught import unlearnt
from training.judging.evaluate import Scored
from training.judging.pixels import PixelCounts, label_regions
from training.pictures.augment import Augment
from training.pictures.material import good_pictures
from training.runs import Detector, Run


@dataclass(frozen=True, slots=True)
class Compared:
    """Every image by which precisions are compared: all of the data, however they are laid out, but those that were set apart as odd."""

    samples: tuple[Sample, ...]
    score: npt.NDArray[np.float64]
    """(N,) of the very graph; of good images that were taught, their held-out scores."""

    @property
    def is_good(self) -> npt.NDArray[np.bool_]:
        """(N,)"""
        return np.array([s.is_good for s in self.samples], dtype=bool)


@dataclass(frozen=True, slots=True)
class Judged:
    """One precision's detector on the images of the gate."""

    scored: Scored
    """On `samples` of the gate, for the figures; where there is no test split, good images carry their held-out scores."""
    compared: Compared
    """These and, where there is a test split, the taught ones, too."""
    raw: npt.NDArray[np.float64]
    """(N,) scores of the very graph, held-out or not."""
    peaks: npt.NDArray[np.float64]
    """(N,) maxima of its maps."""
    maps: npt.NDArray[np.floating]
    """(N, gh, gw), of `samples` of the gate."""
    latency_ms: float

    def scores_of(self, split: str, good: bool) -> Scores:
        """The scores of the good or bad images of one split."""
        rows = np.array([s.split == split and s.is_good == good for s in self.scored.samples], dtype=bool)
        return Scores(*(getattr(self.scored.scores, f)[rows] for f in ("score", "map_peak", "map_median")))


class Gate:
    """The same images for every precision."""

    def __init__(self, run: Run, dataset: Dataset, work: Path, progress: Progress) -> None:
        """`work`: an existing folder for inputs, graphs and outputs."""
        self.dataset, self.work, self.progress = dataset, work, progress
        self.prepare = run.preprocessor()
        self.samples: tuple[Sample, ...] = unlearnt(dataset.scored, run.info.dataset)
        self.names = self.names_of(self.samples)
        held = {i.name for i in run.held_out.images}
        self.held: tuple[Sample, ...] = tuple(
            s for s, name in zip(dataset.train, self.names_of(dataset.train), strict=True) if name in held
        )
        """Good images with held-out scores, in the order of these."""
        self.unlearnt = run.unlearnt(dataset.train, self.names_of(dataset.train))
        """Those of them that the head itself never learnt from."""
        self._masks: dict[Path, npt.NDArray[np.uint8]] = {}

    def names_of(self, samples: Sequence[Sample]) -> list[str]:
        """Paths relative to the data's folder where they lie in it."""
        return [self.dataset.name_of(s) for s in samples]

    def write_inputs(self, name: str, samples: Sequence[Sample], augment: Augment | None = None, seed: int = 0) -> Path:
        """Model inputs as (N, H, W, 3) uint8 in a file that processes can share, with their variations; those that are there already under
        this name stay. Raises DataError with the path."""
        if (path := self.work / f"{name}.npy").exists():
            return path
        count = len(samples) * self.prepare.views * (1 + (augment.copies if augment else 0))
        return self.write_pictures(name, good_pictures(samples, self.prepare, augment, seed), count)

    def write_pictures(self, name: str, pictures: Iterable[npt.NDArray[np.uint8]], count: int) -> Path:
        """(N, H, W, 3) uint8 in a file that processes can share."""
        path, spec = self.work / f"{name}.npy", self.prepare.spec
        array = array_file(path, np.uint8, (count, spec.height, spec.width, 3))
        for i, picture in enumerate(pictures):
            array[i] = picture
            self.progress("preparing images", i + 1, count)
        array.flush()
        return path

    def run_ir(self, name: str, model: ov.Model, images: Path) -> ChildRun:
        """Save `model` as `<work>/<name>.xml` and run it on `images` in a child process. Raises ExportError."""
        ir, out = self.work / f"{name}.xml", self.work / name
        out.mkdir()
        package.save_ir(model, ir)
        what = f"running {name.replace('_', ' ')}"
        self.progress(what, 0, 1)
        found = run_in_child(ir, images, out)
        self.progress(what, 1, 1)
        return found

    def race(self, names: Sequence[str], images: Path) -> list[float]:
        """Median milliseconds of each of the graphs that `run_ir` has saved, run in turns. Raises ExportError."""
        out = self.work / "race"
        out.mkdir(exist_ok=True)
        return race_in_child([self.work / f"{name}.xml" for name in names], images, out)

    def run_torch(self, detector: Detector, images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(N,) scores and (N, gh, gw) maps."""
        scores, maps = [], []
        with torch.inference_mode():
            for i in range(len(images)):
                score, score_map = detector(torch.from_numpy(np.array(images[i : i + 1])))
                scores.append(score.numpy())
                maps.append(score_map[:, 0].numpy())
                self.progress("running torch", i + 1, len(images))
        return np.concatenate(scores), np.concatenate(maps)

    def merge(
        self, scores: npt.NDArray[np.floating], maps: npt.NDArray[np.floating]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.floating]]:
        """Scores and maps of pictures -> (N,) and (N, gh, gw) of the images that they are tiles of."""
        views = self.prepare.views
        merged = [self.prepare.merge(scores[i : i + views], maps[i : i + views]) for i in range(0, len(scores), views)]
        return np.array([score for score, _ in merged], dtype=np.float64), np.stack([grid for _, grid in merged])

    def judge(self, scores: npt.NDArray[np.floating], maps: npt.NDArray[np.floating], held_out: Scores, latency_ms: float) -> Judged:
        """`scores` and `maps` (gh, gw) of all pictures of all samples, counted as an evaluation counts them.

        Good images that were taught score too well, so their held-out scores (of `held`) stand in. They count for the comparison of
        precisions, and for the figures where there is no test split; by their pixels only bad images count then. Raises DataError for a
        mask that cannot be read.
        """
        raw, maps = self.merge(scores, maps)
        peaks = np.asarray(maps, dtype=np.float64).max(axis=(1, 2))
        valid = self.prepare.valid_cells((maps.shape[1], maps.shape[2]))
        medians = np.array([np.median(grid[valid]) for grid in maps], dtype=np.float64)
        found = Scores(raw, peaks, medians)
        pixels, regions = PixelCounts(), np.zeros(len(raw), np.intp)
        unmasked = tuple(s for s in self._counted if not s.is_good and not self._truth(s).any())
        for i, picture in self.pixels(maps):
            pixels.add(*picture)
            regions[i] = picture[1].max()
        if self.dataset.test:
            no_hits = np.zeros(len(raw), np.intp)
            scored = Scored(self.samples, found, pixels, regions, no_hits, unmasked)
            compared = Compared((*self.held, *self.samples), np.concatenate([held_out.score, raw]))
            return Judged(scored, compared, raw, peaks, maps, latency_ms)
        rows = np.array([not s.is_good for s in self.samples], dtype=bool)
        parts = (held_out, Scores(found.score[rows], found.map_peak[rows], found.map_median[rows]))
        both = Scores(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("score", "map_peak", "map_median")))
        regions = np.concatenate([np.zeros(len(self.held), np.intp), regions[rows]])
        samples = (*self.held, *self._counted)
        scored = Scored(samples, both, pixels, regions, np.zeros_like(regions), unmasked)
        return Judged(scored, Compared(samples, both.score), raw, peaks, maps, latency_ms)

    @property
    def judged_on(self) -> str:
        """The images that precisions are compared by, for people."""
        bad = sum(not s.is_good for s in self.samples)
        held, tested = len(self.held), sum(s.is_good for s in self.dataset.test)
        if not tested:
            return f"{held} good images, by their held-out scores, and {bad} bad ones"
        return f"{held + tested} good images, {held} of them taught and counted by their held-out scores, and {bad} bad ones"

    @property
    def _counted(self) -> tuple[Sample, ...]:
        """The samples that count by their pixels."""
        return self.samples if self.dataset.test else tuple(s for s in self.samples if not s.is_good)

    def _truth(self, sample: Sample) -> npt.NDArray[np.bool_]:
        """Its mask as it counts; read once, and kept as bits."""
        size = self.prepare.truth_hw
        if sample.mask_path is None:
            return np.zeros(size, dtype=bool)
        if sample.mask_path not in self._masks:
            mask = self.prepare.crop_mask(read_mask(sample.mask_path)) & self.prepare.valid_cells(size)
            self._masks[sample.mask_path] = np.packbits(mask)
        return np.unpackbits(self._masks[sample.mask_path], count=size[0] * size[1]).reshape(size).view(np.bool_)

    def pixels(self, maps: npt.NDArray[np.floating]) -> Iterator[tuple[int, PixelImage]]:
        """Position and pixels of each image of `maps` (N, gh, gw) that counts by these: all but bad ones without a mask."""
        size = self.prepare.truth_hw
        counted = self.prepare.valid_cells(size)
        which = set(map(id, self._counted))
        for i, sample in enumerate(self.samples):
            if id(sample) not in which:
                continue
            mask = self._truth(sample)
            if sample.is_good or mask.any():
                large = cv2.resize(np.asarray(maps[i], dtype=np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
                yield i, (np.asarray(large, dtype=np.float32), label_regions(mask), counted)
            self.progress("score", i + 1, len(self.samples))

    def chance(self, before: Judged, after: Judged) -> Callable[[str], float]:
        """What few images explain of a fall between two precisions, by the key of Metrics; see noise.allowance."""
        pixel_errors: dict[str, float] = {}

        def explain(key: str) -> float:
            if key == "image_auroc":
                return noise.allowance(noise.auroc_error(before.compared.is_good, before.compared.score, after.compared.score))
            if not pixel_errors:
                a, b = (noise.pixel_influences((p for _, p in self.pixels(j.maps)), j.scored.pixels) for j in (before, after))
                pixel_errors.update(pixel_auroc=noise.paired_error(a.auroc, b.auroc), aupro=noise.paired_error(a.aupro, b.aupro))
            return noise.allowance(pixel_errors[key])

        return explain
