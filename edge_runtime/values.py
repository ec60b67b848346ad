"""What all tables of the station and recipe files have in common: closed to unknown keys, and the kinds of values."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

MOST = 1_000_000_000
"""Milliseconds, megabytes or scores: what is more is a slip, and too much for a clock."""
MOST_PX = 1 << 28
"""Pixels of a frame, and of all pictures that one becomes: beyond any camera, and less than a PC's memory."""
MOST_SIDE = 1 << 20
"""Pixels of a frame's edge, likewise."""
PORT_PATTERN = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_LABEL = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}"
HOST_PATTERN = rf"{_LABEL}(\.{_LABEL})*\.?"

Positive = Annotated[float, Meta(gt=0, le=MOST)]
NonNegative = Annotated[float, Meta(ge=0, le=MOST)]
PositiveInt = Annotated[int, Meta(gt=0, le=MOST)]
Side = Annotated[int, Meta(ge=1, le=MOST_SIDE)]
Region = Annotated[list[Annotated[int, Meta(ge=0, le=MOST_SIDE)]], Meta(min_length=4, max_length=4)]
Port = Annotated[int, Meta(ge=1, le=65535)]
# A pattern's description is what a user is told to have been expected: "expected a host such as …".
Host = Annotated[
    str, Meta(pattern=rf"^({HOST_PATTERN}|[0-9A-Fa-f.]*:[0-9A-Za-z:.%]*)$", description='a host such as "192.168.0.10" or "plc-3.line"')
]
Name = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="a name of letters, digits, '.', '_' and '-' (64 at most)")
]
Endpoint = Annotated[
    str,
    Meta(
        pattern=rf"^((ipc|inproc)://.+|tcp://.+:{PORT_PATTERN})$",
        description='an endpoint such as "tcp://127.0.0.1:5560" (a port is 1 to 65535)',
    ),
]


def check_region(roi: Sequence[int] | None) -> None:
    """Raise ValueError, which msgspec reports with the table's path, for a `roi` ([x, y, width, height]) that lies in no camera's frame."""
    if roi is None:
        return
    x, y, width, height = roi
    if width < 1 or height < 1:
        raise ValueError(f"roi: expected a width and a height of at least 1, found {list(roi)}")
    if (x + width) * (y + height) > MOST_PX:
        reach = f"found {list(roi)}, which reaches to {x + width}x{y + height}"
        raise ValueError(f"roi: expected a region in a frame of at most {MOST_PX:,} pixels, more than any camera has, {reach}")


def check_size(width: int, height: int) -> None:
    """Raise ValueError, as `check_region`, for a frame that no camera has."""
    if width * height > MOST_PX:
        raise ValueError(f"width: expected at most {MOST_PX:,} pixels in all, more than any camera has, found {width}x{height}")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common to all tables of the two files."""
