"""`lineside check`: every part of a station gets its line, and one failure does not hide the next."""

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import zmq

from edge_runtime.cli import app
from edge_runtime.commands.check import Finding, _unknown_delay, check_station
from edge_runtime.commands.machine import _ranges, one_opencv, room
from edge_runtime.config.sources import AravisSourceConfig, FolderSourceConfig, LiveSourceConfig, Source
from edge_runtime.console import run_app
from edge_runtime.credentials import Role
from edge_runtime.errors import ConfigError, SinkError
from edge_runtime.model.bundle import read_manifest, write_manifest
from edge_runtime.model.manifest import Acceptance
from edge_runtime.security.keys import Keyring, new_pair
from edge_runtime.sinks.journal import Journal
from edge_runtime.sockets import bindable
from edge_runtime.sources import open_source
from tests.support.decisions import SCHEMA_1
from tests.support.ports import free_port
from tests.unit.edge_runtime.sinks.journals import a_decision, settings

TAGS = 'inputs = { trigger = "coil:0" }\noutputs = { reject = "coil:1" }'


@pytest.fixture
def endpoints() -> tuple[str, str]:
    return f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"


def write(
    directory: Path,
    endpoints: tuple[str, str],
    source: str = 'kind = "folder"\npath = "parts"',
    trigger: str = 'kind = "timer"',
    more: str = "",
) -> Path:
    file = directory / "station.toml"
    file.write_text(
        f'name = "s"\nrecipe = "recipe.toml"\n{more}\n[source]\n{source}\n[trigger]\n{trigger}\n'
        f'[publisher]\nendpoint = "{endpoints[0]}"\nreplay = "{endpoints[1]}"\n[archive]\nquota_mb = 1\n'
    )
    return file


def findings(file: Path) -> dict[str, Finding]:
    return {f.what: f for f in check_station(file)}


def failed(file: Path) -> dict[str, str]:
    return {f.what: f.sentence for f in findings(file).values() if not f.ok}


def test_a_sound_station_passes_every_line(station_dir: Path, endpoints: tuple[str, str]) -> None:
    before = sorted(p.name for p in station_dir.iterdir())
    found = findings(write(station_dir, endpoints))
    assert list(found) == [
        "packages", "configuration", "bundle", "release", "device", "golden samples", "limits", "processors", "sockets", "source",
        "trigger", "journal", "archive",
    ]  # fmt: skip
    assert all(f.ok for f in found.values()), found
    assert "CPU" in found["device"].sentence
    assert "64x64 gray" in found["source"].sentence
    assert sorted(p.name for p in station_dir.iterdir()) == sorted([*before, "station.toml"]), "a check leaves nothing behind"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("min_defect_px = 4096", r"min_defect_px: expected less than the 4,096 pixels (64x64) that are judged, found 4,096"),
        ("deadline_ms = 0.001", "deadline_ms: expected more than the "),
    ],
)
def test_a_recipe_that_could_not_reject_or_never_be_in_time_fails(
    station_dir: Path, endpoints: tuple[str, str], setting: str, message: str
) -> None:
    recipe = station_dir / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("deadline_ms = 500", setting))
    found = failed(write(station_dir, endpoints))
    assert set(found) == {"limits"}
    assert message in found["limits"]


def test_a_broken_file_ends_the_check_at_once(station_dir: Path, endpoints: tuple[str, str]) -> None:
    found = findings(write(station_dir, endpoints, more="queu = 3"))
    assert list(found) == ["packages", "configuration"]
    assert "did you mean queue?" in found["configuration"].sentence


def test_a_missing_recipe_is_part_of_the_configuration(station_dir: Path, endpoints: tuple[str, str]) -> None:
    (station_dir / "recipe.toml").unlink()
    assert "recipe.toml" in failed(write(station_dir, endpoints))["configuration"]


def test_a_damaged_bundle_does_not_hide_a_missing_folder(station_dir: Path, endpoints: tuple[str, str], tiny_bundle: Path) -> None:
    copy = shutil.copytree(tiny_bundle, station_dir / "copy")
    (copy / "model.bin").write_bytes(b"")
    (station_dir / "recipe.toml").write_text('name = "tiny"\nbundle = "copy"\n')
    bad = failed(write(station_dir, endpoints, source='kind = "folder"\npath = "nowhere"'))
    assert set(bad) == {"bundle", "source"}
    assert "model.bin was altered" in bad["bundle"]


@pytest.mark.slow
def test_threads_are_those_of_the_cpus_that_the_station_may_use(station_dir: Path, endpoints: tuple[str, str]) -> None:
    """In a process of its own: OpenVINO looks at its CPUs once."""
    one = min(os.sched_getaffinity(0))
    code = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"

    def check(file: Path) -> str:
        command = [sys.executable, "-c", code, str(one), "-m", "edge_runtime.cli", "check", str(file)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout

    assert f"inference takes 1 thread of CPUs {one}, 1 of {os.cpu_count()} in this machine" in check(write(station_dir, endpoints))
    assert "✗ processors      threads: expected at most 1, found 2" in check(write(station_dir, endpoints, more="threads = 2"))
    assert _ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"


def test_a_device_that_is_not_there_is_named(station_dir: Path, endpoints: tuple[str, str]) -> None:
    bad = failed(write(station_dir, endpoints, more='device = "NPU.7"'))
    assert set(bad) == {"device"}
    assert "NPU.7" in bad["device"]


def test_golden_samples_that_disagree_fail_the_check(station_dir: Path, endpoints: tuple[str, str], tiny_bundle: Path) -> None:
    import msgspec

    from edge_runtime.model.bundle import read_manifest, write_manifest

    copy = shutil.copytree(tiny_bundle, station_dir / "copy")
    manifest, _ = read_manifest(copy)
    wrong = [msgspec.structs.replace(g, score=g.score * 1.003) for g in manifest.golden]
    write_manifest(copy, msgspec.structs.replace(manifest, golden=wrong))
    (station_dir / "recipe.toml").write_text('name = "tiny"\nbundle = "copy"\n')
    assert set(failed(write(station_dir, endpoints))) == {"golden samples"}
    assert failed(write(station_dir, endpoints, more="golden_tolerance_scale = 5.0")) == {}


def test_a_camera_of_another_size_than_the_bundle_s_fails(station_dir: Path, endpoints: tuple[str, str]) -> None:
    for file in (station_dir / "parts").iterdir():
        cv2.imwrite(str(file), np.zeros((32, 48), np.uint8))
    bad = failed(write(station_dir, endpoints))
    assert set(bad) == {"source"}
    assert "taught on 64x64 images, found 48x32" in bad["source"]


def test_a_camera_that_is_not_there_fails(station_dir: Path, endpoints: tuple[str, str]) -> None:
    assert set(failed(write(station_dir, endpoints, source='kind = "camera"\ndevice = 63\nopen_timeout_ms = 500'))) == {"source"}


def test_a_plc_that_is_not_there_fails_with_its_address(station_dir: Path, endpoints: tuple[str, str]) -> None:
    port = free_port()
    bad = failed(write(station_dir, endpoints, trigger=f'kind = "modbus"\nport = {port}\ntimeout_ms = 300\n{TAGS}'))
    assert set(bad) == {"trigger"}
    assert f"127.0.0.1:{port}" in bad["trigger"]


@pytest.mark.slow
def test_a_plc_that_answers_passes(station_dir: Path, endpoints: tuple[str, str]) -> None:
    from edge_runtime.plc.defaults import default_trigger, trigger_toml
    from edge_runtime.sim.plc import SimulatedPlc

    settings = msgspec.structs.replace(default_trigger("opcua", port=free_port()), timeout_ms=10_000)
    with SimulatedPlc(settings, count=0):
        found = findings(write(station_dir, endpoints, trigger=trigger_toml(settings).removeprefix("[trigger]\n")))
    assert all(f.ok for f in found.values()), found
    assert "all 19 signals of [trigger] are there" in found["trigger"].sentence
    assert "publishes every" in found["trigger"].sentence


def test_a_port_in_use_is_named_and_the_plc_is_then_left_alone(station_dir: Path, endpoints: tuple[str, str]) -> None:
    file = write(station_dir, endpoints, trigger=f'kind = "modbus"\nport = {free_port()}\n{TAGS}')
    with socket.create_server(("127.0.0.1", int(endpoints[1].rpartition(":")[2]))):
        bad = failed(file)
    assert endpoints[1] in bad["sockets"]
    assert "publisher.replay" in bad["sockets"]
    assert "not tried" in bad["trigger"]


def test_one_port_for_two_sockets_is_found(station_dir: Path, endpoints: tuple[str, str]) -> None:
    file = write(station_dir, endpoints, trigger=f'kind = "zeromq"\nendpoint = "{endpoints[0]}"')
    said = failed(file)["configuration"]
    assert f'trigger.endpoint: expected a socket of its own, found "{endpoints[0]}", which publisher.endpoint' in said


@pytest.mark.slow
def test_a_folder_is_no_journal(station_dir: Path, endpoints: tuple[str, str]) -> None:
    file = write(station_dir, endpoints)
    (station_dir / "journal.sqlite").mkdir()
    assert "expected a file, or none yet, found a folder" in failed(file)["journal"]


def test_checking_an_ipc_endpoint_leaves_a_running_station_s_socket_alone_and_says_so(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/live"
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.bind(endpoint)
        with pytest.raises(SinkError, match=r"publisher\.endpoint: ipc:.*live is in use"):
            bindable({"publisher.endpoint": endpoint})
        with context.socket(zmq.PUSH) as push:
            push.setsockopt(zmq.LINGER, 0)
            push.connect(endpoint)
            push.send(b"x")
            assert pull.poll(2000)
    bindable({"publisher.endpoint": endpoint})  # nobody listens any more
    with pytest.raises(SinkError, match="expected a folder /nowhere"):
        bindable({"publisher.endpoint": "ipc:///nowhere/live"})


def test_a_disk_without_room_fails(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"archive\.quota_mb wants 1,000,000,000,000 MB"):
        room(tmp_path / "archive", 1e12, "archive.quota_mb")
    assert "may be written to" in room(tmp_path / "not" / "yet", 0.001, "archive.quota_mb")


def test_a_file_where_a_folder_should_be_fails(tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("")
    with pytest.raises(SinkError, match="expected a folder"):
        room(tmp_path / "archive", 0.001, "archive.quota_mb")


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Root may write everywhere, and becomes somebody who may not."""
    user = os.getuid()
    if user == 0:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(user, user, user)


def test_a_folder_of_somebody_else_fails() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        with nobody(), pytest.raises(SinkError, match="this user may write to"):
            room(Path(folder) / "archive", 0.001, "archive.quota_mb")


def test_a_file_that_is_no_journal_fails(station_dir: Path, endpoints: tuple[str, str]) -> None:
    (station_dir / "journal.sqlite").write_bytes(b"not a database" * 100)
    bad = failed(write(station_dir, endpoints))
    assert set(bad) == {"journal"}
    assert (station_dir / "journal.sqlite").read_bytes().startswith(b"not a database"), "never replaced"


def test_a_tampered_journal_fails_until_somebody_has_acknowledged_it(station_dir: Path, endpoints: tuple[str, str]) -> None:
    file, path = write(station_dir, endpoints), station_dir / "journal.sqlite"
    with Journal(settings(path), "cell-3") as journal:
        for seq in range(1, 20):
            journal.put(a_decision(seq))
    assert failed(file) == {}
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE decisions SET verdict = 'ACCEPT' WHERE seq = 7")
        connection.commit()
    assert "decision 7 (row 9) was changed" in failed(file)["journal's chain"]
    with Journal(settings(path), "cell-3") as journal:
        journal.acknowledge("M. Huber", "ticket 77", ["decision 7 (row 9) was changed, or does not belong there"])
    assert failed(file) == {}
    assert any(f.what == "journal's chain" and f.warns for f in check_station(file))


def test_a_clock_far_from_the_journals_last_row_is_a_warning(
    station_dir: Path, endpoints: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(settings(station_dir / "journal.sqlite"), "cell-3") as journal:
        journal.put(a_decision(1))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 500 * 86_400)
    found = next(f for f in check_station(write(station_dir, endpoints)) if f.what == "journal's chain")
    assert found.ok and found.warns and "500 days ahead of the journal's last row" in found.sentence


def test_a_journal_from_before_the_chain_passes(station_dir: Path, endpoints: tuple[str, str]) -> None:
    shutil.copy(SCHEMA_1 / "journal.sqlite", station_dir)
    assert failed(write(station_dir, endpoints)) == {}


def test_both_opencv_wheels_at_once_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "opencv-python" in one_opencv()
    for name in ("opencv_python", "opencv_python_headless"):
        info = tmp_path / f"{name}-4.10.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 4.10.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="found both"):
        one_opencv()


def test_every_recipe_is_checked_and_a_broken_one_is_named(station_dir: Path, endpoints: tuple[str, str], tiny_bundle: Path) -> None:
    (station_dir / "gadget.toml").write_text((station_dir / "recipe.toml").read_text().replace('"tiny"', '"gadget"'))
    copy = shutil.copytree(tiny_bundle, station_dir / "copy")
    (copy / "model.bin").write_bytes(b"")
    (station_dir / "broken.toml").write_text('name = "broken"\nbundle = "copy"\n')
    file = write(station_dir, endpoints)
    file.write_text(file.read_text() + '[recipes]\n1 = "gadget.toml"\n7 = "broken.toml"\n')
    assert set(failed(file)) == {"recipes.7 bundle"}
    found = findings(file)
    assert found["recipes.1 golden samples"].ok
    assert "recipes 1, 7 on request" in found["configuration"].sentence
    (station_dir / "broken.toml").unlink()
    assert "recipes.7: " in failed(file)["configuration"]


def test_every_camera_and_each_of_its_recipes_is_checked(station_dir: Path, endpoints: tuple[str, str]) -> None:
    (station_dir / "odd").mkdir()
    cv2.imwrite(str(station_dir / "odd" / "1.png"), np.zeros((32, 48), np.uint8))
    (station_dir / "hollow.toml").write_text('name = "hollow"\nbundle = "nowhere"\n')
    block = '[[camera]]\nname = "{}"\nrecipe = "recipe.toml"\nsource = {{kind = "folder", path = "{}"}}\nrecipes = {{7 = "{}"}}\n'
    file = station_dir / "station.toml"
    file.write_text(
        f'name = "s"\n[trigger]\nkind = "timer"\n[publisher]\nendpoint = "{endpoints[0]}"\nreplay = "{endpoints[1]}"\n'
        + block.format("top", "parts", "recipe.toml") + block.format("side", "odd", "hollow.toml")
    )  # fmt: skip
    found = findings(file)
    assert {f.what for f in found.values() if not f.ok} == {"side recipes.7 bundle", "side source"}
    for what in ("top golden samples", "top recipes.7 golden samples", "side golden samples", "top source"):
        assert found[what].ok
    assert "top: tiny, side: tiny" in found["configuration"].sentence


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (LiveSourceConfig(device=0), True),
        (LiveSourceConfig(device=0, latency_ms=8.0), False),
        (AravisSourceConfig(), True),
        (AravisSourceConfig(trigger="software"), False),
        (FolderSourceConfig(path=Path("parts")), False),
    ],
)
def test_a_camera_that_runs_free_is_asked_how_long_its_frames_take(settings: Source, told: bool) -> None:
    """Otherwise the picture of the part before may pass for that of the next."""
    assert ("latency_ms is 0" in _unknown_delay(open_source(settings))) is told


@pytest.mark.parametrize(("demands", "mark"), [(False, "! release         not released: "), (True, "✗ release         require_release: ")])
def test_what_is_not_released_is_a_warning_unless_the_station_asks_for_it(
    demands: bool, mark: str, station_dir: Path, endpoints: tuple[str, str], tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, station_dir / "forced"))
    failed = Acceptance(state="failed", sentence="it misses 83 %", basis="real", max_missed=0.05, max_rejected=0.02, forced=True)
    write_manifest(bundle, msgspec.structs.replace(read_manifest(bundle)[0], acceptance=failed))
    (station_dir / "recipe.toml").write_text(f'name = "tiny"\nbundle = "{bundle}"\n')
    file = write(station_dir, endpoints)
    file.write_text(("require_release = true\n" if demands else "") + file.read_text())
    with pytest.raises(SystemExit) as ended:
        run_app(app, ["check", str(file)])
    assert ended.value.code == int(demands)
    assert mark in capsys.readouterr().out


def test_keys_are_checked_and_their_absence_beyond_this_machine_is_told(station_dir: Path, endpoints: tuple[str, str]) -> None:
    file = write(station_dir, endpoints)
    text = file.read_text()
    file.write_text(text + '[security]\nkeys = "keys"\n')
    assert "lineside keys make" in failed(file)["keys"]
    ring = Keyring(station_dir / "keys")
    ring.make_server()
    ring.add("hmi", [Role.OBSERVE, Role.OPERATE], new_pair()[0])
    assert {f.what: f.sentence for f in check_station(file)}["keys"] == "may come in: hmi (observe and operate)"
    (ring.allowed / "torn.pub").write_text("roles = [")
    assert "torn.pub" in failed(file)["keys"]
    beyond = text.replace(endpoints[0], endpoints[0].replace("127.0.0.1", "*"))
    file.write_text(beyond)
    assert "would let anybody in" in failed(file)["configuration"]
    file.write_text(beyond + "[security]\nplain = true\n")
    found = {f.what: f for f in check_station(file)}["keys"]
    assert found.warns
    assert "publisher.endpoint tcp://*:" in found.sentence


def _taught_on(station: Path, bundle: Path, **changed: object) -> None:
    """The station's bundle says so of what it was taught on."""
    mine = shutil.copytree(bundle, station / "bundle")
    manifest, _ = read_manifest(mine)
    write_manifest(mine, msgspec.structs.replace(manifest, dataset=msgspec.structs.replace(manifest.dataset, **changed)))
    recipe = station / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(str(bundle), str(mine)))


@pytest.mark.parametrize(
    ("n_lossy", "suffix", "said"),
    [
        (4, ".png", "taught on 4 JPEG files (quality about 92), and these pictures are not compressed"),
        (0, ".jpg", "taught on files that lose nothing, and these pictures are compressed"),
        (4, ".jpg", ""),
        (0, ".png", ""),
        (2, ".png", ""),
        (None, ".jpg", ""),
    ],
)
def test_pictures_that_are_compressed_otherwise_than_taught_are_warned_of(
    station_dir: Path, tiny_bundle: Path, endpoints: tuple[str, str], n_lossy: int | None, suffix: str, said: str
) -> None:
    for part in sorted((station_dir / "parts").iterdir()):
        cv2.imwrite(str(part.with_suffix(suffix)), cv2.imread(str(part), cv2.IMREAD_UNCHANGED))
        if suffix != ".png":
            part.unlink()
    _taught_on(station_dir, tiny_bundle, n_good=4, n_lossy=n_lossy, quality=92)
    found = findings(write(station_dir, endpoints))["source"]
    assert (found.ok, found.warns) == (True, bool(said)), found
    assert said in found.sentence


def test_all_files_of_a_folder_are_looked_at_and_not_the_first_alone(station_dir: Path, endpoints: tuple[str, str]) -> None:
    parts = station_dir / "parts"
    cv2.imwrite(str(parts / "90.png"), np.zeros((48, 80), np.uint8))
    cv2.imwrite(str(parts / "91.jpg"), np.zeros((48, 80), np.uint8))
    found = findings(write(station_dir, endpoints))["source"]
    assert found.ok
    assert found.warns
    assert f"of 8 files 2 80x48 (the first: {parts / '90.png'}), and the bundle was taught on 64x64: each such" in found.sentence
    assert "1 of 8 files are JPEG or the like, the others lose nothing" in found.sentence
