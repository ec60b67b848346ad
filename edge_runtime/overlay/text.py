"""Lettering: OpenCV 5's TrueType faces, or the old stroke letters where cv2.FontFace does not exist; measured, elided, wrapped."""

import unicodedata
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

Canvas = npt.NDArray[np.uint8]
Color = tuple[int, int, int]
"""BGR."""

CAP_HEIGHT = 0.71
"""Height of capitals as a share of the size, in both faces: to centre a word by eye."""
REGULAR, MEDIUM, BOLD = 400, 500, 700

_HERSHEY_CAP_PX = 21.0
_PLAIN = str.maketrans({"×": "x", "–": "-", "—": "-", "…": "...", "“": '"', "”": '"', "‘": "'", "’": "'", "≤": "<=", "µ": "u", "·": "|"})


@lru_cache(maxsize=1)
def _face() -> "cv2.FontFace | None":
    return cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None


def _stroke(size: float, weight: int) -> tuple[float, int]:
    """Scale and thickness of the stroke letters."""
    scale = size * CAP_HEIGHT / _HERSHEY_CAP_PX
    return scale, max(round(scale * (3 if weight >= BOLD else 2)), 1)


def ascii_of(text: str) -> str:
    """For the stroke letters, which know no others: "Größe 1.5 ×" -> "Grosse 1.5 x"."""
    plain = unicodedata.normalize("NFKD", text.translate(_PLAIN).replace("ß", "ss"))
    return "".join(c if " " <= c <= "~" else "?" for c in plain if not unicodedata.combining(c))


@lru_cache(maxsize=4096)
def width_of(text: str, size: int, weight: int = REGULAR) -> int:
    """Pixels from the first letter's origin to the end."""
    if not text:
        return 0
    face = _face()
    if face is None:
        scale, thickness = _stroke(size, weight)
        return int(cv2.getTextSize(ascii_of(text), cv2.FONT_HERSHEY_DUPLEX, scale, thickness)[0][0])
    x, _, w, _ = cv2.getTextSize((0, 0), text, (0, 0), face, size, weight)
    return int(x + w)


def draw(canvas: Canvas, text: str, at: tuple[int, int], size: int, color: Color, weight: int = REGULAR) -> None:
    """`at`: left end of the baseline. `size`: of the letters' body, pixels."""
    if not text:
        return
    face = _face()
    if face is None:
        scale, thickness = _stroke(size, weight)
        cv2.putText(canvas, ascii_of(text), at, cv2.FONT_HERSHEY_DUPLEX, scale, color, thickness, cv2.LINE_AA)
    else:
        cv2.putText(canvas, text, at, color, face, size, weight)


def draw_right(canvas: Canvas, text: str, right: tuple[int, int], size: int, color: Color, weight: int = REGULAR) -> None:
    """`right`: right end of the baseline."""
    draw(canvas, text, (right[0] - width_of(text, size, weight), right[1]), size, color, weight)


def one_line(text: str) -> str:
    """Line breaks and control characters as spaces: what comes over the wire must not disturb the layout."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def elide(text: str, size: int, weight: int, max_width: int) -> str:
    """Cut to fit, with an ellipsis where something is missing."""
    text = one_line(text)
    if width_of(text, size, weight) <= max_width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if width_of(text[:middle].rstrip() + "…", size, weight) <= max_width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


def wrap(text: str, size: int, weight: int, max_width: int, max_lines: int) -> list[str]:
    """Lines that fit; what goes beyond the last one is elided."""
    lines: list[str] = []
    words = one_line(text).split(" ")
    while words and len(lines) < max_lines - 1:
        count = len(words)
        while count > 1 and width_of(" ".join(words[:count]), size, weight) > max_width:
            count -= 1
        lines.append(elide(" ".join(words[:count]), size, weight, max_width))
        words = words[count:]
    if words:
        lines.append(elide(" ".join(words), size, weight, max_width))
    return lines


def centred(canvas: Canvas, box: tuple[int, int, int, int], words: str, size: int, color: Color) -> None:
    """Up to four lines in the middle of `box` (x, y, width, height)."""
    x, y, w, h = box
    lines = wrap(words, size, MEDIUM, w, 4)
    leading = round(size * 1.35)
    baseline = y + h // 2 - (len(lines) - 1) * leading // 2 + round(size * CAP_HEIGHT / 2)
    for i, line in enumerate(lines):
        draw(canvas, line, (x + (w - width_of(line, size, MEDIUM)) // 2, baseline + i * leading), size, color, MEDIUM)


def fit(text: str, size: int, weight: int, max_width: int, least: float = 0.5) -> int:
    """The largest size up to `size` at which the text fits, not below that share of it."""
    wide = width_of(text, size, weight)
    return size if wide <= max_width else max(size * max_width // max(wide, 1), round(size * least), 1)
