"""A station's figures for Prometheus: a process of its own that only subscribes, so that nobody who asks it ever asks the station.

Decisions are counted from when this process began, by verdict and cause, the replay socket filling what was missed; all else is the
station's last word of health. Disks and models are looked at here, on the station's machine.
"""

import math
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_runtime.client import DecisionClient, Gap
from edge_runtime.config.files import StationConfig
from edge_runtime.credentials import Credentials
from edge_runtime.errors import BundleError, ConfigError
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.records import Cause, Decision, Health, State, Trend, Verdict
from edge_runtime.station.recipes import load_recipes

SILENT_S = 3.5
"""A station says how it is once a second; one that has not for so long is down."""
_WAIT_S = 1.0
_Values = dict[tuple[str, ...], float]
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)
_SEVERITIES = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)


class StationMetrics(Collector):
    """Takes decisions and health in one thread, answers a registry in any other."""

    def __init__(self, config: StationConfig) -> None:
        """`config`: where disks and models are; nothing of the station is asked."""
        self.registry = CollectorRegistry()
        self._station = config.name
        self._config = config
        self._disks = _disks(config)
        self._created = _created(config)
        self._health: Health | None = None
        self._heard_at = 0.0
        self._decisions = Counter(
            "lineside_decisions", "Decisions since this exporter began.", ("station", "verdict", "cause"), registry=self.registry
        )
        self._gaps = Counter(
            "lineside_decisions_not_had", "Decisions that were made and cannot be had any more.", ("station",), registry=self.registry
        )
        self._gaps.labels(self._station)
        self._stages = Histogram(
            "lineside_stage_seconds", "Of judged parts: until the camera's picture was there, the model's time, and from the trigger"
            " until the first receiver was told.", ("station", "stage"), buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._severity = Histogram(
            "lineside_severity", "Score over threshold of judged parts: 1 is the border.", ("station",), buckets=_SEVERITIES,
            registry=self.registry,
        )  # fmt: skip
        for verdict in (Verdict.ACCEPT, Verdict.REJECT):
            self._decisions.labels(self._station, verdict.value, "")
        self.registry.register(self)

    def take(self, item: Decision | Gap) -> None:
        """Count it."""
        if isinstance(item, Gap):
            self._gaps.labels(self._station).inc(item.last_seq - item.first_seq + 1)
            return
        cause = item.cause.name.lower() if item.cause is not Cause.NONE else ""
        self._decisions.labels(self._station, item.verdict.value, cause).inc()
        if item.verdict is Verdict.FAULT:
            return
        stamps = item.stamps
        for stage, since_ns, until_ns in (
            ("grab", stamps.fired_ns, stamps.grabbed_ns),
            ("predict", stamps.grabbed_ns, stamps.predicted_ns),
            ("total", stamps.fired_ns, stamps.told_ns),
        ):
            if since_ns and until_ns:
                self._stages.labels(self._station, stage).observe(max(until_ns - since_ns, 0) / 1e9)
        if item.severity is not None:
            self._severity.labels(self._station).observe(item.severity)

    def hear(self, health: Health) -> None:
        """Remember how the station is."""
        if new := set(health.bundle_ids) - self._created.keys():
            self._created |= dict.fromkeys(new, math.nan) | _created(self._config)
        self._health, self._heard_at = health, time.monotonic()

    def collect(self) -> Iterator[Metric]:
        """What is known now; of a station that is silent no more than that it is, and what stands on the disks."""
        health = self._health if time.monotonic() - self._heard_at < SILENT_S else None
        yield self._gauge("lineside_up", "Whether the station was heard within the last seconds.", {(): health is not None})
        for total in (True, False):
            name, said = ("size", "Size") if total else ("free", "Room left")
            space: _Values = {
                (what,): usage.total if total else usage.free for what, path in self._disks.items() if (usage := _usage(path))
            }
            yield self._gauge(f"lineside_disk_{name}_bytes", f"{said} of the disk that it lies on.", space, "of")
        if health is not None:
            yield from self._told(health)

    def _told(self, health: Health) -> Iterator[Metric]:
        yield self._gauge("lineside_state", "1 for the station's state.", {(s.value,): s is health.state for s in State}, "state")
        yield self._gauge("lineside_problems", "Sentences in the station's health.", {(): len(health.problems)})
        yield self._gauge("lineside_uptime_seconds", "Since the station's start.", {(): health.uptime_s})
        yield self._gauge("lineside_last_decision", "Number of the last decision.", {(): health.last_seq})
        yield self._gauge("lineside_waiting", "What waits.", {(name,): n for name, n in health.queues.items()}, "queue")
        verdicts = {v.value for v in Verdict}
        events: _Values = {(name,): n for name, n in health.counts.items() if name not in verdicts}
        yield self._counter("lineside_events", "Since the station's start: overruns, what observers were not shown, …", events, "event")
        since: _Values = {(name, what): n for name, tallies in health.connections.items() for what, n in tallies.items()}
        yield self._counter("lineside_connection_events", "Since the station's start, of cameras and PLC.", since, "connection", "event")
        cameras = range(len(health.bundle_ids))
        models: _Values = {(str(i), health.recipes[i], health.bundle_ids[i]): 1 for i in cameras}
        yield self._gauge("lineside_model", "The models that judge, one a camera.", models, "camera", "recipe", "bundle")
        shadows = [((s.camera, s.recipe, s.bundle_id), s) for s in health.shadows]
        judged: _Values = {key: shadow.judged for key, shadow in shadows}
        yield self._gauge("lineside_shadow_judged", "Parts that a model which looks on has scored.", judged, "camera", "recipe", "bundle")
        otherwise: _Values = {key: shadow.accepts + shadow.rejects for key, shadow in shadows}
        yield self._gauge("lineside_shadow_otherwise", "Of them, those it judges otherwise.", otherwise, "camera", "recipe", "bundle")
        made: _Values = {(id_,): at for id_ in health.bundle_ids if not math.isnan(at := self._created[id_])}
        yield self._gauge("lineside_model_created_timestamp_seconds", "When the model was built.", made, "bundle")
        if (release := health.release) is not None:
            yield self._gauge("lineside_released", "1 for whether what judges is released.", {(release.word.value,): 1}, "release")
        if (drift := health.drift) is not None:
            yield self._gauge("lineside_drifting", "Whether recent scores stray from the calibrated.", {(): drift.trend is not Trend.OK})
            medians: _Values = {("taught",): drift.usual_median}
            if drift.median is not None:
                medians["now",] = drift.median
            yield self._gauge("lineside_accepted_score_median", "Of good parts, when taught and now.", medians, "when")
        if (sight := health.sight) is not None:
            yield self._gauge("lineside_brightness_ratio", "Of recent pictures, to those that were taught.", {(): sight.brightness})
            yield self._gauge("lineside_sharpness_ratio", "Of recent pictures, to those that were taught.", {(): sight.sharpness})
            if sight.noise is not None:
                yield self._gauge("lineside_noise_ratio", "Of recent pictures, to those that were taught.", {(): sight.noise})
            off: _Values = {(way,): value for way, value in sight.off.items()}
            yield self._gauge("lineside_parts_off", "Where recent parts lie: x, y in shares of the side, turn in degrees.", off, "way")

    def _gauge(self, name: str, said: str, values: _Values, *labels: str) -> Metric:
        return self._filled(GaugeMetricFamily(name, said, labels=("station", *labels)), values)

    def _counter(self, name: str, said: str, values: _Values, *labels: str) -> Metric:
        return self._filled(CounterMetricFamily(name, said, labels=("station", *labels)), values)

    def _filled(self, family: GaugeMetricFamily | CounterMetricFamily, values: _Values) -> GaugeMetricFamily | CounterMetricFamily:
        for labels, value in values.items():
            family.add_metric((self._station, *labels), float(value))
        return family


def serve(config: StationConfig, stop: threading.Event, key: Credentials | None = None) -> None:
    """Offer them at [metrics] until `stop` is set; `key` where the station demands one.

    Raises ConfigError for a station file without [metrics] or a port that cannot be had, WireError when the other side is no station.
    """
    if config.metrics is None:
        raise ConfigError(f'station {config.name}: expected a table [metrics], found none; write "[metrics]" into the station file')
    metrics = StationMetrics(config)
    host, port = config.metrics.host, config.metrics.port
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError as e:
        raise ConfigError(f"metrics.port: expected a free port of this machine, found {host}:{port}: {e.strerror or e}") from e
    server.set_app(_forgiving(server.get_app()))
    try:
        with DecisionClient(config.publisher.endpoint, config.publisher.replay, key=key) as client:
            while not stop.is_set():
                heard = client.health
                if (item := client.receive(_WAIT_S)) is not None:
                    metrics.take(item)
                if client.health is not None and client.health is not heard:
                    metrics.hear(client.health)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _forgiving(app: Any) -> Any:
    """A WSGI application that answers at /metrics alone, and whoever asks for what it cannot understand with the plainest format."""

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] not in ("/", "/metrics"):
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"the figures are at /metrics\n"]
        try:
            return app(environ, start_response)
        except (TypeError, ValueError):  # by a header; nothing was answered yet
            return app({**environ, "HTTP_ACCEPT": "", "HTTP_ACCEPT_ENCODING": "", "QUERY_STRING": ""}, start_response)

    return answer


def _disks(config: StationConfig) -> dict[str, Path]:
    return {"journal": config.journal.path.parent} | ({"archive": config.archive.path} if config.archive is not None else {})


def _usage(path: Path) -> "shutil._ntuple_diskusage | None":
    try:
        return shutil.disk_usage(path)
    except OSError:
        return None  # not made yet, or on a disk that is away: no figure is better than one of another disk


def _created(config: StationConfig) -> dict[str, float]:
    """When each bundle that the recipes name was built, seconds since 1970, by its id."""
    made: dict[str, float] = {}
    try:
        paths = dict.fromkeys(entry.recipe.bundle for entry in load_recipes(config))
    except ConfigError:
        return made  # the station says what is wrong with it
    for path in paths:
        try:
            bundle = ModelBundle.open(path)
            made[bundle.id] = datetime.fromisoformat(bundle.manifest.created).timestamp()
        except (BundleError, ValueError):
            continue  # its age is not known either
    return made
