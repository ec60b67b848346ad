"""Network cameras: what arrives whole is given, what does not never is, and a camera that dies comes back without a restart."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.config import files as c
from edge_runtime.errors import ConfigError, MissingExtra, SourceError
from edge_runtime.records import Frame
from edge_runtime.sources import Source, open_source
from edge_runtime.sources.v4l2 import captured_ns
from tests.support.streams import SIZE, LossyProxy, MjpegCamera, RtspCamera
from tests.support.waiting import BUSY_S, until


@pytest.fixture
def camera() -> Iterator[MjpegCamera]:
    server = MjpegCamera()
    yield server
    server.kill()


def frames_of(source: Source, seconds: float) -> list[Frame]:
    """All that it gives in so long."""
    frames = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(SourceError):
            frames.append(source.grab(0.1))
    return frames


# --- damaged pictures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(lambda jpeg: jpeg[: len(jpeg) * 2 // 3], id="its end was not sent"),
        pytest.param(lambda jpeg: jpeg[: len(jpeg) * 2 // 3] + b"\xff\xd9", id="and the camera closed it all the same"),
        pytest.param(lambda jpeg: jpeg[:-3], id="of the last block"),
        pytest.param(lambda jpeg: jpeg[: len(jpeg) // 2] + b"\xff\xd8\xff\xe0" + jpeg[len(jpeg) // 2 + 4 :], id="another begins in it"),
    ],
)
def test_half_a_picture_is_never_given_and_the_next_whole_one_is(cut: Callable[[bytes], bytes], camera: MjpegCamera) -> None:
    """Law 3: what is missing would be shown as the picture before had it, which is another part's."""
    camera.size = (240, 320)
    with open_source(c.LiveSourceConfig(device=camera.url, read_timeout_ms=60_000)) as source:
        source.grab(5)
        camera.cut = lambda jpeg: cut(jpeg) if camera.sent % 2 else jpeg
        frames = frames_of(source, 1.0)
        camera.cut = cut
        time.sleep(0.1)
        frames_of(source, 0.05)
        before = source.tallies["incomplete_frames"]
        until(lambda: source.tallies["incomplete_frames"] > before + 3)
        with pytest.raises(SourceError, match=r"pictures came damaged so far and were not judged \(.+\); check its network"):
            source.grab(0.2)
        camera.cut = None
        frames.append(_eventually(source))
        assert source.tallies["reconnects"] == 0
    assert len(frames) > 3
    assert max(int(np.ptp(f.image)) for f in frames) <= 2, "each shows one gray level and nothing of the one before"


def test_a_stream_without_any_whole_picture_is_opened_anew_and_says_why(camera: MjpegCamera) -> None:
    with open_source(c.LiveSourceConfig(device=camera.url, read_timeout_ms=200)) as source:
        source.grab(1)
        camera.cut = lambda jpeg: jpeg[: len(jpeg) // 2]
        until(lambda: "no whole picture" in (source.problem or ""))
        with pytest.raises(SourceError, match=r"no .*whole picture"):
            for _ in range(3):
                source.grab(0.05)
        camera.cut = None
        assert _eventually(source).image.shape[:2] == SIZE
        until(lambda: source.problem is None or "came damaged" in source.problem)


@pytest.mark.parametrize(("codec", "share"), [("h264", 0.004), ("h264", 0.02), ("jpeg", 0.02)])
def test_packets_that_never_came_cost_pictures_and_no_verdict(codec: str, share: float, free_port: int) -> None:
    """Law 3. H.264 builds each picture on others: one that was lost whole is seen in none of the others' data."""
    camera = RtspCamera(free_port, codec, period_ms=20)
    proxy = LossyProxy(free_port, share)
    try:
        settings = c.LiveSourceConfig(device=f"rtsp://127.0.0.1:{proxy.port}/cam", read_timeout_ms=60_000)
        with open_source(settings) as source:
            source.grab(5)
            proxy.losing = True
            frames: list[Frame] = []
            until(lambda: frames.extend(frames_of(source, 0.2)) or (proxy.lost > 10 and len(frames) > 20))
            assert source.tallies["incomplete_frames"] > 0 or codec == "jpeg"  # FFmpeg drops those by itself
        assert [f.seq for f in frames if not RtspCamera.is_whole(f.image)] == []
    finally:
        proxy.close()
        camera.kill()


# --- another size ------------------------------------------------------------------------------------------------


def test_a_camera_that_changes_its_resolution_is_not_judged_until_it_is_set_back(camera: MjpegCamera) -> None:
    """What a model was taught on is not what it would see: pictures were once scaled to the first one's size in silence."""
    with open_source(c.LiveSourceConfig(device=camera.url, read_timeout_ms=300)) as source:
        source.grab(1)
        camera.size = (96, 128)
        until(lambda: "expected 64x48 as its first picture was, it now delivers 128x96" in (source.problem or ""))
        frames = frames_of(source, 0.5)
        with pytest.raises(SourceError, match="it now delivers 128x96; set the camera back, or teach on pictures of the new size"):
            source.grab(0.05)
        camera.size = SIZE
        frames.append(_eventually(source))
        until(lambda: source.problem is None)
    assert {f.image.shape[:2] for f in frames} == {SIZE}


def test_an_h264_stream_that_changes_its_resolution_is_not_judged(free_port: int) -> None:
    camera = RtspCamera(free_port, change_at=100)
    try:
        with open_source(c.LiveSourceConfig(device=camera.url, read_timeout_ms=2000)) as source:
            frames: list[Frame] = []
            until(lambda: frames.extend(frames_of(source, 0.1)) or "it now delivers 160x240" in (source.problem or ""))
            frames += frames_of(source, 0.5)
        assert len(frames) > 10 and {f.image.shape[:2] for f in frames} == {(240, 320)}
        assert all(RtspCamera.is_whole(f.image) for f in frames)
    finally:
        camera.kill()


# --- how old it is -----------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_a_picture_is_as_old_as_it_is_where_only_the_next_one_shows_its_end(free_port: int) -> None:
    """Law 3: FFmpeg hands out a picture of an RTSP stream when the next one begins to come, here 400 ms later."""
    camera = RtspCamera(free_port, period_ms=400)
    try:
        with open_source(c.LiveSourceConfig(device=camera.url)) as source:
            frames = [source.grab(2) for _ in range(4)]
        younger_ms = [(f.captured_ns - camera.taken_ns[RtspCamera.number_of(f.image)]) / 1e6 for f in frames]
        assert max(younger_ms) < 250
    finally:
        camera.kill()


@pytest.mark.parametrize("lengths", [True, False])
def test_a_picture_over_http_is_never_younger_than_when_it_was_sent(lengths: bool) -> None:
    """Law 3, also from a server that does not say how long a picture is: its end shows when the next one begins, here 400 ms later."""
    camera = MjpegCamera(period_s=0.4, size=(480, 640), lengths=lengths)
    try:
        with open_source(c.LiveSourceConfig(device=camera.url)) as source:
            frames = [source.grab(3) for _ in range(4)]
        younger_ms = [(f.captured_ns - camera.sent_ns[round(f.image.mean())]) / 1e6 for f in frames]
        assert max(younger_ms) < 250
        assert not lengths or min(younger_ms) > -250, "where the length is told, none counts as older than it is"
    finally:
        camera.kill()


def test_of_pictures_that_come_all_at_once_none_is_given_that_lay_in_a_buffer(camera: MjpegCamera) -> None:
    """Law 3: in the network's, or because this process stood still; a machine that falls behind catches up."""
    with open_source(c.LiveSourceConfig(device=camera.url, read_timeout_ms=60_000)) as source:
        frames = [source.grab(1)]
        camera.hangs = True
        time.sleep(0.1)
        frames += frames_of(source, 0.3)
        camera.burst = 50
        camera.hangs = False
        until(lambda: frames.extend(frames_of(source, 0.1)) or frames[-1].seq > frames[0].seq + 5)
    steps = [(b.seq - a.seq, (round(b.image.mean()) - round(a.image.mean())) % 200) for a, b in itertools.pairwise(frames)]
    assert any(level >= 40 and seq <= 10 for seq, level in steps), "fifty were sent, and not decoded"


# --- what stayed -------------------------------------------------------------------------------------------------


def test_an_rtsp_camera_survives_its_servers_death(free_port: int) -> None:
    camera = RtspCamera(free_port)
    try:
        settings = c.LiveSourceConfig(device=camera.url, width=320, height=240, read_timeout_ms=500)
        with open_source(settings) as source:
            before = source.grab(2)
            camera.kill()
            until(lambda: source.problem is not None)
            with pytest.raises(SourceError):
                for _ in range(3):
                    source.grab(0.3)
            camera = RtspCamera(free_port)
            after = _eventually(source)
            assert after.captured_ns > before.captured_ns and after.image.shape == (240, 320, 3)
    finally:
        camera.kill()


@pytest.mark.parametrize("settings", [c.LiveSourceConfig(device="rtsp://127.0.0.1:1/x"), c.VideoSourceConfig(path=Path(__file__))])
def test_a_missing_pyav_is_named_with_its_command(settings: c.Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtra, match=r"needs packages that are not installed.*pip install 'lineside\[stream\]'"):
        open_source(settings).__enter__()


def test_a_streams_decoder_writes_nothing_to_the_terminal(camera: MjpegCamera, capfd: pytest.CaptureFixture[str]) -> None:
    with open_source(c.LiveSourceConfig(device=camera.url, read_timeout_ms=200)) as source:
        source.grab(1)
        camera.cut = lambda jpeg: jpeg[: len(jpeg) * 2 // 3]
        until(lambda: source.tallies["incomplete_frames"] > 3)
    assert capfd.readouterr().err == ""


def test_mono_gives_one_channel_and_the_latency_makes_frames_older(camera: MjpegCamera) -> None:
    with open_source(c.LiveSourceConfig(device=camera.url, mono=True, latency_ms=150)) as source:
        frame = source.grab(1)
        assert frame.image.shape == SIZE
        assert time.monotonic_ns() - frame.captured_ns >= 150e6


@pytest.mark.alone
def test_nothing_old_waits_in_a_cameras_buffer(camera: MjpegCamera) -> None:
    with open_source(c.LiveSourceConfig(device=camera.url)) as source:
        source.grab(1)
        time.sleep(0.5)  # up to 25 frames pass
        first, second = source.grab(1), source.grab(1)
        assert time.monotonic_ns() - first.captured_ns < 200e6
        assert int(second.image.mean()) - int(first.image.mean()) in (1, 2, 3), "the second frame is the next one, not a backlog's"
        assert first.seq > 5


def test_what_was_buffered_while_the_stream_was_opened_is_thrown_away() -> None:
    camera = MjpegCamera(backlog=30)
    try:
        with open_source(c.LiveSourceConfig(device=camera.url)) as source:
            assert source.grab(1).image.mean() > 15, "the black frames were taken before the camera was opened"
    finally:
        camera.kill()


@pytest.mark.alone
def test_a_camera_that_hangs_raises_in_time_and_recovers(camera: MjpegCamera) -> None:
    with open_source(c.LiveSourceConfig(device=camera.url, read_timeout_ms=300)) as source:
        source.grab(1)
        camera.hangs = True
        time.sleep(0.1)
        began = time.monotonic()
        with pytest.raises(SourceError):
            for _ in range(3):  # what was under way when it hung
                source.grab(0.2)
        assert time.monotonic() - began < 0.8
        until(lambda: source.problem is not None)
        assert source.problem is not None and "camera" in source.problem
        camera.hangs = False
        assert _eventually(source).image.shape[:2] == SIZE
        assert source.problem is None


def test_a_camera_that_dies_and_comes_back_delivers_without_a_restart(camera: MjpegCamera) -> None:
    with open_source(c.LiveSourceConfig(device=camera.url, read_timeout_ms=300)) as source:
        before = source.grab(1)
        camera.kill()
        until(lambda: "does not answer" in (source.problem or ""))
        with pytest.raises(SourceError, match="does not answer"):
            for _ in range(3):
                source.grab(0.2)
        assert source.problem is not None
        again = MjpegCamera(port=camera.port)
        try:
            after = _eventually(source)
            until(lambda: source.problem is None)
        finally:
            again.kill()
        assert after.seq > before.seq and after.captured_ns > before.captured_ns


def test_a_camera_that_is_not_there_says_why_and_hides_the_password(free_port: int) -> None:
    for device, why in (
        (f"rtsp://user:secret@127.0.0.1:{free_port}/x", "refused"),
        ("/dev/video-none", "plugged in"),
        (63, "/dev/video63"),
    ):
        with pytest.raises(SourceError, match=why) as caught, open_source(c.LiveSourceConfig(device=device, open_timeout_ms=1000)):
            pass
        assert "secret" not in str(caught.value)


def test_a_camera_of_another_size_is_refused(camera: MjpegCamera) -> None:
    with (
        pytest.raises(SourceError, match=r"expected 640x48.*delivers 64x48"),
        open_source(c.LiveSourceConfig(device=camera.url, width=640)),
    ):
        pass


def test_settings_that_a_stream_cannot_have_are_refused() -> None:
    for settings in (
        c.LiveSourceConfig(device="rtsp://127.0.0.1/x", fps=10),
        c.LiveSourceConfig(device="front camera"),
        c.LiveSourceConfig(device="gopher://x"),
    ):
        with pytest.raises(ConfigError, match="source"):
            open_source(settings)


def test_the_drivers_stamp_counts_when_it_is_of_our_clock() -> None:
    arrival = 500_000_000_000
    assert captured_ns(arrival, 499_960.0) == 499_960_000_000
    assert captured_ns(arrival, 500_001.0) == arrival, "in the future"
    assert captured_ns(arrival, 0.0) == arrival, "no stamp"


def _eventually(source: Source, within_s: float = BUSY_S) -> Frame:
    until = time.monotonic() + within_s
    while True:
        try:
            return source.grab(0.2)
        except SourceError:
            if time.monotonic() > until:
                raise
