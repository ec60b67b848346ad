"""The preview: a small picture of the latest part for the operator's window, made only while somebody looks."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt
import zmq

from edge_runtime import wire
from edge_runtime.config.files import PreviewConfig
from edge_runtime.handoff import Mailbox
from edge_runtime.model.manifest import DisplayScale
from edge_runtime.model.released import worst
from edge_runtime.model.shrink import by_halves
from edge_runtime.protocols import Sink
from edge_runtime.records import Decision, Image, Picture, ReleaseState, View
from edge_runtime.security.access import Access
from edge_runtime.sockets import SUBSCRIBERS, Served

_JPEG_QUALITY = 85
_POLL_S = 0.1
_Part = tuple[Decision, tuple[Picture, ...]]


@dataclass(frozen=True, slots=True)
class Display:
    """How pictures of one bundle are shown."""

    scale: DisplayScale
    bits: int = 16
    """Significant ones of 16-bit frames (the bundle's `input.bits`)."""
    threshold: float = 0.0
    """The bundle's own, on the score, that `scale` belongs to; a recipe that has another one moves the scale in proportion. 0: none has."""

    def at(self, threshold: float) -> DisplayScale:
        """The scale where `threshold` is in effect: its middle is the map's threshold then."""
        if self.threshold <= 0 or threshold <= 0:
            return self.scale
        return DisplayScale(low=self.scale.low, high=self.scale.high * (threshold / self.threshold))


_PLAIN = Display(DisplayScale(low=0.0, high=1.0))
"""For a part that no bundle judged: it has no picture."""


class PreviewSink(Sink):
    """A Sink that never waits: `put` leaves the part in a mailbox (latest wins), a thread of its own reduces, encodes and publishes it.

    Nothing is encoded while nobody subscribes. A new subscriber is shown the latest part at once.
    """

    def __init__(
        self,
        settings: PreviewConfig,
        station: str,
        displays: Mapping[str, Display],
        counts: Callable[[], dict[str, int]] = dict,
        access: Access | None = None,
    ) -> None:
        """`displays`: by the bundle's id. `counts`: verdicts so far, shown in the window. `access`: who may subscribe."""
        self._settings = settings
        self._station = station
        self._displays = dict(displays)
        self._counts = counts
        self._releases: dict[tuple[str, str], ReleaseState] = {}
        self._mailbox: Mailbox[_Part] = Mailbox()
        self._failure: str | None = None
        # XPUB: as PUB, but it tells when somebody subscribes. An operator wants the latest part, not a backlog.
        self._served = Served(
            "preview", zmq.XPUB, settings.endpoint, "[preview] endpoint", SUBSCRIBERS, self._run, access=access,
            options={zmq.SNDHWM: 2, zmq.SNDBUF: 256 * 1024, zmq.LINGER: 0},
        )  # fmt: skip

    def __enter__(self) -> Self:
        """Bind. Raises SinkError naming the endpoint, ConfigError where keys are missing."""
        self._served.open()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._served.close()

    @property
    def problem(self) -> str | None:
        """A sentence for health while parts cannot be shown; None when they can."""
        return self._served.problem or self._failure

    def know(self, displays: Mapping[str, Display], releases: Mapping[tuple[str, str], ReleaseState]) -> None:
        """Other models may judge from now on: what takes the place of the `displays` and `releases` of the beginning."""
        self._displays, self._releases = dict(displays), dict(releases)

    def put(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        """Show one part, unless a later one comes before its turn."""
        self._mailbox.put((decision, pictures))

    def _run(self, sock: "zmq.Socket[bytes]") -> None:
        topics: set[bytes] = set()
        latest: _Part | None = None
        shown = False
        next_at = 0.0
        while not self._served.stopping.is_set():
            part = self._mailbox.get(_POLL_S)
            if part is not None:
                latest, shown = part, False
            if self._take_subscriptions(sock, topics):
                shown = False
            if latest is None or shown or not any(wire.PREVIEW.startswith(topic) for topic in topics):
                continue
            if self._served.stopping.wait(max(next_at - time.monotonic(), 0.0)):
                break
            latest = self._mailbox.get(0.0) or latest
            next_at = time.monotonic() + 1.0 / self._settings.max_fps
            shown = True
            try:
                sock.send_multipart(wire.encode_preview(self._preview(*latest)), flags=zmq.NOBLOCK)
                self._failure = None
            except (cv2.error, zmq.ZMQError) as e:
                self._failure = f"preview {self._settings.endpoint}: decision {latest[0].seq} could not be shown: {e}"

    @staticmethod
    def _take_subscriptions(sock: "zmq.Socket[bytes]", topics: set[bytes]) -> bool:
        """Read what subscribers said; True when one came."""
        came = False
        while sock.poll(0):
            message = sock.recv()
            if message[:1] == b"\x01":
                topics.add(message[1:])
                came = True
            elif message[:1] == b"\x00":
                topics.discard(message[1:])
        return came

    def _preview(self, decision: Decision, pictures: tuple[Picture, ...]) -> wire.Preview:
        given, deciding, large = {picture.camera: picture for picture in pictures}, decision.deciding, self._settings.long_side_px
        shown = [self._shown(view, given.get(view.camera), large if view is deciding else max(large // 3, 64)) for view in decision.views]
        return wire.Preview(decision=decision, shown=shown, counts=self._counts(), release=self._release(decision))

    def _release(self, decision: Decision) -> ReleaseState | None:
        judged = [(view.recipe, view.bundle_id) for view in decision.views]
        known = [self._releases[job] for job in judged if job in self._releases]
        return worst(known) if known else None

    def _shown(self, view: View, picture: Picture | None, long_side_px: int) -> wire.Shown:
        frame, prediction = (picture.frame, picture.prediction) if picture else (None, None)
        display = self._displays.get(view.bundle_id, _PLAIN)
        scale = display.at(view.threshold)
        return wire.Shown(
            image=b"" if frame is None else encode_small(frame.image, long_side_px, display.bits),
            score_map=b"" if prediction is None else wire.pack_map(prediction.score_map),
            map_hw=(0, 0) if prediction is None else (prediction.score_map.shape[0], prediction.score_map.shape[1]),
            grid_to_frame=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0) if prediction is None else wire.flat_affine(prediction.grid_to_frame),
            display_low=scale.low,
            display_high=scale.high,
        )


def encode_small(image: Image, long_side_px: int, bits: int = 16) -> bytes:
    """(H, W) or (H, W, 3) -> JPEG of 8 bits whose longer side is `long_side_px` at most; 16-bit pixels are scaled by `bits`."""
    small: npt.NDArray[Any] = image
    scale = long_side_px / max(image.shape[:2])
    if scale < 1:
        wh = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
        small = by_halves(image, *wh)
    if small.dtype == np.uint16:
        # By the camera's stated depth, never by the picture's own maximum: a dark part must look dark.
        full = (1 << bits) - 1
        small = cv2.convertScaleAbs(np.minimum(small, full), alpha=255.0 / full)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
