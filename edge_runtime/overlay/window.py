"""The operator's window: subscribes to a station's preview and health and shows them; or draws one picture without a screen."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import zmq

from edge_runtime import wire
from edge_runtime.credentials import Admission, Credentials
from edge_runtime.errors import DisplayError, Refused, WireError
from edge_runtime.overlay.paint import Screen, paint, screen_of
from edge_runtime.overlay.text import Canvas
from edge_runtime.records import Release, ReleaseState

TITLE = "Lineside"
STALE_S = 3.5
"""Silence after which what is shown counts as old: health comes once a second."""
SNAPSHOT_WH = (1920, 1080)
_REPAINT_S = 0.5
_HEALTH_WAIT_S = 1.5
_LOCAL = ("ipc://", "tcp://127.", "tcp://localhost:")


class Listener:
    """What is known of one station: its latest preview and health, and when it was last heard."""

    def __init__(self, publisher_endpoint: str, preview_endpoint: str, key: Credentials | None = None) -> None:
        self._key = key
        self._admissions: list[Admission] = []
        self._endpoints = {wire.HEALTH: wire.connectable(publisher_endpoint), wire.PREVIEW: wire.connectable(preview_endpoint)}
        self._same_machine = self._endpoints[wire.PREVIEW].startswith(_LOCAL)
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._sockets: list[zmq.Socket[bytes]] = []
        self._preview: wire.Preview | None = None
        self._shown_since_ns = 0
        self._counts: dict[str, int] = {}
        self._problems: tuple[str, ...] = ()
        self._release: ReleaseState | None = None
        self._heard = time.monotonic()
        self.health_came = False
        self.misread: str | None = None
        """Why the last message could not be understood."""

    def __enter__(self) -> Self:
        """Connect; a station that is not there yet is waited for.

        Raises DisplayError for an endpoint that is none, ConfigError for one that this user may not connect to.
        """
        for endpoint in self._endpoints.values():
            wire.check_access(endpoint)
        self._context = zmq.Context()
        for topic, endpoint in self._endpoints.items():
            socket = self._context.socket(zmq.SUB)
            self._sockets.append(socket)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVHWM, 64)  # all are taken in before painting: only the newest is shown
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
            socket.setsockopt(zmq.SUBSCRIBE, topic)
            if self._key is not None:
                self._key.apply(socket)
            self._admissions.append(Admission(socket, endpoint, self._key))
            try:
                socket.connect(endpoint)
            except zmq.ZMQError as e:
                self.close()
                raise DisplayError(f"{endpoint}: expected a station's endpoint such as tcp://127.0.0.1:5562: {e}") from e
        self._heard = time.monotonic()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect."""
        for admission in self._admissions:
            admission.close()
        self._admissions = []
        for socket in self._sockets:
            socket.close()
        self._sockets = []
        if self._context is not None:
            self._context.term()
            self._context = None

    def listen(self, timeout_s: float) -> bool:
        """Take in all that is there, waiting for the first message; True when something came."""
        came = False
        if self.refused:
            time.sleep(timeout_s)
            return False
        poller = zmq.Poller()
        for socket in self._sockets:
            poller.register(socket, zmq.POLLIN)
        while ready := poller.poll(0 if came else round(timeout_s * 1e3)):
            came = True
            for socket, _ in ready:
                self._take(socket.recv_multipart())
        return came

    @property
    def refused(self) -> str:
        """A sentence where the station does not let this window in; empty otherwise."""
        return next((refused for admission in self._admissions if (refused := admission.refused)), "")

    def _take(self, parts: list[bytes]) -> None:
        try:
            message = wire.decode(parts)
        except WireError as e:
            self.misread = str(e)
            return
        self._heard = time.monotonic()
        if isinstance(message, wire.Preview):
            self._preview = message
            self._counts = message.counts or self._counts
            told = message.decision.stamps.told_ns
            now = time.monotonic_ns()
            # Clocks of two machines cannot be compared; then the time of arrival has to do.
            self._shown_since_ns = told if self._same_machine and 0 < told <= now else now
        elif isinstance(message, wire.HealthMessage):
            self.health_came = True
            self._counts, self._problems = message.health.counts, message.health.problems
            self._release = message.health.release
        self.misread = None

    def view(self) -> Screen | None:
        """The latest part; None before the first."""
        if self._preview is None:
            return None
        problems = (self.misread, *self._problems) if self.misread else self._problems
        try:
            return screen_of(self._preview, problems, self._counts)
        except WireError as e:
            self.misread = str(e)
            return None

    def screen(self, view: Screen | None, size_wh: tuple[int, int]) -> Canvas:
        """Paint what is known now."""
        silence = time.monotonic() - self._heard
        age = (time.monotonic_ns() - self._shown_since_ns) / 1e9
        preview = self._endpoints[wire.PREVIEW]
        state = "Waiting for the first part of" if self.health_came else "No station answers yet at"
        waiting = self.refused or self.misread or f"{state} {preview}"
        stale = silence if silence > STALE_S else None
        return paint(view, size_wh, stale_s=stale, age_s=age, waiting=waiting, release=self.release)

    @property
    def release(self) -> Release | None:
        """The worse of what judged the part that is shown and what judges now; None where nobody tells."""
        words = {state.word for state in (self._release, self._preview.release if self._preview else None) if state is not None}
        return next((word for word in (Release.REFUSED, Release.UNKNOWN, Release.RELEASED) if word in words), None)


def show(publisher_endpoint: str, preview_endpoint: str, fullscreen: bool = False, key: Credentials | None = None) -> None:
    """Open the window and keep it up to date until `q`, Esc or its closing; `f` switches full screen. Raises DisplayError."""
    require_screen()
    # OpenCV's Qt looks for fonts of its own, which the wheels do not hold, and says so at every letter; no text here is Qt's.
    os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")
    with Listener(publisher_endpoint, preview_endpoint, key) as station:
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_FREERATIO | cv2.WINDOW_GUI_NORMAL)
        cv2.resizeWindow(TITLE, 1280, 720)
        _set_fullscreen(fullscreen)
        try:
            _loop(station, fullscreen)
        finally:
            cv2.destroyAllWindows()


def _loop(station: Listener, fullscreen: bool) -> None:
    view: Screen | None = None
    painted_at, painted_wh = 0.0, (0, 0)
    while True:
        came = station.listen(0.02)
        if came:
            view = station.view()
        size = _window_size()
        if came or size != painted_wh or time.monotonic() - painted_at > _REPAINT_S:
            cv2.imshow(TITLE, station.screen(view, size))
            painted_at, painted_wh = time.monotonic(), size
        key = cv2.waitKey(10) & 0xFF
        if key in (ord("q"), ord("Q"), 27) or not _is_open():
            return
        if key in (ord("f"), ord("F")):
            fullscreen = not fullscreen
            _set_fullscreen(fullscreen)


def _is_open() -> bool:
    try:
        return cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1
    except cv2.error:  # the window manager has closed the last one
        return False


def _set_fullscreen(on: bool) -> None:
    cv2.setWindowProperty(TITLE, cv2.WND_PROP_FULLSCREEN, cv2.WINDOW_FULLSCREEN if on else cv2.WINDOW_NORMAL)


def _window_size() -> tuple[int, int]:
    _, _, w, h = cv2.getWindowImageRect(TITLE)
    return max(w, 320), max(h, 180)


def snapshot(publisher_endpoint: str, preview_endpoint: str, file: Path, timeout_s: float = 10.0, key: Credentials | None = None) -> None:
    """Wait for one part and write its screen as a PNG, without a screen. Raises DisplayError: none came, the file cannot be written;
    Refused where the station does not let anybody in without a key, or with this one."""
    until = time.monotonic() + timeout_s
    with Listener(publisher_endpoint, preview_endpoint, key) as station:
        view = None
        while view is None and (left := until - time.monotonic()) > 0:
            if station.refused:
                raise Refused(station.refused)
            station.listen(min(left, 0.1))
            view = station.view()
        if view is None:
            raise DisplayError(f"no part came from {preview_endpoint} within {timeout_s:g} s: {_why_nothing(station)}")
        health_until = time.monotonic() + _HEALTH_WAIT_S
        while not station.health_came and (left := health_until - time.monotonic()) > 0:
            station.listen(left)
        picture = station.screen(station.view(), SNAPSHOT_WH)
    part = file.with_name(file.name + ".part")
    try:
        part.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        part.replace(file)
    except OSError as e:
        raise DisplayError(f"{file}: the snapshot cannot be written: {e.strerror}") from e


def _why_nothing(station: Listener) -> str:
    if station.misread is not None:
        return station.misread
    if station.health_came:
        return "the station runs, but decided no part yet, or its file has no [preview] table with this endpoint"
    return "is the station running, and are these the endpoints of its [publisher] and [preview]?"


def require_screen() -> None:
    """Open a window in another process first: without a screen Qt does not raise, it aborts. Raises DisplayError."""
    probe = "import cv2; cv2.namedWindow('Lineside', cv2.WINDOW_NORMAL); cv2.waitKey(1)"
    try:
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired as e:
        raise DisplayError("no window can be opened: the screen does not answer within 30 s") from e
    if done.returncode != 0:
        raise DisplayError(f"no window can be opened: {explain_no_window(done.stderr)}; `--snapshot FILE` draws a picture without one")


def explain_no_window(stderr: str) -> str:
    """What lacks, from what OpenCV or Qt said."""
    if "not implemented" in stderr:
        return (
            "this OpenCV is the headless one, which has no windows. Replace it: "
            "pip uninstall opencv-python-headless && pip install opencv-python"
        )
    if "cannot open shared object file" in stderr:
        return f"a system library is missing ({stderr.strip().splitlines()[-1]}). On Debian or Ubuntu: apt install libgl1 libglib2.0-0"
    if "could not connect to display" in stderr or "no Qt platform plugin" in stderr:
        display = os.environ.get("DISPLAY")
        found = f"the X display {display} does not answer" if display else "this session has no X display (DISPLAY is not set)"
        return f"{found}. Start it from the graphical session of the machine that the screen is connected to"
    said = [line for line in stderr.strip().splitlines() if line.strip()]
    return said[-1] if said else "OpenCV ended without a word"
