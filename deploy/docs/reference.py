"""Pages of reference that are read off the running code: settings, exit codes, messages, command lines."""

import ast
import enum
import importlib
import inspect
import itertools
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import typer
from msgspec import inspect as shapes
from typer.models import ArgumentInfo, CommandInfo, OptionInfo

from edge_runtime import errors, wire
from edge_runtime.config.files import CameraConfig, Recipe, StationConfig
from edge_runtime.config.foreign import whole
from edge_runtime.config.schema import meanings
from edge_runtime.plc.settings import TagConfig
from edge_runtime.values import MOST, Settings

APPS = {"lineside": "edge_runtime.cli", "lineside-train": "training.commands.cli", "lineside-export": "export.cli"}
OTHERS = {"lineside-train compare": "export.choose.cli", "lineside-train release": "export.front"}
"""Verbs that another program is."""
TOPICS = {
    "decision": (wire.DecisionMessage, "PUB", "each decision, when it is told"),
    "health": (wire.HealthMessage, "PUB", "once a second"),
    "preview": (wire.Preview, "PUB of `[preview]`", "after a decision, may be dropped"),
    "(replay request)": (wire.ReplayRequest, "DEALER → ROUTER", "when the listener asks"),
    "(replay reply)": (wire.ReplayReply, "ROUTER → DEALER", "the answer"),
}
_TOML = {shapes.IntType: "whole number", shapes.FloatType: "number", shapes.StrType: "text", shapes.BoolType: "true or false"}
_MSGPACK = {
    shapes.IntType: "integer",
    shapes.FloatType: "float",
    shapes.StrType: "string",
    shapes.BoolType: "boolean",
    shapes.BytesType: "binary",
    shapes.NoneType: "nil",
}
_BOUNDS = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}
STATION = whole(StationConfig, CameraConfig)
"""With all kinds, where a station reads its own."""


def documented(module: Path) -> dict[str, str]:
    """The first paragraph that stands with each class, function and constant of a module, "" where none does."""
    said: dict[str, str] = {}
    body = ast.parse(module.read_text()).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            said[node.name] = ast.get_docstring(node) or ""
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            below = after.value if isinstance(after, ast.Expr) else None
            said[node.targets[0].id] = str(below.value) if isinstance(below, ast.Constant) else ""
    return {name: text.strip().split("\n\n")[0] for name, text in said.items()}


def cell(text: str) -> str:
    """As it may stand in a table of Markdown."""
    return " ".join(text.split()).replace("|", "\\|")


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(map(cell, row))} |".replace("|  |", "| |") for row in (head, *rows)).replace(
        "\n", f"\n|{'---|' * len(head)}\n", 1
    )


def _doc(thing: Any) -> str:
    """Less its examples, which are Python's."""
    return inspect.cleandoc(thing.__doc__ or "").split("\n\n>>> ")[0]


# --- settings ---------------------------------------------------------------------------------------------------------


def settings() -> str:
    """A table for each table of the two files."""
    return "\n\n".join([*_file("station", StationConfig, STATION), *_file("recipe", Recipe, Recipe)])


def _file(name: str, kind: type[msgspec.Struct], with_all: type[msgspec.Struct]) -> Iterator[str]:
    yield f"## The {name} file\n\n{_doc(kind)}\n\n{_keys(kind)}"
    shown: set[type] = set()
    for path, table in _tables(with_all, ""):
        for one in (*reversed(_bases(table)), table):
            if one not in shown:
                shown.add(one)
                yield _section(path, one)


def _section(path: str, table: type[msgspec.Struct]) -> str:
    bases = _bases(table)
    tag = table.__struct_config__.tag
    name = "A tag" if table is TagConfig else f"`[{path}]`" if tag is None else f'`[{path}]`, `kind = "{tag}"`'
    if tag is None and path in ("source", "trigger"):  # what several kinds are made from
        kinds = ", ".join(f"`{k.__struct_config__.tag}`" for k in _below(table))
        return f"### Common to {kinds}\n\n{_doc(table)}\n\n{_keys(table)}"
    kinds = "-".join(str(k.__struct_config__.tag) for base in bases for k in _below(base))
    more = f"\n\nBesides, the keys that it has [in common with others](#common-to-{kinds})." if bases else ""
    return f"### {name}\n\n{_doc(table)}\n\n{_keys(table)}{more}"


def _bases(table: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """The records that a table's keys come from, beside its own."""
    return [b for b in table.__mro__[1:] if issubclass(b, Settings) and b is not Settings]


def _below(base: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    return [k for _, k in _tables(STATION, "") if base in k.__mro__]


def _tables(kind: type[msgspec.Struct], path: str) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """(its path in the file, its record) of each table inside of one, in the order of the keys."""
    for field in _fields(kind):
        if field.name == "source" and path:
            continue  # of a [[camera]]: as the station's own
        for shape in _structs(field.type):
            where = f"{path}.{field.encode_name}" if path else field.encode_name
            yield where, shape.cls
            yield from _tables(shape.cls, where)


def _fields(kind: type) -> tuple[shapes.Field, ...]:
    shape = shapes.type_info(kind)
    assert isinstance(shape, shapes.StructType | shapes.DataclassType)
    return shape.fields


def _structs(shape: shapes.Type) -> Iterator[shapes.StructType]:
    for inner in _flat(shape):
        if isinstance(inner, shapes.StructType):
            yield inner
        elif isinstance(inner, shapes.ListType | shapes.VarTupleType):
            yield from _structs(inner.item_type)


def _flat(shape: shapes.Type) -> tuple[shapes.Type, ...]:
    return shape.types if isinstance(shape, shapes.UnionType) else (shape,)


def _keys(table: type[msgspec.Struct]) -> str:
    own = [f for f in _fields(table) if f.name in vars(table).get("__annotations__", {})]
    said = meanings(table)
    return _grid(("Key", "Type", "Default", "Meaning"), ((f"`{f.encode_name}`", _toml(f.type), _default(f), said[f.name]) for f in own))


def _toml(shape: shapes.Type) -> str:
    """A type in a person's words, with its bounds."""
    kinds = [t for t in _flat(shape) if not isinstance(t, shapes.NoneType)]
    if len(kinds) > 1 and all(isinstance(t, shapes.StructType) for t in kinds):
        return "table, by its `kind`"
    return " or ".join(map(_one, kinds))


def _one(shape: shapes.Type) -> str:
    if isinstance(shape, shapes.StructType):
        return "table"
    if isinstance(shape, shapes.EnumType):
        return ", ".join(f'`"{v}"`' for v in (m.value for m in shape.cls))
    if isinstance(shape, shapes.LiteralType):
        return ", ".join(f'`"{v}"`' for v in shape.values)
    if isinstance(shape, shapes.DictType):
        return f"table of {_toml(shape.value_type)}"
    if isinstance(shape, shapes.TupleType):
        return f"list of {len(shape.item_types)}: ({'), ('.join(map(_toml, shape.item_types))})"
    if isinstance(shape, shapes.ListType | shapes.VarTupleType):
        items = _toml(shape.item_type)
        return f"list of {items}" if shape.min_length is None else f"list of {shape.min_length} × ({items})"
    if isinstance(shape, shapes.CustomType):
        return "path"
    if isinstance(shape, shapes.Metadata):  # a pattern's words
        return str(shape.extra_json_schema["description"]) if shape.extra_json_schema else _toml(shape.type)
    bounds = {word: bound for name, word in _BOUNDS.items() if (bound := getattr(shape, name, None)) not in (None, MOST)}
    said = [f"{word} {bound:,}" for word, bound in bounds.items()]
    return ", ".join([_TOML[type(shape)], *said])


def _default(field: shapes.Field) -> str:
    value = field.default
    if field.required:
        return "**required**"
    if value is None:
        return "none"
    if value is msgspec.NODEFAULT or isinstance(value, msgspec.Struct):  # a factory: an empty table
        return "its keys'" if isinstance(value, msgspec.Struct) else "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f'`"{value}"`' if isinstance(value, str | Path) else f"`{value}`"


# --- exit codes -------------------------------------------------------------------------------------------------------


def exit_codes() -> str:
    """A row a code: those that are no error's, and each branch of the tree of errors."""
    said = documented(Path(errors.__file__))
    plain = {code: said[name].removeprefix("Exit code: ") for name, code in vars(errors).items() if name.startswith("EXIT_")}
    rows = [(str(code), "", f"{meaning[0].upper()}{meaning[1:]}") for code, meaning in plain.items()]
    by_code: dict[int, list[type[errors.LinesideError]]] = {}
    for error in _branches(errors.LinesideError):
        if error.exit_code != errors.EXIT_BUG and error is not errors.FrameError:  # the loop makes a FAULT of it
            by_code.setdefault(error.exit_code, []).append(error)
    for code, raised in by_code.items():
        rows.append((str(code), ", ".join(f"`{e.__name__}`" for e in raised), " ".join(_doc(e) for e in raised)))
    return _grid(("Code", "Error", "Meaning"), sorted(rows, key=lambda row: int(row[0])))


def _branches(error: type[errors.LinesideError]) -> Iterator[type[errors.LinesideError]]:
    for below in error.__subclasses__():
        if below.__module__ == errors.__name__:
            yield below
            yield from _branches(below)


# --- messages ---------------------------------------------------------------------------------------------------------


def messages() -> str:
    """The topics, and a table for each record in their payloads."""
    rows = [(f"`{topic}`", socket, f"[{m.__name__}](#{m.__name__.lower()})", when) for topic, (m, socket, when) in TOPICS.items()]
    parts = [_grid(("Topic", "Socket", "Payload", "When"), rows)]
    done: list[type] = [message for message, _, _ in TOPICS.values()]
    # `done` grows while it is walked: the records inside of records
    parts.extend(f"### {record.__name__}\n\n{_doc(record)}\n\n{_members(record, done)}" for record in done)
    return "\n\n".join(parts)


def _members(record: type, done: list[type]) -> str:
    if issubclass(record, enum.Enum):
        said = _members_said(record)
        return _grid(("Value", "Name", "Meaning"), ((f"`{m.value}`", m.name, said.get(m.name, "")) for m in record))
    said = meanings(record)
    rows = []
    for field in _fields(record):
        for inner in _records(field.type):
            if inner not in done:
                done.append(inner)
        rows.append((f"`{field.encode_name}`", _wire(field.type), said[field.name]))
    return _grid(("Field", "Type", "Meaning"), rows)


def _members_said(kind: type[enum.Enum]) -> dict[str, str]:
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    return {
        name.id: str(below.value.value)
        for node, below in itertools.pairwise(body.body)
        if isinstance(node, ast.Assign) and isinstance(name := node.targets[0], ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


def _records(shape: shapes.Type) -> Iterator[type]:
    for inner in _flat(shape):
        if isinstance(inner, shapes.StructType | shapes.DataclassType | shapes.EnumType):
            yield inner.cls
        elif isinstance(inner, shapes.ListType | shapes.VarTupleType):
            yield from _records(inner.item_type)
        elif isinstance(inner, shapes.DictType):
            yield from _records(inner.value_type)


def _wire(shape: shapes.Type) -> str:
    return " or ".join(_packed(t) for t in _flat(shape))


def _packed(shape: shapes.Type) -> str:
    if isinstance(shape, shapes.StructType | shapes.DataclassType | shapes.EnumType):
        return f"[{shape.cls.__name__}](#{shape.cls.__name__.lower()})"
    if isinstance(shape, shapes.ListType | shapes.VarTupleType):
        return f"array of {_wire(shape.item_type)}"
    if isinstance(shape, shapes.TupleType):
        return f"array of {len(shape.item_types)}: {', '.join(map(_wire, shape.item_types))}"
    if isinstance(shape, shapes.DictType):
        return f"map of {_wire(shape.value_type)}"
    return _MSGPACK[type(shape)]


# --- command lines ----------------------------------------------------------------------------------------------------


def commands() -> str:
    """A section a verb of the three command lines, read off the functions that typer calls."""
    parts = []
    for program, module in APPS.items():
        app = importlib.import_module(module).app
        parts.append(f"## {program}\n\n{app.info.help}")
        parts += [_verb(name, function) for name, function in _verbs(program, app)]
    return "\n\n".join(parts)


def _verbs(prefix: str, app: typer.Typer) -> Iterator[tuple[str, Callable[..., Any]]]:
    for command in app.registered_commands:
        name = f"{prefix} {command.name or _called(command).__name__.replace('_', '-')}"
        if name in OTHERS:
            (command,) = importlib.import_module(OTHERS[name]).app.registered_commands
        if not command.hidden:
            yield name, _called(command)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from _verbs(f"{prefix} {group.name}", group.typer_instance)


def _called(command: CommandInfo) -> Callable[..., Any]:
    assert command.callback is not None
    return command.callback


def _verb(name: str, function: Callable[..., Any]) -> str:
    hints = typing.get_type_hints(function, include_extras=True)
    given, rows = [], []
    for parameter in inspect.signature(function).parameters.values():
        if hints[parameter.name] is typer.Context:
            continue
        kind, info = typing.get_args(hints[parameter.name])[:2]
        required = parameter.default is inspect.Parameter.empty
        if isinstance(info, ArgumentInfo):
            word = info.metavar or parameter.name.upper()
            given.append(word if required else f"[{word}]")
        else:
            word = _option(parameter.name, kind, info)
        rows.append((f"`{word}`", _said_default(parameter.default, info), info.help or ""))
    table = _grid(("", "Default", "Meaning"), rows) if rows else "No options."
    return f"### {' '.join([name, *given])}\n\n{_doc(function)}\n\n{table}"


def _option(name: str, kind: Any, info: OptionInfo) -> str:
    # typer takes the first name for a default until it sees that the default stands behind the annotation
    declared = " ".join(d for d in (info.default, *(info.param_decls or ())) if isinstance(d, str))
    long = name.replace("_", "-")
    if kind is bool:
        return declared or f"--{long}/--no-{long}"
    declared = declared or f"--{long}"
    (of,) = [k for k in (typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)) if k is not types.NoneType]
    several = typing.get_origin(of) is list
    of = typing.get_args(of)[0] if several else of
    if info.metavar and not info.metavar.startswith("<"):
        word = info.metavar
    elif issubclass(of, enum.Enum):
        word = "|".join(m.value for m in of)
    else:
        word = {Path: "PATH", datetime: "TIME", str: "TEXT", int: "NUMBER", float: "NUMBER"}[of]
    return f"{declared} {word}{' …' if several else ''}"


def _said_default(value: Any, info: ArgumentInfo | OptionInfo) -> str:
    if value is inspect.Parameter.empty:
        return "**required**"
    if value is None or value is False or not info.show_default:
        return ""
    return f"`{value.value if isinstance(value, enum.Enum) else str(value).lower() if isinstance(value, bool) else value}`"


PARTS: dict[str, Callable[[], str]] = {"settings": settings, "exit_codes": exit_codes, "messages": messages, "commands": commands}
