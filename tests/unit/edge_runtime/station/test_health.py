"""Counts, quantiles, problems, and the word to systemd."""

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_runtime.errors import SinkError
from edge_runtime.model.manifest import Drift
from edge_runtime.records import Decision, Health, Release, ReleaseState, Stamps, State, Verdict
from edge_runtime.station.drift import DriftWatch
from edge_runtime.station.health import HealthMonitor
from tests.support.decisions import decision_with
from tests.support.waiting import until

MS = 1_000_000


def monitor(**more: object) -> HealthMonitor:
    return HealthMonitor(**({"station": "s", "recipes": ("r",), "bundle_ids": ("b",), "device": "CPU"} | more))  # type: ignore[arg-type]


def decision(seq: int, verdict: Verdict) -> Decision:
    return decision_with(recipe="r", bundle_id="b", seq=seq, verdict=verdict, stamps=Stamps(fired_ns=1000))


@dataclass
class Part:
    def __init__(self, **tallies: int) -> None:
        self.problem: str | None = None
        self.tallies = tallies


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Stands in for systemd."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(3)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        yield sock


def drain(sock: socket.socket, for_s: float) -> list[str]:
    messages, until = [], time.monotonic() + for_s
    while (left := until - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            messages.append(sock.recv(4096).decode())
        except TimeoutError:
            break
    return messages


def test_counts_and_times_come_from_the_decisions() -> None:
    m = monitor()
    for seq in range(1, 101):
        m.decided(decision(seq, Verdict.ACCEPT), grab_ns=2 * MS, predict_ns=5 * MS, done_ns=1000 + 8 * MS)
    m.decided(decision(101, Verdict.FAULT), grab_ns=0, predict_ns=0, done_ns=1000 + 500 * MS)
    health = m.snapshot()
    assert health.counts == {"ACCEPT": 100, "REJECT": 0, "FAULT": 1, "overruns": 0, "dropped_previews": 0, "dropped_archives": 0}
    assert health.stages_ms == {"grab": (2.0, 2.0), "predict": (5.0, 5.0), "overhead": (1.0, 1.0), "total": (8.0, 8.0)}
    assert health.last_seq == 101


def test_health_tells_whether_what_judges_now_is_released() -> None:
    released, refused = ReleaseState(Release.RELEASED, "all well"), ReleaseState(Release.REFUSED, "misses 83 %")
    m = monitor(releases={(("r",), ("b",)): released, (("gadget",), ("c",)): refused})
    assert m.snapshot().release == released
    m.judging(("gadget",), ("c",))
    assert m.snapshot().release == refused
    m.judging(("r",), ("b",))
    assert m.snapshot().release == released
    assert monitor().snapshot().release is None


def test_drift_is_told_of_the_model_that_judges_at_that_camera_now_not_of_one_whose_id_is_in_it() -> None:
    """Two cameras share two bundles, the other way round for the next product; "b" is a part of the id "bb"."""
    limits = Drift(low=1.0, median=2.0, high=3.0, share=0.1, window=2, max_above=0, max_below=2, false_alarm=1e-5, n_good=500)
    drifts = {(camera, id_): DriftWatch(limits) for camera in ("top", "side") for id_ in ("b", "bb")}
    m = monitor(cameras=("top", "side"), recipes=("r", "r"), bundle_ids=("bb", "b"), drifts=drifts)
    for _ in range(2):
        drifts["top", "b"].add(9.0, accepted=True)
    assert drifts["top", "b"].problem is not None
    assert m.snapshot().problems == (), "at the camera top judges bb"
    m.judging(("q", "q"), ("b", "bb"))
    assert [p.split(":")[0] for p in m.snapshot().problems] == ["top"]
    assert (m.snapshot().recipes, m.snapshot().bundle_ids) == (("q", "q"), ("b", "bb"))


def test_a_problem_degrades_a_ready_station_until_it_is_gone() -> None:
    m, part = monitor(), Part()
    m.watch([part])
    assert m.snapshot().state is State.STARTING
    m.ready()
    assert m.snapshot().state is State.READY
    part.problem = "the cable is out"
    m.trouble("archives", "the disk is full")
    assert (m.snapshot().state, m.snapshot().problems) == (State.DEGRADED, ("the cable is out", "the disk is full"))
    part.problem = None
    m.trouble("archives", None)
    assert (m.snapshot().state, m.snapshot().problems) == (State.READY, ())
    m.stopping()
    assert m.snapshot().state is State.STOPPING


def test_connections_tell_what_happened_to_them_and_their_problems() -> None:
    m, plc, folder = monitor(), Part(reconnects=2), Part()
    plc.problem = "the PLC is off"
    m.watch([], {"plc": plc, "camera": folder})
    assert m.snapshot().connections == {"plc": {"reconnects": 2}}
    assert m.snapshot().problems == ("the PLC is off",)


@pytest.mark.slow
def test_health_is_sent_once_a_second_and_a_publisher_that_fails_shows() -> None:
    sent: list[Health] = []

    def send(health: Health) -> None:
        sent.append(health)
        raise SinkError("the port is gone")

    with monitor(send=send):
        time.sleep(2.5)
        in_time = list(sent)
    assert 1 <= len(in_time) <= 2
    assert sent[1].problems == ("the port is gone",)
    assert in_time[0].uptime_s >= 0.9


def test_a_change_of_state_is_sent_at_once_and_the_last_word_at_the_end() -> None:
    """A run shorter than a second shows that it was ready, and its last counts."""
    sent: list[Health] = []
    with monitor(send=sent.append) as m:
        m.ready()
        until(lambda: sent, within_s=0.8)  # a beat comes once a second
        assert [h.state for h in sent] == [State.READY]
        m.stopping()
        m.decided(decision(1, Verdict.REJECT), 0, 0, 0)
    assert (sent[-1].state, sent[-1].counts["REJECT"]) == (State.STOPPING, 1)


@pytest.mark.slow
def test_systemd_hears_ready_status_and_stopping(manager: socket.socket) -> None:
    with monitor() as m:
        m.ready()
        m.decided(decision(1, Verdict.REJECT), 0, 0, 0)
        messages = drain(manager, 2.5)
        m.stopping()
        messages += drain(manager, 0.2)
    assert messages[0] == "READY=1"
    assert "STATUS=READY: 0 accepted, 1 rejected, 0 faults" in messages
    assert "STOPPING=1" in messages


@pytest.mark.slow
def test_the_watchdog_is_fed_only_while_every_thread_that_matters_comes_round(manager: socket.socket) -> None:
    with monitor(alive_within_s=0.8) as m:
        m.beat("loop")
        m.beat("trigger line")
        assert "WATCHDOG=1" in drain(manager, 0.4)
        until = time.monotonic() + 1.2
        while time.monotonic() < until:  # one thread goes on, the other hangs
            m.beat("trigger line")
            time.sleep(0.02)
        assert not m.alive
        drain(manager, 0.01)
        m.beat("trigger line")
        assert "WATCHDOG=1" not in drain(manager, 0.2)
        m.beat("loop")
        m.beat("trigger line")
        assert "WATCHDOG=1" in drain(manager, 0.4)


def test_without_systemd_nothing_is_sent_and_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    with monitor() as m:
        m.ready()
        assert m.snapshot().state is State.READY
        m.stopping()
        assert m.snapshot().state is State.STOPPING


def test_a_manager_that_is_gone_does_not_stop_the_station(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    m = monitor()
    m.ready()
    assert m.snapshot().state is State.READY


def test_what_nobody_knew_before_is_counted_and_stands_there_from_its_beginning() -> None:
    m = monitor()
    m.count("dropped_sink_log", 0)
    assert m.snapshot().counts["dropped_sink_log"] == 0
    m.count("dropped_sink_log")
    assert m.counts()["dropped_sink_log"] == 1


def test_most_parts_rejected_degrade_the_station_until_other_models_judge() -> None:
    health = monitor(alarm_rejects=20)
    health.ready()
    for seq in range(1, 21):
        health.decided(decision(seq, Verdict.REJECT), 0, 0, 2 * MS)
    assert health.snapshot().state is State.DEGRADED and "20 of the last 20 parts are rejected" in health.snapshot().problems[0]
    health.judging(("other",), ("b",))  # the PLC's recipes may change with every part
    assert health.snapshot().problems
    health.know({}, {})
    assert health.snapshot().state is State.READY
