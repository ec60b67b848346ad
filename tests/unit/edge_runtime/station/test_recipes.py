"""Opening a station's recipes: each proved, and no model compiled twice for the same pictures."""

import contextlib
import json
from pathlib import Path

import pytest

from edge_runtime.config.files import load_station
from edge_runtime.errors import BundleError, ConfigError, LinesideError, LostFrame, MissingExtra
from edge_runtime.station.model_thread import model_thread
from edge_runtime.station.recipes import named, open_recipes, products_of

STATION = 'name = "s"\nrecipe = "recipe.toml"\n[source]\nkind = "folder"\npath = "parts"\n[trigger]\nkind = "timer"\n[recipes]\n'


def test_recipes_of_one_bundle_and_region_share_one_model_and_keep_their_own_limits(station_dir: Path, tiny_bundle: Path) -> None:
    bundle = json.dumps(str(tiny_bundle))
    (station_dir / "strict.toml").write_text(f'name = "strict"\nbundle = {bundle}\nthreshold = 2.0\ndeadline_ms = 80\n')
    (station_dir / "moved.toml").write_text(f'name = "moved"\nbundle = {bundle}\nroi = [0, 0, 32, 32]\n')
    (station_dir / "station.toml").write_text(STATION + '1 = "strict.toml"\n2 = "moved.toml"\n')
    with contextlib.ExitStack() as stack:
        opened = open_recipes(load_station(station_dir / "station.toml"), stack)
        assert [o.entry.where for o in opened] == ["", "recipes.1", "recipes.2"]
        assert opened[0].predictor is opened[1].predictor is not opened[2].predictor
        thread = model_thread()
        stack.callback(thread.close, 1.0)
        products = products_of(opened, [thread])
    own, strict, moved = products[""], products["1"], products["2"]
    assert own.models == strict.models != moved.models
    assert (strict.recipes, strict.deadline_ms, strict.jobs[0].limits.threshold) == (("strict",), 80.0, 2.0)
    assert (own.recipes, own.jobs[0].limits.threshold) == (("tiny",), 20.0)


def test_a_region_beyond_the_frames_that_were_taught_is_said_at_the_start(station_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = station_dir / "recipe.toml"
    (station_dir / "station.toml").write_text(STATION)
    for roi, warned in (([0, 0, 64, 64], False), ([10, 10, 64, 64], True)):
        recipe.write_text("".join(line for line in recipe.read_text().splitlines(True) if "roi" not in line) + f"roi = {roi}\n")
        caplog.clear()
        with contextlib.ExitStack() as stack:
            open_recipes(load_station(station_dir / "station.toml"), stack)
        assert ("reaches beyond the 64x64 frames that the bundle was taught on" in caplog.text) is warned


def test_a_bundle_that_another_recipe_needs_is_verified_too_and_the_key_is_named(station_dir: Path) -> None:
    (station_dir / "other.toml").write_text('name = "other"\nbundle = "nowhere"\n')
    (station_dir / "station.toml").write_text(STATION + '7 = "other.toml"\n')
    with contextlib.ExitStack() as stack, pytest.raises(BundleError, match=r"^recipes\.7: ") as e:
        open_recipes(load_station(station_dir / "station.toml"), stack)
    assert e.value.exit_code == 65


@pytest.mark.parametrize("error", [MissingExtra("pylon", "cameras"), LostFrame("is incomplete", 3, 0), ConfigError("no")], ids=str)
def test_every_kind_of_error_is_named_and_stays_what_it_is(error: LinesideError) -> None:
    said = str(error)
    with pytest.raises(type(error)) as caught, named("camera top"):
        raise error
    assert caught.value is error
    assert str(error) == f"camera top: {said}"
