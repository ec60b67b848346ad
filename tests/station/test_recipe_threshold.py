"""A recipe's own threshold moves verdict, sentence, boxes, their labels and the colours alike: nothing on the screen contradicts it."""

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.config.files import Recipe, load_station
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.overlay import paint as p
from edge_runtime.overlay import picture, window
from edge_runtime.records import Frame, Verdict
from edge_runtime.station.judge import judge, limits_of
from edge_runtime.station.launch import run_station
from tests.conftest import good_image
from tests.station.test_process import free_port, write_station


def spotted() -> np.ndarray:
    """A part whose spot scores 14.0 of the bundle's 20, and 13 on the map, whose threshold is 19."""
    image = good_image()
    image[16:32, 32:48] = 113
    return image


def seen(station_dir: Path, threshold: float) -> p.Screen:
    """What the operator's window was sent of a station whose recipe has this threshold."""
    for file in (station_dir / "parts").iterdir():
        file.unlink()
    cv2.imwrite(str(station_dir / "parts" / "0.png"), spotted())
    recipe = station_dir / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("= 500", "= 20000") + f"threshold = {threshold}\n")
    preview = f"tcp://127.0.0.1:{free_port()}"
    station = write_station(station_dir, 'kind = "timer"\nperiod_ms = 50\ncount = 40', port=free_port())
    station.write_text(station.read_text() + f'[preview]\nendpoint = "{preview}"\n')
    running = threading.Thread(target=run_station, args=(station,))
    with window.Listener(load_station(station).publisher.endpoint, preview) as listener:
        running.start()
        view = None
        while view is None and running.is_alive():
            listener.listen(0.1)
            view = listener.view()
        running.join()
    assert view is not None
    return view


def redness(screen: np.ndarray) -> int:
    """Pixels of the part's picture that are much redder than gray: those that the heat map colours."""
    b, _, r = (screen[252:, :1300, c].astype(int) for c in range(3))
    return int((r - b > 60).sum())


def test_a_lower_threshold_of_the_recipe_rejects_boxes_labels_and_colours_the_same_place(
    station_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels: list[str] = []
    drawn = picture.text.draw
    monkeypatch.setattr(picture.text, "draw", lambda canvas, words, *more: labels.append(words) or drawn(canvas, words, *more))
    view = seen(station_dir, 10.0)
    d = view.decision
    assert (d.verdict, d.threshold, d.severity) == (Verdict.REJECT, 10.0, pytest.approx(1.4))
    assert view.main.display_high / 2 == pytest.approx(40 / 2 * 10 / 20), "the scale follows in proportion"
    assert [r.peak / (view.main.display_high / 2) > 1 for r in d.regions] == [True]
    assert "1.40 times the threshold, worst near x=40 y=24" in d.reason
    assert redness(p.paint(view, (1920, 1080))) > 10_000
    assert "1.3×" in labels, "13 on the map"


def test_a_higher_threshold_accepts_the_part_without_box_or_colour(station_dir: Path) -> None:
    view = seen(station_dir, 15.0)
    assert (view.decision.verdict, view.decision.regions) == (Verdict.ACCEPT, ())
    assert redness(p.paint(view, (1920, 1080))) < 1000


def test_a_part_that_is_rejected_for_no_single_place_shows_where_most_of_it_is(tiny_bundle: Path) -> None:
    """Its score of 14 exceeds 13.9, its map's 13 does not exceed 13.9 x 19 / 20."""
    bundle = ModelBundle.open(tiny_bundle)
    with OpenvinoPredictor(bundle) as model:
        prediction = model.predict(Frame(1, 0, "test", spotted()))
    limits = limits_of(bundle.manifest, Recipe(name="r", bundle=tiny_bundle, threshold=13.9))
    assert limits.map_threshold > float(prediction.score_map.max())
    found = judge(prediction, limits, (64, 64))
    assert found.verdict is Verdict.REJECT
    (worst,) = found.regions
    assert (worst.x0 <= 32, worst.y0 <= 16, worst.x1 >= 48, worst.y1 >= 32) == (True,) * 4
    assert worst.area_px < 64 * 64 / 4
    assert "most of it near x=40 y=24; no single place exceeds its own limit" in found.reason
