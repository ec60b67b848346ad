"""The error tree at the top of errors.py is the truth: names, places and exit codes."""

import inspect
import re

from edge_runtime import errors

NEVER_ENDS_A_PROCESS = {"FrameError", "HandoffFull"}


def classes() -> dict[str, type[errors.LinesideError]]:
    found = {name: c for name, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.LinesideError)}
    del found["LinesideError"]
    return found


def drawn() -> dict[str, tuple[int, int]]:
    """Name -> (depth, exit code) as in the module's docstring."""
    assert errors.__doc__ is not None
    lines = re.findall(r"^    ([│ ]*)[├└]── (\w+) +(\d+)  ?\S", errors.__doc__, re.MULTILINE)
    return {name: (len(indent) // 4, int(code)) for indent, name, code in lines}


def test_the_drawing_shows_every_class_and_no_other() -> None:
    assert set(drawn()) == set(classes()) - NEVER_ENDS_A_PROCESS


def test_the_drawing_tells_each_exit_code() -> None:
    assert {name: code for name, (_, code) in drawn().items()} == {n: c.exit_code for n, c in classes().items() if n in drawn()}


def test_a_class_stands_under_its_parent() -> None:
    above = ""
    for name, (depth, _) in drawn().items():
        parent = classes()[name].__bases__[0].__name__
        assert parent == (above if depth else "LinesideError"), name
        above = above if depth else name


def test_every_branch_has_an_exit_code_of_its_own() -> None:
    branches = [c for n, c in classes().items() if n in drawn() and c.__bases__[0] is errors.LinesideError]
    codes = [c.exit_code for c in branches]
    assert len(set(codes)) == len(codes)
    reserved = {errors.EXIT_OK, errors.EXIT_FINDINGS, errors.EXIT_BUG, 2, 130}
    assert not reserved & set(codes)


def test_a_missing_extra_names_the_command_that_installs_it() -> None:
    assert "pip install 'lineside[plc]'" in str(errors.MissingExtra("the modbus trigger", "plc"))
