"""Learning by gradient steps: what a trained method states (a Task), and the one loop that runs it, stops it, and picks it up again.

Why: deploy/decisions/0013.
"""

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edge_runtime.errors import DataError
from training.core.base import Features, Head, LevelShape, Outliers, Progress, silent
from training.core.checkpoint import Checkpoint, State, load_state, save_state

Distort = Callable[[npt.NDArray[np.uint8], np.random.Generator], npt.NDArray[np.uint8]]
"""(H, W, 3) uint8 BGR -> the same shape: one random variation that a good part may show (training.pictures.augment)."""

_Module = TypeVar("_Module", bound=nn.Module)

HELD_OUT_SHARE = 0.2
"""Share of the good images that is never learnt from, so that they can end the learning and calibrate the threshold."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Model inputs of good images."""

    images: npt.NDArray[np.uint8]
    """(N, H, W, 3) BGR, possibly a memory map on disk."""
    rows: npt.NDArray[np.intp]
    """Which of them count."""
    distort: Distort | None = None
    """Applied to each picture that is drawn, never to those that are walked through."""

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """(count, H, W, 3) uint8: random pictures, with replacement."""
        picks = self.rows[rng.integers(len(self.rows), size=count)]
        chosen = [self.images[i] for i in picks]
        if self.distort is not None:
            chosen = [self.distort(image, rng) for image in chosen]
        return torch.from_numpy(np.stack(chosen))

    def batches(self, size: int) -> Iterator[Tensor]:
        """Every picture once, in order, undistorted."""
        for start in range(0, len(self.rows), size):
            yield torch.from_numpy(self.images[self.rows[start : start + size]])


class Task:
    """Something to be learnt. One step's loss, and how good the held-out good images find it; the loop does the rest.

    All randomness is drawn from the generator that is handed in, so that a run that is picked up again goes on exactly.
    """

    module: nn.Module
    """What learns. Its state_dict is what a checkpoint keeps, and what the best weights are restored into."""
    steps: int = 2000
    """Steps in all, where neither time nor patience ends it."""
    check_every: int = 100
    """Steps between two validations on the held-out images."""
    patience: int = 5
    """Looks without a gain before it stops."""

    @abstractmethod
    def optimizer(self) -> torch.optim.Optimizer:
        """Made once; its learning rate is the peak of `rate`."""

    @abstractmethod
    def loss(self, rng: np.random.Generator) -> Tensor:
        """One step's loss, a scalar with gradients. Leaves `module` in train mode."""

    @abstractmethod
    def validate(self) -> float:
        """Mean loss over the held-out good images (smaller is better), without gradients. Leaves `module` in eval mode."""

    def rate(self, share: float) -> float:
        """Factor of the learning rate at that share (0..1) of the steps or the time; default: cosine to 1 %."""
        return 0.01 + 0.99 * (1 + math.cos(math.pi * min(share, 1.0))) / 2


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to learn."""

    minutes: float | None = None
    """Wall time; None: as many steps as the task states."""
    max_steps: int | None = None
    """Instead of the task's own number."""


@dataclass(frozen=True, slots=True)
class LearningResult:
    """How the learning went."""

    steps: int
    best_step: int
    best: float
    """Smallest held-out loss."""
    ended: str
    """"steps", "time" or "patience"."""
    seconds: float


def learn(
    task: Task,
    schedule: Schedule,
    seed: int,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Progress = silent,
    what: str = "learning",
) -> LearningResult:
    """Run gradient steps until the steps, the time, or the patience end; `task.module` then has the best weights, in eval mode.

    The time budget sets the schedule: the learning rate falls with the share of the time (or of the steps) that is spent. Learning that is
    picked up again goes on where its last checkpoint was; one that had ended goes on only as far as a larger budget allows.

    Raises DataError for a checkpoint of something else, for one that cannot be read or written, or when the loss is no longer a number.
    """
    rng = np.random.default_rng(seed)
    optimizer = task.optimizer()
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    state = State()
    if checkpoint is not None and checkpoint.resume:
        load_state(checkpoint, task.module, optimizer, rng, state)
    steps = schedule.max_steps or task.steps
    limit_s = math.inf if schedule.minutes is None else schedule.minutes * 60
    began, before = time.monotonic(), state.seconds
    saved = began
    ended = "steps"
    if not state.weights:
        _validate(task, state)

    def spent() -> float:
        return before + time.monotonic() - began

    with torch.enable_grad():
        while state.step < steps:
            if state.stale > task.patience:
                ended = "patience"
                break
            share = max(state.step / steps, spent() / limit_s)
            if share >= 1:
                ended = "time"
                break
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * task.rate(share)
            optimizer.zero_grad(set_to_none=True)
            loss = task.loss(rng)
            if not torch.isfinite(loss):
                raise DataError(
                    f"{what}: the loss is no longer a number after {state.step} steps: the learning rate is too high for these images,"
                    " or they hardly differ. Set a smaller one (--set rate=...), or add images"
                )
            torch.autograd.backward(loss)
            optimizer.step()
            state.step += 1
            # Progress in thousandths of the steps or the time, whichever ends first: a bar's time left is then right for both.
            progress(what, int(1000 * max(state.step / steps, min(1.0, spent() / limit_s))), 1000)
            if state.step % task.check_every == 0 or state.step == steps:
                state.seconds = spent()
                _validate(task, state)
            if checkpoint is not None and time.monotonic() - saved > checkpoint.every_s:
                state.seconds = spent()
                save_state(checkpoint, task.module, optimizer, rng, state)
                saved = time.monotonic()
    state.seconds = spent()
    if state.step % task.check_every and state.step != steps:
        _validate(task, state)
    if checkpoint is not None:
        save_state(checkpoint, task.module, optimizer, rng, state)
    task.module.load_state_dict(state.weights)
    task.module.eval()
    progress(what, 1000, 1000)
    return LearningResult(state.step, state.best_step, state.best, ended, state.seconds)


def hold_out(n: int, seed: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """(learn, held out): positions of `n` images, sorted; at least one on either side. Raises DataError for fewer than two."""
    if n < 2:
        raise DataError(f"fit: expected at least 2 good images, one of them to hold out, found {n}")
    order = np.random.default_rng([seed, n]).permutation(n)
    held = min(n - 1, max(1, round(HELD_OUT_SHARE * n)))
    return np.sort(order[held:]), np.sort(order[:held])


def device() -> torch.device:
    """A GPU where torch sees one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seeded(build: Callable[[], _Module], seed: int) -> _Module:
    """What `build()` gives, its random weights being those of the seed; torch's own generator stays where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


class TrainedHead(Head):
    """A head over a frozen backbone that is learnt by gradient steps instead of being computed. Its weights may be parameters."""

    @abstractmethod
    def prepare(self, features: Features, held_out: Features, valid: npt.NDArray[np.bool_]) -> None:
        """Compute what is not learnt, from good images: what learnt weights see must mean the same on any backbone's features.

        An export calls it alone, on the INT8 features. Raises DataError when there are too few images.
        """

    @abstractmethod
    def task(self, features: Features, held_out: Features, valid: npt.NDArray[np.bool_], outliers: Outliers | None, seed: int) -> Task:
        """`prepare`, and what is to be learnt from good images (and outliers, where the method takes them).

        Raises DataError when there are too few images.
        """

    def fit(self, features: Features, valid: npt.NDArray[np.bool_], seed: int, progress: Progress = silent) -> None:
        """Learn with the method's own schedule, without outliers; a fifth of the images is held out."""
        rows, held = hold_out(len(features), seed)
        learn(self.task(features.subset(rows), features.subset(held), valid, None, seed), Schedule(), seed, progress=progress)


class Network(nn.Module):
    """A trunk of its own that is learnt on images: (N, H, W, 3) uint8 BGR -> one (N, C, h, w) float32 tensor a level.

    It stands where a `Backbone` stands, and a small head over its levels is fitted on held-out good images. In two parts, since an export
    quantizes only the first: `features` (the convolutions) and `compare` (differences, which must stay float).

    Built as network(params, backbone_spec, (height, width)) without weights; shapes follow from these alone, and a saved state_dict
    (parameters and buffers) is all that is kept of it.
    """

    start_share: float = 0.0
    """Share of a time budget that `start` may take where no file gives it what it would have to learn."""
    remark: str = ""
    """What a user should know of how it started; a sentence."""

    @abstractmethod
    def start(
        self, weights: Path | None, good: Pictures, seed: int, progress: Progress = silent, *,
        minutes: float | None = None, resumed: bool = False, checkpoint: Checkpoint | None = None,
    ) -> None:  # fmt: skip
        """Load or make what is there before learning: a teacher (see `build_backbone`; `weights` is its file), statistics of good images.

        `minutes`: what any learning in it may take. `resumed`: whatever the task's module keeps will come from a checkpoint afterwards, so
        nothing needs to be learnt. `checkpoint`: of what is learnt in it. Raises DataError for weights that do not fit.
        """

    @abstractmethod
    def features(self, image: Tensor) -> list[Tensor]:
        """(N, H, W, 3) uint8 BGR -> what `compare` takes."""

    @abstractmethod
    def compare(self, features: Sequence[Tensor]) -> list[Tensor]:
        """-> levels, finest first; small maps, since they are kept for all images while the head is fitted."""

    def forward(self, image: Tensor) -> list[Tensor]:
        """Pictures -> the levels of features that the head reads."""
        return self.compare(self.features(image))

    def level_shapes(self, height: int, width: int) -> list[LevelShape]:
        """(C, h, w) of each level for an input of that size."""
        with torch.inference_mode():
            levels = self(torch.zeros(1, height, width, 3, dtype=torch.uint8, device=next(self.parameters()).device))
        return [(int(f.shape[1]), int(f.shape[2]), int(f.shape[3])) for f in levels]

    @abstractmethod
    def task(self, good: Pictures, held_out: Pictures, seed: int) -> Task:
        """What is to be learnt. Raises DataError when there are too few images."""


def _validate(task: Task, state: State) -> None:
    with torch.no_grad():
        found = task.validate()
    better = found < state.best  # never for NaN, nor once it had counted as the best
    if not state.weights or better:
        state.best, state.best_step, state.stale = found if better else math.inf, state.step, 0
        state.weights = {k: v.detach().to("cpu", copy=True) for k, v in task.module.state_dict().items()}
    else:
        state.stale += 1
