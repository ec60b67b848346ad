"""A whole station out of an installed package's parts: it judges as ever, and no sink of theirs delays a decision or ends the station."""

import contextlib
import sys
import threading
import time
from pathlib import Path

import pytest

from edge_runtime.commands.check import Finding, check_station
from edge_runtime.config.files import PublisherConfig, load_station
from edge_runtime.errors import SinkError, SourceError
from edge_runtime.records import Decision, Health, Verdict
from edge_runtime.sinks.journal import read_decisions
from edge_runtime.station import observers
from edge_runtime.station.launch import open_station
from tests.support.packages import install
from tests.support.waiting import until

CODE = """
import threading, time
import msgspec, numpy as np
from edge_runtime.errors import SinkError
from edge_runtime.protocols import ActuatorLine, Sink, Source
from edge_runtime.records import Frame, Trigger

class Settings(msgspec.Struct, frozen=True):
    fails: bool = False

class Part:
    settings_type = Settings
    def __init__(self, settings):
        self.settings = settings
    def __enter__(self):
        if self.settings.fails:
            raise OSError("no such lamp")
        return self

class Mirror(Part, Source):
    live = False
    def grab(self, timeout_s):
        image = np.full((64, 64), 80, np.uint8)
        return Frame(1, time.monotonic_ns(), "mirror", image)

class Line(ActuatorLine):
    settings_type = Settings
    told = []
    def __init__(self, settings, first_seq):
        self.seq = first_seq
    @property
    def exhausted(self):
        return len(self.told) >= 10
    def wait(self, timeout_s):
        time.sleep(0.02)
        if self.exhausted:
            return None
        self.seq += 1
        return Trigger(self.seq - 1, time.monotonic_ns(), "")
    def put(self, decision, pictures):
        self.told.append(decision.seq)
    def unreachable(self, trigger):
        return None

class Keep(Part, Sink):
    told, threads = [], []
    def put(self, decision, pictures):
        self.told.append((decision.seq, [p.frame.source for p in pictures]))
        self.threads.append(threading.current_thread().name)
    @property
    def problem(self):
        self.threads.append(threading.current_thread().name)
    def __exit__(self, *exc):
        self.threads.append(threading.current_thread().name)

class Raise(Part, Sink):
    def put(self, decision, pictures):
        raise KeyError("what its author forgot")

class Refuse(Part, Sink):
    def put(self, decision, pictures):
        raise SinkError("the disk is full")

class Leave(Part, Sink):
    def put(self, decision, pictures):
        raise SystemExit(3)

class Hang(Part, Sink):
    def put(self, decision, pictures):
        threading.Event().wait(30)
    def __exit__(self, *exc):
        threading.Event().wait(30)
"""
SINKS = {"keep": "{m}:Keep", "raise": "{m}:Raise", "refuse": "{m}:Refuse", "leave": "{m}:Leave", "hang": "{m}:Hang"}
TIMER = 'kind = "timer"\nperiod_ms = 20\ncount = 60'


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    entries = {"sources": {"mirror": "{m}:Mirror"}, "triggers": {"line": "{m}:Line"}, "sinks": SINKS}
    return install(tmp_path / "site", monkeypatch, "lineside-mirror", entries, CODE)


def write(folder: Path, endpoints: PublisherConfig, trigger: str = TIMER, source: str = 'kind = "mirror"', sinks: str = "") -> Path:
    file = folder / "station.toml"
    file.write_text(
        f'name = "s"\nrecipe = "recipe.toml"\n{sinks}\n[source]\n{source}\n[trigger]\n{trigger}\n'
        f'[publisher]\nendpoint = "{endpoints.endpoint}"\nreplay = "{endpoints.replay}"\n'
    )
    return file


def run(file: Path) -> tuple[list[Decision], Health]:
    """All decisions of a line that ends, and the last word of health."""
    with contextlib.ExitStack() as stack:
        station, monitor = open_station(load_station(file), stack)
        monitor.ready()
        station.begin()
        assert station.run() == 0
        time.sleep(0.1)  # the last one is shown
        health = monitor.snapshot()
    return read_decisions(file.parent / "journal.sqlite", 0, 1000), health


def of(sinks: list[str]) -> str:
    return "sink = [" + ", ".join(f'{{kind = "{kind}"}}' for kind in sinks) + "]"


def test_no_sink_of_another_s_delays_a_decision(
    station_dir: Path, package: str, endpoints: PublisherConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 4."""
    monkeypatch.setattr(observers, "_HANGS_AFTER_S", 0.5)
    began = time.monotonic()
    decisions, health = run(write(station_dir, endpoints, sinks=of(["hang", "raise", "keep", "refuse", "leave"])))
    took_s = time.monotonic() - began
    assert [d.seq for d in decisions] == list(range(1, 61))
    assert {d.verdict for d in decisions} == {Verdict.ACCEPT}
    assert sorted((d.stamps.decided_ns - d.stamps.fired_ns) / 1e6 for d in decisions)[30] < 100
    assert health.counts["dropped_sink_hang"] == 60 - 9, "one it hangs with, eight wait"
    assert {kind: health.counts[f"dropped_sink_{kind}"] for kind in ("raise", "keep", "refuse", "leave")} == dict.fromkeys(
        ("raise", "keep", "refuse", "leave"), 0
    )
    said = "\n".join(health.problems)
    assert f"sink \"raise\" of lineside-mirror 1.2 ({package}:Raise): KeyError: 'what its author forgot'" in said
    assert f'sink "leave" of lineside-mirror 1.2 ({package}:Leave): SystemExit: 3' in said
    assert "sink_refuse: the disk is full" in said
    assert "sink_hang: no answer for" in said
    assert "keep" not in said
    keep = sys.modules[package].Keep
    assert keep.told == [(seq, ["mirror"]) for seq in range(1, 61)]
    assert set(keep.threads) == {"sink_keep"}, "told, asked and left in one thread"
    assert took_s < 20, "one that hangs is left behind"


def test_a_line_that_takes_results_is_told_all_of_them(station_dir: Path, package: str, endpoints: PublisherConfig) -> None:
    decisions, _ = run(write(station_dir, endpoints, trigger='kind = "line"'))
    told = sys.modules[package].Line.told
    assert len(told) >= 10 and told == [d.seq for d in decisions]


@pytest.mark.parametrize(
    ("trigger", "source", "sinks", "error"),
    [
        (TIMER, 'kind = "mirror"\nfails = true', "", SourceError),
        (TIMER, 'kind = "mirror"', 'sink = [{kind = "keep"}, {kind = "raise", fails = true}]', SinkError),
    ],
)
def test_what_cannot_be_opened_names_its_package_before_ready(
    station_dir: Path, package: str, endpoints: PublisherConfig, trigger: str, source: str, sinks: str, error: type[Exception]
) -> None:
    before = threading.active_count()
    with pytest.raises(error, match=r"of lineside-mirror 1\.2 \(.*\): OSError: no such lamp$"):
        run(write(station_dir, endpoints, trigger, source, sinks))
    until(lambda: threading.active_count() <= before)  # what was open already was given back


def found(file: Path) -> dict[str, Finding]:
    return {f.what: f for f in check_station(file)}


def test_check_says_where_parts_come_from_and_tries_them(station_dir: Path, package: str, endpoints: PublisherConfig) -> None:
    sinks = 'sink = [{kind = "keep"}, {kind = "raise", fails = true}]'
    lines = found(write(station_dir, endpoints, 'kind = "line"', sinks=sinks))
    assert lines["plug-ins"].ok
    for word in ("source", "mirror", "Mirror"), ("trigger", "line", "Line"), ("sink", "keep", "Keep"):
        assert f'{word[0]} "{word[1]}" of lineside-mirror 1.2 ({package}:{word[2]})' in lines["plug-ins"].sentence
    assert lines["source"].ok and "64x64 gray" in lines["source"].sentence
    assert lines["trigger"].ok and "lineside-mirror 1.2" in lines["trigger"].sentence
    assert lines["sink keep"].ok
    assert not lines["sink raise"].ok and "OSError: no such lamp" in lines["sink raise"].sentence


def test_check_shows_a_broken_package_and_a_kind_that_two_bring_as_a_failed_line(
    station_dir: Path, endpoints: PublisherConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(tmp_path / "broken", monkeypatch, "lineside-broken", {"sources": {"broken": "{m}:P"}}, "import nothing_like_it")
    lines = found(write(station_dir, endpoints, source='kind = "broken"'))
    assert not lines["configuration"].ok and 'source "broken" of lineside-broken 1.2' in lines["configuration"].sentence
    install(tmp_path / "other", monkeypatch, "better-folder", {"sources": {"folder": "{m}:P"}}, "import nothing_like_it")
    lines = found(write(station_dir, endpoints, source='kind = "folder"\npath = "parts"'))
    assert lines["configuration"].ok and lines["source"].ok
    assert not lines["plug-ins"].ok and 'found "folder" of Lineside itself' in lines["plug-ins"].sentence
