"""Places that commands write: what was there is whole, or what is new is, whenever the end comes; and a bad place is told at once."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime import files
from edge_runtime.errors import ConfigError
from training.core import places

_KILLED = """
import os, signal, sys
from pathlib import Path
from training.core import places

folder, out, moment, swaps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "swaps"
seen = 0

def counted(call):
    def do(*a, **k):
        global seen
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1
        return call(*a, **k)
    return do

places.Path.rename = counted(Path.rename)
places.shutil.rmtree = counted(places.shutil.rmtree)
places.exchange = counted(places.exchange if swaps else lambda a, b: False)
places.move_into_place(folder, out)
"""


def _folder(path: Path, what: str) -> None:
    path.mkdir()
    for name in ("a", "b"):
        (path / name).write_text(what)


@pytest.mark.parametrize("swaps", ["swaps", "renames"])
@pytest.mark.parametrize("moment", range(5))
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_one_whole(tmp_path: Path, moment: int, swaps: str) -> None:
    out, new = tmp_path / "run", tmp_path / ".run.part"
    _folder(out, "old")
    _folder(new, "new")
    subprocess.run([sys.executable, "-c", _KILLED, str(new), str(out), str(moment), swaps], check=False, timeout=60)
    if swaps == "swaps":
        assert out.is_dir(), "never away, not for a moment"
    places.bring_back(out)
    found = {(out / name).read_text() for name in ("a", "b")}
    assert found in ({"old"}, {"new"}) and (found == {"new"} or moment < 4)


def test_names_change_places_at_once_and_who_cannot_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    assert places.exchange(tmp_path / "a", tmp_path / "b") and (tmp_path / "a").read_text() == "b"
    with pytest.raises(OSError, match="No such file"):
        places.exchange(tmp_path / "a", tmp_path / "absent")
    monkeypatch.setattr(places, "_CANNOT", (errno.ENOENT,))
    assert not places.exchange(tmp_path / "a", tmp_path / "absent")


@pytest.mark.parametrize("place", ["/proc/x/run", "/dev/null/run", "/sys/run"])
def test_a_place_that_only_looks_writable_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="expected a place that can be written"):
        places.nearest_folder(Path(place))


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    _folder(tmp_path / "v1", "old")
    (tmp_path / "run").symlink_to("v1")
    _folder(tmp_path / ".new", "new")
    places.move_into_place(tmp_path / ".new", tmp_path / "run")
    assert (tmp_path / "run" / "a").read_text() == "new" and (tmp_path / "v1" / "a").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "v1"]


_WORKING = """
import sys, time
from pathlib import Path
from training.core import places

with places.workplace(Path(sys.argv[1])) as place:
    (place / "half").write_text("half made")
    print(place, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_command_left_is_swept_by_the_next_one_and_what_a_living_one_works_in_is_not(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-c", _WORKING, str(out)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as dead,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as alive,
    ):
        try:
            assert dead.stdout is not None and alive.stdout is not None
            left, used = Path(dead.stdout.readline().strip()), Path(alive.stdout.readline().strip())
            with places.workplace(out):
                assert (left / "half").exists() and (used / "half").exists()
            dead.kill()
            dead.wait()
            (tmp_path / ".other.12345678.part").mkdir()
            (tmp_path / ".run.12345678.part").write_text("a file that was begun")
            with places.workplace(out):
                assert not left.exists() and (used / "half").exists()
            assert sorted(p.name for p in tmp_path.iterdir()) == sorted([".other.12345678.part", used.name])
        finally:
            dead.kill()
            alive.kill()


_SWEEPING = """
import sys
from pathlib import Path
from edge_runtime import files

print("on", flush=True)
while True:
    files.sweep(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("folder", [True, False])
def test_what_another_command_sweeps_away_before_it_is_locked_is_made_anew(tmp_path: Path, folder: bool) -> None:
    out = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", _SWEEPING, str(out)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            for _ in range(400):
                if folder:
                    with places.workplace(out) as place:
                        (place / "half").write_text("half made")
                else:
                    files.put_file(out, b"whole")
        finally:
            other.kill()
    assert sorted(p.name for p in tmp_path.iterdir()) == ([] if folder else ["run"])


def test_a_disk_that_fills_up_while_a_file_is_replaced_leaves_the_old_one(tmp_path: Path) -> None:
    """As `calibrate` does with run.json; the limit on a file's size stands for the disk."""
    (tmp_path / "run.json").write_text("old")
    script = (
        "import resource, signal, sys; from pathlib import Path; from training.core import places; from edge_runtime import files;"
        " signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        " files.put_file(Path(sys.argv[1]), bytes(5000))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "run.json")], check=False, capture_output=True, text=True)
    assert done.returncode == 1 and "OSError" in done.stderr
    assert (tmp_path / "run.json").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_proving_a_place_leaves_nothing_even_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places.prove(tmp_path)

    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigError, match="No space left") as e:
        places.prove(tmp_path)
    assert isinstance(e.value.__cause__, OSError) and not list(tmp_path.iterdir())
