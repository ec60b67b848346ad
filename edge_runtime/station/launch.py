"""`lineside run`: a station file -> open pieces in the right order, prove the bundle, say READY, run the loop, close everything."""

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_runtime.capture.capture import Capture
from edge_runtime.config.files import StationConfig, load_station, plugins_in, sinks_in
from edge_runtime.errors import EXIT_OK, LinesideError, SinkError, SourceError, TriggerError
from edge_runtime.handoff import Helper
from edge_runtime.model.compressed import say_unlike
from edge_runtime.model.manifest import most_px_of
from edge_runtime.model.regions import find_regions
from edge_runtime.plugins import blaming
from edge_runtime.protocols import ActuatorLine, Sink, Source, StationLink
from edge_runtime.records import Cause, Verdict
from edge_runtime.security.access import Access
from edge_runtime.sinks import journal_file, open_sink
from edge_runtime.sinks.announced import KEPT, Announced, Told
from edge_runtime.sinks.archive import Archive
from edge_runtime.sinks.journal import Journal
from edge_runtime.sinks.journal_read import plc_was_told
from edge_runtime.sinks.preview import PreviewSink
from edge_runtime.sinks.publisher import Publisher
from edge_runtime.sources import check_depth, open_source
from edge_runtime.station.decide import decision_of, unseen
from edge_runtime.station.deployments import Deployments
from edge_runtime.station.health import Connected, HasProblem, HealthMonitor, ServiceManager
from edge_runtime.station.judge import fault
from edge_runtime.station.loop import Station
from edge_runtime.station.model_thread import ModelThread, model_thread, together_is_faster
from edge_runtime.station.observers import Observers
from edge_runtime.station.opened import Opened
from edge_runtime.station.process import Stop, StoppedEarly, allow_descriptors, logging_aside, stopping_on_signals, undisturbed
from edge_runtime.station.products import Product
from edge_runtime.station.recipes import OpenRecipe, named, open_recipes, products_of
from edge_runtime.station.views import Viewpoint, Viewpoints
from edge_runtime.station.wander import SightWatches
from edge_runtime.triggers import open_trigger

log = logging.getLogger(__name__)

_ALIVE_WITHIN_S = 5.0
_CLOSE_TIMEOUT_S = 3.0
_OBSERVERS_TIMEOUT_S = 2.0
_SETTLED_WITHIN_S = 10.0
_MODEL_TIMEOUT_S = 0.05


def run_station(path: Path, stopping: Stop | None = None) -> int:
    """Run the station of a file until SIGTERM, SIGINT, SIGHUP, or the end of a finite trigger or source.

    `stopping`: of whoever listens for signals already.

    Returns 0, or 70 after an exception that is a bug (its traceback is in the log, the parts in flight were told FAULT).
    Raises LinesideError for what a user can act on, with its exit code: before READY for anything that cannot be opened, or a bundle that
    computes something else here (GoldenMismatch); afterwards for a trigger line that is lost for good.
    """
    try:
        signals = stopping_on_signals() if stopping is None else contextlib.nullcontext(stopping)
        with signals as stop, logging_aside(), contextlib.ExitStack() as stack:
            config = load_station(path)
            allow_descriptors()
            station, monitor = open_station(config, stack, stop.raise_if_asked)
            stop.begin(station.stop)
            stack.enter_context(undisturbed())
            station.begin()
            monitor.ready()
            return station.run()
    except StoppedEarly:
        return EXIT_OK
    except LinesideError as e:
        ServiceManager().tell(f"STATUS={e}")
        raise


def open_station(
    config: StationConfig, stack: contextlib.ExitStack, check_stop: Callable[[], None] = lambda: None
) -> tuple[Station, HealthMonitor]:
    """Open every piece; `stack` closes them, the journal last. Every bundle has proved itself on this device when this returns.
    `check_stop` is called between two steps, and may raise.

    Raises ConfigError, BundleError, GoldenMismatch, DeviceError, SinkError, TriggerError, SourceError, MissingExtra.
    """
    for plugin in plugins_in(config):
        log.info("station %s: %s", config.name, plugin)
    opened = open_recipes(config, stack, check_stop)
    names = [camera.name for camera in config.cameras]
    threads, inference = _model_threads(opened, len(names), stack)
    products = products_of(opened, threads)
    own = products[""]
    find_regions(np.ones((4, 4), np.float32), np.eye(2, 3), (4, 4), 0.5)  # its first call takes milliseconds: not at the first reject

    deadlines_ns: dict[str, int] = {}
    for product in products.values():
        for job in product.jobs:
            deadlines_ns[job.recipe] = min(product.deadline_ns, deadlines_ns.get(job.recipe, product.deadline_ns))
    check_stop()
    access = Access(config.security.keys, config.security.plain, config.security.everywhere)
    journal = stack.enter_context(Journal(config.journal, config.name, deadlines_ns))
    announced = stack.enter_context(Announced(config.journal.path, journal.last_seq, journal.announced))
    left = _answer_what_a_kill_left(config.name, announced, journal, products, names)
    publisher = stack.enter_context(Publisher(config.publisher, config.name, config.journal.path, access))
    slowest_s = max(product.deadline_ms for product in products.values()) / 1e3
    line = open_trigger(config.trigger, first_seq=journal.last_seq() + 1, access=access)
    if isinstance(line, ActuatorLine):
        line.left(left)
    monitor = HealthMonitor(
        station=config.name, recipes=own.recipes, bundle_ids=own.bundle_ids, device=opened[0].predictor.device_used, cameras=tuple(names),
        send=publisher.send_health,
        # A PLC may be waited for, a part or a change of recipe may take its whole deadline: none of them is a thread that died.
        alive_within_s=_ALIVE_WITHIN_S + slowest_s + line.answer_timeout_ms / 1e3,
        last_seq=journal.last_seq(), inference=inference, origins=own.origins, alarm_rejects=config.alarm_rejects,
    )  # fmt: skip
    stack.enter_context(monitor)

    check_stop()
    with blaming(config.trigger, TriggerError):
        stack.enter_context(line)
    # The journal first: what anybody was told is in it, whatever happens next.
    tellers: list[Sink] = [journal, line, publisher] if isinstance(line, ActuatorLine) else [journal, publisher]
    watching: dict[str, PreviewSink | Archive] = {}
    preview = None
    if config.preview is not None:
        preview = PreviewSink(config.preview, config.name, {}, monitor.counts, access=access)
        watching["previews"] = stack.enter_context(preview)
    if config.archive is not None:
        watching["archives"] = stack.enter_context(Archive(config.archive))
    sights = SightWatches({})
    observers = Observers(watching, monitor, {"sights": sights}, journal.delivered)
    stack.callback(observers.close, _OBSERVERS_TIMEOUT_S)
    for name, further in sinks_in(config).items():
        sink = open_sink(further)
        with blaming(further, SinkError):
            sink.__enter__()
        observers.add(name, sink, str(further.plugin))

    cameras, sources = [], []
    grabbing: list[tuple[Source, Capture]] = []
    stack.callback(_close_sources, grabbing)
    for name, settings in zip(names, config.cameras, strict=True):
        check_stop()
        with named(name and f"camera {name}"):
            source = open_source(settings.source)
            with blaming(settings.source, SourceError):
                source.__enter__()
            capture = Capture(source, slowest_s)
            grabbing.append((source, capture))
            for depth in {o.predictor.preprocessor.spec.bits for o in opened if names[o.entry.camera] == name}:
                check_depth(source, depth)
            lossy, taught = source.lossy, [o.predictor.bundle.manifest.dataset for o in opened if names[o.entry.camera] == name]
            for said in dict.fromkeys(say_unlike(dataset, lossy) for dataset in taught):
                if said is not None:
                    log.warning("station %s: %s", config.name, said)
            if (most_px := most_px_of([o.predictor.preprocessor.spec for o in opened if names[o.entry.camera] == name])) is not None:
                source.expect(most_px)
        cameras.append(Viewpoint(name, capture))
        sources.append(source)
    viewpoints = Viewpoints(cameras)
    stack.callback(viewpoints.close)
    station = Station(
        config.name, line, viewpoints, products, tellers, observers, monitor,
        queue=config.queue, keep_warm_ms=config.keep_warm_ms, announced=announced.note,
        delivered=journal.delivered, required=journal if config.journal.required else None,
        ahead=journal if config.journal.durable else None, unwritten=announced.unwritten,
    )  # fmt: skip
    deployments = Deployments(config, Opened(config, opened, threads, sources, monitor, observers, sights, preview, journal.event))
    stack.callback(deployments.close)
    deployments.begin(station)
    line.attach(StationLink(station.prepare, deadlines_ns, lambda: monitor.alive, announced.note, journal.delivered))
    connections: dict[str, Connected] = {f"camera {camera.name}".strip(): camera for camera in cameras}
    connections["sockets"] = access
    connections["plc" if isinstance(line, ActuatorLine) else "trigger"] = line
    asked = _asked(config, stack, access, monitor, journal, deployments)
    monitor.watch(
        [*asked, station, line, journal, announced, publisher, observers, *watching.values()], connections, sights,
        {"parts": station, "observers": observers, "journal": journal}, lambda: deployments.shadows,
    )  # fmt: skip
    for key, product in products.items():
        limits = ", ".join(f"{job.limits.threshold:.6g}" for job in product.jobs)
        log.info("station %s: recipe %s%s, threshold %s, deadline %g ms",
            config.name, f"{key}: " if key else "", ", ".join(dict.fromkeys(product.recipes)), limits, product.deadline_ms)  # fmt: skip
    return station, monitor


def _asked(
    config: StationConfig, stack: contextlib.ExitStack, access: Access, monitor: HealthMonitor, journal: Journal, deployments: Deployments
) -> list[HasProblem]:
    """The control socket; only a station that has one loads what answers there."""
    if config.control is None:
        return []
    from edge_runtime.station.control import ControlServer
    from edge_runtime.station.engineering import Engineering
    from edge_runtime.station.verbs import Operating

    verbs = [*Operating(monitor, journal).verbs(), *Engineering(deployments).verbs()]
    return [stack.enter_context(ControlServer(config.control, access, verbs))]


def _answer_what_a_kill_left(
    station: str, announced: Announced, journal: Journal, products: Mapping[str, Product], cameras: Sequence[str]
) -> Mapping[str, tuple[int, bool]]:
    """Law 1, over the end of a process: what was announced and never decided is a FAULT in the journal, before anybody reads it again; what
    was told without a row has the row that says so.

    Returns the names of the last parts, each with its number and whether it was decided. Raises SinkError where the disk does not take
    that: their numbers would be given again.
    """
    left, told, decided, last = announced.left(), announced.told(), set[int](), journal.last_seq()
    if left:
        first, there = journal_file.seqs_between(journal.path, left[0].seq, left[-1].seq, last)
        if 0 < last < left[0].seq - 1:
            journal.event("lost", first=last + 1, last=left[0].seq - 1)
            log.error(
                "parts %d to %d are not in the journal: the disk took no row, or an older journal was put there",
                last + 1,
                left[0].seq - 1,
            )
        for seq in sorted(there & told.keys()):
            _as_it_was_told(journal, announced, told[seq])
        for trigger in (t for t in left if t.seq not in there and t.seq > first):
            if trigger.seq in told:
                journal.put(told[trigger.seq].decision(station, trigger))
                log.warning("part %d: was told %s, and its row is only written now: the disk took none before the station ended",
                    trigger.seq, told[trigger.seq].verdict)  # fmt: skip
                continue
            judgement = fault("The station ended before this part's decision was written: it was killed, or lost its power.", Cause.ENDED)
            views = unseen(cameras, products.get(trigger.recipe), judgement, trigger.recipe)
            journal.put(decision_of(station, trigger, judgement, views, time.monotonic_ns()))
            log.warning("part %d%s: FAULT: %s", trigger.seq, f" ({trigger.part_id})" if trigger.part_id else "", judgement.reason)
        decided = {t.seq for t in left if t.seq in there or t.seq <= first}
        if not journal.settled(_SETTLED_WITHIN_S):
            raise SinkError(journal.problem or f"journal {journal.path}: what a kill left could not be written")
    announced.forget()
    return {t.part_id: (t.seq, t.seq in decided) for t in left[-KEPT:]}


def _as_it_was_told(journal: Journal, announced: Announced, told: Told) -> None:
    """A row that came too late, and its part had been told FAULT by then: the station ended before it said so itself."""
    for row in journal_file.read_decisions(journal.path, told.seq - 1, 1):
        if row.seq == told.seq and (row.verdict, told.verdict) == (Verdict.ACCEPT, Verdict.FAULT):  # nothing else is told instead
            if plc_was_told(journal.path, told.seq) == Verdict.ACCEPT:  # the list is not signed, and that row is
                announced.contradicted(told.seq)
                continue
            why = f"Told {told.verdict.value}: its row came too late."
            journal.amend(replace(row, verdict=told.verdict, cause=told.cause, reason=why, score=None, severity=None, regions=()))
            log.warning("part %d: was told %s, its row said %s: it says so now", told.seq, told.verdict, row.verdict)


def _model_threads(opened: list[OpenRecipe], cameras: int, stack: contextlib.ExitStack) -> tuple[list[ModelThread], str]:
    """One thread for all models, or one a camera, whichever is faster on this machine; and the word for it."""
    threads = []
    for _ in range(cameras):
        threads.append(model_thread())
        stack.callback(threads[-1].close, _MODEL_TIMEOUT_S)
    if cameras == 1:
        return threads, ""
    own = [o.predictor for o in opened if not o.entry.key]
    together = together_is_faster([(predictor, predictor.blank()) for predictor in own], threads)
    return (threads, "together") if together else (threads[:1], "in turn")


def _close_sources(grabbing: Sequence[tuple[Source, Capture]]) -> None:
    """All at once: several that do not answer take no longer than one."""
    replies = []
    for pair in grabbing:
        closing = Helper(_close_source, "close")
        replies.append(closing.call(pair))
        closing.leave()
    until = time.monotonic() + _CLOSE_TIMEOUT_S
    for reply in replies:
        closed = False
        with contextlib.suppress(TimeoutError):
            closed = reply.result(max(until - time.monotonic(), 0.0))
        if not closed:
            log.warning("the camera's driver does not answer; it is left behind")


def _close_source(pair: tuple[Source, Capture]) -> bool:
    """False where a grab hangs: the source is left as it is."""
    source, capture = pair
    closed = capture.close()
    if closed:
        source.__exit__(None, None, None)
    return closed
