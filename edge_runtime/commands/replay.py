"""The station's own loop over stored images, as fast as it goes: does this bundle say today what was expected of it?"""

import contextlib
import csv
import io
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edge_runtime.capture.capture import Capture
from edge_runtime.config.files import Recipe
from edge_runtime.errors import DataError, SourceError, SourceExhausted
from edge_runtime.files import read_whole
from edge_runtime.images.names import SUFFIXES, is_image, is_of_system, says_good
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.manifest import most_px_of
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.protocols import Sink, Source, TriggerLine
from edge_runtime.records import Decision, Frame, Picture, Trigger, Verdict
from edge_runtime.sources.folder import read_frame
from edge_runtime.station.health import HealthMonitor
from edge_runtime.station.judge import limits_of
from edge_runtime.station.loop import Station
from edge_runtime.station.model_thread import Model, model_thread
from edge_runtime.station.observers import Observers
from edge_runtime.station.products import Job, Product
from edge_runtime.station.views import Viewpoint, Viewpoints

DEADLINE_MS = 30_000.0
"""A replay asks for the verdicts, not for the timing: `lineside bench` does that."""


@dataclass(frozen=True, slots=True)
class ReplayedImage:
    """One image."""

    path: str
    """Relative to the folder."""
    expected: Verdict | None
    """None where nothing tells."""
    decision: Decision

    @property
    def agrees(self) -> bool:
        """A FAULT is never as expected, unless a FAULT was: the part was not judged."""
        if self.expected is None:
            return self.decision.verdict is not Verdict.FAULT
        return self.decision.verdict is self.expected


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """All images."""

    bundle_id: str
    device: str
    outcomes: tuple[ReplayedImage, ...]

    @property
    def disagreements(self) -> tuple[ReplayedImage, ...]:
        """What was not as expected."""
        return tuple(o for o in self.outcomes if not o.agrees)

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        verdicts = [o.decision.verdict for o in self.outcomes]
        return {
            "bundle_id": self.bundle_id,
            "device": self.device,
            "images": len(self.outcomes),
            "accepts": verdicts.count(Verdict.ACCEPT),
            "rejects": verdicts.count(Verdict.REJECT),
            "faults": verdicts.count(Verdict.FAULT),
            "with_expectation": sum(o.expected is not None for o in self.outcomes),
            "disagreements": [
                {
                    "path": o.path, "expected": o.expected, "verdict": o.decision.verdict, "score": o.decision.score,
                    "threshold": o.decision.threshold, "reason": o.decision.reason,
                }
                for o in self.disagreements
            ],
        }  # fmt: skip


def replay(
    folder: Path,
    bundle: ModelBundle,
    recipe: Recipe | None = None,
    expect: Path | None = None,
    device: str | list[str] = "CPU",
    told: Callable[[ReplayedImage], None] | None = None,
) -> ReplayReport:
    """Judge every image below `folder` (in sorted order) with the station's loop.

    Args:
        folder: images, in sub-folders or not; MVTec's `ground_truth` is left out.
        bundle: open and verified.
        recipe: thresholds, smallest defect and region of interest; None takes the bundle's own.
        expect: CSV with the columns path (relative to `folder`) and verdict. None: the archive's JSON beside an image, or else
            sub-folders where one is called `good`.
        device: as in a station file.
        told: called after each image.

    Raises the errors of opening a bundle's model; DataError for a list of expectations that cannot be understood.
    """
    paths = list_all(folder)
    expected = expectations(folder, paths, expect)
    recipe = recipe or Recipe(name="replay", bundle=bundle.directory)
    outcomes: list[ReplayedImage] = []

    def decided(i: int, decision: Decision) -> None:
        outcomes.append(ReplayedImage(paths[i].relative_to(folder).as_posix(), expected.get(paths[i]), decision))
        if told is not None:
            told(outcomes[-1])

    with OpenvinoPredictor(bundle, device, roi=recipe.region) as predictor, contextlib.ExitStack() as stack:
        predictor.run_golden()
        line = stack.enter_context(_StoredLine(paths, folder, decided, most_px_of([bundle.manifest.input])))
        capture = Capture(line, DEADLINE_MS / 1e3)
        stack.callback(capture.close)
        monitor = HealthMonitor(station="replay", recipes=(recipe.name,), bundle_ids=(bundle.id,), device=predictor.device_used)
        observers = Observers({}, monitor)
        stack.callback(observers.close, 1.0)
        thread = model_thread()
        stack.callback(thread.close, 1.0)
        job = Job(recipe.name, bundle.id, limits_of(bundle.manifest, recipe), Model(predictor, thread))
        product = Product("", (job,), DEADLINE_MS)
        Station("replay", line, Viewpoints([Viewpoint("", capture)]), {"": product}, [line], observers, monitor).run()
        return ReplayReport(bundle.id, predictor.device_used, tuple(outcomes))


def list_all(folder: Path) -> list[Path]:
    """Image files below `folder`, sorted by path; nothing hidden or of a system's own, no masks. Raises SourceError when there is none."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: expected a folder of images, found none there")
    inside = ((p, p.relative_to(folder).parts) for p in sorted(folder.rglob("*")) if is_image(p) and p.is_file())
    paths = [
        p for p, parts in inside if "ground_truth" not in parts and not any(part.startswith(".") or is_of_system(part) for part in parts)
    ]
    if not paths:
        raise SourceError(f"{folder}: expected images ({', '.join(sorted(SUFFIXES))}) in it or below, found none")
    return paths


def expectations(folder: Path, paths: Sequence[Path], table: Path | None = None) -> dict[Path, Verdict]:
    """Image -> verdict, for those of which anything tells. Raises DataError."""
    if table is not None:
        return _from_table(folder, frozenset(paths), table)
    kept = {p: p.with_suffix(".json") for p in paths if p.with_suffix(".json").is_file()}
    if kept:
        return {image: _from_archive(record) for image, record in kept.items()}
    good = {p: says_good(p.parent.name) for p in paths if p.parent != folder}
    if True not in good.values():
        return {}
    return {p: Verdict.ACCEPT if word else Verdict.REJECT for p, word in good.items()}


class _View(msgspec.Struct):
    camera: str
    verdict: Verdict


class _Verdict(msgspec.Struct):
    verdict: Verdict
    views: list[_View] = []  # none where a station of schema 1 with one camera wrote it


class _Kept(msgspec.Struct):
    """What the archive wrote beside an image, as far as it matters here."""

    decision: _Verdict
    camera: str = ""


def _from_archive(record: Path) -> Verdict:
    try:
        kept = msgspec.json.decode(read_whole(record), type=_Kept)
    except (OSError, msgspec.MsgspecError, RecursionError) as e:
        raise DataError(f"{record}: expected a decision of the archive, found something else: {e}") from e
    return next((view.verdict for view in kept.decision.views if view.camera == kept.camera), kept.decision.verdict)


def _from_table(folder: Path, known: frozenset[Path], table: Path) -> dict[Path, Verdict]:
    try:
        text = io.StringIO(read_whole(table).decode("utf-8-sig"), newline="")
        rows = [(n, row) for n, row in enumerate(csv.reader(text), 1) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise DataError(f"{table}: expected a CSV of path,verdict: {e}") from e
    found: dict[Path, Verdict] = {}
    for n, row in rows:
        cells = [cell.strip() for cell in row]
        if n == 1 and [c.lower() for c in cells] == ["path", "verdict"]:
            continue
        verdict = _verdict_of(cells[1]) if len(cells) == 2 else None
        if verdict is None:
            raise DataError(f"{table}: line {n}: expected path,verdict with ACCEPT, REJECT or FAULT (good, bad), found {','.join(row)!r}")
        path = folder / cells[0]
        if path not in known:
            raise DataError(f"{table}: line {n}: {cells[0]} is no image below {folder}")
        found[path] = verdict
    return found


def _verdict_of(word: str) -> Verdict | None:
    if word.lower() == Verdict.FAULT.value.lower():
        return Verdict.FAULT
    return None if (good := says_good(word)) is None else Verdict.ACCEPT if good else Verdict.REJECT


class _StoredLine(TriggerLine, Source, Sink):
    """All three in one: announces the next image when the last one was decided, so that none ever waits or overruns."""

    live = False

    def __init__(self, paths: Sequence[Path], folder: Path, decided: Callable[[int, Decision], None], most_px: int | None) -> None:
        self._paths, self._folder, self._decided, self._most_px = paths, folder, decided, most_px
        self._turn = threading.Semaphore(1)
        self._announced = 0
        self._taken = 0

    @property
    def exhausted(self) -> bool:
        return self._announced >= len(self._paths)

    @property
    def remaining(self) -> int | None:
        return len(self._paths) - self._taken

    def wait(self, timeout_s: float) -> Trigger | None:
        if not self._turn.acquire(timeout=timeout_s):
            return None
        self._announced += 1
        path = self._paths[self._announced - 1]
        return Trigger(self._announced, time.monotonic_ns(), path.relative_to(self._folder).as_posix())

    def grab(self, timeout_s: float) -> Frame:
        if self._taken >= len(self._paths):
            raise SourceExhausted("no more images")
        path = self._paths[self._taken]
        self._taken += 1
        return read_frame(path, self._taken, self._most_px)

    def put(self, decision: Decision, pictures: tuple[Picture, ...] = ()) -> None:
        self._decided(decision.seq - 1, decision)
        self._turn.release()
