"""The preview: made only for somebody who looks, the latest part only, and never a reason to wait."""

import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import zmq

from edge_runtime import wire
from edge_runtime.config.files import PreviewConfig
from edge_runtime.errors import SinkError
from edge_runtime.model.manifest import DisplayScale
from edge_runtime.records import Decision, Frame, Image, Picture, Prediction, Verdict
from edge_runtime.sinks import preview as preview_module
from edge_runtime.sinks.preview import Display, PreviewSink, encode_small
from tests.support.decisions import decision_with, view_with
from tests.support.ports import free_port
from tests.support.waiting import until

DISPLAY = {"b": Display(DisplayScale(low=1.0, high=40.0))}


def a_part(seq: int, image: Image | None = None) -> tuple[Decision, tuple[Picture, ...]]:
    decision = decision_with(
        seq=seq, verdict=Verdict.ACCEPT, score=1.0, threshold=2.0, severity=0.5, bundle_id="b",
        frame_wh=(0, 0) if image is None else (image.shape[1], image.shape[0]),
    )  # fmt: skip
    if image is None:
        return decision, (Picture("", None, None),)
    score_map = np.full((3, 4), 7.0, np.float32)
    prediction = Prediction(1.0, score_map, np.array([[8.0, 0, 2], [0, 9.0, 3]]))
    return decision, (Picture("", Frame(1, 1, "test", image), prediction),)


@pytest.fixture
def endpoint() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


@pytest.fixture
def looker(endpoint: str) -> Iterator["zmq.Socket[bytes]"]:
    """Not subscribed yet."""
    with zmq.Context() as context, context.socket(zmq.SUB) as sock:
        sock.linger = 0
        sock.connect(endpoint)
        yield sock


def next_preview(sock: "zmq.Socket[bytes]", timeout_ms: int = 5000) -> wire.Preview | None:
    return wire.decode_preview(sock.recv_multipart()) if sock.poll(timeout_ms) else None


def test_a_preview_shows_the_frame_reduced_and_the_raw_map(endpoint: str, looker: "zmq.Socket[bytes]") -> None:
    image = np.full((480, 640, 3), (10, 120, 240), np.uint8)
    looker.subscribe(wire.PREVIEW)
    with PreviewSink(PreviewConfig(endpoint=endpoint, long_side_px=160), "cell-3", DISPLAY, counts=lambda: {"ACCEPT": 5}) as sink:
        sink.put(*a_part(7, image))
        preview = next_preview(looker)
        assert preview is not None
        assert preview.decision == a_part(7, image)[0]
        (shown,) = preview.shown
        small = cv2.imdecode(np.frombuffer(shown.image, np.uint8), cv2.IMREAD_UNCHANGED)
        assert small.shape == (120, 160, 3)
        assert np.abs(small.astype(int) - (10, 120, 240)).max() < 8
        score_map = wire.map_of(shown)
        assert score_map is not None
        assert (score_map == 7.0).all()
        assert wire.affine_of(shown).tolist() == [[8, 0, 2], [0, 9, 3]]
        assert (shown.display_low, shown.display_high, preview.counts) == (1.0, 40.0, {"ACCEPT": 5})
        assert sink.problem is None


def test_each_view_has_its_picture_in_their_order_and_the_deciding_one_is_the_largest(endpoint: str, looker: "zmq.Socket[bytes]") -> None:
    image = np.full((480, 640), 90, np.uint8)
    verdicts = {"top": Verdict.ACCEPT, "side": Verdict.REJECT, "back": Verdict.FAULT}
    decision = decision_with(views=tuple(view_with(camera=camera, verdict=verdict, bundle_id="b") for camera, verdict in verdicts.items()))
    frame = Frame(1, 1, "test", image)
    looker.subscribe(wire.PREVIEW)
    with PreviewSink(PreviewConfig(endpoint=endpoint, long_side_px=480), "cell-3", DISPLAY) as sink:
        sink.put(decision, (Picture("top", frame, None), Picture("side", frame, None), Picture("back", None, None)))
        preview = next_preview(looker)
        assert preview is not None
        sizes = [cv2.imdecode(np.frombuffer(s.image, np.uint8), cv2.IMREAD_UNCHANGED).shape[1] if s.image else 0 for s in preview.shown]
        assert sizes == [160, 480, 0]


def test_a_part_without_a_frame_is_shown_as_well(endpoint: str, looker: "zmq.Socket[bytes]") -> None:
    looker.subscribe(b"")
    with PreviewSink(PreviewConfig(endpoint=endpoint), "cell-3", DISPLAY) as sink:
        sink.put(*a_part(1))
        preview = next_preview(looker)
        assert preview is not None
        (shown,) = preview.shown
        assert shown.image == b""
        assert wire.map_of(shown) is None


@pytest.mark.slow
def test_nothing_is_encoded_while_nobody_looks(endpoint: str, looker: "zmq.Socket[bytes]", monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []

    def counted(image: Image, long_side_px: int, bits: int) -> bytes:
        encoded.append(1)
        return encode_small(image, long_side_px, bits)

    monkeypatch.setattr(preview_module, "encode_small", counted)
    with PreviewSink(PreviewConfig(endpoint=endpoint), "cell-3", DISPLAY) as sink:
        looker.subscribe(wire.DECISION)
        for seq in range(1, 6):
            sink.put(*a_part(seq, np.zeros((64, 64), np.uint8)))
            time.sleep(0.03)
        assert encoded == []
        looker.subscribe(wire.PREVIEW)
        preview = next_preview(looker)
        assert preview is not None, "who begins to look sees the latest part at once"
        assert preview.decision.seq == 5
        assert encoded == [1]
        looker.unsubscribe(wire.PREVIEW)
        time.sleep(0.3)
        sink.put(*a_part(6, np.zeros((64, 64), np.uint8)))
        time.sleep(0.3)
        assert encoded == [1]


@pytest.mark.slow
def test_at_most_max_fps_and_the_last_part_is_always_shown(endpoint: str, looker: "zmq.Socket[bytes]") -> None:
    looker.subscribe(wire.PREVIEW)
    with PreviewSink(PreviewConfig(endpoint=endpoint, max_fps=10.0), "cell-3", DISPLAY) as sink:
        sink.put(*a_part(1, np.zeros((64, 64), np.uint8)))
        assert next_preview(looker) is not None
        began = time.monotonic()
        for seq in range(2, 102):
            sink.put(*a_part(seq, np.zeros((64, 64), np.uint8)))
            time.sleep(0.005)
        shown = []
        while not shown or shown[-1] != 101:
            preview = next_preview(looker)
            assert preview is not None
            shown.append(preview.decision.seq)
        seconds = time.monotonic() - began
    assert 2 <= len(shown) <= seconds * 10 + 2
    assert shown == sorted(shown)


def test_a_dark_12_bit_picture_looks_dark() -> None:
    shown = cv2.imdecode(np.frombuffer(encode_small(np.full((90, 120), 410, np.uint16), 64, 12), np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown.shape == (48, 64)
    assert abs(float(shown.mean()) - 410 / 4095 * 255) < 2


def test_a_picture_that_cannot_be_encoded_is_reported_and_the_next_is_shown(endpoint: str, looker: "zmq.Socket[bytes]") -> None:
    looker.subscribe(wire.PREVIEW)
    with PreviewSink(PreviewConfig(endpoint=endpoint), "cell-3", DISPLAY) as sink:
        sink.put(*a_part(1, np.zeros((64, 64, 2), np.uint8)))
        until(lambda: sink.problem is not None)
        assert sink.problem is not None and "decision 1 could not be shown" in sink.problem
        sink.put(*a_part(2, np.zeros((64, 64), np.uint8)))
        preview = next_preview(looker)
        assert preview is not None
        assert preview.decision.seq == 2


def test_a_port_in_use_is_named(endpoint: str) -> None:
    settings = PreviewConfig(endpoint=endpoint)
    with (
        PreviewSink(settings, "one", DISPLAY),
        pytest.raises(SinkError, match=rf"\[preview\] endpoint: expected to bind {endpoint}"),
        PreviewSink(settings, "two", DISPLAY),
    ):
        pass
