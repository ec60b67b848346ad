"""What a camera's bytes mean: the pixel formats of the GenICam Pixel Format Naming Convention (PFNC) -> images. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import SourceError
from edge_runtime.records import Image


@dataclass(frozen=True, slots=True)
class Format:
    """One pixel format."""

    name: str
    code: int
    """The 32-bit value of the PFNC, as every transport layer hands it out."""
    bits: int
    """Significant bits of a pixel (of a channel)."""
    packing: str = ""
    """"p": a stream of bits, lowest first; "Packed": GigE Vision 1's, two pixels in three bytes; "": whole bytes."""
    bayer: str = ""
    """Colours of the first two rows, such as RGGB."""
    order: str = ""
    """Order of a colour format's channels: RGB or BGR."""


_PATTERNS = {"GR": "GRBG", "RG": "RGGB", "GB": "GBRG", "BG": "BGGR"}
_DEMOSAIC = {
    "RGGB": cv2.COLOR_BayerRGGB2BGR,
    "BGGR": cv2.COLOR_BayerBGGR2BGR,
    "GRBG": cv2.COLOR_BayerGRBG2BGR,
    "GBRG": cv2.COLOR_BayerGBRG2BGR,
}
_MONO = (
    ("8", 0x01080001, 8), ("10", 0x01100003, 10), ("12", 0x01100005, 12), ("16", 0x01100007, 16),
    ("10p", 0x010A0046, 10), ("12p", 0x010C0047, 12), ("10Packed", 0x010C0004, 10), ("12Packed", 0x010C0006, 12),
)  # fmt: skip
_BAYER = (  # codes in the order GR, RG, GB, BG
    ("8", (0x01080008, 0x01080009, 0x0108000A, 0x0108000B), 8),
    ("10", (0x0110000C, 0x0110000D, 0x0110000E, 0x0110000F), 10),
    ("12", (0x01100010, 0x01100011, 0x01100012, 0x01100013), 12),
    ("16", (0x0110002E, 0x0110002F, 0x01100030, 0x01100031), 16),
    ("10p", (0x010A0056, 0x010A0058, 0x010A0054, 0x010A0052), 10),
    ("12p", (0x010C0057, 0x010C0059, 0x010C0055, 0x010C0053), 12),
    ("10Packed", (0x010C0026, 0x010C0027, 0x010C0028, 0x010C0029), 10),
    ("12Packed", (0x010C002A, 0x010C002B, 0x010C002C, 0x010C002D), 12),
)


def _packing(suffix: str) -> str:
    return suffix.lstrip("0123456789")


FORMATS = {
    f.name: f
    for f in (
        *(Format(f"Mono{suffix}", code, bits, _packing(suffix)) for suffix, code, bits in _MONO),
        *(
            Format(f"Bayer{colours}{suffix}", code, bits, _packing(suffix), _PATTERNS[colours])
            for suffix, codes, bits in _BAYER
            for colours, code in zip(_PATTERNS, codes, strict=True)
        ),
        Format("RGB8", 0x02180014, 8, order="RGB"),
        Format("BGR8", 0x02180015, 8, order="BGR"),
    )
}
"""By name, as `source.pixel_format` names them."""

_KNOWN = ", ".join(n for n in FORMATS if n.startswith(("Mono", "BayerRG", "RGB", "BGR"))) + " (and the other Bayer patterns)"
_BY_CODE = {f.code: f for f in FORMATS.values()}


def format_of(code: int) -> Format:
    """The format of a PFNC value. Raises SourceError for one that cannot be judged."""
    try:
        return _BY_CODE[code]
    except KeyError:
        raise SourceError(f"source.pixel_format: expected one of {_KNOWN}, the camera delivers format 0x{code:08X}") from None


def format_named(name: str) -> Format:
    """The format of a camera's own name for it, also of before the convention (RGB8Packed). Raises SourceError."""
    found = FORMATS.get(name) or FORMATS.get(name.removesuffix("Packed"))
    if found is None:
        raise SourceError(f"source.pixel_format: expected one of {_KNOWN}, the camera is set to {name}")
    return found


def name_of(code: int) -> str:
    """A pixel type's name, for messages."""
    return _BY_CODE[code].name if code in _BY_CODE else f"0x{code:08X}"


def to_image(data: npt.NDArray[np.uint8], fmt: Format, width: int, height: int, padding_x: int = 0, demosaic: bool = True) -> Image:
    """Bytes of one frame -> (H, W) or (H, W, 3) BGR, uint8, or uint16 with `fmt.bits` significant bits.

    Args:
        data: (n,) uint8, at least as many as the picture has.
        fmt: how they are laid out.
        width: columns.
        height: rows.
        padding_x: bytes after each row.
        demosaic: make colours of a Bayer mosaic; otherwise it is handed out as it is, (H, W).

    Raises:
        SourceError: fewer bytes than the picture needs.
    """
    channels = 3 if fmt.order else 1
    stored_bits = {"p": fmt.bits, "Packed": 12}.get(fmt.packing, 8 if fmt.bits == 8 else 16)
    if fmt.packing:
        needed = -(-width * height * stored_bits // 8)
    else:
        row = width * channels * stored_bits // 8 + padding_x
        needed = row * height - padding_x
    if data.size < needed:
        raise SourceError(f"expected {needed} bytes of a {width}x{height} {fmt.name} picture, the camera sent {data.size}")
    image: Image
    if fmt.packing:
        unpack = _bit_stream if fmt.packing == "p" else _gige_packed
        image = unpack(data[:needed], fmt.bits, width * height).reshape(height, width)
    else:
        if padding_x:
            padded = np.zeros(row * height, dtype=np.uint8)
            padded[:needed] = data[:needed]
            data = padded.reshape(height, row)[:, : row - padding_x].reshape(-1)
        pixels = data[: width * height * channels * stored_bits // 8]
        image = (pixels if stored_bits == 8 else pixels.view(np.dtype("<u2")).astype(np.uint16, copy=False)).reshape(
            (height, width, 3) if channels == 3 else (height, width)
        )
    if fmt.order == "RGB":
        return cast(Image, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if fmt.bayer and demosaic:
        return cast(Image, cv2.cvtColor(image, _DEMOSAIC[fmt.bayer]))
    return image


def _bit_stream(data: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.uint16]:
    """PFNC "p": pixel i is bits [i x bits, (i + 1) x bits) of the stream, lowest bit of each byte first."""
    per_group = 4 if bits == 10 else 2
    held = _columns(data, per_group * bits // 8, -(-count // per_group))
    halves: list[npt.NDArray[Any]] = []
    for i in range(per_group):
        byte, shift = divmod(i * bits, 8)
        low, high = held[byte], held[byte + 1]
        halves += [low if shift == 0 else (low >> shift) | (high << (8 - shift)), (high >> shift) & _over(bits)]
    return _joined(halves, count)


def _gige_packed(data: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.uint16]:
    """GigE Vision 1 "Packed": high bytes outside, the low bits of both pixels in the byte between them."""
    one, between, other = _columns(data, 3, -(-count // 2))
    low = bits - 8
    halves = [(one << low) | (between & _over(bits)), one >> (8 - low), (other << low) | ((between >> 4) & _over(bits)), other >> (8 - low)]
    return _joined(halves, count)


def _over(bits: int) -> int:
    """The mask of what a pixel has beyond eight bits."""
    return (1 << (bits - 8)) - 1


def _columns(data: npt.NDArray[np.uint8], group_bytes: int, groups: int) -> list[npt.NDArray[np.uint8]]:
    """The first bytes of all groups, the second ones, and so on: eight bits at a time is quick, and OpenCV parts and joins them quickly."""
    missing = groups * group_bytes - data.size
    if missing > 0:
        data = np.concatenate((data, np.zeros(missing, np.uint8)))
    return cast(list[npt.NDArray[np.uint8]], list(cv2.split(data.reshape(1, groups, group_bytes))))


def _joined(halves: Sequence[npt.NDArray[Any]], count: int) -> npt.NDArray[np.uint16]:
    """From the low and the high byte of each pixel of a group, all uint8."""
    joined = cast(npt.NDArray[np.uint8], cv2.merge(list(halves)))
    return joined.reshape(-1).view("<u2").astype(np.uint16, copy=False)[:count]
