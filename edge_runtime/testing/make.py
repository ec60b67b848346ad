"""A part as a station makes it: out of a table of a station file, by its kind."""

from pathlib import Path
from typing import Any

from edge_runtime.config.files import StationConfig, settings_of
from edge_runtime.protocols import Sink, Source, TriggerLine
from edge_runtime.sinks import open_sink
from edge_runtime.sources import open_source
from edge_runtime.testing.triggers import FIRST_SEQ
from edge_runtime.triggers import open_trigger


def make_source(**table: Any) -> Source:
    """The source of a [source] table, not entered yet. Raises ConfigError as a station would."""
    return open_source(_station(source=table).cameras[0].source)


def make_trigger(**table: Any) -> TriggerLine:
    """The line of a [trigger] table, whose triggers count from FIRST_SEQ; not entered yet. Raises ConfigError as a station would."""
    return open_trigger(_station(trigger=table).trigger, FIRST_SEQ)


def make_sink(**table: Any) -> Sink:
    """The sink of a [[sink]] block, not entered yet. Raises ConfigError as a station would."""
    return open_sink(_station(sink=[table]).sink[0])


def _station(**tables: Any) -> StationConfig:
    """A path may be a Path, or text as in a file: relative to the working folder."""
    plain: dict[str, Any] = {"name": "test", "recipe": "recipe.toml", "source": {"kind": "synthetic"}, "trigger": {"kind": "timer"}}
    return settings_of({**plain, **_as_parsed(tables)}, Path("station.toml"), StationConfig)


def _as_parsed(value: Any) -> Any:
    match value:
        case Path():
            return str(value)
        case dict():
            return {key: _as_parsed(v) for key, v in value.items()}
        case list() | tuple():
            return [_as_parsed(v) for v in value]
    return value
