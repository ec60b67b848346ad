"""What a report is about: a run or a bundle, as far as a page is concerned."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge_runtime.images.read import read_mask
from edge_runtime.model import manifest
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.manifest import Acceptance, DisplayScale, Drift, Envelope, InputSpec, Metrics, Threshold
from edge_runtime.model.predictor import OpenvinoPredictor
from training.core.base import Progress
from training.data.dataset import Dataset
from training.judging.evaluate import EvaluationReport, Predict, evaluate_bundle, evaluate_run
from training.pictures.augment import Augment
from training.report.figures import Array
from training.runs import INFO, load_run


@dataclass(frozen=True, slots=True)
class Subject:
    """A run or a bundle, as far as a report is concerned."""

    sort: str
    """"bundle" or "run"."""
    name: str
    identity: str
    """The bundle's id, or empty."""
    created: str
    method: str
    backbone: str
    precision: str
    params: dict[str, Any]
    spec: InputSpec
    ignore: npt.NDArray[np.uint8] | None
    threshold: Threshold
    display: DisplayScale
    drift: Drift | None
    dataset: manifest.Dataset
    metrics: dict[str, Metrics]
    tools: dict[str, str]
    held_out: Array
    """Scores of held-out good images; a bundle does not carry them."""
    augment: Augment | None
    """Variations that were learnt, too."""
    envelope: Envelope | None
    """How far the line may stray; of a bundle whose build measured it."""
    evaluate: Callable[[Dataset, Progress], EvaluationReport]
    predictor: Callable[[], AbstractContextManager[Predict]]
    acceptance: Acceptance | None = None
    """What a bundle was found when it was built; None where nobody asked."""

    @property
    def refused(self) -> bool:
        """Whether it was packed for this page alone: a bundle that failed is built by force or not at all."""
        return self.acceptance is not None and self.acceptance.state == "failed" and not self.acceptance.forced


def open_subject(path: Path, device: str = "CPU") -> Subject:
    """Read a run or a bundle. Raises DataError, BundleError."""
    if (path / INFO).is_file():
        run = load_run(path)
        info = run.info

        @contextmanager
        def torch_predictor() -> Iterator[Predict]:
            yield run.predictor()

        return Subject(
            sort="run", name=info.name, identity="", created=info.created, method=info.method, backbone=info.backbone.name,
            precision="torch", params={**info.params, "preset": info.preset}, spec=info.input, ignore=run.ignore,
            threshold=info.threshold, display=info.display, drift=None, dataset=info.dataset, metrics={}, tools=info.tools,
            held_out=run.held_out.scores.score, augment=info.augment, envelope=None,
            evaluate=lambda dataset, progress: evaluate_run(run, dataset, progress), predictor=torch_predictor,
        )  # fmt: skip
    opened = ModelBundle.open(path)
    m = opened.manifest
    ignore = read_mask(opened.directory / m.input.ignore_mask) if m.input.ignore_mask else None
    params = {name: value for name, value in m.params.items() if name != "augment"}
    augment = msgspec.convert(m.params["augment"], Augment) if "augment" in m.params else None

    @contextmanager
    def device_predictor() -> Iterator[Predict]:
        with OpenvinoPredictor(opened, device) as predictor:
            yield predictor.predict

    return Subject(
        sort="bundle", name=m.name, identity=opened.id, created=m.created, method=m.method, backbone=m.backbone, precision=m.precision,
        params=params, spec=m.input, ignore=ignore, threshold=m.threshold, display=m.display, drift=m.drift, dataset=m.dataset,
        metrics=m.metrics, tools=m.tools, held_out=np.zeros(0), augment=augment, envelope=m.envelope,
        evaluate=lambda dataset, progress: evaluate_bundle(opened, dataset, device, progress), predictor=device_predictor,
        acceptance=m.acceptance,
    )  # fmt: skip
