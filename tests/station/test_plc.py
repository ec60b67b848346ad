"""A whole station on a simulated line, over each PLC protocol: its own verdict for every part, and what a break or an overrun costs."""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from edge_runtime.commands.status import health_of
from edge_runtime.config import files as c
from edge_runtime.plc.defaults import default_trigger
from edge_runtime.plc.kinds import KINDS
from edge_runtime.records import Cause, Decision, Verdict
from edge_runtime.security.signing import read_public
from edge_runtime.sim.plc import SimulatedPlc
from edge_runtime.sinks.journal_file import read_decisions
from edge_runtime.sinks.journal_verify import verify
from edge_runtime.station.launch import open_station
from tests.support.ports import free_port
from tests.support.waiting import until

A, R, F = Verdict.ACCEPT, Verdict.REJECT, Verdict.FAULT


def trigger_of(kind: str, **more: object) -> c.PlcTrigger:
    pulse = more.pop("pulse", None)
    made = default_trigger(kind, "127.0.0.1", free_port(), pulse=pulse)  # type: ignore[arg-type]
    return msgspec.structs.replace(made, **({"timeout_ms": 1000.0} | more))


@contextlib.contextmanager
def station(home: Path, trigger: c.PlcTrigger, recipes: dict[str, str] | None = None) -> Iterator[Callable[[], list[Decision]]]:
    """Runs until the block ends; what it decided is in its journal."""
    file = home / "station.toml"
    (home / "lenient.toml").write_text((home / "recipe.toml").read_text().replace('"tiny"', '"lenient"', 1) + "threshold = 500.0\n")
    ports = [free_port() for _ in range(2)]
    text = 'name = "s"\nrecipe = "recipe.toml"\n[source]\nkind = "folder"\npath = "parts"\nloop = true\n[trigger]\nkind = "timer"\n'
    text += f'[publisher]\nendpoint = "tcp://127.0.0.1:{ports[0]}"\nreplay = "tcp://127.0.0.1:{ports[1]}"\n'
    text += "".join(f'[recipes]\n{key} = "{name}"\n' for key, name in (recipes or {}).items())
    file.write_text(text)
    config = msgspec.structs.replace(c.load_station(file), trigger=trigger)
    with contextlib.ExitStack() as stack:
        running, monitor = open_station(config, stack)
        thread = threading.Thread(target=running.run, name="station")
        thread.start()
        monitor.ready()
        try:
            yield lambda: read_decisions(config.journal.path)
        finally:
            running.stop()
            thread.join(10)


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_of_a_line_gets_its_own_verdict(kind: str, station_dir: Path) -> None:
    """Law 1, over each protocol: pictures 2 and 5 of six are bad."""
    settings = trigger_of(kind)
    with (
        SimulatedPlc(settings, parts_per_minute=1200, count=12, first_part=70_001, result_timeout_ms=5000) as plc,
        station(station_dir, settings) as journal,
    ):
        assert plc.wait_finished(60)
        assert [r.verdict for r in plc.results.values()] == [A, A, R, A, A, R] * 2
        assert plc.violations == []
        until(lambda: len(journal()) == 12)
        assert [d.part_id for d in journal()] == [str(n) for n in range(70_001, 70_013)]
        severities = [d.severity for d in journal()]
    assert [r.severity for r in plc.results.values()] == [pytest.approx(s, abs=0.006) for s in severities]
    assert [r.count for r in plc.results.values()] == list(range(1, 13))


def test_a_part_triggered_while_busy_has_its_own_fault_after_the_one_before_it(station_dir: Path) -> None:
    settings = trigger_of("modbus")
    with SimulatedPlc(settings, parts_per_minute=600, count=9, busy_parts=[3, 6]) as plc, station(station_dir, settings) as journal:
        assert plc.wait_finished(60)
        until(lambda: len(journal()) == 9)
        refused = [d for d in journal() if d.cause is Cause.REFUSED]
    # The PLC raises the trigger one scan after it fell: the part before may be decided by then on a fast machine.
    assert {d.part_id for d in refused} <= {"3", "6"}
    assert [r.verdict is F for r in plc.results.values()] == [str(n) in {d.part_id for d in refused} for n in range(1, 10)]
    assert plc.violations == []


def test_a_plc_without_power_costs_its_own_parts_and_nothing_else(station_dir: Path) -> None:
    settings = trigger_of("modbus", timeout_ms=300.0)
    with SimulatedPlc(settings, parts_per_minute=1200, count=40) as plc, station(station_dir, settings) as journal:
        until(lambda: len(plc.results) > 10)
        plc.power_off(0.5)
        assert plc.wait_finished(60)
        decided = journal()
        assert health_of(c.load_station(station_dir / "station.toml").publisher.endpoint).connections["plc"]["reconnects"] >= 1
    answered = {str(n) for n, r in plc.results.items() if r.verdict is not None}
    assert len(answered) >= 38
    assert plc.violations == []
    ids = [d.part_id for d in decided]
    assert len(ids) == len(set(ids)), "one decision a part"
    assert answered <= set(ids)
    for d in decided:
        if d.part_id not in answered:
            assert d.verdict is F or d.seq in range(9, 16), "told nobody: only the part that was in the station at the break"


def test_a_plc_that_was_replaced_by_another_accuses_the_station_of_no_number(station_dir: Path) -> None:
    """Its memory is empty, and the station counts on."""
    settings = trigger_of("modbus")
    with contextlib.ExitStack() as stack:
        first = SimulatedPlc(settings, parts_per_minute=1200, count=3).__enter__()
        journal = stack.enter_context(station(station_dir, settings))
        assert first.wait_finished(60)
        until(lambda: len(journal()) == 3)
        first.__exit__(None, None, None)
        with SimulatedPlc(settings, parts_per_minute=1200, count=3, first_part=11) as second:
            assert second.wait_finished(60)
            assert [r.count for r in second.results.values()] == [4, 5, 6]
            assert second.violations == first.violations == []


def test_the_plc_chooses_the_recipe_of_each_part(station_dir: Path) -> None:
    """Recipe 7 accepts what the own one rejects; of recipe 9 there is none."""
    settings = trigger_of("modbus")
    recipe_of = {1: 0, 2: 0, 3: 0, 4: 7, 5: 7, 6: 7, 7: 9, 8: 0}.__getitem__
    with (
        SimulatedPlc(settings, parts_per_minute=600, count=8, recipe_of=recipe_of) as plc,
        station(station_dir, settings, {"7": "lenient.toml"}) as journal,
    ):
        assert plc.wait_finished(60)
        until(lambda: len(journal()) == 8)
        decided = journal()
    assert [d.recipe for d in decided if d.part_id != "7"] == ["tiny"] * 3 + ["lenient"] * 3 + ["tiny"]
    assert [r.verdict for r in plc.results.values()] == [A, A, R, A, A, A, F, A]
    assert plc.results[7].fault_code == 102
    assert plc.violations == []


def deliveries(journal: Path) -> dict[int, list[tuple[str, str]]]:
    """By decision: what became of it at the PLC, in order, with the verdict that was told."""
    found: dict[int, list[tuple[str, str]]] = {}
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        for seq, body in connection.execute("SELECT seq, body FROM chain WHERE kind = 'delivery' ORDER BY n"):
            said = json.loads(body)
            assert said["to"] == "plc" and said["at_ns"] > 0 and said["wall_time"]
            found.setdefault(seq, []).append((said["outcome"], said["detail"]))
    return found


def test_what_the_plc_was_told_and_that_it_acknowledged_is_in_the_journals_chain(station_dir: Path) -> None:
    settings = trigger_of("modbus", acknowledge_timeout_ms=300.0)
    with SimulatedPlc(settings, parts_per_minute=600, count=6) as plc, station(station_dir, settings) as journal:
        assert plc.wait_finished(60)
        until(lambda: len(journal()) == 6)
    path = station_dir / "journal.sqlite"
    told = deliveries(path)
    assert told == {seq: [("told", v), ("acknowledged", "")] for seq, v in enumerate([A, A, R, A, A, R], 1)}
    assert verify(path, [read_public(station_dir / "journal.sqlite.key.pub")]).findings == []
    with contextlib.closing(sqlite3.connect(path)) as connection:
        kinds = connection.execute("SELECT kind FROM chain WHERE seq = 3 ORDER BY n").fetchall()
    assert [kind for (kind,) in kinds] == ["announced", "decision", "delivery", "delivery"]


def test_a_result_that_was_not_acknowledged_and_one_that_waited_behind_it_are_in_the_journals_chain(station_dir: Path) -> None:
    settings = trigger_of("modbus", acknowledge_timeout_ms=150.0)
    with SimulatedPlc(settings, parts_per_minute=600, count=6, acknowledges="never") as plc, station(station_dir, settings):
        until(lambda: plc.server.get(["fault_code"])["fault_code"] == 101)
    first = deliveries(station_dir / "journal.sqlite")[1]
    assert first == [("told", A), ("unacknowledged", "")], "once, however long it stands"


@pytest.mark.alone
def test_a_line_without_acknowledge_ejects_by_pulses(station_dir: Path) -> None:
    settings = trigger_of("modbus", pulse=c.PulseConfig(delay_ms=150, width_ms=30))
    with SimulatedPlc(settings, parts_per_minute=600, count=12) as plc, station(station_dir, settings):
        assert plc.wait_finished(60)
        until(lambda: len(plc.pulses) == 12)
    assert [p.signal for p in plc.pulses] == ["accept", "accept", "reject", "accept", "accept", "reject"] * 2
    ejected = [p for p in plc.pulses if p.signal == "reject"]
    assert all(150 <= (p.began_ms or 0) < 190 for p in ejected)
    assert plc.violations == []


def test_a_result_that_nobody_acknowledges_stops_the_line_until_it_is_reset(station_dir: Path) -> None:
    settings = trigger_of("modbus", acknowledge_timeout_ms=200.0)
    with SimulatedPlc(settings, parts_per_minute=600, count=6, acknowledges="never") as plc, station(station_dir, settings):
        until(lambda: plc.server.get(["fault_code"])["fault_code"] == 101)
        until(lambda: plc.server.get(["ready"])["ready"] is False)  # the numbers are written first, the bits after them
        plc.acknowledges = "always"
        plc.reset_fault()
        assert plc.wait_finished(60)
        assert plc.server.get(["fault"])["fault"] is False
    assert [r.verdict for r in plc.results.values()] == [A, A, R, A, A, R]
    assert plc.violations == []


def test_the_end_of_a_station_is_seen_by_the_plc(station_dir: Path) -> None:
    settings = trigger_of("modbus")
    with SimulatedPlc(settings, count=0) as plc:
        with station(station_dir, settings):
            until(lambda: plc.server.get(["ready"])["ready"])
        assert not any(plc.server.get(["ready", "busy", "result_valid"]).values())
        assert json.dumps(plc.violations) == "[]"
