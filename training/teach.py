"""One `lineside-train fit` from a checked data set to a run directory."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import torch

import edge_runtime
from edge_runtime.errors import ConfigError
from training.backbones import DEFAULT_BACKBONE, build_backbone
from training.calibrate import HeldOut, Rule, apply_rule, check_rule, default_rule
from training.data import Dataset, inputs
from training.fit import check_memory, cross_fit, extract_features, fit_head, folds_of, torch_backbone_fn
from training.methods import METHODS
from training.methods.base import LevelShape, Progress, silent
from training.recalibrate import score_samples
from training.run import SCHEMA, BackboneInfo, Detector, Run, RunInfo, check_free, make_head, make_params, nearest_folder, save_run


@dataclass(frozen=True, slots=True)
class Lesson:
    """What to teach, beside the data."""

    method: str
    preset: str = "fast"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the method that replace the preset's."""
    backbone: str = DEFAULT_BACKBONE
    weights: Path | None = None
    seed: int = 0
    rule: Rule | None = None
    """None: `calibrate.default_rule`."""


def teach(dataset: Dataset, lesson: Lesson, out: Path, *, force: bool = False, progress: Progress = silent,
          say: Callable[[str], None] = lambda text: None) -> Run:  # fmt: skip
    """Fit, calibrate, write the run directory.

    `say` gets sentences for the user. Raises ConfigError, DataError, CalibrationError; then nothing is left at `out`.
    """
    check_free(out, force)
    strides, params = resolve(lesson)
    rule = lesson.rule or default_rule(len(dataset.train))
    check_rule(rule, len(dataset.train))
    prepare = dataset.preprocessor()
    backbone = build_backbone(lesson.backbone, strides, lesson.weights)
    shapes: list[LevelShape] = backbone.level_shapes(dataset.spec.height, dataset.spec.width)
    blank = make_head(lesson.method, params, shapes)
    needed, n = blank.memory_bytes(len(dataset.train)), len(dataset.train)
    say(f"{n} good images, {lesson.method} ({lesson.preset}) on {backbone.spec.name}, {dataset.spec.height}x{dataset.spec.width},"
        f" map {blank.grid_hw[0]}x{blank.grid_hw[1]}; memory for the fit: about {needed / 1e6:.0f} MB")  # fmt: skip
    check_memory(needed)
    run_backbone = torch_backbone_fn(backbone)
    features = extract_features(run_backbone, inputs(dataset.train, prepare), n, shapes, scratch=nearest_folder(out), progress=progress)
    valid = prepare.valid_cells(blank.grid_hw)
    held_out = cross_fit(lesson.method, params, shapes, features, valid, lesson.seed, progress=progress)
    head = fit_head(lesson.method, params, shapes, features, valid, lesson.seed, progress)
    bad = score_samples(Detector(backbone, head), dataset.bad, prepare, progress) if rule.bad is not None else None
    threshold, display = apply_rule(rule, held_out, bad)
    names = [s.path.resolve().relative_to(dataset.path).as_posix() for s in dataset.train]
    info = RunInfo(
        schema=SCHEMA,
        name=out.resolve().name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        method=lesson.method,
        preset=lesson.preset,
        params=params,
        seed=lesson.seed,
        folds=folds_of(lesson.method, n),
        backbone=BackboneInfo(name=backbone.spec.name, strides=backbone.spec.strides, sha256=""),
        head_sha256="",
        input=dataset.spec,
        data=str(dataset.path),
        dataset=dataset.record,
        rule=rule,
        threshold=threshold,
        display=display,
        tools=tools(),
    )
    return save_run(out, info, backbone, head, HeldOut.of(names, dataset.sha256, held_out), dataset.ignore, force=force)


def resolve(lesson: Lesson) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Strides and full parameters of a lesson. Raises ConfigError for a method, preset or parameter that does not exist."""
    make_params(lesson.method, lesson.overrides)
    presets = METHODS[lesson.method].presets
    if lesson.preset not in presets:
        raise ConfigError(f"preset: {lesson.method} has {', '.join(presets)}, found {lesson.preset!r}")
    strides, params = presets[lesson.preset]
    values = {**asdict(params), **lesson.overrides}
    make_params(lesson.method, values)
    return strides, values


def tools() -> dict[str, str]:
    """Versions of what computes."""
    return {
        "python": platform.python_version(),
        "lineside": edge_runtime.__version__,
        "torch": str(torch.__version__),
        "timm": timm.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }
