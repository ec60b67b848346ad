"""A bundle that is not fit for release says so wherever a person looks, for as long as it runs; a station may refuse it."""

import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_runtime.commands.status import lines_of
from edge_runtime.config.files import Recipe, load_station
from edge_runtime.errors import BundleError
from edge_runtime.model.bundle import read_manifest, write_manifest
from edge_runtime.model.manifest import Acceptance
from edge_runtime.model.released import release_of
from edge_runtime.overlay import style, window
from edge_runtime.records import Health, Release
from edge_runtime.station.launch import run_station
from tests.station.test_process import Subscriber, free_port, write_station

WHY = "misses 40 of 48 bad parts (83 %; at most 5 % asked for)"


def accepted(state: str, **more: object) -> Acceptance:
    sentence = f"not fit for release: {WHY}" if state == "failed" else "fit for release: all well"
    found = {"sentence": sentence, "basis": "real", "max_missed": 0.05, "max_rejected": 0.02}
    return Acceptance(state=state, **{**found, **more})  # type: ignore[arg-type]


@pytest.fixture
def bundle_with(tiny_bundle: Path, tmp_path: Path) -> Callable[[Acceptance | None], Path]:
    def make(acceptance: Acceptance | None) -> Path:
        copy = Path(shutil.copytree(tiny_bundle, tmp_path / f"accepted{len(list(tmp_path.iterdir()))}"))
        write_manifest(copy, msgspec.structs.replace(read_manifest(copy)[0], acceptance=acceptance))
        return copy

    return make


def recipe(folder: Path, name: str, bundle: Path, more: str = "") -> None:
    (folder / f"{name}.toml").write_text(f'name = "{name}"\nbundle = "{bundle}"\ndeadline_ms = 20000\n{more}\n')


@pytest.mark.parametrize(
    ("state", "own", "word", "why"),
    [
        ("passed", {}, Release.RELEASED, "all well"),
        ("passed", {"threshold": 20.0}, Release.RELEASED, "all well"),
        ("passed", {"threshold": 10.0}, Release.UNKNOWN, "the recipe's threshold is 10, the bundle was judged at 20"),
        ("passed", {"min_defect_px": 30}, Release.UNKNOWN, "below 30 px"),
        ("not assessed", {}, Release.UNKNOWN, "all well"),
        ("failed", {"threshold": 10.0}, Release.REFUSED, "83 %"),
        (None, {}, Release.UNKNOWN, "nobody asked"),
    ],
)
def test_a_verdict_holds_for_the_threshold_that_it_was_found_at(
    state: str | None, own: dict[str, float], word: Release, why: str, tiny_bundle: Path
) -> None:
    manifest = msgspec.structs.replace(read_manifest(tiny_bundle)[0], acceptance=None if state is None else accepted(state))
    found = release_of(manifest, Recipe(name="r", bundle=tiny_bundle, **own))  # type: ignore[arg-type]
    assert found.word is word
    assert why in found.why


def ambers(screen: np.ndarray) -> int:
    """In the lower left corner."""
    return int(np.all(screen[-40:, :400] == style.AMBER, axis=2).sum())


def test_the_log_health_status_and_the_window_say_that_it_was_built_by_force(
    station_dir: Path, bundle_with: Callable[[Acceptance | None], Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Two recipes: the first is not released, the other one is. Health tells of what judges now."""
    recipe(station_dir, "recipe", bundle_with(accepted("failed", forced=True)))
    recipe(station_dir, "gadget", bundle_with(accepted("passed")))
    port, preview = free_port(), f"tcp://127.0.0.1:{free_port()}"
    station = write_station(station_dir, 'kind = "timer"\nperiod_ms = 100\ncount = 15', port=port)
    station.write_text(station.read_text() + f'[recipes]\n7 = "gadget.toml"\n[preview]\nendpoint = "{preview}"\n')
    running = threading.Thread(target=run_station, args=(station,))
    with (
        caplog.at_level(logging.INFO),
        Subscriber(port) as heard,
        window.Listener(load_station(station).publisher.endpoint, preview) as listener,
    ):
        assert ambers(listener.screen(None, (1920, 1080))) == 0
        running.start()
        while running.is_alive() and (listener.view() is None or not listener.health_came):
            listener.listen(0.1)
        screens = {
            "part": listener.screen(listener.view(), (1920, 1080)),
            "small": listener.screen(listener.view(), (640, 360)),
            "before the first part": listener.screen(None, (1920, 1080)),
        }
        running.join()
    assert all(ambers(screen) > 100 for screen in screens.values()), {name: ambers(screen) for name, screen in screens.items()}
    health = heard.health[-1]
    assert health.release is not None
    assert (health.release.word, health.recipes) == (Release.REFUSED, ("recipe",))
    assert health.release.why == f"{WHY}; built all the same, by --force"
    assert health.state.value != "DEGRADED", "it is no trouble that could pass: real ones must still be seen"
    assert any(f"not released: {WHY}" in line.plain for line in lines_of(health))
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any("recipe recipe: NOT RELEASED: misses 40 of 48" in m for m in warned), warned
    assert not any("gadget" in m for m in warned)


def test_a_station_may_ask_for_bundles_that_were_found_fit(station_dir: Path, bundle_with: Callable[[Acceptance | None], Path]) -> None:
    recipe(station_dir, "recipe", bundle_with(None))
    station = write_station(station_dir, 'kind = "timer"', port=free_port(), loop=False, more="require_release = true")
    with pytest.raises(BundleError, match=r"require_release: .* only what was found fit for release, found one that is not ass"):
        run_station(station)
    recipe(station_dir, "recipe", bundle_with(accepted("passed")))
    assert run_station(station) == 0


def test_health_of_a_station_of_before_is_still_understood() -> None:
    import msgspec.msgpack

    from edge_runtime.records import State

    old = Health("s", State.READY, (), ("b",), ("r",), "CPU", 1.0, {}, {}, 7, "")
    raw = msgspec.msgpack.decode(msgspec.msgpack.encode(old))
    del raw["release"]
    assert msgspec.convert(raw, Health) == old
