"""The record to read a station file by: with the tables of the PLC and of the installed packages that the file names, and no others'."""

import functools
import operator
from collections.abc import Iterator
from typing import Any, TypeVar, cast

import msgspec

from edge_runtime import plugins
from edge_runtime.config.explain import show, structs_in
from edge_runtime.config.sources import Source
from edge_runtime.config.triggers import Trigger
from edge_runtime.errors import ConfigError
from edge_runtime.plc.kinds import KINDS, kind_named

_T = TypeVar("_T", bound=msgspec.Struct)
_Structs = list[type[plugins.PluginSettings]]
_Records = tuple[type[msgspec.Struct], ...]
OWN: dict[str, frozenset[str]] = {
    "sources": frozenset(str(s.__struct_config__.tag) for s in structs_in(Source)),
    "triggers": frozenset(str(s.__struct_config__.tag) for s in structs_in(Trigger)) | set(KINDS),
    "sinks": frozenset({"journal", "publisher", "archive", "preview"}),
}
"""Kinds of Lineside itself; its sinks have tables of their own."""


def widened(raw: dict[str, Any], station: type[_T], camera: type[msgspec.Struct]) -> tuple[type[_T], list[plugins.Plugin]]:
    """`station` with the kinds that this file names beside those that each station takes, and what installed packages bring of them.

    Args:
        raw: the station file as parsed.
        station: the record of the whole file.
        camera: that of a [[camera]] block.

    Raises ConfigError, beginning with the key, for a kind that nobody brings, and for a package that is broken.
    """
    found = [_structs(group, raw) for group in OWN]
    sources, triggers, sinks = map(tuple, found)
    return _with(station, camera, sources, (*_plc(raw), *triggers), sinks), [struct.plugin for structs in found for struct in structs]


def whole(station: type[_T], camera: type[msgspec.Struct]) -> type[_T]:
    """`station` with all that Lineside itself brings, for whoever describes it. Imports all of it."""
    return _with(station, camera, (), _all_plcs(), ())


def widest(station: type[_T], camera: type[msgspec.Struct]) -> tuple[type[_T], list[str]]:
    """`station` with the kinds of all packages that are installed here, and why some of them are not among these. Imports all of them."""
    found: list[_Structs] = []
    left_out: list[str] = []
    for group, own in OWN.items():
        offered = plugins.offered(group)
        clashes = plugins.clashes(offered, own)
        found.append([])
        for plugin in offered:
            if plugin.kind not in {c.kind for c in clashes}:
                try:
                    found[-1].append(plugins.settings_of(plugin))
                except ConfigError as e:
                    left_out.append(str(e))
        left_out += [c.sentence for c in clashes]
    sources, triggers, sinks = map(tuple, found)
    return _with(station, camera, sources, (*_all_plcs(), *triggers), sinks), left_out


def _plc(raw: dict[str, Any]) -> _Records:
    """The table of the PLC that the file names; of all, where its trigger has no kind: whoever wrote it is told then which there are."""
    kind = table.get("kind") if isinstance(table := raw.get("trigger"), dict) else None
    if not isinstance(kind, str):
        return _all_plcs()
    return (kind_named(kind).settings,) if kind in KINDS else ()


def _all_plcs() -> _Records:
    return tuple(kind_named(kind).settings for kind in KINDS)


@functools.cache
def _with(station: type[_T], camera: type[msgspec.Struct], sources: _Records, triggers: _Records, sinks: _Records) -> type[_T]:
    """`station`, which takes these kinds, too. The same each time, as settings are equal only where their records are."""
    fields: list[tuple[str, Any, Any] | tuple[str, Any]] = []
    if sources:
        source = _either(*structs_in(Source), *sources)
        block = msgspec.defstruct(camera.__name__, [("source", source)], bases=(camera,), kw_only=True)
        fields += [("source", source | None, None), ("camera", tuple[block, ...], ())]  # type: ignore[valid-type]
    if triggers:
        fields.append(("trigger", _either(*structs_in(Trigger), *triggers)))
    if sinks:
        fields.append(("sink", tuple[_either(*sinks), ...], ()))  # type: ignore[misc]
    if not fields:
        return station
    return cast("type[_T]", msgspec.defstruct(station.__name__, fields, bases=(station,), kw_only=True))


def _structs(group: str, raw: dict[str, Any]) -> _Structs:
    """The kinds in a table that are not Lineside's own, each once."""
    found: dict[str, type[plugins.PluginSettings]] = {}
    for where, table in _tables(group, raw):
        kind = table.get("kind")
        if not isinstance(kind, str):
            if group == "sinks":  # else it is the base record that says so
                raise ConfigError(f"{where}.kind: expected {_kinds(group)}, found {'none' if kind is None else show(kind)}")
        elif kind not in found and (kind not in OWN[group] or group == "sinks"):
            try:
                plugin = plugins.find(group, kind, OWN[group])
                if plugin is not None:
                    found[kind] = plugins.settings_of(plugin)
            except ConfigError as e:
                raise ConfigError(f"{where}.kind: {e}") from e
            if plugin is None:
                raise ConfigError(f"{where}.kind: expected {_kinds(group)}, found {show(kind)}")
    return list(found.values())


def _tables(group: str, raw: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where a kind of this group may stand in the file, and what stands there."""
    match group:
        case "sources":
            cameras = [(f"camera[{i}].source", block.get("source")) for i, block in _blocks(raw, "camera")]
            places = [("source", raw.get("source")), *cameras]
        case "triggers":
            places = [("trigger", raw.get("trigger"))]
        case _:
            places = [(f"sink[{i}]", block) for i, block in _blocks(raw, "sink")]
    return ((where, table) for where, table in places if isinstance(table, dict))


def _blocks(raw: dict[str, Any], key: str) -> list[tuple[int, dict[str, Any]]]:
    blocks = raw.get(key)
    return [(i, block) for i, block in enumerate(blocks) if isinstance(block, dict)] if isinstance(blocks, list) else []


def _kinds(group: str) -> str:
    """`one of "camera", "folder"; "mirror" of lineside-mirror 0.1.0`: all that may stand there on this machine."""
    installed = ", ".join(f'"{p.kind}" of {p.distribution}' for p in plugins.offered(group))
    if group == "sinks":
        return f"one of {installed}" if installed else "the kind of an installed package, of which there is none here"
    return f"one of {', '.join(map(show, sorted(OWN[group])))}{'; ' if installed else ''}{installed}"


def _either(*structs: type[msgspec.Struct]) -> Any:
    return functools.reduce(operator.or_, structs)
