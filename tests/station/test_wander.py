"""A whole station whose lamp fails says so by name, in its health and in `lineside status`, while every part still gets its verdict."""

import contextlib
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from edge_runtime.commands.check import check_station
from edge_runtime.commands.status import lines_of
from edge_runtime.config.files import PublisherConfig, load_station
from edge_runtime.model.bundle import file_sha256, read_manifest, write_manifest
from edge_runtime.model.manifest import Axis, Envelope, Placement, Wander
from edge_runtime.model.placement import Shrinker
from edge_runtime.records import Health, State
from edge_runtime.station.launch import open_station
from tests.conftest import good_image
from tests.support.waiting import until
from training.judging.placed import mean_of

SHIFTED = Wander(what="shift", amount=0.02, image_auroc=None, rejected=0.0, missed=None, holds=True)
ENVELOPE = Envelope(
    rows=(SHIFTED,), basis="real", n_good=60, n_bad=40, brightness=77.0, sharpness=0.58, light_low=0.91, light_low_breaks="rejects"
)


def write(folder: Path, bundle: Path, endpoints: PublisherConfig, gain: float, envelope: Envelope | None = ENVELOPE) -> Path:
    """A station file whose parts are drawn `gain` times as bright as those that its bundle was taught."""
    own = folder / "bundle"
    shutil.copytree(bundle, own)
    write_manifest(own, msgspec.structs.replace(read_manifest(own)[0], envelope=envelope))
    (folder / "parts").mkdir(exist_ok=True)
    for i in range(4):
        cv2.imwrite(str(folder / "parts" / f"{i}.png"), (good_image(seed=i) * gain).astype("uint8"))
    (folder / "recipe.toml").write_text(f'name = "tiny"\nbundle = {json.dumps(str(own))}\ndeadline_ms = 5000\n')
    file = folder / "station.toml"
    file.write_text(
        'name = "s"\nrecipe = "recipe.toml"\n[source]\nkind = "folder"\npath = "parts"\nloop = true\n[trigger]\nkind = "timer"\n'
        f'period_ms = 40\n[publisher]\nendpoint = "{endpoints.endpoint}"\nreplay = "{endpoints.replay}"\n'
    )
    return file


def run_until(file: Path, enough: Callable[[Health], bool]) -> Health:
    with contextlib.ExitStack() as stack:
        station, monitor = open_station(load_station(file), stack)
        monitor.ready()
        loop = threading.Thread(target=station.run)
        loop.start()
        try:
            until(lambda: enough(monitor.snapshot()))
            return monitor.snapshot()
        finally:
            station.stop()
            loop.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_a_dimmed_lamp_is_told_by_name(folder: Path, tiny_bundle: Path, endpoints: PublisherConfig) -> None:
    health = run_until(write(folder, tiny_bundle, endpoints, 0.85), lambda h: any("The picture is" in p for p in h.problems))
    assert health.state is State.DEGRADED
    assert any("% darker than taught; beyond 9 % good parts are rejected." in p for p in health.problems)
    assert health.sight is not None and health.sight.brightness == pytest.approx(0.85, abs=0.03)
    said = "\n".join(line.plain for line in lines_of(health))
    assert "darker than taught" in said and "as bright" in said


def test_a_line_as_it_was_taught_is_silent(folder: Path, tiny_bundle: Path, endpoints: PublisherConfig) -> None:
    health = run_until(write(folder, tiny_bundle, endpoints, 1.0), lambda h: h.sight is not None and h.sight.parts == 50)
    assert health.sight is not None and health.sight.parts == 50
    assert not [p for p in health.problems if "The picture is" in p]


def test_a_bundle_without_an_envelope_is_not_looked_at(folder: Path, tiny_bundle: Path, endpoints: PublisherConfig) -> None:
    file = write(folder, tiny_bundle, endpoints, 0.5, envelope=None)
    health = run_until(file, lambda h: h.counts["ACCEPT"] > 30)
    assert health.sight is None and health.counts["ACCEPT"] > 30 and not [p for p in health.problems if "The picture is" in p]


def test_check_says_how_far_the_line_may_wander(folder: Path, tiny_bundle: Path, endpoints: PublisherConfig) -> None:
    found = {f.what: f for f in check_station(write(folder, tiny_bundle, endpoints, 1.0))}
    assert found["envelope"].ok and found["envelope"].sentence == (
        "verdicts hold with shift up to at least 2 % of the picture further than taught parts differ; measured on 60 good and 40"
        " bad images; watched: brightness"
    )


def test_a_station_tells_by_its_bundles_mean_picture_that_parts_lie_elsewhere(
    folder: Path, tiny_bundle: Path, endpoints: PublisherConfig
) -> None:
    """Law 4: one part in four is compared, by the thread that is told after everybody."""
    axis = Axis(way="x", usual=0.0, spread=0.001, gain=1.0)
    envelope = msgspec.structs.replace(
        ENVELOPE, light_low=None, shift_limit=0.02, shift_breaks="rejects", placement=Placement(reference="reference.png", axes=(axis,))
    )
    file = write(folder, tiny_bundle, endpoints, 1.0, envelope=None)
    own, (h, w) = folder / "bundle", good_image(seed=0).shape[:2]
    plate = np.full((h, w), 60, np.uint8)
    plate[h // 4 : h // 2, w // 4 : w // 2] = 160
    shrink = Shrinker(read_manifest(own)[0].input)
    cv2.imwrite(str(own / "reference.png"), mean_of([shrink(plate)]))
    m = read_manifest(own)[0]
    write_manifest(
        own, msgspec.structs.replace(m, envelope=envelope, files=m.files | {"reference.png": file_sha256(own / "reference.png")})
    )
    for i in range(4):
        image = np.roll(plate, 3, axis=1) + np.random.default_rng(i).integers(0, 9, plate.shape).astype(np.uint8)
        cv2.imwrite(str(folder / "parts" / f"{i}.png"), image)
    health = run_until(file, lambda h: any("Parts lie" in p for p in h.problems))
    assert any(
        "of the picture's width further right than those taught; beyond 2.0 % good parts are rejected." in p for p in health.problems
    )
    assert health.sight is not None and health.sight.off["x"] == pytest.approx(3 / w, abs=0.006)
    assert "parts lie 4." in "\n".join(line.plain for line in lines_of(health))
