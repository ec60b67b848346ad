"""What a picture file's compression has taken away, read off its first bytes. Pure."""

import functools
import struct

import numpy as np
import numpy.typing as npt

_LUMA = np.array(
    [
        16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61, 60, 57, 51, 56,
        55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87, 95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103,
        99,
    ],
    np.int64,
)  # fmt: skip
"""ITU-T T.81, table K.1, in zigzag order: what libjpeg scales by its quality."""
_DQT, _SOS = 0xDB, 0xDA
_BARE = frozenset({0x01, 0xFF, *range(0xD0, 0xD9)})


def loss_of(head: bytes) -> int | None:
    """The quality of a JPEG, 1 to 100; 0 for another format that loses something; None where nothing is lost, or it is not known.

    `head`: as much of a file as `edge_runtime.images.size.HEAD`. A WebP may be either; a JPEG 2000 counts as one that loses, since a
    reversible one is cut short all the same (OpenCV's is). The quality is that of libjpeg whose luma table is nearest; other programs have
    tables of their own, so it is about that.
    """
    try:
        if head.startswith(b"\xff\xd8"):
            return _quality(_luma_table(head))
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            return 0 if head[12:16] == b"VP8 " or (head[12:16] == b"VP8X" and b"VP8 " in head[30:]) else None
        if head[4:8] == b"jP  ":
            return 0
    except (struct.error, IndexError):
        pass
    return None


def _luma_table(head: bytes) -> tuple[int, ...]:
    """The first quantization table, in zigzag order; empty where there is none."""
    at = 2
    while (at := head.find(b"\xff", at)) >= 0:
        marker = head[at + 1]
        if marker in _BARE or marker == 0:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == _DQT:
            return struct.unpack_from(">64H" if head[at + 4] >> 4 else ">64B", head, at + 5)
        if marker == _SOS:
            break
        at += 2 + int(struct.unpack_from(">H", head, at + 2)[0])
    return ()


@functools.lru_cache(64)
def _quality(table: tuple[int, ...]) -> int:
    if not table:
        return 0
    found = np.array(table, np.int64)
    return int(np.argmin([np.abs(found - _scaled(q)).sum() for q in range(1, 101)])) + 1


def _scaled(quality: int) -> npt.NDArray[np.int64]:
    share = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((_LUMA * share + 50) // 100, 1, 255)
