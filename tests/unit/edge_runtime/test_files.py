"""What stands where a file should: it is told, and nobody waits for it. A named pipe keeps whoever opens it waiting for ever."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from edge_runtime.commands.journal import journal_of
from edge_runtime.config.files import load_recipe, load_station
from edge_runtime.console import run_app
from edge_runtime.credentials import read_key_file
from edge_runtime.errors import BundleError, DeviceError, LinesideError
from edge_runtime.files import opened, put_file, read_whole, what_is
from edge_runtime.images.read import read_image
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.signature import load_keys
from edge_runtime.model.store import BundleStore
from edge_runtime.security.keys import Keyring
from edge_runtime.security.signing import read_public
from edge_runtime.sinks.journal_file import expect_journal
from edge_runtime.sinks.notes import read_notes
from edge_runtime.station import in_effect

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_a_file_is_read_whole_and_no_further_than_it_may_be_long(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_whole(path, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_whole(path, 4)
    with path.open("wb") as sparse:
        sparse.truncate(1 << 34)
    with pytest.raises(OSError, match="more than 16,777,216 bytes"):
        read_whole(path)


def test_what_is_no_file_is_named(tmp_path: Path, pipe: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        kinds = {"": "a folder", "pipe": "a named pipe", "socket": "a socket", "none": "nothing", "loop": "what cannot be looked at"}
        for name, kind in kinds.items():
            assert what_is(tmp_path / name).startswith(kind)
            with pytest.raises(OSError):  # noqa: PT011 - each in its own words
                opened(tmp_path / name)
    assert what_is(Path("/dev/null")) == "a device"
    with pytest.raises(OSError, match="found a device"):
        opened(Path("/dev/zero"))


@pytest.mark.parametrize(
    "reads",
    [load_station, load_recipe, read_key_file, read_public, read_image, journal_of, expect_journal, ModelBundle.open,
     lambda path: load_keys([path])],
)  # fmt: skip
def test_a_pipe_in_a_file_s_place_is_refused_at_once(reads: Callable[[Path], object], pipe: Path) -> None:
    pipe.chmod(0o600)
    with pytest.raises(LinesideError, match="named pipe"):
        reads(pipe)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "manifest.sig", "model.bin", "golden/more"])
@pytest.mark.parametrize("private", [False, True])
def test_a_pipe_inside_of_a_bundle_is_refused_at_once(name: str, private: bool, tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, copy)
    (copy / name).unlink(missing_ok=True)
    os.mkfifo(copy / name)
    with pytest.raises(LinesideError, match=name):
        ModelBundle.open(copy, private)


@pytest.mark.parametrize("name", ["manifest.json", "model.bin"])
@pytest.mark.parametrize("private", [False, True])
def test_a_link_to_what_has_no_end_is_not_copied(name: str, private: bool, tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, copy)
    (copy / name).unlink()
    (copy / name).symlink_to("/dev/zero")
    with pytest.raises(LinesideError, match=name):
        ModelBundle.open(copy, private)


def test_a_store_refuses_what_is_no_bundle_by_its_own_name_and_does_not_measure_it(tmp_path: Path, tiny_bundle: Path) -> None:
    store = BundleStore(tmp_path / "store", 3, [])
    (tmp_path / "loop").symlink_to("loop")
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_bundle, damaged)
    (damaged / "model.bin").write_bytes(b"")
    for path in (Path("/"), Path("/proc"), tmp_path / "loop", damaged):
        with pytest.raises(BundleError, match=f"bundle {path}[: ]"):
            store.take_in(path)
    assert list((tmp_path / "store").iterdir()) == []


def test_what_a_link_leads_to_counts_before_it_is_copied(tmp_path: Path, tiny_bundle: Path) -> None:
    copy, large = tmp_path / "bundle", tmp_path / "large"
    shutil.copytree(tiny_bundle, copy)
    with large.open("wb") as sparse:
        sparse.truncate(1 << 40)
    (copy / "model.bin").unlink()
    (copy / "model.bin").symlink_to(large)
    with pytest.raises(DeviceError, match="make room"):
        BundleStore(tmp_path / "store", 3, []).take_in(copy)


def test_pipes_beside_a_station_s_own_files_are_refused_at_once(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "keys")
    ring.make_server()
    os.mkfifo(ring.allowed / "somebody.pub")
    assert "named pipe" in ring.readable()[1][0]
    os.mkfifo(tmp_path / in_effect.FILE)
    with pytest.raises(LinesideError, match="named pipe"):
        in_effect.read(tmp_path)
    journal = tmp_path / "journal.sqlite"
    os.mkfifo(journal.with_name("journal.sqlite.notes"))
    with pytest.raises(LinesideError, match="named pipe"):
        read_notes(journal)


def test_a_folder_that_is_gone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever looks for a file by a relative name from there finds none, and no path is in what the system says."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    app = typer.Typer()
    app.command()(lambda: Path("x").absolute())
    with pytest.raises(SystemExit) as ended:
        run_app(app, [], "lineside")
    assert ended.value.code == 78
    assert "the folder that this was started in is gone" in capsys.readouterr().err


def test_what_is_no_file_is_not_replaced_by_one(pipe: Path, tmp_path: Path) -> None:
    """As root, /dev/null would be gone for all."""
    (tmp_path / "link").symlink_to(pipe)
    for out in (pipe, tmp_path / "link"):
        with pytest.raises(OSError, match="expected a file or nothing there, found a named pipe"):
            put_file(out, b"x")
    assert pipe.is_fifo()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.endswith(".part")) == []
