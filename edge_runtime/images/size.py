"""How large a picture says it is, read off its first bytes: what is larger than anybody expects is not decoded. Pure."""

import re
import struct

HEAD = 1 << 20
"""Bytes of a file in which its size stands; a JPEG's may be behind a colour profile and a preview."""
_PNM = re.compile(rb"P[1-7]\s(?:\s*#[^\n]*\n)*\s*(?:WIDTH\s+)?(\d+)(?:\s+#[^\n]*\n)*\s+(?:HEIGHT\s+)?(\d+)\s")
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset({0x01, 0xFF, *range(0xD0, 0xD9)})


def size_of(head: bytes) -> tuple[int, int] | None:
    """(width, height) of a PNG, JPEG, BMP, TIFF, WebP, JPEG 2000 or PNM by its first bytes; None where it is another, or does not say."""
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return _pair(">II", head, 16)
        if head.startswith(b"\xff\xd8"):
            return _of_jpeg(head)
        if head.startswith(b"BM"):
            width, height = _pair("<ii", head, 18)
            return abs(width), abs(height)  # a negative height is one from the top
        if head[:4] in (b"II*\0", b"MM\0*"):
            return _of_tiff(head)
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            return _of_webp(head)
        if head[4:8] == b"jP  ":
            at = head.find(b"ihdr")
            return _pair(">II", head, at + 4)[::-1] if at > 0 else None
        if (found := _PNM.match(head)) is not None:
            return int(found[1]), int(found[2])
    except struct.error:
        pass
    return None


def _pair(form: str, head: bytes, at: int) -> tuple[int, int]:
    first, second = struct.unpack_from(form, head, at)
    return first, second


def _of_jpeg(head: bytes) -> tuple[int, int] | None:
    """ITU-T T.81, B.2.2."""
    at = 2
    while (at := head.find(b"\xff", at)) >= 0:
        marker = head[at + 1] if at + 1 < len(head) else 0
        if marker in _BARE or marker == 0:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _SOF:
            return _pair(">HH", head, at + 5)[::-1]
        at += 2 + int(struct.unpack_from(">H", head, at + 2)[0])
    return None


def _of_tiff(head: bytes) -> tuple[int, int] | None:
    """TIFF 6.0: the tags 256 and 257 of the first directory."""
    order = "<" if head[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", head, 4)
    (entries,) = struct.unpack_from(f"{order}H", head, at)
    found = {}
    for i in range(entries):
        tag, kind = struct.unpack_from(f"{order}HH", head, at + 2 + 12 * i)
        if tag in (256, 257):
            (found[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", head, at + 10 + 12 * i)
    return (found[256], found[257]) if len(found) == 2 else None


def _of_webp(head: bytes) -> tuple[int, int] | None:
    """RFC 9649, sections 2.5 to 2.7."""
    match head[12:16]:
        case b"VP8 ":
            width, height = _pair("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", head, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    return None
