"""Recipes by number: each part is judged by its own, an unknown one by none, and changing warms the model in time."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import ConfigError, DeviceError
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.protocols import ActuatorLine, StationLink
from edge_runtime.records import Decision, Frame, Picture, Trigger
from edge_runtime.station.judge import Limits
from edge_runtime.station.loop import Station
from tests.station.rig import BUSY_MS, A, F, Line, Parts, R, Recipe, Wrapped, every, rig
from tests.support.waiting import until


class Asking(Line):
    """Its n-th part asks for the n-th recipe and is refused for the n-th reason, where there are any."""

    def __init__(self, at_ms: list[float], recipes: list[str] | None = None, refused: list[str] | None = None) -> None:
        super().__init__(at_ms)
        self._recipes, self._refused = recipes or [""] * len(at_ms), refused or [""] * len(at_ms)

    def wait(self, timeout_s: float) -> Trigger | None:
        t = super().wait(timeout_s)
        return t and Trigger(t.seq, t.fired_ns, t.part_id, self._recipes[t.seq - 1], self._refused[t.seq - 1])


def test_each_part_is_judged_by_the_recipe_that_it_asks_for(model: OpenvinoPredictor) -> None:
    """A spot that one product may have is a reject of the other."""
    recipes = {"7": Recipe(model, Limits(500.0, 499.0))}
    with rig(Asking(every(5, 4), ["", "7", "7", ""]), Parts(bad=[1, 2, 3, 4]), model, recipes=recipes) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [R, A, A, R]
        assert [(d.recipe, d.bundle_id, d.threshold) for d in r.heard.decisions[:2]] == [("r", "b", 20.0), ("r7", "b7", 500.0)]
        assert r.monitor.snapshot().recipes == ("r",)


def test_each_recipe_has_its_own_model(model: OpenvinoPredictor) -> None:
    own, other = Wrapped(model, lambda n: None), Wrapped(model, lambda n: None)
    with rig(Asking(every(5, 3), ["7", "", "7"]), Parts(), own, recipes={"7": Recipe(other)}) as r:
        assert r.station.run() == 0
        assert (own.calls, other.calls) == (1, 2)


def test_an_unknown_recipe_is_a_fault_that_names_it_and_the_known_ones_and_no_frame_is_asked(model: OpenvinoPredictor) -> None:
    """Law 2: never a guess, never the default."""
    source = Parts()
    recipes = {"1": Recipe(model), "7": Recipe(model)}
    with rig(Asking(every(5, 3), ["1", "8", "7"]), source, model, recipes=recipes) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, F, A]
        odd = r.heard.decisions[1]
        assert odd.reason == "Recipe '8' is not known here; known are 1, 7."
        assert (odd.recipe, odd.bundle_id, odd.threshold) == ("8", "", 0.0)
        assert source.grabs == 2


def test_a_part_that_its_line_refuses_gets_its_fault_in_its_turn_and_no_frame(model: OpenvinoPredictor) -> None:
    """Law 1: a trigger while busy is a part all the same."""
    source = Parts()
    line = Asking([0.0] * 4, refused=["", "Triggered while busy.", "", ""])
    with rig(line, source, Wrapped(model, lambda n: time.sleep(0.05)), queue=3) as r:
        assert r.station.run() == 0
        assert r.heard.seqs == [1, 2, 3, 4]
        assert r.heard.verdicts == [A, F, A, A]
        assert r.heard.decisions[1].reason == "Triggered while busy."
        assert source.grabs == 3


@pytest.mark.alone
def test_the_deadline_is_that_of_the_part_s_own_recipe(model: OpenvinoPredictor) -> None:
    slow = Wrapped(model, lambda n: time.sleep(0.6))
    recipes = {"quick": Recipe(slow, deadline_ms=150), "slow": Recipe(slow, deadline_ms=5000)}
    with rig(Asking([0, 900], ["quick", "slow"]), Parts(), model, recipes=recipes, deadline_ms=5000) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [F, A]
        assert r.heard.late_ms[0] <= 150 + BUSY_MS


class Plc(Line, ActuatorLine):
    """A line that takes the results, too; the one of the part `lost` does not reach it."""

    def __init__(self, at_ms: Sequence[float], lost: int) -> None:
        super().__init__(at_ms)
        self._lost = lost

    def unreachable(self, trigger: Trigger) -> str | None:
        return "PLC 10.0.0.9: stopped answering; reconnecting" if trigger.seq == self._lost else None

    def put(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        pass


def test_parts_that_were_taken_are_faults_while_the_plc_is_lost(model: OpenvinoPredictor) -> None:
    """Law 2: what cannot be acted upon is accepted by nobody."""
    with rig(Plc(every(300, 3), lost=2), Parts(bad=[3]), model) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, F, R]
        lost = r.heard.decisions[1]
        assert "The PLC is lost" in lost.reason
        assert "10.0.0.9" in lost.reason
        assert lost.score is None
        assert lost.severity is None


@contextmanager
def running(station: Station) -> Iterator[None]:
    thread = threading.Thread(target=station.run)
    thread.start()
    try:
        yield
    finally:
        station.stop()
        thread.join()


def prepared(station: Station, recipe: str) -> tuple[Exception | None, float]:
    began = time.monotonic()
    try:
        station.prepare(recipe)
    except (ConfigError, DeviceError) as e:
        return e, time.monotonic() - began
    return None, time.monotonic() - began


def test_preparing_runs_the_recipe_s_model_once_after_the_part_in_flight_and_shows_in_health(model: OpenvinoPredictor) -> None:
    """Asked while the part's picture is still being taken: the part comes first all the same."""

    class Slow(Parts):
        def grab(self, timeout_s: float) -> Frame:
            frame = super().grab(timeout_s)
            time.sleep(0.4)
            return frame

    order: list[str] = []
    own = Wrapped(model, lambda n: order.append("part"))
    other = Wrapped(model, lambda n: order.append("warm") or time.sleep(0.1))
    source, line = Slow(), Line([0], endless=True)
    with rig(line, source, own, recipes={"7": Recipe(other)}, warm_frame=model.blank(), deadline_ms=5000) as r, running(r.station):
        until(lambda: source.grabs)
        error, took_s = prepared(r.station, "7")
        assert error is None
        assert 0.1 <= took_s < 3
        assert order == ["part", "warm"]
        assert r.heard.verdicts == [A], "the part in flight was told before"
        assert (r.monitor.snapshot().recipes, r.monitor.snapshot().bundle_ids) == (("r7",), ("b7",))
        error, _ = prepared(r.station, "8")
        assert isinstance(error, ConfigError)
        assert "'8' is not known" in str(error)
        assert r.monitor.snapshot().recipes == ("r7",)


def test_the_recipe_that_was_prepared_is_the_one_that_is_kept_warm(model: OpenvinoPredictor) -> None:
    own, other = Wrapped(model, lambda n: None), Wrapped(model, lambda n: None)
    line = Line([], endless=True)
    with (
        rig(line, Parts(), own, recipes={"7": Recipe(other)}, warm_frame=model.blank(), keep_warm_ms=50) as r,
        running(r.station),
    ):
        r.station.prepare("7")
        before, prepared_by = own.calls, other.calls
        until(lambda: other.calls >= prepared_by + 3)
        assert own.calls <= before + 1, "one that was begun before may still end"


def test_a_model_that_hangs_or_fails_while_it_is_prepared_is_told_in_time_and_changes_nothing(
    model: OpenvinoPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.station.loop._PREPARE_S", 0.2)
    release = threading.Event()

    def fail(n: int) -> None:
        raise DeviceError("inference failed on GPU")

    recipes = {"hangs": Recipe(Wrapped(model, lambda n: release.wait(20) and None)), "fails": Recipe(Wrapped(model, fail))}
    line = Line([], endless=True)
    with (
        rig(line, Parts(), model, recipes=recipes, warm_frame=model.blank(), deadline_ms=300) as r,
        running(r.station),
    ):
        error, _ = prepared(r.station, "fails")
        assert str(error) == "inference failed on GPU"
        error, took_s = prepared(r.station, "hangs")
        release.set()
        assert isinstance(error, DeviceError)
        assert "not warm" in str(error)
        assert took_s < 3
        assert r.monitor.snapshot().recipes == ("r",)


def test_a_part_of_another_recipe_makes_that_the_current_one(model: OpenvinoPredictor) -> None:
    with rig(Asking([0, 5], ["", "7"]), Parts(), model, recipes={"7": Recipe(model)}) as r:
        assert r.station.run() == 0
        assert r.monitor.snapshot().recipes == ("r7",)


def test_a_line_can_be_given_the_way_to_change_recipes(station_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the station file to the PLC's line: it asks for recipe 7 before its second part, which is then judged by it."""
    from edge_runtime.sinks.journal import read_decisions
    from edge_runtime.station import launch
    from tests.station.test_process import free_port, patient, write_station

    class Changing(Asking):
        def __init__(self) -> None:
            super().__init__([0, 50, 50], ["", "7", "8"])

        def attach(self, station: StationLink) -> None:
            self._prepare = station.prepare

        def wait(self, timeout_s: float) -> Trigger | None:
            if self._fired == 1:
                self._prepare("7")
            return super().wait(timeout_s)

    patient(station_dir)
    strict = (station_dir / "recipe.toml").read_text().replace('"tiny"', '"gadget"') + "threshold = 0.5\n"
    (station_dir / "gadget.toml").write_text(strict)
    station = write_station(station_dir, 'kind = "timer"', port=free_port(), loop=False)
    station.write_text(station.read_text() + '[recipes]\n7 = "gadget.toml"\n')
    monkeypatch.setattr(launch, "open_trigger", lambda settings, first_seq, access: Changing())
    assert launch.run_station(station) == 0
    decisions = read_decisions(station_dir / "journal.sqlite")
    assert [(d.verdict, d.recipe, d.threshold) for d in decisions] == [(A, "tiny", 20.0), (R, "gadget", 0.5), (F, "8", 0.0)]
    assert np.isclose(decisions[0].severity or 0, (decisions[0].score or 0) / 20)
