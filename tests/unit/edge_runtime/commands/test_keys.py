"""`lineside keys`: a folder that only its owner reads, clients that come in with what was written, and sentences for what cannot be."""

import json
import os
import re
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_runtime.cli import app
from edge_runtime.credentials import Role, may, read_key_file
from edge_runtime.errors import ConfigError, LinesideError
from edge_runtime.security.keys import Keyring, new_pair

STATION = '{}name = "s"\nrecipe = "r.toml"\n[source]\nkind = "synthetic"\n[trigger]\nkind = "timer"\n[security]\nkeys = "keys"\n'


@pytest.fixture
def station(tmp_path: Path) -> Path:
    path = tmp_path / "station.toml"
    path.write_text(STATION.format(""))
    return path


def keys(*words: object, code: int = 0) -> str:
    """What `lineside keys` says: on stdout, or the sentence that it ends with."""
    before = os.umask(0)
    try:
        done = CliRunner().invoke(app, ["keys", *map(str, words)])
    finally:
        os.umask(before)
    if isinstance(done.exception, LinesideError):
        assert done.exception.exit_code == code
        return str(done.exception)
    assert done.exit_code == code, done.output
    return done.output


def test_a_key_is_revoked_whatever_else_lies_beside_it(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "keys")
    ring.make_server()
    ring.add("eng", [Role.ENGINEER], new_pair()[0])
    os.mkfifo(ring.allowed / "zz.pub")
    assert ring.revoke("eng").name == "eng"
    assert ring.readable()[0] == []
    with pytest.raises(ConfigError, match=r"zz\.pub"):
        ring.revoke("zz")


def test_from_no_key_to_one_that_is_revoked(station: Path, tmp_path: Path) -> None:
    keys("make", station)
    assert "is there already" in keys("make", station, code=78)
    keys("add", station, "hmi", "--role", "observe", "--role", "operate", "--out", tmp_path / "hmi.key")
    public, _ = new_pair()
    keys("add", station, "cell", "--role", "trigger", "--public", public)
    listed = json.loads(keys("list", station, "--json"))
    assert [(row["name"], row["roles"], row["revoked"]) for row in listed["keys"]] == [
        ("cell", ["trigger"], ""), ("hmi", ["observe", "operate"], ""),
    ]  # fmt: skip
    assert listed["keys"][0]["public"] == public
    mine = read_key_file(tmp_path / "hmi.key")
    assert (mine.name, mine.server) == ("hmi", listed["station"])
    assert mine.secret not in repr(mine)
    modes = {path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {"keys/server.key": 0o600, "hmi.key": 0o600, "station.toml": modes["station.toml"]} | {
        f"keys/{name}": 0o644 for name in ("server.pub", "allowed/hmi.pub", "allowed/cell.pub")
    }
    keys("revoke", station, listed["keys"][1]["fingerprint"])
    shown = keys("list", station)
    assert re.search(r"hmi  revoked \d{8}T\d{6}Z$", shown, re.MULTILINE)
    assert Keyring(tmp_path / "keys").listed()[0].name == "cell"
    keys("add", station, "hmi", "--role", "observe", "--out", tmp_path / "new.key")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["add", "{}", "hmi", "--role", "boss"], "--role: expected observe, trigger"),
        (["add", "{}", "../x", "--role", "observe"], "expected a name of letters"),
        (["add", "{}", "cell", "--role", "observe"], "the name is taken"),
        (["add", "{}", "hmi", "--role", "observe", "--public", "short"], "expected a public key of 40 letters"),
        (["add", "{}", "hmi", "--role", "observe", "--out", "/nowhere/x.key"], "could not"),
        (["add", "{}", "hmi", "--role", "observe", "--out", "{}"], "is there already"),
        (["revoke", "{}", "nobody"], r"a key that may come in \(cell\), found 'nobody'"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_lets_nobody_in(station: Path, words: list[str], why: str) -> None:
    ring = Keyring(station.parent / "keys")
    ring.make_server()
    before = [ring.add("cell", [Role.TRIGGER], new_pair()[0])]
    said = keys(*(word.format(station) for word in words), code=78)
    assert re.search(why, said)
    assert len(said.strip().splitlines()) == 1
    assert ring.readable()[0] == before


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "keys")
    ring.make_server()
    assert ring.server()
    for mode in (0o640, 0o604, 0o660):
        ring.server_secret.chmod(mode)
        with pytest.raises(ConfigError, match=rf"server.key: expected a secret .*\(mode 0600\), found mode 0{mode:o}"):
            ring.server()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('kind = "client"', 'kind = "server"', "expected a client's key file"),
        ('public = "', 'public = "x', "no public key of 40 letters"),
        ("secret = ", "# secret = ", "no secret key"),
        ("server = ", "# server = ", "expected the station's public key in it"),
        ('name = "', "name = ", "no TOML"),
    ],
)
def test_a_key_file_that_is_damaged_says_how(station: Path, tmp_path: Path, old: str, new: str, why: str) -> None:
    keys("make", station)
    file = tmp_path / "hmi.key"
    keys("add", station, "hmi", "--role", "observe", "--out", file)
    assert read_key_file(file)
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=why):
        read_key_file(file)
    if "server" in old:
        public = Keyring(tmp_path / "keys").server_public
        assert read_key_file(file, public).server == read_key_file(file, Keyring(tmp_path / "keys").server()[0]).server


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_makes_belongs_to_the_station_s_user(station: Path, tmp_path: Path) -> None:
    """Else the station could not read its own key."""
    folder = tmp_path / "keys"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    keys("make", station)
    assert {path.stat().st_uid for path in folder.rglob("*")} == {65534}


def test_roles_imply_what_they_need_and_no_more() -> None:
    assert may([Role.TRIGGER]) == {Role.TRIGGER}
    assert may([Role.ENGINEER]) == {Role.ENGINEER, Role.OPERATE, Role.OBSERVE}
    assert may([Role.DEPLOY]) == {Role.DEPLOY, Role.OBSERVE}
    assert may([]) == frozenset()
