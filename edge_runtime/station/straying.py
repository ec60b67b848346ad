"""When a median of recent parts counts as straying: common to light, blur, noise and where parts lie."""

import math

WINDOW = 50
"""Parts whose median counts."""
LEAST = 15
"""Parts before anything is said."""
_WARN, _CALM = 0.7, 0.6
"""Shares of the way to the limit: where a warning begins, and where it ends."""
_NEARER = 0.9
"""A limit that was passed counts as passed until so much of the way is left again."""
_SURE = 4.0
"""A median must differ from what was taught by so many of its standard errors: parts differ among themselves."""


def surely(spread: float, n: int) -> float:
    """By how much a median of `n` parts must differ from what was taught before it means anything; parts differ by `spread` (standard
    deviation)."""
    return _SURE * math.sqrt(math.pi / 2 / n) * spread  # a median's standard error, of normal values


def level_of(before: int, gone: float, sure: bool) -> int:
    """0 as taught, 1 on the way to the limit, 2 beyond it.

    Args:
        before: what it was.
        gone: the share of the way to the limit.
        sure: whether the median differs at all.
    """
    if gone >= (_NEARER if before == 2 else 1):
        return 2 if before == 2 or sure else 0
    if gone >= (_CALM if before else _WARN):
        return 1 if before or sure else 0
    return 0


def broken(breaks: str) -> str:
    """What becomes of the verdicts, for people."""
    return {"rejects": "good parts are rejected", "misses": "bad parts are missed"}.get(
        breaks, "good parts are rejected and bad ones missed"
    )
