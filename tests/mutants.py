"""How many changes of the code the unit tests notice, a line a file, of what `make mutate` ran; `--show` prints those that none noticed.

deploy/decisions/0039.
"""

import ast
import difflib
import json
import re
import sys
from collections import Counter
from pathlib import Path

from mutmut.stats import status_by_exit_code


def _difference(functions: dict[str, list[str]], name: str) -> list[str]:
    lines = functions[re.sub(r"__mutmut_\d+$", "__mutmut_orig", name)][1:], functions[name][1:]
    return [line for line in difflib.unified_diff(*lines, n=0, lineterm="") if not line.startswith(("---", "+++", "@@"))]


def main(folder: Path, show: bool) -> None:
    for meta in sorted(folder.rglob("*.py.meta")):
        source = meta.with_suffix("")
        codes: dict[str, int | None] = json.loads(meta.read_text())["exit_code_by_key"]
        if not codes:
            continue
        text = source.read_text()
        lines = text.splitlines()
        nodes = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
        functions = {node.name: lines[node.lineno - 1 : node.end_lineno] for node in nodes}
        fates: Counter[str] = Counter()
        for key, code in codes.items():
            fates[fate := status_by_exit_code[code]] += 1
            if show and fate in ("survived", "no tests"):
                name = key.rsplit(".", 1)[1]
                print(f"{key}: {fate}", *_difference(functions, name), sep="\n")
        noticed = fates["killed"] + fates["timeout"]
        rest = "".join(f", {count} {fate}" for fate, count in sorted(fates.items()) if fate != "killed")
        print(f"{source.relative_to(folder)}: {noticed} of {fates.total()} noticed ({noticed / fates.total():.0%}){rest}")


if __name__ == "__main__":
    main(Path("mutants"), "--show" in sys.argv)
