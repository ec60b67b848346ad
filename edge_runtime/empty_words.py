"""An empty path on a command line, as a shell variable that is not set leaves it: told by its name, and never taken for this folder."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer


def empty_path(app: typer.Typer, arguments: Sequence[str]) -> str | None:
    """What a command line calls the first of its paths that is empty ("DATA", "--out"); None where none is."""
    words = list(arguments)
    if all(w.strip() and not w.endswith("=") for w in words):
        return None
    callback = _callback(app, words)
    if callback is None:
        return None
    parameters = list(inspect.signature(callback, eval_str=True).parameters.values())
    places = [p for p in parameters if _is_place(p)]
    options = {name: p for p in parameters if p not in places for name in _names(p)}
    position = 0
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("-") or word == "-":
            place = places[min(position, len(places) - 1)] if places else None
            position += 1
            if place is not None and not word.strip() and _is_path(place):
                return next((m.metavar for m in _marks(place) if m.metavar), None) or place.name.upper()
        elif (option := options.get(name)) is not None and not _holds(option, bool):
            value = value if equals else words.pop(0) if words else "missing"
            if not value.strip() and _is_path(option):
                return name
    return None


def _callback(app: typer.Typer, words: list[str]) -> Callable[..., Any] | None:
    """The verb's function; its words are taken off."""
    commands = [c for c in app.registered_commands if c.callback is not None]
    if len(commands) == 1 and not app.registered_groups and app.registered_callback is None:
        return commands[0].callback
    verb = words.pop(0) if words else ""
    for group in app.registered_groups:
        if group.name == verb and group.typer_instance is not None:
            return _callback(group.typer_instance, words)
    return next((c.callback for c in commands if verb == (c.name or getattr(c.callback, "__name__", "").replace("_", "-"))), None)


def _is_place(parameter: inspect.Parameter) -> bool:
    """Whether its words have no name on the command line, as typer reads a function."""
    marks = _marks(parameter)
    return any(isinstance(m, typer.models.ArgumentInfo) for m in marks) or (not marks and parameter.default is inspect.Parameter.empty)


def _marks(parameter: inspect.Parameter) -> list[Any]:
    marks = get_args(parameter.annotation)[1:] if get_origin(parameter.annotation) is Annotated else ()
    return [m for m in marks if isinstance(m, typer.models.ParameterInfo)]


def _names(parameter: inspect.Parameter) -> list[str]:
    declared = [n for m in _marks(parameter) for n in (m.param_decls or ()) if n.startswith("-")]
    return [part for n in declared for part in n.split("/")] or [f"--{parameter.name.replace('_', '-')}"]


def _is_path(parameter: inspect.Parameter) -> bool:
    return _holds(parameter, Path)


def _holds(parameter: inspect.Parameter, kind: type) -> bool:
    def within(annotation: Any) -> bool:
        return annotation is kind or any(within(a) for a in get_args(annotation))

    return within(get_args(parameter.annotation)[0] if get_origin(parameter.annotation) is Annotated else parameter.annotation)
