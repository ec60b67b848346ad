"""What all tables of the station and recipe files have in common: closed to unknown keys, and the kinds of values."""

from typing import Annotated

import msgspec
from msgspec import Meta

from edge_runtime.explain import ENDPOINT, NAME

Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
PositiveInt = Annotated[int, Meta(gt=0)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Name = Annotated[str, Meta(pattern=NAME)]
Endpoint = Annotated[str, Meta(pattern=ENDPOINT)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common to all tables of the two files."""
