"""Large images: taught in tiles, built into one INT8 graph, and a defect of 12 pixels in 4096x3000 is found where it lies."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.model.regions import find_regions
from edge_runtime.model.tiles import parse_tiles
from edge_runtime.records import Frame
from export.build.build import build
from export.build.options import BuildOptions
from training.data.dataset import load_dataset
from training.fitting.options import FitOptions
from training.fitting.teach import teach
from training.runs import load_run

pytestmark = [pytest.mark.usefixtures("children_here"), pytest.mark.slow, pytest.mark.timeout(900)]  # real fits and builds

WH = (4096, 3000)


def surface(seed: int) -> npt.NDArray[np.uint8]:
    """A rolled sheet: stripes and noise, never the same twice."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 1, (WH[1] // 4, WH[0] // 16)).astype(np.float32)
    stripes = cv2.resize(cv2.GaussianBlur(coarse, (0, 0), 2), WH, interpolation=cv2.INTER_LINEAR)
    grain = cv2.resize(rng.normal(0, 4, (WH[1] // 2, WH[0] // 2)).astype(np.float32), WH)
    return np.clip(128 + 20 * stripes + grain, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    root = tmp_path_factory.mktemp("sheets")
    (root / "data").mkdir()
    for seed in range(8):
        cv2.imwrite(str(root / "data" / f"{seed}.bmp"), surface(seed))  # read several times: nothing to unpack
    dataset = load_dataset(root / "data", image_size="128", tiles=parse_tiles("12x9"))
    run = teach(dataset, FitOptions("padim", preset="shared", overrides={"top_k": 1}), root / "run")
    report = build(
        load_run(run.directory), root / "bundle", None, BuildOptions("int8", band=1.0, budget=1.0, torch_images=1, envelope=False)
    )
    return ModelBundle.open(report.out)


@pytest.mark.parametrize("at_xy", [(1000, 700), (2047, 1500), (12, 2980)])
def test_a_defect_of_12_pixels_is_found_where_it_lies(bundle: ModelBundle, at_xy: tuple[int, int]) -> None:
    spec = bundle.manifest.input
    assert spec.tiles is not None and spec.frame_wh == WH
    image = surface(100)
    with OpenvinoPredictor(bundle) as predictor:
        clean = predictor.predict(Frame(1, 0, "clean", image))
        spoilt = image.copy()
        cv2.circle(spoilt, at_xy, 6, 0 if image[at_xy[::-1]] > 128 else 255, -1)
        found = predictor.predict(Frame(2, 0, "spoilt", spoilt))
    threshold = bundle.manifest.threshold
    assert clean.score <= threshold.value < found.score
    worst = find_regions(found.score_map, found.grid_to_frame, WH, threshold.map_value)[0]
    (x, y), r = at_xy, 6
    assert worst.x0 < x + r and x - r < worst.x1 and worst.y0 < y + r and y - r < worst.y1  # the box lies over the defect
    assert worst.x1 - worst.x0 < 400 and worst.y1 - worst.y0 < 400
