"""Long parts of 12 bits with a region, an ignore mask, bad images by kind and their masks: from files to the device's predictor."""

from pathlib import Path

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.images.read import read_mask
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.manifest import Metrics
from edge_runtime.model.predictor import OpenvinoPredictor
from export.build.build import build
from export.build.options import BuildOptions
from export.build.outcome import BuildReport
from training.data.dataset import load_dataset
from training.data.facts import frame_of
from training.fitting.options import FitOptions
from training.fitting.recalibrate import recalibrate
from training.fitting.teach import teach
from training.judging.evaluate import evaluate_bundle, evaluate_run
from training.runs import Run, load_run

pytestmark = [pytest.mark.usefixtures("children_here"), pytest.mark.slow, pytest.mark.timeout(900)]

ROI = (10, 4, 176, 88)
LENIENT = 0.2  # 16 small drawings: how much quantization costs is not the question here


def draw(seed: int, kind: str = "good") -> npt.NDArray[np.uint16]:
    """(96, 200) uint16 of 12 bits: a bar on gray. Left of the region, and under the ignore mask, every part looks different."""
    rng = np.random.default_rng(seed)
    image = np.full((96, 200), 1800.0)
    cv2.rectangle(image, (40, 38), (170, 58), 900, -1)
    if kind == "dent":
        cv2.circle(image, (int(rng.integers(60, 150)), 48), 9, 3300, -1)
    if kind == "crack":
        x = int(rng.integers(50, 120))
        cv2.line(image, (x, 42), (x + 40, 54), 3600, 5)
    image += rng.normal(0, 40, image.shape)
    image[:, :8] = rng.integers(0, 4000)
    image[70:90, 150:180] = rng.integers(0, 4000)
    return image.clip(0, 4095).astype(np.uint16)


def defect(seed: int, kind: str) -> npt.NDArray[np.uint8]:
    """Its mask."""
    rng, mask = np.random.default_rng(seed), np.zeros((96, 200), np.uint8)
    if kind == "dent":
        cv2.circle(mask, (int(rng.integers(60, 150)), 48), 9, 255, -1)
    else:
        x = int(rng.integers(50, 120))
        cv2.line(mask, (x, 42), (x + 40, 54), 255, 5)
    return mask


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """good/, bad/dent/, bad/crack/, and the masks inside of bad/, where users keep them."""
    root = tmp_path_factory.mktemp("bars")
    for kind, seeds in (("good", range(16)), ("dent", range(100, 104)), ("crack", range(200, 203))):
        images = root / "good" if kind == "good" else root / "bad" / kind
        images.mkdir(parents=True)
        for seed in seeds:
            cv2.imwrite(str(images / f"{seed}.png"), draw(seed, kind))
            if kind != "good":
                (root / "bad" / "masks" / kind).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / "bad" / "masks" / kind / f"{seed}.png"), defect(seed, kind))
    ignore = np.zeros((96, 200), np.uint8)
    ignore[68:92, 148:182] = 255
    cv2.imwrite(str(root / "ignore.png"), ignore)
    return root


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """Recalibrated with the bad images, as `lineside-train calibrate --max-f1 --bad --masks` does."""
    from training.calibrate.rules import Rule

    data = load_dataset(folder / "good", roi=ROI, ignore_mask=folder / "ignore.png", image_size="128x64")
    taught = teach(data, FitOptions("padim"), folder / "run")
    recalibrate(taught, Rule(kind="max_f1", bad=str(folder / "bad"), masks=str(folder / "bad" / "masks")))
    return load_run(folder / "run")


@pytest.fixture(scope="module")
def int8(run: Run, folder: Path) -> BuildReport:
    return build(run, folder / "bundle", None, BuildOptions("int8", band=LENIENT, budget=LENIENT))


def test_an_export_finds_all_bad_images_and_masks_that_set_the_threshold(run: Run, int8: BuildReport) -> None:
    assert run.info.threshold.n_bad == 7
    assert int8.threshold.n_bad == 7 and int8.threshold.n_good == 16
    assert int8.metrics["int8"].n_bad == 7
    assert int8.metrics["int8"].pixel_auroc is not None and int8.metrics["int8"].pixel_auroc > 0.8
    assert [note for note in int8.notes if "this machine is busy" not in note] == []


def test_an_input_of_64_by_128_and_12_bits_reaches_the_device(int8: BuildReport, run: Run) -> None:
    manifest = ModelBundle.open(int8.out).manifest
    spec = manifest.input
    assert (spec.height, spec.width, spec.bits, spec.channels, spec.roi, spec.frame_wh) == (64, 128, 12, 1, ROI, (200, 96))
    assert (manifest.output.map_height, manifest.output.map_width) == (4, 8)
    assert {cv2.imread(str(int8.out / g.image), cv2.IMREAD_UNCHANGED).dtype for g in manifest.golden} == {np.dtype(np.uint16)}


def test_outside_of_the_region_and_under_the_mask_nothing_moves_a_score(int8: BuildReport, run: Run, folder: Path, tmp_path: Path) -> None:
    image = draw(7)
    spoiled = image.copy()
    spoiled[:, :10] = 4000
    spoiled[68:92, 148:182] = 4000
    names = []
    for name, picture in (("plain", image), ("spoiled", spoiled)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
        names.append(frame_of(tmp_path / f"{name}.png", run.info.input))
    of_run = [run.predictor()(frame) for frame in names]
    with OpenvinoPredictor(ModelBundle.open(int8.out)) as predictor:
        of_bundle = [predictor.predict(frame) for frame in names]
    for plain, touched in (of_run, of_bundle):
        assert plain.score == touched.score
        assert np.array_equal(plain.score_map, touched.score_map)
    valid = run.preprocessor().valid_cells((4, 8))
    assert not valid.all()
    assert all((p.score_map[~valid] == 0).all() for p in (*of_run, *of_bundle))
    # Their values differ from part to part, so a detector that learnt them would find every new part odd.
    assert of_run[0].score < run.info.threshold.value


def test_a_bundle_is_evaluated_as_its_run_is(run: Run, folder: Path) -> None:
    report = build(run, folder / "fp32", None, BuildOptions("fp32", envelope=False))
    bundle = ModelBundle.open(report.out)
    ignore = read_mask(bundle.directory / (bundle.manifest.input.ignore_mask or ""))
    masks = folder / "bad" / "masks"
    data = load_dataset(folder / "good", bad=folder / "bad", masks=masks, spec=bundle.manifest.input, ignore=ignore)
    of_run, of_bundle = evaluate_run(run, data), evaluate_bundle(bundle, data)
    assert [k.kind for k in of_run.kinds] == ["crack", "dent"]
    assert of_bundle.kinds == of_run.kinds
    _same(of_bundle.metrics, of_run.metrics)


def _same(found: Metrics, expected: Metrics) -> None:
    assert msgspec.structs.asdict(found) == pytest.approx(msgspec.structs.asdict(expected), abs=1e-5)
