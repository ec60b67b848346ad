"""The parts of our Markdown that are read off the code: `python -m deploy.docs.generated` writes them anew, tests compare them.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`. Modules are parsed here, not run, but for the
handshake's tables; what else has to run is in `reference`.
"""

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.docs import reference
from deploy.docs.reference import cell, documented

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "deploy/developing/architecture.md",
    "deploy/developing/rooms.md",
    "deploy/developing/public.md",
    "deploy/decisions/README.md",
    "deploy/plc/README.md",
    "deploy/reference/settings.md",
    "deploy/reference/exit_codes.md",
    "deploy/reference/wire.md",
    "deploy/reference/commands.md",
)
PACKAGES = ("edge_runtime", "training", "export")
PUBLIC = ("client", "records", "errors", "wire", "protocols", "testing")
DECISIONS = ROOT / "deploy" / "decisions"
REWRITE = "python -m deploy.docs.generated"
FOLLOWING = (
    "edge_runtime/**/*.py",
    "training/**/*.py",
    "export/**/*.py",
    "deploy/*.sh",
    "deploy/examples/*.*",
    "pyproject.toml",
    "Makefile",
)
"""Files that may say which decision they follow."""
_PART = re.compile(r"(<!-- generated: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def first_line(module: Path) -> str:
    """What a module says in its first line that it is for. Raises ValueError where it says nothing, or breaks off within a line."""
    line = (ast.get_docstring(ast.parse(module.read_text())) or "").split("\n")[0]
    if not line.endswith((".", "?")):
        raise ValueError(f"{module}: expected a docstring whose first line is a sentence, found {line!r}")
    return line


def modules(folder: Path) -> Iterator[Path]:
    """What stands directly in a package: its modules, and the packages inside of it as their `__init__.py`."""
    for entry in sorted(folder.iterdir()):
        if entry.suffix == ".py" and entry.name != "__init__.py":
            yield entry
        elif (entry / "__init__.py").exists():
            yield entry / "__init__.py"


def _row(module: Path) -> str:
    name = module.parent.relative_to(ROOT) if module.name == "__init__.py" else module.relative_to(ROOT)
    return f"| `{name}{'/' if module.name == '__init__.py' else ''}` | {cell(first_line(module))} |"


def rooms() -> str:
    """A row for each module at the top of the three packages, and for each package there."""
    rows = ["| Room | What it is for |", "|---|---|"]
    for package in PACKAGES:
        rows += [_row(ROOT / package / "__init__.py"), *map(_row, modules(ROOT / package))]
    return "\n".join(rows)


def files() -> str:
    """A table a package, a row a module."""
    tables = []
    for package in PACKAGES:
        for init in modules(ROOT / package):
            if init.name == "__init__.py":
                head = f"## `{init.parent.relative_to(ROOT)}/`\n\n{first_line(init)}\n\n| Module | What it is for |\n|---|---|"
                tables.append("\n".join([head, *map(_row, modules(init.parent))]))
    return "\n\n".join(tables)


def layers() -> str:
    """The layers of each of the three packages, as the linter keeps them; the upper may see the lower."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    tables = []
    for package in PACKAGES:
        (kept,) = (c["layers"] for c in contracts if c["type"] == "layers" and c.get("containers") == [package])
        tables.append("\n".join([f"`{package}`:\n", "```text", *(re.sub(r"[()]", "", layer) for layer in kept), "```"]))
    return "\n\n".join(tables)


def public() -> str:
    """A table a public module, a row for each name in its `__all__`."""
    tables = []
    for name in PUBLIC:
        module = public_module(name)
        said = explained(module)
        rows = [f"| `{n}` | {cell(said[n])} |" for n in declared(module)]
        head = f"## `edge_runtime.{name}`\n\n{first_line(module)}\n\n| Name | What it is |\n|---|---|"
        tables.append("\n".join([head, *rows]))
    return "\n\n".join(tables)


def public_module(name: str) -> Path:
    """The file that declares what is public of `edge_runtime.name`."""
    room = ROOT / "edge_runtime" / name
    return room / "__init__.py" if room.is_dir() else room.with_suffix(".py")


def explained(module: Path) -> dict[str, str]:
    """What `documented` says of a module, and of a package what it says of the modules in it."""
    parts = modules(module.parent) if module.name == "__init__.py" else [module]
    return {name: text for part in parts for name, text in documented(part).items()}


def declared(module: Path) -> list[str]:
    """The names in a module's `__all__`."""
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return list(ast.literal_eval(node.value))
    raise ValueError(f"{module}: expected __all__, found none")


@dataclass(frozen=True, slots=True)
class Decision:
    """One page of deploy/decisions/."""

    page: Path
    number: int
    title: str
    status: str
    """accepted, or: superseded by N."""
    date: str
    """Of the status, YYYY-MM-DD."""


_HEAD = re.compile(
    r"# (?P<number>\d+)\. (?P<title>.+)\n\n"
    r"(?:Accepted \d{4}-\d\d-\d\d, (?P<status>superseded by \d+) on|Accepted) (?P<date>\d{4}-\d\d-\d\d)\.\n"
)


def decision(page: Path) -> Decision:
    """What stands at a decision's top. Raises ValueError where it is not what README.md asks for, or the number is not the file's."""
    head = _HEAD.match(page.read_text())
    if head is None or int(head["number"]) != int(page.name[:4]):
        wanted = f"# {int(page.name[:4])}. Title, an empty line, and: Accepted YYYY-MM-DD."
        raise ValueError(f"{page}: expected at its top {wanted!r}, found {page.read_text()[:90]!r}")
    return Decision(page, int(head["number"]), head["title"], head["status"] or "accepted", head["date"])


def followers() -> dict[int, list[str]]:
    """Decision -> the files of ours that name it."""
    named: dict[int, list[str]] = {}
    for file in sorted(f for pattern in FOLLOWING for f in ROOT.glob(pattern)):
        for number in sorted({int(n) for n in re.findall(r"decisions/(\d{4})", file.read_text())}):
            named.setdefault(number, []).append(str(file.relative_to(ROOT)))
    return named


def decisions() -> str:
    """A row a decision."""
    rows = ["| | Decision | Status | Since | Followed in |", "|---|---|---|---|---|"]
    following = followers()
    for d in map(decision, sorted(DECISIONS.glob("0*.md"))):
        where = ", ".join(f"`{f}`" for f in following.get(d.number, []))
        rows.append(f"| {d.number} | [{cell(d.title)}]({d.page.name}) | {d.status} | {d.date} | {where} |")
    return "\n".join(rows)


def handshake() -> str:
    """A drawing a machine of the handshake, of what leads from one state to another, and a table of all that does something."""
    from edge_runtime.plc.transitions import TABLES

    parts = []
    for table in TABLES:
        drawing = ["stateDiagram-v2", *(f"  {s.name}: {s.name} ({s.value})" for s in table.states)]
        rows = ["| State | When | Then | State |", "|---|---|---|---|"]
        for row in table.rows:
            when = " or ".join(event.value for event in row.events)
            if row.to is not row.state:
                drawing.append(f"  {row.state.name} --> {row.to.name}: {when}")
            if row.do is not None or row.to is not row.state:
                rows.append(f"| {row.state.name} | {cell(when)} | {cell(row.do.value if row.do else '')} | {row.to.name} |")
        parts.append("\n".join([f"**{table.title}**\n", "```mermaid", *drawing, "```\n", *rows]))
    return "\n\n".join(parts)


PARTS: dict[str, Callable[[], str]] = {
    "rooms": rooms,
    "files": files,
    "layers": layers,
    "public": public,
    "decisions": decisions,
    "handshake": handshake,
    **reference.PARTS,
}


def filled(page: str) -> str:
    """A page's text with its generated parts made anew."""
    return _PART.sub(lambda m: f"{m[1]}\n{PARTS[m['name']]()}\n\n{m[3]}", page)


def main() -> None:
    """Write every page anew that is not as the code is."""
    for name in PAGES:
        path = ROOT / name
        before = path.read_text()
        if (now := filled(before)) != before:
            path.write_text(now)
            print(f"{name}: written anew")


if __name__ == "__main__":
    main()
