"""What all tables of the station and recipe files have in common: closed to unknown keys, and the kinds of values."""

from typing import Annotated

import msgspec
from msgspec import Meta

from edge_runtime.config.explain import ENDPOINT, HOST, NAME

_MOST = 1_000_000_000
"""Milliseconds, megabytes or scores: what is more is a slip, and too much for a clock."""
Positive = Annotated[float, Meta(gt=0, le=_MOST)]
NonNegative = Annotated[float, Meta(ge=0, le=_MOST)]
PositiveInt = Annotated[int, Meta(gt=0, le=_MOST)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Host = Annotated[str, Meta(pattern=HOST)]
Name = Annotated[str, Meta(pattern=NAME)]
Endpoint = Annotated[str, Meta(pattern=ENDPOINT)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common to all tables of the two files."""
