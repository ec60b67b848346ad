"""JPEG data that decodes and is torn inside: what libjpeg warns of, which OpenCV does not pass on."""

import re

import cv2
import numpy as np

from edge_runtime.images.decoder_output import decoder_messages

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
FILLED_UP = 16
"""Bytes that are left over before a marker, below which they may be what a camera fills up with."""
_WARNING = re.compile(r"^(?:Corrupt JPEG data: (.*)|(Premature end of JPEG file)|(Inconsistent progression.*))$", re.MULTILINE)
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker (0x[0-9a-f]+)")
_END = "0xd9"


def warning_in(said: str) -> str:
    """What libjpeg warned of in all that was said while one file was decoded; empty for nothing."""
    return next((a or b or c for a, b, c in _WARNING.findall(said)), "")


def left_over(warning: str) -> bool:
    """Whether it is only of few bytes too many."""
    return (found := _LEFT_OVER.match(warning)) is not None and int(found[1]) < FILLED_UP


def says_torn(warning: str) -> str:
    """For people, without the file's name."""
    return f"is damaged: a part of its data is missing or wrong ({warning}); copy it again"


def torn_inside(raw: bytes) -> str | None:
    """What is wrong with one JPEG by itself, as `says_torn` has it; None for sound ones, for other formats, and where it cannot be heard.

    Few bytes before the end marker are taken for what a camera fills up with, since one file cannot tell: the picture is whole. Teaching
    sees all files and knows better (training/data/torn.py).
    """
    if not raw.startswith(b"\xff\xd8"):
        return None
    with decoder_messages() as said:  # at an eighth of the size every code is read
        cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_IGNORE_ORIENTATION)
    warning = warning_in("".join(said))
    if not warning or (left_over(warning) and warning.endswith(_END)):
        return None
    return says_torn(warning)
