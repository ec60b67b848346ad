"""Files that are damaged and still decode: pictures that a copy or an upload broke off or tore, found where the format allows it."""

import random
import struct
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

_JUNK = bytes(random.Random(0).choices(range(255), k=2048))
"""Holds no 0xFF, so no marker: more entropy-coded data, if somebody still waits for some."""
_ZEROS = bytes(64)
_NEAR = 3
_RST0, _SOI, _EOI, _SOS, _DHT, _SOF2 = 0xD0, 0xD8, 0xD9, 0xDA, 0xC4, 0xC2
_BARE = frozenset({0x01, *range(_RST0, _SOI + 1)})
"""JPEG markers without a length: TEM, RST0 to RST7, SOI."""
_SOF = frozenset(range(0xC0, 0xD0)) - {_DHT, 0xC8, 0xCC}
_NEVER_WRITTEN = "its end was never written (it holds zeros); copy it again"
_TORN = "zeros stand where its data should be; copy it again"
_CUT_INSIDE = "one of its segments ends before it has what it says it has; copy it again"
_PNG = b"\x89PNG\r\n\x1a\n"


def says_more(raw: bytes) -> bool:
    """Whether a PNG's chunk says that it has more bytes than the file: OpenCV takes memory for all of them, up to 4 GB, before it looks.

    Chunks up to the end are looked at (PNG, third edition, 5.3).
    """
    at = len(_PNG)
    while raw.startswith(_PNG) and at + 8 <= len(raw):
        (length,) = struct.unpack_from(">I", raw, at)
        if length > len(raw) - at - 8:
            return True
        if raw[at + 4 : at + 8] == b"IEND":
            break
        at += 12 + length
    return False


def damage(raw: bytes, image: npt.NDArray[np.generic]) -> str | None:
    """What is missing of a file that could be decoded, or None.

    - JPEG (ITU-T T.81): a scan whose data ends before its last block. libjpeg fills what is missing with zero coefficients, which is the
      gray 128; where the last block is so, more data is put behind the scan: only a decoder that still waits for some shows another
      picture then. A progressive file must bring the coefficients of all components to their last bit. Zeros in place of data, where
      the file's own Huffman tables give no picture so many; intervals that do not follow each other.
    - WebP, JPEG 2000: data that ends in zeros, as a file does whose end was allotted and never written.
    - TIFF: zeros inside of strips that were packed by LZW or PackBits, neither of which writes so many.

    Zeros inside of a WebP, or at its end, may be a blank part of the picture. Formats that are not compressed (BMP, PGM) cannot tell
    zeros that are missing from black. Those with checksums or lengths (PNG, and all that are cut short but JPEG) do not decode at all.
    What only the JPEG decoder knows is asked for by edge_runtime/images/torn.py.

    Args:
        raw: the file's bytes.
        image: (H, W) or (H, W, C), as OpenCV decoded them.
    """
    if raw.startswith(b"\xff\xd8"):
        try:
            return _of_jpeg(raw, image)
        except (IndexError, ValueError):  # libjpeg was content with what came before
            return _CUT_INSIDE
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return _NEVER_WRITTEN if raw.endswith(_ZEROS) and not _is_blank(image[-8:]) else None
    if raw[4:8] == b"jP  " or raw.startswith(b"\xff\x4f\xff\x51"):
        return _NEVER_WRITTEN if raw.endswith(_ZEROS) else None
    if raw[:4] in (b"II*\0", b"MM\0*") and any(_ZEROS in strip for strip in _packed_strips(raw)):
        return _TORN
    return None


def _is_blank(rows: npt.NDArray[np.generic]) -> bool:
    """Whether they are of one colour."""
    return bool((rows == rows[:1, :1]).all())


def _of_jpeg(raw: bytes, image: npt.NDArray[np.generic]) -> str | None:
    segments = list(_segments(raw))
    if _lacks_scans(raw, segments):
        return "its last scans are missing, so it is blurred; copy it again"
    if (torn := _torn(raw, segments)) is not None:
        return torn
    last = image[(image.shape[0] - 1) // 8 * 8 :, (image.shape[1] - 1) // 8 * 8 :]
    if last.dtype != np.uint8 or (np.abs(last.astype(np.int16) - 128) > _NEAR).any():  # chroma is smoothed into the gap from above
        return None
    try:
        probed = cv2.imdecode(np.frombuffer(_lengthened(raw, segments), np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if probed is None or probed.shape != image.shape or np.array_equal(probed, image):
        return None
    filled = int((image == 128).reshape(image.shape[0], -1).all(axis=1).sum())
    what = f"{filled} of its {image.shape[0]} rows are" if filled else "the end of its last rows is"
    return f"its data ends early and {what} filled with gray; copy it again"


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


def _lacks_scans(raw: bytes, segments: list[tuple[int, int, int]]) -> bool:
    """Whether a progressive file leaves coefficients of a component without their last bit."""
    components: list[int] = []
    least: dict[int, list[int]] = {}
    for marker, start, _ in segments:
        if marker == _SOF2 and not components:
            components = [raw[start + 6 + 3 * i] for i in range(raw[start + 5])]
            least = {c: [99] * 64 for c in components}
        elif marker in _SOF and marker != _SOF2:
            return False  # every scan of such a file holds its coefficients whole
        elif marker == _SOS and components:
            count = raw[start]
            first, last, bits = raw[start + 1 + 2 * count : start + 4 + 2 * count]
            for i in range(count):
                known = least.get(raw[start + 1 + 2 * i], [])
                for k in range(first, min(last, 63) + 1 if known else 0):
                    known[k] = min(known[k], bits & 15)
    return any(bit for known in least.values() for bit in known)


def _torn(raw: bytes, segments: list[tuple[int, int, int]]) -> str | None:
    """Zeros in place of data, or intervals that are not there.

    The first code of a canonical Huffman table is all zeros. Where it stands for a coefficient and not for the end of a block, zeros
    are blocks full of one coefficient, which no picture has.
    """
    if raw.endswith(_ZEROS) and segments and segments[-1][0] == _SOS and segments[-1][2] == len(raw):
        return _NEVER_WRITTEN
    of_zeros: dict[int, int] = {}
    for marker, start, end in segments:
        if marker == _DHT:
            of_zeros |= _first_symbols(raw[start:end])
        elif marker == _SOS:
            count = raw[start]
            tables = [raw[start + 2 + 2 * i] & 15 for i in range(count)]
            if raw[start + 2 + 2 * count] and any(of_zeros.get(t, 0) & 15 for t in tables) and _ZEROS in raw[start:end]:
                return _TORN
            numbers = [raw[at + 1] - _RST0 for at in _restarts(raw, start, end)]
            if any(n != i % 8 for i, n in enumerate(numbers)):
                return "intervals of its data are missing; copy it again"
    return None


def _first_symbols(tables: bytes) -> dict[int, int]:
    """For a DHT segment, what the first code of each AC table stands for: its run in the upper, its size in the lower four bits."""
    found, at = {}, 0
    while at + 17 < len(tables):
        if tables[at] >> 4:
            found[tables[at] & 15] = tables[at + 17]
        at += 17 + sum(tables[at + 1 : at + 17])
    return found


def _restarts(raw: bytes, start: int, end: int) -> Iterator[int]:
    """Where the markers between a scan's intervals stand."""
    while (start := raw.find(b"\xff", start, end)) >= 0:
        if start + 1 < end and _RST0 <= raw[start + 1] < _SOI:
            yield start
        start += 2


def _lengthened(raw: bytes, segments: list[tuple[int, int, int]]) -> bytes:
    """With more data behind each scan; where scans are cut into intervals, also for the next two of them, in which the decoder may wait."""
    parts, done = [], 0
    for marker, start, end in segments:
        if marker == _SOS:
            parts += [raw[done:end], _JUNK]
            if restarts := list(_restarts(raw, start, end)):
                last = raw[restarts[-1] + 1] - _RST0
                parts += [part for n in (1, 2) for part in (bytes((0xFF, _RST0 + (last + n) % 8)), _JUNK)]
            done = end
    return b"".join((*parts, raw[done:]))


def _packed_strips(raw: bytes) -> Iterator[bytes]:
    """Strips or tiles of a TIFF's first picture (TIFF 6.0) where LZW or PackBits packed them."""
    order = "<" if raw[:2] == b"II" else ">"
    fields: dict[int, tuple[int, ...]] = {}
    try:
        (at,) = struct.unpack_from(f"{order}I", raw, 4)
        (entries,) = struct.unpack_from(f"{order}H", raw, at)
        for i in range(entries):
            tag, kind, count = struct.unpack_from(f"{order}HHI", raw, at + 2 + 12 * i)
            if tag in (259, 273, 279, 324, 325) and kind in (3, 4):  # compression, offsets and lengths of strips and of tiles
                letter, place = ("H", 2) if kind == 3 else ("I", 4)
                inside = at + 10 + 12 * i
                where = inside if count * place <= 4 else struct.unpack_from(f"{order}I", raw, inside)[0]
                fields[tag] = struct.unpack_from(f"{order}{count}{letter}", raw, where)
    except struct.error:
        return
    if fields.get(259, (1,))[0] in (5, 32773):
        for offset, length in zip(fields.get(273, fields.get(324, ())), fields.get(279, fields.get(325, ())), strict=False):
            yield raw[offset : offset + length]
