"""What may stand in a settings file, for editors and for the page of all settings: read off the records themselves, docstrings included.

Why not msgspec's own generator: deploy/decisions/0043.
"""

import ast
import functools
import inspect
import textwrap
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect as types

from edge_runtime.plugins import PluginSettings

_BOUNDS = {
    "gt": "exclusiveMinimum",
    "ge": "minimum",
    "lt": "exclusiveMaximum",
    "le": "maximum",
    "pattern": "pattern",
    "min_length": "minLength",
    "max_length": "maxLength",
}
"""msgspec's names -> JSON Schema's."""
_Tables = dict[type, tuple[str, dict[str, Any]]]
"""By record: its name in the schema, and what may stand in it."""
_PLAIN = {types.IntType: "integer", types.FloatType: "number", types.StrType: "string", types.BoolType: "boolean"}


def schema_of(kind: type[msgspec.Struct], title: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a TOML file that is read as `kind`. What only two keys together get wrong, no schema can say.

    msgspec's own generator refuses defaults that are paths, and knows no docstrings of fields.
    """
    tables: _Tables = {}
    top = types.type_info(kind)
    assert isinstance(top, types.StructType)
    file = _table(top, tables)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **file, "$defs": dict(sorted(tables.values()))}


def meanings(kind: type) -> dict[str, str]:
    """Field -> the docstring that stands below it in the class or in one that it is made from, in one line; "" where none does."""
    made_from = [c for c in reversed(kind.__mro__) if c.__module__.partition(".")[0] not in ("msgspec", "builtins")]
    return {field: meaning for c in made_from for field, meaning in _own_meanings(c).items()}


@functools.cache
def _own_meanings(kind: type) -> dict[str, str]:
    try:
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except OSError:
        return {}  # made at run time, or its author ships no source
    assert isinstance(body, ast.ClassDef)
    said = {}
    for node, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            below = after.value if isinstance(after, ast.Expr) else None
            said[node.target.id] = " ".join(str(below.value).split()) if isinstance(below, ast.Constant) else ""
    return said


def _table(table: types.StructType, tables: _Tables, foreign: bool = False) -> dict[str, Any]:
    """`foreign`: of an installed package, whose author may use types that JSON Schema does not know; those are left to the station."""
    foreign |= issubclass(table.cls, PluginSettings)
    said = meanings(table.cls)
    keys: dict[str, Any] = {}
    if table.tag is not None:
        keys[str(table.tag_field)] = {"const": table.tag}
    for field in table.fields:
        meaning = {"description": said[field.name]} if said.get(field.name) else {}
        try:
            value = _value(field.type, tables, foreign)
        except TypeError:
            if not foreign:
                raise
            value = {}
        keys[field.encode_name] = {**value, **meaning, **_default(field)}
    required = [*([table.tag_field] if table.tag is not None else []), *(f.encode_name for f in table.fields if f.required)]
    return {
        "type": "object",
        "description": " ".join((inspect.getdoc(table.cls) or "").split()),
        "properties": keys,
        "required": required,
        "additionalProperties": not table.forbid_unknown_fields,
    }


def _default(field: types.Field) -> dict[str, Any]:
    """A table's default is those of its keys; what may be left out for good has none in TOML."""
    value = field.default
    if value is msgspec.NODEFAULT or value is None or isinstance(value, msgspec.Struct):
        return {}
    return {"default": msgspec.to_builtins(value, enc_hook=str)}


def _value(wanted: types.Type, tables: _Tables, foreign: bool) -> dict[str, Any]:
    if isinstance(wanted, types.Metadata):
        return {**(wanted.extra_json_schema or {}), **_value(wanted.type, tables, foreign)}
    if isinstance(wanted, types.StructType):
        if wanted.cls not in tables:
            namesakes = sum(cls.__name__ == wanted.cls.__name__ for cls in tables)
            keys: dict[str, Any] = {}
            tables[wanted.cls] = (f"{wanted.cls.__name__}{namesakes + 1}" if namesakes else wanted.cls.__name__, keys)
            keys |= _table(wanted, tables, foreign)  # where one of them holds such a table, it is there already
        return {"$ref": f"#/$defs/{tables[wanted.cls][0]}"}
    if isinstance(wanted, types.UnionType):
        choices = [_value(t, tables, foreign) for t in wanted.types if not isinstance(t, types.NoneType)]
        return choices[0] if len(choices) == 1 else {"anyOf": choices}
    if isinstance(wanted, types.EnumType):
        return {"enum": [member.value for member in wanted.cls]}
    if isinstance(wanted, types.LiteralType):
        return {"enum": list(wanted.values)}
    if isinstance(wanted, types.DictType):
        return {"type": "object", "additionalProperties": _value(wanted.value_type, tables, foreign)}
    if isinstance(wanted, types.TupleType):
        items = [_value(t, tables, foreign) for t in wanted.item_types]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if isinstance(wanted, types.ListType | types.VarTupleType):
        least = {} if wanted.min_length is None else {"minItems": wanted.min_length}
        most = {} if wanted.max_length is None else {"maxItems": wanted.max_length}
        return {"type": "array", "items": _value(wanted.item_type, tables, foreign), **least, **most}
    if isinstance(wanted, types.CustomType) and wanted.cls is Path:
        return {"type": "string"}
    if type(wanted) in _PLAIN:
        bounds = {_BOUNDS[name]: bound for name in _BOUNDS if (bound := getattr(wanted, name, None)) is not None}
        return {"type": _PLAIN[type(wanted)], **bounds}
    raise TypeError(f"expected a type that TOML has, found {wanted}")
