"""A disk without room is a sentence, never a signal: SIGBUS is what a mapped file of holes ends with."""

import errno
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from edge_runtime.console import lacking, run_app
from edge_runtime.errors import DataError, ExportError
from export.child import run_in_child
from tests.support.small_disk import run_in_small_disk

_BODY = """
import sys
from pathlib import Path
import numpy as np, openvino as ov, torch
from openvino import opset13 as ops
from edge_runtime.errors import DataError
from export.package import save_ir
from training.core.checkpoint import save_tensors
from training.core.memory import array_file, room

disk = Path(sys.argv[1])
big = ops.constant(np.zeros(1_000_000, np.float32))
x = ops.parameter([1], np.float32)
for do in (
    lambda: array_file(disk / "a.npy", np.uint8, (4_000_000,)),
    lambda: room((4_000_000,), np.uint8, disk, budget=0),
    lambda: save_tensors({"a": torch.zeros(1_000_000)}, disk / "t"),
    lambda: save_ir(ov.Model([ops.add(x, big)], [x], "m"), disk / "m.xml"),
):
    try:
        do()
        print("written")
    except (OSError, DataError) as e:
        print(type(e).__name__, e)
    for path in disk.iterdir():
        path.unlink()
array_file(disk / "b.npy", np.uint8, (10, 7))[:] = 3
print(np.load(disk / "b.npy").sum())
"""


@pytest.mark.slow
def test_what_finds_no_room_says_so(tmp_path: Path) -> None:
    said = run_in_small_disk(_BODY, tmp_path).splitlines()
    assert [line.split()[0] for line in said] == ["OSError", "DataError", "OSError", "OSError", "210"], said
    assert "No space left" in said[0]
    assert "no room for" in said[1]
    assert "No space left" in said[2]
    assert "could not save m.xml" in said[3]


@pytest.mark.parametrize("why", [OSError(errno.ENOSPC, "No space left on device"), MemoryError(), OSError("4 requested and 2 written")])
def test_whatever_branch_tells_of_it_a_machine_without_room_ends_with_71(why: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()

    @app.command()
    def fit() -> None:
        raise DataError("run r: cannot be written") from why

    with pytest.raises(SystemExit) as e:
        run_app(app, [])
    assert e.value.code == 71 and capsys.readouterr().err == "error: run r: cannot be written\n"


@pytest.mark.slow
def test_a_child_without_room_ends_the_command_with_71_too(tmp_path: Path) -> None:
    np.save(tmp_path / "i.npy", np.zeros((1, 2, 2, 3), np.uint8))
    full = """
import sys
from export import child

def _full(*a):
    raise OSError(28, "No space left on device")

child._run = _full
child.main(sys.argv[1:])
"""
    with pytest.raises(ExportError, match="No space left") as e:
        run_in_child(tmp_path / "m.xml", tmp_path / "i.npy", tmp_path, command=(sys.executable, "-c", full))
    assert lacking(e.value.__cause__ or e.value)
