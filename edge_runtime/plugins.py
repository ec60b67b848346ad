"""What installed packages add: a source, trigger, sink or method, found by the kind that a file names and by nothing else.

A package declares it as an entry point of the group `lineside.sources`, `.triggers`, `.sinks` or `.methods`. While all kinds are Lineside's
own, the list of what is installed is not even read; of that list, only what is named is imported. Why: deploy/decisions/0041.
"""

import contextlib
import inspect
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import msgspec
from msgspec import inspect as types

from edge_runtime.errors import ConfigError, LinesideError
from edge_runtime.protocols import Sink, Source, TriggerLine

if TYPE_CHECKING:
    from importlib import metadata  # a station without plug-ins does not load it

_BASES: Mapping[str, type[Source | TriggerLine | Sink]] = {"sources": Source, "triggers": TriggerLine, "sinks": Sink}


@dataclass(frozen=True, slots=True)
class Plugin:
    """An entry point; nothing of it is imported yet."""

    group: str
    """"sources", "triggers", "sinks" or "methods"."""
    kind: str
    """What a file calls it."""
    distribution: str
    """Name and version of the installed package, as pip has them."""
    entry: "metadata.EntryPoint"

    def __str__(self) -> str:
        """As a user is told of it: `source "mirror" of lineside-mirror 0.1.0 (lineside_mirror:Mirror)`."""
        return f'{self.group.removesuffix("s")} "{self.kind}" of {self.distribution} ({self.entry.value})'

    def load(self) -> object:
        """Import what it points to. Raises ConfigError."""
        try:
            return self.entry.load()
        except (Exception, SystemExit) as e:
            raise ConfigError(
                f"{self}: expected something that can be imported, found {_said(e)}. Install what it needs, or another version of it"
            ) from e


def offered(group: str) -> list[Plugin]:
    """What is installed, by kind. Reads the packages' lists, imports nothing."""
    from importlib import metadata

    found = metadata.entry_points(group=f"lineside.{group}")
    return sorted((Plugin(group, e.name, _distribution(e), e) for e in found), key=lambda p: (p.kind, p.distribution))


def find(group: str, kind: str, own: Collection[str]) -> Plugin | None:
    """The one that is called `kind`, which is none of Lineside's `own`; None when no package brings it.

    Raises ConfigError where it, or one of Lineside's own, is offered twice.
    """
    found = offered(group)
    if clash := next((c for c in clashes(found, own) if c.kind == kind or c.kind in own), None):
        raise ConfigError(clash.sentence)
    return next((plugin for plugin in found if plugin.kind == kind), None)


@dataclass(frozen=True, slots=True)
class Clash:
    """A kind that two bring."""

    kind: str
    sentence: str


def clashes(found: Collection[Plugin], own: Collection[str]) -> list[Clash]:
    """Kinds that two packages offer, or a package and Lineside itself: which one was meant, nobody can tell."""
    first: dict[str, str] = {kind: f'"{kind}" of Lineside itself' for kind in own}
    return [
        Clash(plugin.kind, f"{plugin}: expected a kind that nobody else has, found {other}; uninstall one of them")
        for plugin in found
        if (other := first.setdefault(plugin.kind, str(plugin))) != str(plugin)
    ]


class PluginSettings(msgspec.Struct, frozen=True):
    """A table of a station file whose kind is a plug-in's: an instance of its author's own struct, too."""

    plugin: ClassVar[Plugin]
    part: ClassVar[type[Any]]
    """Its class: a Source, TriggerLine or Sink."""


def settings_of(plugin: Plugin) -> type[PluginSettings]:
    """Its author's struct, told apart by `kind` and closed to unknown keys. Imports the plug-in.

    Raises ConfigError for one that cannot be imported, derives from no base class of its group, or whose struct no file could fill.
    """
    part, base = plugin.load(), _BASES[plugin.group]
    if not (isinstance(part, type) and issubclass(part, base)):
        raise ConfigError(f"{plugin}: expected a class that derives from edge_runtime.protocols.{base.__name__}, found {part!r}")
    if inspect.isabstract(part):
        raise ConfigError(f"{plugin}: expected a class with a method {' and '.join(sorted(part.__abstractmethods__))}, found none")
    struct = part.settings_type
    if not (isinstance(struct, type) and issubclass(struct, msgspec.Struct)):
        raise ConfigError(f"{plugin}: expected settings_type to be a msgspec.Struct, found {struct!r}")
    try:
        settings = msgspec.defstruct(
            struct.__name__, [], bases=(struct, PluginSettings), namespace={"__doc__": struct.__doc__, "plugin": plugin, "part": part},
            tag_field="kind", tag=plugin.kind, forbid_unknown_fields=True, frozen=True,
        )  # fmt: skip
        wrong = next(_not_for_a_file(types.type_info(settings), "", set()), None)
    except Exception as e:  # whatever its author wrote there: a field called kind, a type that is not defined
        raise ConfigError(f"{plugin}: expected {struct.__name__} to be fit for a table of a file, found {_said(e)}") from e
    if wrong is not None:
        raise ConfigError(f"{plugin}: {struct.__name__}{wrong}")
    return cast("type[PluginSettings]", settings)


def made(settings: PluginSettings, *more: object) -> Any:
    """The plug-in's Source, TriggerLine or Sink with these settings. Raises ConfigError for whatever its constructor raises."""
    with blaming(settings, ConfigError):
        part = settings.part(settings, *more)
    if not isinstance(part, base := _BASES[settings.plugin.group]):
        raise ConfigError(f"{settings.plugin}: expected to make a {base.__name__}, found {part!r}")
    return part


@contextlib.contextmanager
def blaming(settings: object, error: type[LinesideError]) -> Iterator[None]:
    """An exception inside that is none of Lineside's becomes an `error` that names the package, where `settings` are a plug-in's."""
    try:
        yield
    except LinesideError:
        raise
    except Exception as e:
        if not isinstance(settings, PluginSettings):
            raise
        raise error(f"{settings.plugin}: {_said(e)}") from e


def _not_for_a_file(kind: types.Type, where: str, seen: set[type]) -> Iterator[str]:
    """Where in a struct a file's unknown key would be passed over, or stands what TOML cannot hold: `.lamp: expected …`."""
    match kind:
        case types.StructType():
            if kind.cls in seen:
                return
            seen.add(kind.cls)
            if not kind.forbid_unknown_fields:
                yield f"{where}: expected {kind.cls.__name__} to refuse unknown keys, found forbid_unknown_fields=False"
            for field in kind.fields:
                yield from _not_for_a_file(field.type, f"{where}.{field.encode_name}", seen)
        case types.DataclassType() | types.TypedDictType() | types.NamedTupleType():
            yield f"{where}: expected a msgspec.Struct with forbid_unknown_fields=True, found {kind.cls.__name__}"
        case types.CustomType():
            if kind.cls is not Path:
                yield f"{where}: expected a type that a file can hold, found {kind.cls.__name__}"
        case types.UnionType():
            for one in kind.types:
                yield from _not_for_a_file(one, where, seen)
        case types.CollectionType():
            yield from _not_for_a_file(kind.item_type, where, seen)
        case types.TupleType():
            for one in kind.item_types:
                yield from _not_for_a_file(one, where, seen)
        case types.DictType():
            yield from _not_for_a_file(kind.value_type, where, seen)
        case types.Metadata():
            yield from _not_for_a_file(kind.type, where, seen)


def _distribution(entry: "metadata.EntryPoint") -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "a package without a name"


def _said(e: BaseException) -> str:
    return f"{type(e).__name__}: {e}".removesuffix(": ")
