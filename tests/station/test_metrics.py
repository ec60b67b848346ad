"""`lineside metrics`: what a station tells its subscribers, as Prometheus reads it."""

import contextlib
import re
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_runtime.cli import app
from edge_runtime.commands.metrics import StationMetrics, serve
from edge_runtime.config.files import StationConfig, load_station
from edge_runtime.console import run_app
from edge_runtime.errors import ConfigError
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.records import Cause, DriftState, Health, Release, ReleaseState, SightState, Stamps, State, Trend, Verdict
from edge_runtime.sinks.publisher import Publisher
from tests.support.decisions import decision_with
from tests.support.ports import free_ports
from tests.support.waiting import until

HEALTH = Health(
    "cell-3", State.DEGRADED, ("the PLC is lost",), ("b" * 64,), ("cells",), "CPU", 61.5,
    {"ACCEPT": 40, "REJECT": 1, "FAULT": 0, "overruns": 3, "dropped_previews": 7}, {}, 41, "2026-11-21T10:00:00+00:00",
    connections={"plc": {"reconnects": 2}}, queues={"parts": 4, "journal": 0},
    drift=DriftState(Trend.UP, 30, 0, 40, 41, 22.5, 15.0), sight=SightState(0.88, 1.0, 41, off={"x": 0.012}, noise=1.1),
)  # fmt: skip
MS = 1_000_000
MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"


@pytest.fixture
def config(station_dir: Path) -> StationConfig:
    publisher, replay, port = free_ports(3)
    file = station_dir / "measured.toml"
    file.write_text(
        f'name = "cell-3"\nrecipe = "recipe.toml"\n[source]\nkind = "folder"\npath = "parts"\n[trigger]\nkind = "timer"\n'
        f'[publisher]\nendpoint = "tcp://127.0.0.1:{publisher}"\nreplay = "tcp://127.0.0.1:{replay}"\n[metrics]\nport = {port}\n'
    )
    return load_station(file)


def scraped(config: StationConfig) -> dict[tuple[str, ...], float]:
    """By the sample's name and its labels' values but the station's."""
    with urllib.request.urlopen(address(config), timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
    assert {s.labels["station"] for s in samples} <= {"cell-3"}
    return {(s.name, *(v for k, v in sorted(s.labels.items()) if k != "station")): s.value for s in samples}


def address(config: StationConfig) -> str:
    assert config.metrics is not None
    return f"http://{config.metrics.host}:{config.metrics.port}/metrics"


@contextlib.contextmanager
def served(config: StationConfig) -> Iterator[Publisher]:
    """A station's publisher, and the exporter that listens to it."""
    stop = threading.Event()
    with Publisher(config.publisher, config.name, config.journal.path) as publisher:
        exporter = threading.Thread(target=serve, args=(config, stop))
        exporter.start()
        try:
            yield publisher
        finally:
            stop.set()
            exporter.join()


def told(config: StationConfig, publisher: Publisher) -> dict[tuple[str, ...], float]:
    """What is scraped once the exporter has heard the station."""

    def heard() -> bool:
        publisher.send_health(HEALTH)
        with contextlib.suppress(OSError):
            return scraped(config)["lineside_up",] == 1
        return False

    until(heard)
    return scraped(config)


def test_prometheus_reads_decisions_by_verdict_and_cause_and_how_long_they_took(config: StationConfig) -> None:
    with served(config) as publisher:
        told(config, publisher)
        at = Stamps(fired_ns=5 * MS, captured_ns=6 * MS, grabbed_ns=9 * MS, predicted_ns=31 * MS, decided_ns=32 * MS, told_ns=65 * MS)
        publisher.put(decision_with(seq=1, verdict=Verdict.ACCEPT, severity=0.65, stamps=at))
        publisher.put(decision_with(seq=2, verdict=Verdict.REJECT, severity=1.7, stamps=at))
        publisher.put(decision_with(seq=3, verdict=Verdict.FAULT, cause=Cause.CAMERA, severity=None, score=None, stamps=Stamps(5 * MS)))
        until(lambda: ("lineside_decisions_total", "camera", "FAULT") in scraped(config))
        seen = scraped(config)
    assert seen["lineside_decisions_total", "", "ACCEPT"] == 1
    assert seen["lineside_decisions_total", "", "REJECT"] == 1
    assert seen["lineside_decisions_total", "camera", "FAULT"] == 1
    assert seen["lineside_stage_seconds_count", "total"] == 2, "a fault has no time worth knowing"
    assert seen["lineside_stage_seconds_sum", "total"] == pytest.approx(0.120)
    assert seen["lineside_stage_seconds_bucket", "0.02", "predict"] == 0
    assert seen["lineside_stage_seconds_bucket", "0.03", "predict"] == 2
    assert seen["lineside_severity_bucket", "1.0"] == 1


@pytest.mark.parametrize("header", ["application/openmetrics-text;version=xx", "application/openmetrics-text;version=", "*/*;q=z", "\xff"])
def test_whoever_asks_oddly_is_answered_all_the_same(config: StationConfig, header: str) -> None:
    with served(config) as publisher:
        told(config, publisher)
        request = urllib.request.Request(address(config), headers={"Accept": header, "Accept-Encoding": header})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert b"lineside_up" in answer.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address(config).replace("/metrics", "/../etc/passwd"), timeout=20)


def test_prometheus_reads_what_the_station_says_of_itself(config: StationConfig) -> None:
    with served(config) as publisher:
        seen = told(config, publisher)
    assert seen["lineside_state", "DEGRADED"] == 1
    assert seen["lineside_state", "READY"] == 0
    assert seen["lineside_problems",] == 1
    assert seen["lineside_waiting", "parts"] == 4
    assert seen["lineside_events_total", "overruns"] == 3
    assert seen["lineside_connection_events_total", "plc", "reconnects"] == 2
    assert seen["lineside_drifting",] == 1
    assert seen["lineside_brightness_ratio",] == pytest.approx(0.88)
    disk = shutil.disk_usage(config.journal.path.parent)
    assert seen["lineside_disk_size_bytes", "journal"] == disk.total
    assert seen["lineside_disk_free_bytes", "journal"] == pytest.approx(disk.free, rel=0.2)


def test_a_station_that_is_silent_is_down_and_says_nothing_old(config: StationConfig) -> None:
    metrics = StationMetrics(config)
    metrics.hear(HEALTH)
    assert metrics.registry.get_sample_value("lineside_up", {"station": "cell-3"}) == 1
    metrics._heard_at -= 10.0
    assert metrics.registry.get_sample_value("lineside_up", {"station": "cell-3"}) == 0
    assert metrics.registry.get_sample_value("lineside_waiting", {"station": "cell-3", "queue": "parts"}) is None


def test_the_age_of_the_model_is_known_also_of_one_that_came_later(config: StationConfig, tiny_bundle: Path) -> None:
    bundle = ModelBundle.open(tiny_bundle)
    metrics = StationMetrics(config)
    metrics._created.clear()  # as before it was deployed
    metrics.hear(replace(HEALTH, bundle_ids=(bundle.id,)))
    made = metrics.registry.get_sample_value("lineside_model_created_timestamp_seconds", {"station": "cell-3", "bundle": bundle.id})
    assert made is not None
    assert made > 1.7e9


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: deploy/testbench.sh")
def test_prometheus_itself_finds_nothing_to_object_to(config: StationConfig) -> None:
    with served(config) as publisher:
        told(config, publisher)
        publisher.put(decision_with(seq=1, verdict=Verdict.ACCEPT, severity=0.65))
        with urllib.request.urlopen(address(config), timeout=5) as answer:
            text = answer.read()
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: deploy/testbench.sh")
def test_alerts_fire_for_what_they_name() -> None:
    checked = subprocess.run(["promtool", "test", "rules", "alerts_test.yml"], cwd=MONITORING, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def complaint(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr("sys.argv", ["lineside", "metrics", str(file)])
    with pytest.raises(SystemExit) as end:
        run_app(app)
    assert end.value.code == 78
    return capsys.readouterr().err


def test_without_its_table_or_its_port_it_says_so(
    config: StationConfig, station_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = station_dir / "measured.toml"
    text = file.read_text()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        file.write_text(re.sub(r"\[metrics\]\nport = \d+", f"[metrics]\nport = {taken}", text))
        assert f"a free port of this machine, found 127.0.0.1:{taken}" in complaint(file, monkeypatch, capsys)
    file.write_text(text.partition("[metrics]")[0])
    assert "expected a table [metrics], found none" in complaint(file, monkeypatch, capsys)


def test_a_port_is_given_once(config: StationConfig, station_dir: Path) -> None:
    file = station_dir / "measured.toml"
    port = config.publisher.endpoint.rpartition(":")[2]
    file.write_text(re.sub(r"\[metrics\]\nport = \d+", f"[metrics]\nport = {port}", file.read_text()))
    with pytest.raises(ConfigError, match=r"metrics\.port: expected a socket of its own"):
        load_station(file)


def test_alerts_and_dashboard_ask_for_what_is_offered(config: StationConfig) -> None:
    metrics = StationMetrics(config)
    metrics.hear(replace(HEALTH, release=ReleaseState(Release.RELEASED, "met"), bundle_ids=tuple(metrics._created)))
    offered = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    offered |= {f"lineside_stage_seconds_{part}" for part in ("bucket", "count", "sum")} | {"lineside_severity_bucket"}
    asked = set(re.findall(r"\blineside_[a-z_]+", "".join((MONITORING / name).read_text() for name in ("alerts.yml", "grafana.json"))))
    assert asked
    assert asked <= offered
