"""Run directories: one taught detector with everything that export, calibration and evaluation need of it.

Layout: run.json (RunInfo), backbone.safetensors (or the learnt network in its place), head.safetensors, held_out.json, ignore_mask.png
where there is one, and checkpoint.safetensors (optimizer and all) where gradient steps were taken; refused/ holds what an export built of
it and found not fit for release (export.build.kept). A run is
written into a hidden folder beside its place and renamed at the end, so that a run that can be seen is whole.
"""

import contextlib
import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edge_runtime.errors import DataError
from edge_runtime.files import put_file
from edge_runtime.images.read import read_mask
from edge_runtime.model import bundle, manifest
from edge_runtime.model.manifest import DisplayScale, InputSpec, Threshold
from edge_runtime.model.preprocess import Preprocessor
from edge_runtime.records import Frame, Prediction
from training.calibrate.rules import HeldOut, Rule
from training.core.backbones import Backbone, BackboneSpec
from training.core.base import Head, LevelShape
from training.core.checkpoint import save_tensors
from training.core.learn import Network, hold_out
from training.core.places import RUN_FILE, bring_back, check_free, move_into_place, workplace
from training.data.layout import Sample
from training.methods.table import make_head, make_network
from training.pictures.augment import Augment
from training.pictures.material import OutlierSource

SCHEMA = 2
READABLE = (1, SCHEMA)
"""Runs of schema 1 do not say how pictures shrink: by area."""
_T = TypeVar("_T")
ODD = "odd.txt"
"""Names of the odd ones, a line each, as `fit --leave-out` reads them."""
INFO, HELD_OUT, BACKBONE, HEAD, IGNORE = RUN_FILE, "held_out.json", "backbone.safetensors", "head.safetensors", "ignore_mask.png"
CHECKPOINT = "checkpoint.safetensors"


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common to the tables of run.json."""


class BackboneInfo(_Record, frozen=True, kw_only=True):
    """Which features."""

    name: str
    """timm's name."""
    strides: tuple[int, ...]
    """Finest first."""
    sha256: str
    """sha256 of backbone.safetensors."""


class Learning(_Record, frozen=True, kw_only=True):
    """How the gradient steps went, where there were any."""

    steps: int
    best_step: int
    """Whose weights were kept."""
    best_loss: float
    """Smallest loss over the held-out good images."""
    ended: str
    """"steps", "time" or "patience"."""
    seconds: float
    minutes: float | None = None
    """The time budget that was given."""
    device: str = "cpu"
    held: str | None = None
    """sha256 over the sorted sha256 of the images that were never learnt from."""


class RunInfo(_Record, frozen=True, kw_only=True):
    """run.json."""

    schema: int
    name: str
    created: str
    """ISO 8601, UTC."""
    method: str
    preset: str
    params: dict[str, Any]
    """Fields of the method's Params."""
    seed: int
    folds: int
    backbone: BackboneInfo
    head_sha256: str
    input: InputSpec
    data: str
    """Absolute path of the folder that it was taught on."""
    dataset: manifest.Dataset
    rule: Rule
    """How the threshold came about, so that export can apply the same rule to the scores of the INT8 detector."""
    threshold: Threshold
    display: DisplayScale
    tools: dict[str, str]
    augment: Augment | None = None
    """Variations that were learnt from, too."""
    outliers: OutlierSource | None = None
    """Bad parts that were learnt from."""
    learning: Learning | None = None
    left_out: tuple[str, ...] = ()
    """Good images of the data that were not learnt, by name: those that the user named, then the `apart` last ones, which are odd."""
    apart: int = 0
    odd: tuple[str, ...] = ()
    """Good images that look unlike the others, learnt or not, the oddest first (fitting.odd)."""
    alike: tuple[str, ...] = ()
    """Those of them, or of the `apart` ones, that look like each other: a second variant of the product?"""
    margins: dict[str, float] = msgspec.field(default_factory=dict)
    """How unlike the others each of the `odd` and `apart` ones is, as a multiple of the most unlike of the others."""


Trunk = Backbone | Network
"""What gives the levels: frozen, or learnt."""


class Detector(nn.Module):
    """Trunk and head as one module: image (N, H, W, 3) uint8 BGR -> score (N,) and map (N, 1, gh, gw), both raw float32."""

    def __init__(self, backbone: Trunk, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Larger is more anomalous; nothing is normalised."""
        score, score_map = self.head(self.backbone(image))
        return score, score_map


@dataclass(frozen=True, slots=True)
class Run:
    """A run directory, read."""

    directory: Path
    info: RunInfo
    held_out: HeldOut
    ignore: npt.NDArray[np.uint8] | None
    """(H, W) of the frame's size, 255 = ignored."""

    def preprocessor(self) -> Preprocessor:
        """From frames to model inputs."""
        return Preprocessor(self.info.input, self.ignore)

    def unlearnt(self, good: Sequence[Sample], names: Sequence[str]) -> tuple[Sample, ...]:
        """The data's good images that have held-out scores; where the head was learnt, those that it never learnt from itself."""
        held = {i.name for i in self.held_out.images}
        kept = [s for s, name in zip(good, names, strict=True) if name in held]
        if self.info.learning is not None and len(kept) == len(good):  # the others were scored by heads that are gone
            kept = [good[int(i)] for i in hold_out(len(good), self.info.seed)[1]]
        return tuple(kept)

    def backbone(self) -> Trunk:
        """With its weights, in eval mode. Raises DataError."""
        spec = BackboneSpec(self.info.backbone.name, self.info.backbone.strides)
        module = make_network(self.info.method, self.info.params, spec, (self.info.input.height, self.info.input.width)) or Backbone(spec)
        _load_into(_weights_of(module), self.directory / BACKBONE, self.info.backbone.sha256)
        return module.eval().requires_grad_(False)

    def new_head(self, level_shapes: list[LevelShape]) -> Head:
        """An unfitted head of this run's method and parameters."""
        return make_head(self.info.method, self.info.params, level_shapes)

    def detector(self) -> Detector:
        """In eval mode. Raises DataError."""
        backbone = self.backbone()
        head = self.new_head(backbone.level_shapes(self.info.input.height, self.info.input.width))
        _load_into(head, self.directory / HEAD, self.info.head_sha256)
        return Detector(backbone, head.eval()).eval()

    def predictor(self) -> Callable[[Frame], Prediction]:
        """The torch detector behind the signature of edge_runtime's Predictor.predict."""
        detector, prepare = self.detector(), self.preprocessor()

        def predict(frame: Frame) -> Prediction:
            with torch.inference_mode():
                found = [detector(torch.tensor(view[None])) for view in prepare.split(frame.image)]
            scores, maps = (np.concatenate([f[i].numpy() for f in found]) for i in range(2))
            score, grid = prepare.merge(scores, maps[:, 0])
            return Prediction(score, grid, prepare.grid_to_frame(frame.image, grid.shape))

        return predict


def digest(hashes: Collection[str]) -> str:
    """One hash of many, whatever their order."""
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def _weights_of(trunk: Trunk) -> nn.Module:
    return trunk.body if isinstance(trunk, Backbone) else trunk


def odd_text(odd: Sequence[str], apart: Sequence[str], alike: Sequence[str], margins: Mapping[str, float]) -> str:
    """The file of odd ones: a name a line, the oddest first, with what is known of each behind a #.

    Those that were set `apart` for safety alone stand behind a # themselves: `fit --leave-out` would do wrong to leave them out unseen.
    """
    known = {name: f"  # {margin:.2f}x" for name, margin in margins.items()}
    head = [
        "# Good images that look unlike the others, the oddest first; 1x is the most unlike of those that are not named.",
        "# fit --leave-out leaves out each line that does not begin with a #: take away the names of parts that are good.",
    ]
    if alike:
        head.append(f"# {len(alike)} look like each other ({', '.join(alike)}): if that is a good variant, take them out.")
    lines = [name + known.get(name, "") + (", not learnt" if name in apart and name in known else "") for name in odd]
    like = sorted((name for name in apart if name not in odd), key=lambda name: -margins.get(name, 0.0))
    if like:
        lines.append(
            "# Not learnt either, for safety, since they are the ones most like these; probably good. Take the # away from bad ones."
        )
        lines += [f"# {name}{known.get(name, '')}" for name in like]
    return "".join(f"{line}\n" for line in (*head, *lines))


def save_run(
    out: Path,
    info: RunInfo,
    backbone: Trunk,
    head: Head,
    held_out: HeldOut,
    ignore: npt.NDArray[np.uint8] | None,
    *,
    force: bool = False,
    checkpoint: Path | None = None,
) -> Run:
    """Write a run directory, all or nothing. The hashes in `info` are filled in here. Raises ConfigError, DataError.

    `checkpoint`: a file that moves in, so that the learning can be picked up later.
    """
    check_free(out, force)
    try:
        with workplace(out) as place:
            part = place / out.name
            part.mkdir()
            save_tensors(_weights_of(backbone).state_dict(), part / BACKBONE)
            save_tensors(head.state_dict(), part / HEAD)
            info = msgspec.structs.replace(
                info,
                backbone=msgspec.structs.replace(info.backbone, sha256=bundle.file_sha256(part / BACKBONE)),
                head_sha256=bundle.file_sha256(part / HEAD),
            )
            if ignore is not None:
                ok, png = cv2.imencode(".png", ignore)
                if not ok:
                    raise DataError("ignore mask: cannot be written as PNG")
                (part / IGNORE).write_bytes(png.tobytes())
            (part / HELD_OUT).write_bytes(_pretty(held_out))
            (part / INFO).write_bytes(_pretty(info))
            if info.odd:
                apart = info.left_out[len(info.left_out) - info.apart :]
                (part / ODD).write_text(odd_text(info.odd, apart, info.alike, info.margins), encoding="utf-8")
            if checkpoint is not None:
                shutil.copyfile(checkpoint, part / CHECKPOINT)
            move_into_place(part, out)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
    except OSError as e:
        raise DataError(f"run {out}: cannot be written: {e.strerror or e}; free some space or choose another place") from e
    return Run(out, info, held_out, ignore)


def rewrite_info(run: Run, info: RunInfo) -> Run:
    """Replace run.json at once: a reader sees the old or the new one. Raises DataError."""
    try:
        put_file(run.directory / INFO, _pretty(info))
    except OSError as e:
        raise DataError(f"run {run.directory}: cannot be written: {e.strerror or e}") from e
    return dataclasses.replace(run, info=info)


def load_run(path: Path) -> Run:
    """Read a run directory; weights are read and checked when asked for. Raises DataError naming the file."""
    with contextlib.suppress(OSError):
        bring_back(path)
    info = _read(path / INFO, path)
    schema = info.get("schema") if isinstance(info, dict) else None
    if schema not in READABLE:
        wanted = " or ".join(map(str, READABLE))
        raise DataError(f"{path / INFO}: expected schema {wanted}, found {schema!r}: written by another version of Lineside; fit again")
    decoded = _convert(info, RunInfo, path / INFO)
    if decoded.schema == 1:
        replace = msgspec.structs.replace
        decoded = replace(decoded, schema=SCHEMA, input=replace(decoded.input, shrink="area"))
    held_out = _convert(_read(path / HELD_OUT, path), HeldOut, path / HELD_OUT)
    for name in (BACKBONE, HEAD):
        if not (path / name).is_file():
            raise DataError(f"run {path}: {name} is missing; fit again")
    ignore = read_mask(path / IGNORE) if decoded.input.ignore_mask else None
    return Run(path, decoded, held_out, ignore)


def _read(file: Path, directory: Path) -> Any:
    try:
        return msgspec.json.decode(file.read_bytes())
    except OSError as e:
        raise DataError(
            f"run {directory}: {file.name} is missing or unreadable ({e.strerror}): expected a folder made by lineside-train fit"
        ) from e
    except msgspec.DecodeError as e:
        raise DataError(f"{file}: is not valid JSON: {e}") from e


def _convert(raw: Any, kind: type[_T], file: Path) -> _T:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as e:
        raise DataError(f"{file}: {e}") from e


def _pretty(record: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def _load_into(module: nn.Module, file: Path, sha256: str) -> None:
    if not file.is_file():
        raise DataError(f"{file}: is missing; fit again")
    if bundle.file_sha256(file) != sha256:
        raise DataError(f"{file}: was altered since it was fitted (its sha256 differs from run.json's); fit again")
    try:
        module.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError) as e:
        raise DataError(f"{file}: does not fit the run's method and parameters: {str(e).splitlines()[0]}") from e
