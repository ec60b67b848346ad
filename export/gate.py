"""The images of the gate: written once, run by torch and by every IR, and counted as an evaluation counts them."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch

from edge_runtime.records import Frame, Prediction
from export import package
from export.child import ChildRun, run_in_child
from training.augment import Augment
from training.calibrate import Scores
from training.data import Dataset
from training.evaluate import Scored, score_dataset, unlearnt
from training.layout import Sample
from training.material import good_pictures
from training.memory import array_file
from training.methods.base import Progress
from training.run import Detector, Run


@dataclass(frozen=True, slots=True)
class Judged:
    """One precision's detector on the images of the gate."""

    scored: Scored
    """On `samples` of the gate; where there is no test split, good images carry their held-out scores."""
    raw: npt.NDArray[np.float64]
    """(N,) scores of the very graph, held-out or not."""
    peaks: npt.NDArray[np.float64]
    """(N,) maxima of its maps."""
    latency_ms: float

    def scores_of(self, split: str, good: bool) -> Scores:
        """Of the good or bad images of one split."""
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

    def names_of(self, samples: Sequence[Sample]) -> list[str]:
        """Paths relative to the data's folder where they lie in it."""
        return [self.dataset.name_of(s) for s in samples]

    def write_inputs(self, name: str, samples: Sequence[Sample], augment: Augment | None = None, seed: int = 0) -> Path:
        """Model inputs as (N, H, W, 3) uint8 in a file that processes can share, with their variations. Raises DataError with the path."""
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

        Without a test split the good images are those that were taught, which score too well: their held-out scores stand in, and only
        bad images count by their pixels.
        """
        raw, maps = self.merge(scores, maps)
        shown = {s.path: i for i, s in enumerate(self.samples)}
        peaks = np.asarray(maps, dtype=np.float64).max(axis=(1, 2))

        def predict(frame: Frame) -> Prediction:
            i = shown[Path(frame.source)]
            return Prediction(float(raw[i]), maps[i], self.prepare.grid_to_frame(frame.image, maps[i].shape))

        if self.dataset.test:
            return Judged(score_dataset(predict, self.samples, self.prepare, progress=self.progress), raw, peaks, latency_ms)
        unlearnt_bad = tuple(s for s in self.samples if not s.is_good)
        bad = score_dataset(predict, unlearnt_bad, self.prepare, progress=self.progress)
        good = len(self.held)
        parts = (held_out, bad.scores)
        scored = dataclasses.replace(
            bad,
            samples=(*self.held, *unlearnt_bad),
            scores=Scores(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("score", "map_peak", "map_median"))),
            regions=np.concatenate([np.zeros(good, np.intp), bad.regions]),
            hits=np.concatenate([np.zeros(good, np.intp), bad.hits]),
        )
        return Judged(scored, raw, peaks, latency_ms)
