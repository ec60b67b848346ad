"""Commands that messages and pages name exist, with the options that they name."""

import ast
import re
from pathlib import Path

import pytest
import typer

from edge_runtime import cli as device
from export import cli as exporting
from export import train as teaching

ROOT = Path(__file__).resolve().parents[3]
_NAMED = re.compile(r"\b(lineside(?:-train|-export)?) ([a-z][a-z-]+)((?: (?:--[a-z][a-z-]*|[A-Za-z0-9_./…{}-]+))*)")


def _verbs(app: typer.Typer) -> dict[str, set[str]]:
    command = typer.main.get_command(app)
    found = getattr(command, "commands", {command.name: command})
    verbs: dict[str, set[str]] = {}
    for name, verb in found.items():
        options = {o for p in verb.params for o in (*p.opts, *p.secondary_opts)}
        verbs[name] = options | {f"{name} {sub}" for sub in getattr(verb, "commands", {})}
        for sub in getattr(verb, "commands", {}).values():
            verbs[name] |= {o for p in sub.params for o in p.opts}
    return verbs


KNOWN = {"lineside": _verbs(device.app), "lineside-train": _verbs(teaching.app), "lineside-export": _verbs(exporting.app)}


def _texts(path: Path) -> list[str]:
    if path.suffix != ".py":
        return [path.read_text()]
    texts = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            texts.append("".join(v.value if isinstance(v, ast.Constant) else "X" for v in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
    return texts


@pytest.mark.slow
@pytest.mark.parametrize("room", ["edge_runtime", "training", "export", "README.md"])
def test_every_command_that_is_named_exists(room: str) -> None:
    place = ROOT / room
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.suffix in (".py", ".html", ".md"))
    wrong, seen = [], 0
    for file in files:
        for text in _texts(file):
            for program, verb, rest in _NAMED.findall(text):
                if verb not in KNOWN[program]:
                    if rest.strip().startswith("--"):
                        wrong.append(f"{file}: {program} {verb}")
                    continue  # "lineside is", "lineside-export makes": prose
                seen += 1
                wrong += [
                    f"{file}: {program} {verb} {o}"
                    for o in re.findall(r"--[a-z-]+", rest)
                    if o not in KNOWN[program][verb] | {"--help", "--debug"}
                ]
    assert seen and not wrong, wrong
