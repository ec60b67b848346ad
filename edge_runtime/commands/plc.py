"""Live tags for whoever stands before the PLC: read beside a running station, written by hand while none runs, recorded to a file."""

import contextlib
import csv
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from edge_runtime.commands.plc_map import TO_PLC, TO_STATION
from edge_runtime.config.files import PlcTrigger, StationConfig, endpoints_of, load_station
from edge_runtime.errors import ConfigError, LinesideError, MissingExtra, SinkError, TriggerError
from edge_runtime.plc.kinds import KINDS, open_port
from edge_runtime.plc.port import PlcLost, TagPort
from edge_runtime.plc.signals import INPUTS, OUTPUTS, tags_of
from edge_runtime.plc.tags import FLOAT_MAX, RANGES, Tag, Value, named

_RETRY_S = 1.0
_DRAWINGS_PER_S = 10
_WIDE = 100
"""Characters: a narrower terminal shows no type and no direction, so that each value has its room."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a look at the PLC brought."""

    wall_time: datetime
    at_s: float
    """Since the beginning."""
    values: Mapping[str, Value]
    """What is new; all of them at first."""
    problem: str | None = None
    """The PLC is lost: a sentence."""


class PlcWatcher:
    """Reads all tags of a station file, over and over. It writes nothing, so it may run beside the station."""

    def __init__(self, settings: PlcTrigger) -> None:
        """Raises ConfigError, MissingExtra."""
        inputs, outputs = tags_of(settings)
        self.tags = [*inputs, *outputs]
        open_port(settings, self.tags)  # for what it refuses: outputs that share a place
        # Opened as if all were inputs: connecting would otherwise write outputs back as they were read, under a station that runs.
        self._port = open_port(settings, [replace(t, writable=False) for t in self.tags])
        self._names = [t.name for t in self.tags]
        self._poll_s = settings.poll_ms / 1e3

    @property
    def where(self) -> str:
        """The PLC, for messages."""
        return self._port.where

    def __enter__(self) -> Self:
        """Connects. Raises TriggerError, TagError, ConfigError."""
        connect(self._port)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._port.close()

    def changes(self, seconds: float | None = None) -> Iterator[Change]:
        """All values, then what changes, for so long; one without values when a tenth of a second passed without any."""
        began = time.monotonic()
        values: dict[str, Value] = {}
        told_at = 0.0
        while True:
            try:
                for snapshot in [self._port.read(self._names)] if not values else self._port.poll(self._names) or [{}]:
                    at_s = time.monotonic() - began
                    new = {n: v for n, v in snapshot.items() if n not in values or values[n] != v}
                    if new or at_s - told_at >= 1 / _DRAWINGS_PER_S:
                        values |= new
                        told_at = at_s
                        yield Change(datetime.now().astimezone(), at_s, new)
            except PlcLost as e:
                yield Change(datetime.now().astimezone(), time.monotonic() - began, {}, f"{self.where}: {e}; reconnecting")
                values = {}
                self._reconnect(None if seconds is None else began + seconds)
            if seconds is not None and time.monotonic() - began >= seconds:
                return
            time.sleep(self._poll_s)

    def _reconnect(self, until: float | None) -> None:
        while until is None or time.monotonic() < until:
            time.sleep(_RETRY_S if until is None else min(_RETRY_S, max(until - time.monotonic(), 0)))
            with contextlib.suppress(PlcLost):
                self._port.connect(lambda: None)
                return


def connect(port: TagPort) -> None:
    """Raises TriggerError where the line raises it, too."""
    try:
        port.connect(lambda: None)
    except PlcLost as e:
        port.close()
        raise TriggerError(f"{port.where}: {e}. Check [trigger] and whether the PLC is on and reachable") from e
    except LinesideError:
        port.close()
        raise


def plc_of(station: Path) -> tuple[StationConfig, PlcTrigger]:
    """A station file whose trigger is a PLC. Raises ConfigError."""
    config = load_station(station)
    if not isinstance(config.trigger, PlcTrigger):
        kind = config.trigger.__struct_config__.tag
        raise ConfigError(f'{station}: trigger.kind: expected a PLC ({", ".join(KINDS)}), found "{kind}"')
    return config, config.trigger


def check_addresses(settings: PlcTrigger) -> None:
    """Raises ConfigError for what no PLC of that kind has, without asking one."""
    with contextlib.suppress(MissingExtra):  # a map can be printed where the station itself cannot run
        open_port(settings, [t for tags in tags_of(settings) for t in tags])


def parse_settings(settings: PlcTrigger, wanted: Sequence[str]) -> dict[str, Value]:
    """`ready=1` and the like as values of outputs. Raises ConfigError for what is no output, not mapped, or no value of its type."""
    outputs = {t.name: t for t in tags_of(settings)[1]}
    values: dict[str, Value] = {}
    for text in wanted:
        name, _, value = text.partition("=")
        if not _:
            raise ConfigError(f"--set {text}: expected SIGNAL=VALUE, such as ready=1")
        if name in INPUTS:
            raise ConfigError(f"--set {text}: {name} is the PLC's to write; expected an output of the station: {', '.join(outputs)}")
        if name not in outputs:
            why = "which is not mapped in [trigger.outputs]" if name in OUTPUTS else "which is no signal"
            raise ConfigError(f"--set {text}: expected one of {', '.join(outputs)}, found {name}, {why}")
        values[name] = _value(outputs[name], value, text)
    return values


def write_by_hand(config: StationConfig, settings: PlcTrigger, values: Mapping[str, Value]) -> None:
    """Write outputs once. Raises SinkError when the station runs (its sockets are taken), TriggerError, TagError."""
    from edge_runtime.sockets import bindable

    try:
        bindable(endpoints_of(config))
    except SinkError as e:
        raise SinkError(f"nothing was set, since the station writes these itself while it runs: {e}") from e
    inputs, outputs = tags_of(settings)
    port = open_port(settings, [*inputs, *outputs])
    connect(port)
    try:
        port.write(values)
    except PlcLost as e:
        raise TriggerError(f"{port.where}: {e}; whether {named(values)} was set is not known") from e
    finally:
        port.close()


class Trace:
    """A CSV of every change, a row a signal, in full as it comes."""

    def __init__(self, path: Path) -> None:
        """Raises SinkError."""
        try:
            self._file = path.open("w", newline="", encoding="utf-8")
        except OSError as e:
            raise SinkError(f"--trace {path}: expected a file that can be written: {e.strerror}") from e
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(("time", "seconds", "signal", "value"))

    def close(self) -> None:
        self._file.close()

    def add(self, change: Change) -> None:
        when = (change.wall_time.isoformat(timespec="milliseconds"), f"{change.at_s:.4f}")
        self._rows.writerows((*when, name, _plain(value)) for name, value in change.values.items())
        if change.problem is not None:
            self._rows.writerow((*when, "(connection)", change.problem))
        self._file.flush()


def json_of(change: Change) -> str:
    """One object on one line."""
    record: dict[str, Any] = {"time": change.wall_time.isoformat(timespec="milliseconds"), "values": dict(change.values)}
    return json.dumps(record | ({"problem": change.problem} if change.problem is not None else {}))


def line_of(change: Change) -> str:
    """For pipes and log files."""
    return f"{change.wall_time:%H:%M:%S.%f}"[:-3] + f"  {change.problem or named(change.values)}"


class Screen:
    """A table that stays in its place: signal, direction, address, type, value, and how long ago it changed."""

    def __init__(self, monitor: PlcWatcher) -> None:
        from rich import get_console
        from rich.live import Live

        self._tags, self._where = monitor.tags, monitor.where
        self._values: dict[str, Value] = {}
        self._changed: dict[str, float] = {}
        self._problem: str | None = None
        self._drawn = -1.0
        self._console = get_console()
        self._live = Live(self._table(0.0), console=self._console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._live.__exit__(exc_type, exc, tb)

    def add(self, change: Change) -> None:
        """Drawn some times a second at most."""
        for name, value in change.values.items():
            if name in self._values and self._values[name] != value:
                self._changed[name] = change.at_s
            self._values[name] = value
        self._problem = change.problem
        if change.at_s - self._drawn >= 1 / _DRAWINGS_PER_S or change.problem is not None:
            self._drawn = change.at_s
            self._live.update(self._table(change.at_s), refresh=True)

    def _table(self, at_s: float) -> Any:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE, title=self._problem or self._where, title_style="bold red" if self._problem else "bold")
        narrow = self._console.width < _WIDE
        for column in (
            ("signal", "address", "value", "changed") if narrow else ("signal", "direction", "address", "type", "value", "changed")
        ):
            free = column in ("address", "value")  # rather folded than cut
            justify: Literal["left", "right"] = "right" if column in ("value", "changed") else "left"
            table.add_column(column, justify=justify, no_wrap=not free, overflow="fold", min_width=8 if free else None)
        for tag in self._tags:
            value, changed = self._values.get(tag.name), self._changed.get(tag.name)
            ago = "" if changed is None else f"{at_s - changed:.1f} s ago"
            style = "bold green" if value is True else "bold" if changed is not None and at_s - changed < 1 else ""
            said = "" if value is None else str(_plain(value))
            way = TO_PLC if tag.writable else TO_STATION
            table.add_row(
                *((tag.name, tag.address, said, ago) if narrow else (tag.name, way, tag.address, tag.type, said, ago)), style=style
            )
        return table


def watch(monitor: PlcWatcher, show: Callable[[Change], None], seconds: float | None, trace: Path | None) -> None:
    """Show the PLC's signals until Ctrl-C, or for so long; `show` also gets changes without values, so that it can tell how time passes."""
    with contextlib.ExitStack() as stack:
        file = None if trace is None else stack.enter_context(contextlib.closing(Trace(trace)))
        with contextlib.suppress(KeyboardInterrupt):
            for change in monitor.changes(seconds):
                if file is not None and (change.values or change.problem):
                    file.add(change)
                show(change)


def _plain(value: Value) -> int | float | str:
    return int(value) if isinstance(value, bool) else value


def _value(tag: Tag, text: str, whole: str) -> Value:
    if tag.type == "text":
        if len(text) > tag.length or not text.isascii():
            raise ConfigError(f"--set {whole}: expected at most {tag.length} ASCII characters")
        return text
    if tag.type == "bool":
        bits = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
        if text.lower() not in bits:
            raise ConfigError(f'--set {whole}: expected 0 or 1, found "{text}"')
        return bits[text.lower()]
    try:
        number = float(text)
        if tag.type in RANGES and tag.scale == 1.0 and math.isfinite(number) and not number.is_integer():
            raise ConfigError(f"--set {whole}: expected a whole number, found {text}")
        low, high = RANGES.get(tag.type, (-FLOAT_MAX, FLOAT_MAX))
        if not low <= round(number * tag.scale) <= high:
            raise ConfigError(f"--set {whole}: expected {low / tag.scale:.10g} to {high / tag.scale:.10g}, found {text}")
    except (ValueError, OverflowError):
        raise ConfigError(f'--set {whole}: expected a number, found "{text}"') from None
    return int(number) if number.is_integer() else number
