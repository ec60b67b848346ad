"""JPEGs of a USB camera are looked at before they are a picture; what OpenCV does with them is played, for there is no device here."""

from typing import ClassVar

import cv2
import numpy as np
import pytest

from edge_runtime.config.files import LiveSourceConfig
from edge_runtime.errors import FrameError
from edge_runtime.sources import v4l2

PICTURE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8), (0, 0), 2)
JPEG = cv2.imencode(".jpg", PICTURE, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


class Capture:
    """What cv2.VideoCapture does at a device that sends JPEGs."""

    sends: ClassVar[list[bytes]] = []
    as_sent = False
    hands_out_as_sent = True

    def __init__(self, *_: object) -> None: ...

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, prop: int) -> float:
        return {cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter.fourcc(*"MJPG"))}.get(prop, 0.0)

    def set(self, prop: int, value: float) -> bool:
        if prop == cv2.CAP_PROP_CONVERT_RGB:
            self.as_sent = value == 0 and self.hands_out_as_sent
            return self.as_sent
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        raw = np.frombuffer(self.sends.pop(0), np.uint8)
        return True, raw.reshape(1, -1) if self.as_sent else cv2.imdecode(raw, cv2.IMREAD_COLOR)

    def release(self) -> None: ...


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> v4l2.V4l2Feed:
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    return v4l2.V4l2Feed(LiveSourceConfig(device=0), "/dev/video0")


@pytest.mark.parametrize("behind", [b"", bytes(4096)], ids=["exact", "zeros behind it"])
def test_a_whole_jpeg_is_its_picture(feed: v4l2.V4l2Feed, behind: bytes) -> None:
    Capture.sends = [JPEG + behind]
    image, _ = feed.read()
    assert (image == cv2.imdecode(np.frombuffer(JPEG, np.uint8), cv2.IMREAD_COLOR)).all()


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(JPEG[: len(JPEG) // 2], id="its end was not received"),
        pytest.param(JPEG[: len(JPEG) // 2] + bytes(4096), id="and zeros stand there"),
        pytest.param(JPEG[: len(JPEG) // 2] + b"\xff\xd9", id="and it was closed all the same"),
        pytest.param(JPEG[len(JPEG) // 2 :], id="its beginning was not received"),
        pytest.param(b"", id="nothing was received"),
    ],
)
def test_a_jpeg_of_which_a_part_is_missing_is_no_picture(feed: v4l2.V4l2Feed, cut: bytes) -> None:
    Capture.sends = [cut, JPEG]
    with pytest.raises(FrameError, match="JPEG"):
        feed.read()
    assert feed.read()[0].shape == PICTURE.shape, "and the next one is"


def test_a_driver_that_decodes_by_itself_still_gives_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "hands_out_as_sent", False)
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    Capture.sends = [JPEG]
    assert v4l2.V4l2Feed(LiveSourceConfig(device=0), "/dev/video0").read()[0].shape == PICTURE.shape
