"""Is this station ready for its line? One finding a device, in the order of the loop; the first failure does not hide the next."""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edge_runtime.commands.journal import verified
from edge_runtime.commands.machine import one_opencv, processors, room
from edge_runtime.config.files import (
    CameraConfig,
    Recipe,
    StationConfig,
    TimerTriggerConfig,
    ZeromqTriggerConfig,
    endpoints_of,
    load_station,
    plugins_in,
    sinks_in,
)
from edge_runtime.config.foreign import OWN
from edge_runtime.config.sources import FolderSourceConfig, SyntheticSourceConfig
from edge_runtime.errors import BundleError, ConfigError, DeviceError, LinesideError, SinkError, SourceError, TriggerError
from edge_runtime.handoff import Helper
from edge_runtime.model.compressed import say_measured, say_unlike
from edge_runtime.model.manifest import most_px_of
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.model.released import check_release, release_of
from edge_runtime.model.signature import TrustedKey, load_keys
from edge_runtime.plc.kinds import open_port
from edge_runtime.plc.line import PlcLine
from edge_runtime.plc.signals import tags_of
from edge_runtime.plugins import Plugin, PluginSettings, blaming, clashes, offered
from edge_runtime.protocols import Sink, Source, TriggerLine
from edge_runtime.records import Frame, Release
from edge_runtime.security.access import beyond_loopback
from edge_runtime.security.keys import Keyring
from edge_runtime.sinks import journal_file, open_sink
from edge_runtime.sinks.journal_clock import journal_clock
from edge_runtime.sinks.journal_heads import beside
from edge_runtime.sinks.journal_numbers import last_seq
from edge_runtime.sinks.journal_verify import TAIL, has_chain
from edge_runtime.sockets import bindable
from edge_runtime.sources import check_depth, open_source
from edge_runtime.sources.folder import glance, list_images
from edge_runtime.station.control import groups_known
from edge_runtime.station.in_effect import FROM_FILE
from edge_runtime.station.judge import limits_of
from edge_runtime.station.reach import narrow, promise, watched
from edge_runtime.station.recipes import Entry, check_area, load_recipes, open_bundle
from edge_runtime.triggers import open_trigger

_TIMED = 5
_OPENS_WITHIN_S = 5.0
JOURNAL_NEEDS_MB = 200
"""Below this the journal of a fast line is full within a shift."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    what: str
    ok: bool
    sentence: str
    warns: bool = False
    """It is as it should be for the station to run, and a person should know of it all the same."""


def check_station(path: Path) -> Iterator[Finding]:
    """Check all that a station needs, and yield each finding as it is made; a bug's exception goes through.

    Run it as the user that runs the station, while that station does not run: two processes cannot share a camera or a port. On disk
    nothing changes; a PLC's result coils and registers are cleared, as they are when the station starts.
    """
    yield _try("packages", one_opencv)
    try:
        config = load_station(path)
        entries = load_recipes(config)
        keys = load_keys(config.trusted_keys)
    except ConfigError as e:
        yield Finding("configuration", False, str(e))
        return  # nothing else is known
    yield Finding("configuration", True, _known(config, entries))
    used = plugins_in(config)
    packages = _try("plug-ins", lambda: _plugins(used))
    if used or not packages.ok:
        yield packages
    predictors: list[list[OpenvinoPredictor]] = [[] for _ in config.cameras]
    with contextlib.ExitStack() as stack:
        for entry in entries:
            predictor = yield from _recipe(config, entry, keys, stack)
            predictors[entry.camera] += [predictor] if predictor is not None else []
    yield _try("processors", lambda: processors(config.threads, max((p.threads_used for its in predictors for p in its), default=0)))
    sockets = _try("sockets", lambda: bindable(endpoints_of(config)))
    yield sockets
    if config.security.keys is not None:
        yield _try("keys", lambda: _keys(config))
    elif reached := [f"{key} {endpoint}" for key, endpoint in endpoints_of(config).items() if beyond_loopback(endpoint)]:
        sentence = f"none are demanded (plain = true): anybody who reaches this machine's network may use {', '.join(reached)}"
        yield Finding("keys", True, sentence, warns=True)
    for camera, its in zip(config.cameras, predictors, strict=True):
        remarks: list[str] = []
        found = _try(f"{camera.name} source".strip(), partial(_source, camera, its, remarks))
        warns = found.ok and bool(remarks)
        yield replace(found, sentence="; ".join([found.sentence, *remarks]), warns=True) if warns else found
    if sockets.ok:
        yield _try("trigger", lambda: _trigger(config))
    else:
        # Opening a PLC clears its result bits: not under a station that may be running.
        yield Finding("trigger", False, "not tried, because the station's sockets are taken: it may be running")
    yield (journal := _try("journal", lambda: _journal(config)))
    if journal.ok and config.journal.path.exists():
        yield _chain(config.journal.path)
    if config.archive is not None:
        archive = config.archive
        yield _try("archive", lambda: room(archive.path, archive.quota_mb, "archive.quota_mb"))
    for name, settings in sinks_in(config).items():
        yield _try(name.replace("_", " "), partial(_opened_sink, settings))


def _known(config: StationConfig, entries: list[Entry]) -> str:
    own = [e.recipe for e in entries if not e.key]
    names = [f"{camera.name}: {recipe.name}" if camera.name else recipe.name for camera, recipe in zip(config.cameras, own, strict=True)]
    keys = list(config.cameras[0].recipes)
    more = f", recipes {', '.join(keys)} on request" if keys else ""
    return f"station {config.name}, recipe {', '.join(names)}, deadline {min(r.deadline_ms for r in own):g} ms{more}"


def _keys(config: StationConfig) -> str:
    assert config.security.keys is not None
    ring = Keyring(config.security.keys)
    ring.server()
    known = ", ".join(f"{key.name} ({' and '.join(sorted(key.roles))})" for key in ring.listed())
    if config.control is not None and (missing := groups_known(config.control.groups)) is not None:
        raise ConfigError(f"control.groups: expected groups of this machine, found {missing}, which it does not have")
    return f"may come in: {known or 'nobody yet; lineside keys add'}"


def _plugins(used: list[Plugin]) -> str:
    """Where they come from. Raises ConfigError for a kind that two bring, whether this station names it or not; imports nothing."""
    for group, own in OWN.items():
        for clash in clashes(offered(group), own):
            raise ConfigError(clash.sentence)
    return "; ".join(map(str, used))


def _recipe(
    config: StationConfig, entry: Entry, keys: list[TrustedKey], stack: contextlib.ExitStack
) -> Generator[Finding, None, OpenvinoPredictor | None]:
    """Its findings; returns the predictor of a bundle that is sound."""
    recipe = entry.recipe
    prefix = f"{entry.where.removeprefix('camera ')} " if entry.where else ""
    try:
        bundle, signer = open_bundle(config, recipe.bundle, keys, private=False)
        predictor = OpenvinoPredictor(bundle, config.device, config.threads, recipe.region)
        m = bundle.manifest
        clamped = "; scores are clamped to 0..1" if m.clamped else ""
        released = f", released by {signer}" if signer else ""
        known = f"{m.name} {m.version} ({m.method}, {m.precision})"
        origin = f"; {entry.origin}" if entry.origin != FROM_FILE else ""
        sentence = f"{known}, {len(m.files)} files intact, id {bundle.id[:12]}{released}{clamped}{origin}"
        yield Finding(f"{prefix}bundle", True, sentence, warns=entry.overruled)
    except (BundleError, ConfigError, DeviceError) as e:
        yield Finding(f"{prefix}bundle", False, str(e))
        return None
    yield _release(prefix, predictor, recipe, config)
    yield _try(f"{prefix}device", lambda: f"{stack.enter_context(predictor).device_used}: the model runs")
    if predictor.device_used:
        yield _try(f"{prefix}golden samples", lambda: _golden(predictor, config, recipe))
        yield _try(f"{prefix}limits", lambda: _limits(predictor, recipe))
    if (envelope := m.envelope) is not None:
        close, failed = "; ".join(narrow(envelope)), m.acceptance is not None and m.acceptance.state == "failed"
        remedy = f". Narrow: {close}; keep that steady, or teach it with pictures that show how it varies" if close else ""
        held = "; ".join(filter(None, (promise(envelope, m.acceptance), say_measured(m.dataset), watched(envelope))))
        yield Finding(f"{prefix}envelope", True, f"{held}{remedy}", warns=bool(close) or failed)
    return predictor


def _release(prefix: str, predictor: OpenvinoPredictor, recipe: Recipe, config: StationConfig) -> Finding:
    """Whether it was found fit for release; what was not is a warning, unless this station asks for it, and so is what leaves good images
    out of the account."""
    state = release_of(predictor.bundle.manifest, recipe)

    def said() -> str:
        check_release(state, config.require_release)
        return f"{state.word}: {state.why}"

    found = _try(f"{prefix}release", said)
    accepted = predictor.bundle.manifest.acceptance
    doubtful = state.word is Release.REFUSED or (accepted is not None and accepted.apart > 0)
    return replace(found, warns=found.ok and doubtful)


def _limits(predictor: OpenvinoPredictor, recipe: Recipe) -> str:
    check_area(recipe, predictor)
    frame, taken_ms = predictor.blank(), []
    for _ in range(_TIMED):
        began = time.perf_counter()
        predictor.predict(frame)
        taken_ms.append((time.perf_counter() - began) * 1e3)
    model_ms = statistics.median(taken_ms)
    if recipe.deadline_ms <= model_ms:
        raise ConfigError(
            f"deadline_ms: expected more than the {model_ms:.3g} ms that the model alone takes here, found {recipe.deadline_ms:g}:"
            " every part would be a FAULT"
        )
    limits = limits_of(predictor.bundle.manifest, recipe)
    return f"threshold {limits.threshold:.4g}, deadline {recipe.deadline_ms:g} ms, of which the model takes {model_ms:.3g} ms"


def _golden(predictor: OpenvinoPredictor, config: StationConfig, recipe: Recipe) -> str:
    results = predictor.run_golden(config.golden_tolerance_scale)
    worst = max(r.difference for r in results)
    scale = "" if config.golden_tolerance_scale == 1 else f" (tolerance scaled by {config.golden_tolerance_scale:g})"
    return f"{len(results)} score as where the bundle was built: largest difference {worst:.2g}, allowed {results[0].allowed:.2g}{scale}"


def _source(camera: CameraConfig, predictors: list[OpenvinoPredictor], remarks: list[str]) -> str:
    """What it is; puts into `remarks` what a person should know of it all the same."""
    source = open_source(camera.source)
    grab_s = source.read_timeout_ms / 1e3
    limit_s = grab_s + source.open_timeout_ms / 1e3 + 3

    def one_frame(_: None) -> Frame | None:
        with blaming(camera.source, SourceError), source:
            for predictor in predictors:
                check_depth(source, predictor.preprocessor.spec.bits)
            lossy = source.lossy
            remarks.extend(dict.fromkeys(s for p in predictors if (s := say_unlike(p.bundle.manifest.dataset, lossy)) is not None))
            if (most_px := most_px_of([predictor.preprocessor.spec for predictor in predictors])) is not None:
                source.expect(most_px)
            try:
                return source.grab(grab_s)
            except SourceError:
                if source.trigger_window_ns is None or source.problem is not None:
                    raise
                return None  # waits for the PLC's wire

    helper = Helper(one_frame, "check-source")  # a driver may hang in spite of its timeouts
    try:
        frame = helper.call(None).result(limit_s)
    except TimeoutError:
        raise SourceError(f"source: expected a frame within {limit_s:g} s, found none: the driver hangs") from None
    finally:
        helper.close(0)
    if frame is None:
        return f"the camera is there and took its settings; no trigger came on its wire within {grab_s:g} s, so no picture was looked at"
    if isinstance(camera.source, FolderSourceConfig):
        remarks += _files(camera.source.path, predictors)
    kind = "x".join(map(str, frame.image.shape[1::-1])) + (" gray" if frame.image.ndim == 2 else " colour") + f" {frame.image.dtype}"
    kind += _unknown_delay(source)
    name = frame.source or "the camera"
    if not predictors:
        return f"{name}: one frame, {kind}; no bundle to compare with"
    for predictor in predictors:
        predictor.preprocessor.check(frame.image)
    if isinstance(camera.source, SyntheticSourceConfig):
        return f"{name}: one frame, {kind}. Drawn parts: a bundle that was taught on others rejects them"
    return f"{name}: one frame, {kind}, as {'the bundle was' if len(predictors) == 1 else 'the bundles were'} taught on"


def _files(folder: Path, predictors: list[OpenvinoPredictor]) -> Iterator[str]:
    """What of the files of a folder, of which one was tried, is not as that one."""
    seen = glance(list_images(folder))
    usual = next(
        ((wh[0], wh[1]) for p in predictors if p.bundle.manifest.input.roi is None and (wh := p.bundle.manifest.input.frame_wh)), None
    )
    others = {wh: n for wh, n in seen.sizes.most_common() if wh != usual}
    if usual is not None and others:
        sizes = " and ".join(f"{n} {w}x{h}" for (w, h), n in list(others.items())[:3])
        first = seen.first[next(iter(others))]
        taught = f"the bundle was taught on {usual[0]}x{usual[1]}"
        yield (
            f"of {seen.n} files {sizes} (the first: {first}), and {taught}: each such part is a FAULT; give a camera a folder of its own"
        )
    if seen.lossy is None and seen.n:
        yield (
            f"{seen.n_lossy} of {seen.n} files are JPEG or the like, the others lose nothing: parts look softer in one kind than in the"
            " other; judge files of the kind that was taught"
        )


def _unknown_delay(source: Source) -> str:
    """Which frame is a trigger's own is told by when it was exposed; of one that the camera takes by itself only its arrival is known."""
    if source.on_demand or source.trigger_window_ns is not None or source.latency_ms > 0:
        return ""
    return " (latency_ms is 0, so a frame counts as exposed when it came: state what even the fastest one takes)"


def _trigger(config: StationConfig) -> str:
    settings = config.trigger
    if isinstance(settings, TimerTriggerConfig):
        return f"timer, every {settings.period_ms:g} ms"
    if isinstance(settings, ZeromqTriggerConfig):
        return f"messages to {settings.endpoint}, which can be bound"
    if isinstance(settings, PluginSettings):
        return _opens(settings, open_trigger(settings, 1), TriggerError)
    inputs, outputs = tags_of(settings)
    port = open_port(settings, [*inputs, *outputs])
    with PlcLine(settings, 1, port):
        said = f"{port.where} answers, and all {len(inputs) + len(outputs)} signals of [trigger] are there"
        return f"{said}; {port.note}" if port.note else said


def _opened_sink(settings: PluginSettings) -> str:
    return _opens(settings, open_sink(settings), SinkError)


def _opens(settings: PluginSettings, part: TriggerLine | Sink, error: type[LinesideError]) -> str:
    """A plug-in's part can be entered and left."""

    def once(_: None) -> str:
        with blaming(settings, error), part:
            return f"{settings.plugin}: it can be opened"

    helper = Helper(once, "check-plugin")
    try:
        return helper.call(None).result(_OPENS_WITHIN_S)
    except TimeoutError:
        raise error(f"{settings.plugin}: expected it to open within {_OPENS_WITHIN_S:g} s, found that it hangs") from None
    finally:
        helper.close(0)


def _journal(config: StationConfig) -> str:
    path = config.journal.path
    sentence = room(path.parent, JOURNAL_NEEDS_MB, "the journal")
    if not path.exists():
        return f"{sentence}; {path.name} will be created"
    if not os.access(path, os.W_OK):
        raise SinkError(f"{path}: expected a journal that this user may write to; change its owner")
    last = last_seq(path)
    journal_file.read_decisions(path, 0, 1), journal_file.read_decisions(path, last - 1, 1)  # both ends can be read
    return f"{sentence}; {path.name} ends with decision {last}"


def _chain(path: Path) -> Finding:
    """Whether its last rows are what the station wrote; what somebody has acknowledged is a warning."""
    if not beside(path, "key").exists() and not has_chain(path):
        return Finding("journal's chain", True, "it was written before there was one; its chain begins at the next start", warns=True)
    try:
        found = verified(path, tail=TAIL)
    except LinesideError as e:
        return Finding("journal's chain", False, str(e))
    if found.findings:
        said = f"{len(found.findings)} findings: {found.findings[0]}; see `lineside journal verify`"
        return Finding("journal's chain", not found.unacknowledged, said, warns=not found.unacknowledged)
    clock = journal_clock(found.last_at_s, int(time.time())).problem
    said = f"its last {found.rows} rows are as they were written, signed up to row {found.signed_n}"
    return Finding("journal's chain", True, f"{said}; {clock}" if clock else said, warns=bool(clock))


def _try(what: str, do: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, do())
    except LinesideError as e:
        return Finding(what, False, str(e))
