"""The operator's screen: what is drawn, where, and what happens without a station or a screen."""

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import zmq

from edge_runtime import wire
from edge_runtime.config.files import PreviewConfig
from edge_runtime.errors import DisplayError
from edge_runtime.model.manifest import DisplayScale
from edge_runtime.overlay import paint as p
from edge_runtime.overlay import picture, style, text, window
from edge_runtime.overlay.cameras import Pane
from edge_runtime.records import Decision, Frame, Health, Picture, Prediction, Region, Stamps, State, Verdict, View
from edge_runtime.sinks.preview import Display, PreviewSink
from tests.support.decisions import SCHEMA_1, decision_with
from tests.support.ports import free_ports
from tests.support.waiting import until

SIZES = [(1920, 1080), (1280, 720), (1024, 768)]
GRID_TO_FRAME = np.array([[8.0, 0, 0], [0, 8.0, 0]])
LOW, HIGH = 5.0, 40.0  # the map's threshold is 20


def decision(verdict: Verdict = Verdict.REJECT, **changes: object) -> Decision:
    fault = verdict is Verdict.FAULT
    values: dict[str, object] = {
        "station": "line-1", "seq": 7, "part_id": "A-17", "verdict": verdict, "reason": "Anomaly of 1.50 times the threshold.",
        "score": None if fault else 30.0, "severity": None if fault else 1.5, "frame_wh": (64, 64), "recipe": "flange",
        "stamps": Stamps(1, told_ns=2), "wall_time": "2026-01-01T10:00:00Z",
    }  # fmt: skip
    return decision_with(**(values | changes))


def view(score_map: np.ndarray | None = None, verdict: Verdict = Verdict.REJECT, **changes: object) -> p.Screen:
    d = decision(verdict, **changes)
    pane = Pane(np.full((64, 64), 128, np.uint8), score_map, GRID_TO_FRAME, LOW, HIGH, d.frame_wh, d.regions)
    return p.Screen(d, pane, counts={"ACCEPT": 5, "REJECT": 1, "FAULT": 0})


def flat(value: float) -> np.ndarray:
    return np.full((8, 8), value, np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_verdicts_differ_in_colour_brightness_and_sign(size: tuple[int, int]) -> None:
    screens = {v: p.paint(view(flat(LOW), v), size) for v in Verdict}
    unit = min(size[0] / 1920, size[1] / 1080)
    band = slice(0, round(216 * unit))
    for verdict, screen in screens.items():
        assert screen.shape == (size[1], size[0], 3)
        ground = np.all(screen[band] == style.BAND[verdict][0], axis=2)
        assert 0.4 < ground.mean() < 0.95
    sign = np.s_[round(60 * unit) : round(160 * unit), round(56 * unit) : round(180 * unit)]
    shapes = [np.all(screens[v][sign] == style.BAND[v][0], axis=2) for v in Verdict]
    for i in range(3):
        assert np.mean(shapes[i] != shapes[i - 1]) > 0.1, "the sign alone tells them apart"
    light = [float(np.dot(style.BAND[v][0], (0.114, 0.587, 0.299))) for v in (Verdict.REJECT, Verdict.ACCEPT, Verdict.FAULT)]
    assert light[1] - light[0] > 10 and light[2] - light[1] > 60


def test_the_deciding_camera_is_large_and_each_other_one_is_below_it_with_its_own_verdict() -> None:
    views = tuple(
        View(camera, verdict, "", 1.0, 20.0, 0.05, (), (64, 64), "b", "r")
        for camera, verdict in (("side", Verdict.ACCEPT), ("top", Verdict.REJECT), ("back", Verdict.FAULT))
    )
    gray = {"side": 90, "top": 128}
    shown = [
        wire.Shown(
            image=cv2.imencode(".png", np.full((64, 64), gray[v.camera], np.uint8))[1].tobytes() if v.camera in gray else b"",
            score_map=wire.pack_map(flat(30.0)) if v.camera == "top" else b"", map_hw=(8, 8) if v.camera == "top" else (0, 0),
            grid_to_frame=wire.flat_affine(GRID_TO_FRAME), display_low=LOW, display_high=HIGH,
        )
        for v in views
    ]  # fmt: skip
    screen = p.screen_of(wire.Preview(decision=decision(views=views), shown=shown, counts={"ACCEPT": 5, "REJECT": 1, "FAULT": 0}))
    assert [pane.camera for pane in (screen.main, *screen.others)] == ["top", "side", "back"]
    for size in SIZES:
        painted = p.paint(screen, size)
        unit = min(size[0] / 1920, size[1] / 1080)
        left = painted[round(250 * unit) :, : size[0] - round(640 * unit)]
        row = round((size[1] - 250 * unit - 40 * unit) * 0.24)
        above, below = left[: -row - round(40 * unit)], left[-row - round(40 * unit) :]
        for colour, wanted in ((style.RED, (True, False)), (style.GREEN, (False, True)), (style.AMBER, (False, True))):
            assert (bool(np.all(above == colour, axis=2).any()), bool(np.all(below == colour, axis=2).any())) == wanted
        assert np.all(below == 90, axis=2).any(), "its picture"
        assert not np.all(above == 90, axis=2).any()


@pytest.mark.parametrize("size", SIZES)
def test_nothing_leaves_its_place_however_long_it_is(size: tuple[int, int]) -> None:
    long = "the camera stopped delivering and nobody knows why " * 20
    worst = dataclasses.replace(
        view(flat(900.0), reason=long + "x" * 300, part_id="SERIAL-" * 20, severity=123456.0, station="s" * 64, recipe="r" * 64),
        counts={"ACCEPT": 123_456_789, "REJECT": 123_456_789, "FAULT": 0},
        problems=(long, long),
    )
    unit = min(size[0] / 1920, size[1] / 1080)
    for screen in (p.paint(worst, size), p.paint(dataclasses.replace(worst, main=dataclasses.replace(worst.main, image=None)), size)):
        below = screen[round(216 * unit) + 2 :]
        right, bottom = round(36 * unit), round(28 * unit)
        assert np.all(below[:, -right:] == style.BACKGROUND)
        assert np.all(below[-bottom:] == style.BACKGROUND)
        gap = size[0] - round((40 + 540) * unit)
        assert np.all(below[:, gap - round(36 * unit) : gap - 3] == style.BACKGROUND), "picture and words stay apart"


def test_a_problem_s_cause_is_not_pushed_off_the_screen_by_a_path() -> None:
    cause = "database or disk is full"
    short, long = (
        p.paint(dataclasses.replace(view(flat(30)), problems=(f"journal {folders}journal.sqlite: {cause}",)), (1280, 720))
        for folders in ("…/", "/var/lib/lineside/a-station-with-a-long-name/and-a-folder-of-its-own/on-another-disk/")
    )
    assert np.array_equal(short, long)
    assert p._FOLDERS.sub("…/", "camera rtsp://10.0.0.5/a/b: no answer") == "camera rtsp://10.0.0.5/a/b: no answer"


def test_old_data_never_looks_like_a_verdict() -> None:
    for v in Verdict:
        fresh, stale = p.paint(view(flat(30), v), (1280, 720)), p.paint(view(flat(30), v), (1280, 720), stale_s=9.0)
        colour = style.BAND[v][0]
        assert np.all(fresh[:144] == colour, axis=2).any()
        assert not np.all(stale[:144] == colour, axis=2).any()
        assert stale[144:].mean() < 0.7 * fresh[144:].mean()


def heat_added(score_map: np.ndarray) -> np.ndarray:
    """(512, 512): how far each channel's pixel moved from plain gray at most."""
    canvas = np.full((512, 512, 3), 128, np.uint8)
    picture.paint_heat(canvas, picture.scale_share(score_map, LOW, HIGH), GRID_TO_FRAME * 8)
    return np.abs(canvas.astype(int) - 128).max(axis=2)


def test_a_good_part_is_hardly_tinted_and_a_bad_one_plainly() -> None:
    assert heat_added(flat(LOW)).max() == 0
    assert 0 < heat_added(flat(19.9)).max() <= 14, "just below the threshold"
    assert heat_added(flat(25)).min() > 35
    assert heat_added(flat(HIGH)).min() > 80


def test_the_scale_is_the_products_and_not_the_pictures() -> None:
    quiet, hot = flat(22), flat(22)
    hot[7, 7] = 5000
    assert np.array_equal(heat_added(quiet)[:300, :300], heat_added(hot)[:300, :300])


def test_a_map_with_holes_is_drawn_hot_there() -> None:
    broken = flat(LOW)
    broken[2, 5] = np.nan
    broken[6, 1] = np.inf
    added = heat_added(broken)
    assert added[2 * 64 + 32, 5 * 64 + 32] > 80 and added[6 * 64 + 32, 1 * 64 + 32] > 80


def test_heat_lies_where_the_map_says_and_stays_in_the_region_of_interest() -> None:
    score_map = flat(LOW)
    score_map[1, 6] = HIGH
    canvas = np.full((200, 300, 3), 128, np.uint8)
    # The region of interest begins at x=100, y=50; each cell is 20 x 10 pixels.
    picture.paint_heat(canvas, picture.scale_share(score_map, LOW, HIGH), np.array([[20.0, 0, 100], [0, 10.0, 50]]))
    moved = np.abs(canvas.astype(int) - 128).max(axis=2)
    y, x = np.unravel_index(moved.argmax(), moved.shape)
    assert 100 + 6 * 20 <= x < 100 + 7 * 20 and 50 + 10 <= y < 50 + 20
    weight = moved / moved.sum()
    assert (weight.sum(axis=0) @ np.arange(300)) == pytest.approx(100 + 6.5 * 20 - 0.5, abs=1.0)
    canvas[:] = 128
    picture.paint_heat(canvas, picture.scale_share(flat(HIGH), LOW, HIGH), np.array([[20.0, 0, 100], [0, 10.0, 50]]))
    moved = np.abs(canvas.astype(int) - 128).max(axis=2)
    assert not moved[:49].any() and not moved[:, :99].any() and not moved[132:].any() and not moved[:, 262:].any()
    assert moved[52:128, 102:258].min() > 80


def test_regions_are_boxed_at_their_place_and_at_the_pictures_edge() -> None:
    canvas = np.zeros((400, 400, 3), np.uint8)
    regions = (Region(10, 20, 20, 30, 100, 50.0), Region(60, 60, 64, 64, 16, 22.0), Region(0, 0, 2, 2, 4, float("nan")))
    picture.paint_regions(canvas, regions, (400 / 64, 400 / 64), 20.0, 0.5)
    white = np.all(canvas == 255, axis=2)
    assert white[20 * 400 // 64 - 2 : 30 * 400 // 64 + 2, 10 * 400 // 64 - 4 : 10 * 400 // 64 + 1].any(axis=1).all()
    assert white[375:, 370:].any() and white[:10, :10].any()


def test_no_label_of_a_rejected_part_says_that_it_is_within_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worst place of a part whose map stays below its threshold."""
    words: list[str] = []
    monkeypatch.setattr(picture.text, "draw", lambda canvas, word, *more: words.append(word))
    canvas = np.zeros((400, 400, 3), np.uint8)
    picture.paint_regions(canvas, (Region(10, 20, 20, 30, 100, 14.0),), (6.0, 6.0), 20.0, 1.0)
    picture.paint_regions(canvas, (Region(10, 20, 20, 30, 100, 28.0),), (6.0, 6.0), 20.0, 1.0)
    assert words == ["worst", "1.4×"]


def test_text_is_wrapped_and_elided_to_its_width() -> None:
    lines = text.wrap("one two three four five six seven", 30, text.REGULAR, 200, 2)
    assert len(lines) == 2 and lines[1].endswith("…") and all(text.width_of(line, 30) <= 200 for line in lines)
    assert text.wrap("short", 30, text.REGULAR, 200, 3) == ["short"]
    assert text.elide("a\nb\x07c", 20, text.REGULAR, 500) == "a b c"
    assert text.wrap("", 30, text.REGULAR, 200, 2) == [""]


def test_without_truetype_the_stroke_letters_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_face", lambda: None)
    text.width_of.cache_clear()
    try:
        assert text.ascii_of("Größe 1.5× – “čau”…") == 'Grosse 1.5x - "cau"...'
        screen = p.paint(view(flat(30), reason="Größe – 1.5×"), (1280, 720))
        assert np.all(screen[146:, -24:] == style.BACKGROUND)
        assert np.all(screen[:144] == style.INK, axis=2).mean() > 0.05
    finally:
        text.width_of.cache_clear()


@contextmanager
def station(preview_port: int, publisher_port: int, part: Decision | None, health: bool = True) -> Iterator[None]:
    """The real preview sink, and health twenty times a second."""
    ending = threading.Event()

    def beat() -> None:
        counts = {"ACCEPT": 9, "REJECT": 8, "FAULT": 7}
        record = Health("line-1", State.DEGRADED, ("disk full",), ("b",), ("r",), "CPU", 1.0, counts, {}, 7, "")
        with zmq.Context() as context, context.socket(zmq.PUB) as pub:
            pub.setsockopt(zmq.LINGER, 0)
            pub.bind(f"tcp://127.0.0.1:{publisher_port}")
            while not ending.wait(0.05):
                pub.send_multipart(wire.encode_health(record))

    thread = threading.Thread(target=beat)
    if health:
        thread.start()
    settings = PreviewConfig(endpoint=f"tcp://127.0.0.1:{preview_port}")
    try:
        with PreviewSink(settings, "line-1", {part.bundle_id: Display(DisplayScale(low=LOW, high=HIGH))} if part else {}) as sink:
            if part is not None:
                frame = Frame(1, 1, "x", np.full((64, 64), 128, np.uint8))
                sink.put(part, (Picture("", frame, Prediction(30.0, flat(30.0), GRID_TO_FRAME)),))
            yield
    finally:
        ending.set()
        if health:
            thread.join()


@pytest.fixture
def ports() -> tuple[int, int]:
    first, second = free_ports(2)
    return first, second


def endpoints(ports: tuple[int, int]) -> tuple[str, str]:
    """Publisher's and preview's."""
    return f"tcp://127.0.0.1:{ports[1]}", f"tcp://127.0.0.1:{ports[0]}"


def test_a_snapshot_needs_no_screen(ports: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    file = tmp_path / "screen.png"
    with station(*ports, decision()):
        window.snapshot(*endpoints(ports), file, timeout_s=5)
    screen = cv2.imread(str(file))
    assert screen is not None and screen.shape == (1080, 1920, 3)
    assert np.all(screen[:216] == style.RED, axis=2).mean() > 0.4
    heat = screen[300:1000, 200:1000].astype(int)
    assert (heat[:, :, 2] - heat[:, :, 0] > 40).mean() > 0.4, "the picture shows the map"
    assert np.all(screen[216:] == style.AMBER, axis=2).sum() > 500, "health's problem is shown"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.slow
def test_a_snapshot_of_nothing_says_what_is_missing(ports: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(DisplayError, match="is the station running"):
        window.snapshot(*endpoints(ports), tmp_path / "x.png", timeout_s=0.2)
    with station(*ports, None), pytest.raises(DisplayError, match="decided no part yet"):
        window.snapshot(*endpoints(ports), tmp_path / "x.png", timeout_s=1.0)
    with station(*ports, decision()), pytest.raises(DisplayError, match="cannot be written"):
        window.snapshot(*endpoints(ports), tmp_path / "absent" / "x.png", timeout_s=5)
    with pytest.raises(DisplayError, match="endpoint"):
        window.snapshot("tcp://no port", "tcp://127.0.0.1:1", tmp_path / "x.png")


@pytest.mark.slow
def test_silence_makes_the_screen_stale(ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "STALE_S", 600.0)
    with window.Listener(*endpoints(ports)) as listener:
        with station(*ports, decision()):
            until(lambda: (listener.listen(0.1), np.all(listener.screen(listener.view(), (640, 360))[:72] == style.RED, axis=2).any())[1])
        listener.listen(0.1)
        monkeypatch.setattr(window, "STALE_S", 0.4)
        until(lambda: not np.all(listener.screen(listener.view(), (640, 360))[:72] == style.RED, axis=2).any())


def test_a_message_of_another_version_is_shown_as_such(ports: tuple[int, int]) -> None:
    with window.Listener(*endpoints(ports)) as listener:
        listener._take([wire.HEALTH, b"line-1", b"\x81\xa6schema\x63"])
        assert listener.misread is not None and "99" in listener.misread


@pytest.mark.parametrize("topic", ["health", "preview"])
def test_the_window_waits_on_and_says_so_where_a_station_of_schema_1_answers(ports: tuple[int, int], topic: str) -> None:
    """Before the first part in the middle; afterwards, as where the station was set back, among the problems of the last one."""
    message = [topic.encode(), b"st", (SCHEMA_1 / f"{topic}.msgpack").read_bytes()]
    with window.Listener(*endpoints(ports)) as listener:
        listener._take(message)
        assert listener.misread is not None and "expected messages of schema 2, found schema 1" in listener.misread
        assert listener.view() is None
        words = listener.screen(None, (1280, 720))
        with station(*ports, decision()):
            until(lambda: (listener.listen(0.1), listener.view())[1] is not None)
            assert (screen := listener.view()) is not None and screen.problems[:1] != (listener.misread,)
        listener._take(message)
        assert (screen := listener.view()) is not None and screen.problems[0] == listener.misread
    assert not np.array_equal(words, p.paint(None, (1280, 720), waiting="No station answers yet"))


def test_without_a_screen_the_window_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(DisplayError, match=r"no window can be opened.*--snapshot"):
        window.show("tcp://127.0.0.1:1", "tcp://127.0.0.1:2")


def test_what_opencv_says_becomes_what_to_do() -> None:
    headless = "cv2.error: OpenCV(5.0.0) error: (-2:Unspecified error) The function is not implemented. Rebuild the library with Windows"
    assert "pip install opencv-python" in window.explain_no_window(headless)
    assert "libgl1" in window.explain_no_window("ImportError: libGL.so.1: cannot open shared object file: No such file or directory")
    assert window.explain_no_window("Traceback\nOSError: odd") == "OSError: odd"


@pytest.mark.slow
@pytest.mark.skipif(not all(shutil.which(tool) for tool in ("Xvfb", "xdotool", "import")), reason="needs Debian's xvfb xdotool imagemagick")
def test_the_window_shows_the_verdict_and_closes_on_q(ports: tuple[int, int], tmp_path: Path) -> None:
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x800x24", "-nolisten", "tcp"], pass_fds=(write,), stderr=subprocess.DEVNULL
    )
    os.close(write)
    code = f"from edge_runtime.overlay.window import show; show({endpoints(ports)[0]!r}, {endpoints(ports)[1]!r}, fullscreen=True)"
    try:
        with os.fdopen(read) as number:
            environment = {**os.environ, "DISPLAY": f":{number.readline().strip()}"}
        with station(*ports, decision()):
            shown = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
            assert shown.stderr is not None
            try:
                assert _eventually_red(tmp_path / "shot.png", environment), shown.stderr.read() if shown.poll() is not None else "not red"
                subprocess.run(["xdotool", "search", "--name", window.TITLE, "key", "q"], env=environment, check=True, timeout=10)
                assert shown.wait(timeout=10) == 0
            finally:
                shown.kill()
                shown.wait()
                shown.stderr.close()
    finally:
        server.kill()
        server.wait()


def _eventually_red(file: Path, environment: dict[str, str]) -> bool:
    until = time.monotonic() + 40
    while time.monotonic() < until:
        time.sleep(0.3)
        subprocess.run(["import", "-window", "root", str(file)], env=environment, check=True, timeout=20)
        screen = cv2.imread(str(file))
        if screen is not None and np.all(screen[:300] == style.RED, axis=2).mean() > 0.1:
            return True
    return False


def test_a_window_that_is_gone_is_closed_and_no_error() -> None:
    assert not window._is_open()
