"""Files that are damaged and still decode: pictures that a copy or an upload broke off, found where the format allows it."""

import struct
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

_JUNK = bytes(np.random.default_rng(0).integers(0, 255, 2048, dtype=np.uint8))
"""Holds no 0xFF, so no marker: more entropy-coded data, if somebody still waits for some."""
_ZEROS = bytes(64)
_NEAR = 3
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
"""JPEG markers without a length: TEM, RST0 to RST7, SOI."""
_SOS, _EOI, _SOF2 = 0xDA, 0xD9, 0xC2


def damage(raw: bytes, image: npt.NDArray[np.generic]) -> str | None:
    """What is missing of a file that could be decoded, or None.

    - JPEG (ITU-T T.81): a scan whose data ends before its last block. libjpeg fills what is missing with zero coefficients, which is the
      gray 128; where the last block is so, more data is put behind the scan: only a decoder that still waits for some shows another
      picture then. A progressive file must bring the coefficients of all components to their last bit.
    - WebP: a payload that ends in zeros, as a file does whose end was allotted and never written.

    Formats that are not compressed (BMP, PGM) cannot tell zeros that are missing from black. Those with checksums or lengths (PNG, TIFF)
    do not decode at all when they are cut.

    Args:
        raw: the file's bytes.
        image: (H, W) or (H, W, C), as OpenCV decoded them.
    """
    if raw.startswith(b"\xff\xd8"):
        return _of_jpeg(raw, image)
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP" and raw.endswith(_ZEROS):
        return "its end was never written (it holds zeros); copy it again"
    return None


def _of_jpeg(raw: bytes, image: npt.NDArray[np.generic]) -> str | None:
    if _lacks_scans(raw):
        return "its last scans are missing, so it is blurred; copy it again"
    last = image[(image.shape[0] - 1) // 8 * 8 :, (image.shape[1] - 1) // 8 * 8 :]
    if last.dtype != np.uint8 or (np.abs(last.astype(np.int16) - 128) > _NEAR).any():  # chroma is smoothed into the gap from above
        return None
    try:
        probed = cv2.imdecode(np.frombuffer(_lengthened(raw), np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if probed is None or probed.shape != image.shape or np.array_equal(probed, image):
        return None
    filled = int((image == 128).reshape(image.shape[0], -1).all(axis=1).sum())
    return f"its data ends early and {filled} of its {image.shape[0]} rows are filled with gray; copy it again"


def _segments(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, where its payload begins, where it ends) in turn; a scan's payload ends where its entropy-coded data does."""
    at = 2
    while (at := raw.find(b"\xff", at)) >= 0 and at + 1 < len(raw):
        marker = raw[at + 1]
        if marker in (0x00, 0xFF) or marker in _BARE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == _EOI:
            yield marker, at, at
            return
        if at + 4 > len(raw):
            return
        end = at + 2 + struct.unpack(">H", raw[at + 2 : at + 4])[0]
        start = at + 4
        if marker == _SOS:
            while (end := raw.find(b"\xff", end)) >= 0 and end + 1 < len(raw) and (raw[end + 1] == 0 or raw[end + 1] in _BARE):
                end += 2
            end = len(raw) if end < 0 else end
        yield marker, start, end
        at = end


def _lacks_scans(raw: bytes) -> bool:
    """Whether a progressive file leaves coefficients of a component without their last bit."""
    components: list[int] = []
    least: dict[int, list[int]] = {}
    for marker, start, _ in _segments(raw):
        if marker == _SOF2 and not components:
            components = [raw[start + 6 + 3 * i] for i in range(raw[start + 5])]
            least = {c: [99] * 64 for c in components}
        elif 0xC0 <= marker <= 0xCF and marker not in (_SOF2, 0xC4, 0xC8, 0xCC):
            return False  # every scan of such a file holds its coefficients whole
        elif marker == _SOS and components:
            count = raw[start]
            first, last, bits = raw[start + 1 + 2 * count : start + 4 + 2 * count]
            for i in range(count):
                known = least.get(raw[start + 1 + 2 * i], [])
                for k in range(first, min(last, 63) + 1 if known else 0):
                    known[k] = min(known[k], bits & 15)
    return any(bit for known in least.values() for bit in known)


def _lengthened(raw: bytes) -> bytes:
    """With more data behind each scan; where scans are cut into intervals, also for the next two of them, in which the decoder may wait."""
    parts, done = [], 0
    for marker, start, end in _segments(raw):
        if marker == _SOS:
            parts += [raw[done:end], _JUNK]
            last = max(raw.rfind(bytes((0xFF, 0xD0 + n)), start, end) for n in range(8))
            if last >= 0:
                parts += [part for n in (1, 2) for part in (bytes((0xFF, 0xD0 + (raw[last + 1] - 0xD0 + n) % 8)), _JUNK)]
            done = end
    return b"".join((*parts, raw[done:]))
