"""Released bundles: a station with trusted keys runs what one of them signed, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edge_runtime.commands.check import check_station
from edge_runtime.errors import BundleError, ConfigError
from edge_runtime.model.bundle import MANIFEST, SIGNATURE, ModelBundle, read_manifest, write_manifest
from edge_runtime.model.signature import load_keys, open_released
from edge_runtime.station.launch import run_station
from export.release import load_private, make_keys, sign

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


def no_password() -> str:
    raise AssertionError("nobody is asked for a password where the key has none")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys/anna.key", "")
    return tmp_path / "keys/anna.key"


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys/stranger.key", "")
    return tmp_path / "keys/stranger.key"


@pytest.fixture(params=["folder", "zip"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path, make_bundle: Callable[..., Path]) -> Path:
    folder = make_bundle()
    return folder if request.param == "folder" else Path(shutil.make_archive(str(tmp_path / "b"), "zip", folder))


def signer(bundle: Path, *keys: Path) -> str | None:
    return open_released(bundle, load_keys([k.with_suffix(".pub") for k in keys]))[1]


def test_the_key_that_signed_is_named_and_the_bundle_s_id_stays(bundle: Path, key: Path, stranger: Path) -> None:
    before = ModelBundle.open(bundle).id
    assert sign(bundle, load_private(key, no_password)).id == before
    assert signer(bundle, stranger, key) == "anna"
    assert list(bundle.parent.glob(f".{bundle.name}*")) == [], "nothing half-written stays"


def test_a_bundle_that_nobody_trusted_has_signed_is_refused(bundle: Path, key: Path, stranger: Path) -> None:
    with pytest.raises(BundleError, match=r"expected the signature of anna .*found none.*lineside-export sign"):
        signer(bundle, key)
    sign(bundle, load_private(stranger, no_password))
    with pytest.raises(BundleError, match=r"expected the signature of anna .*by another key"):
        signer(bundle, key)
    assert signer(bundle) is None, "a station without keys asks nobody"
    sign(bundle, load_private(key, no_password))
    assert signer(bundle, key) == "anna", "the new one takes the other's place"


def test_a_changed_threshold_needs_a_new_signature_although_its_seal_is_right(make_bundle: Callable[..., Path], key: Path) -> None:
    """Whoever may write to the disk can seal a bundle; only who holds the key can release one."""
    folder = make_bundle()
    sign(folder, load_private(key, no_password))
    manifest, _ = read_manifest(folder)
    write_manifest(folder, msgspec.structs.replace(manifest, version="9.9"))
    ModelBundle.open(folder)
    with pytest.raises(BundleError, match="by another key, or for another bundle"):
        signer(folder, key)


def test_a_link_to_a_bundle_stays_one_and_anybody_may_read_the_signature(bundle: Path, key: Path, tmp_path: Path) -> None:
    link = tmp_path / f"current{bundle.suffix}"
    link.symlink_to(bundle)
    sign(link, load_private(key, no_password))
    assert link.is_symlink()
    assert signer(bundle, key) == "anna"
    if bundle.is_dir():
        assert (bundle / SIGNATURE).stat().st_mode & 0o777 == 0o644
    else:
        with zipfile.ZipFile(bundle) as archive:
            assert archive.getinfo(SIGNATURE).external_attr >> 16 == 0o644


def test_a_station_with_trusted_keys_runs_what_it_verified_and_not_what_came_in_its_place(make_bundle: Callable[..., Path]) -> None:
    folder = make_bundle()
    opened = ModelBundle.open(folder, private=True)
    before = opened.model_xml.with_suffix(".bin").read_bytes()
    (folder / "model.bin").write_bytes(b"other weights")
    assert opened.model_xml.with_suffix(".bin").read_bytes() == before


def test_a_run_is_no_bundle_to_sign(tmp_path: Path, key: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(BundleError, match=r"bundle .*/runs: expected a bundle, which lineside-export makes of a run, found no manifest"):
        sign(tmp_path / "runs", load_private(key, no_password))


def test_a_damaged_bundle_is_not_signed(bundle: Path, key: Path) -> None:
    if bundle.is_dir():
        (bundle / "model.bin").write_bytes(b"\0" * 8)
    else:
        bundle.write_bytes(bundle.read_bytes()[:-200])
    with pytest.raises(BundleError):
        sign(bundle, load_private(key, no_password))
    assert not (bundle / SIGNATURE).exists()


def test_a_private_key_is_nobody_else_s_to_read_and_never_overwritten(tmp_path: Path, key: Path) -> None:
    assert key.stat().st_mode & 0o077 == 0
    before = key.read_bytes()
    with pytest.raises(ConfigError, match="is there already"):
        make_keys(key, "")
    assert key.read_bytes() == before
    make_keys(tmp_path / "locked.key", "sésame")
    assert load_private(tmp_path / "locked.key", lambda: "sésame")
    with pytest.raises(ConfigError, match="its password is another one"):
        load_private(tmp_path / "locked.key", lambda: "sesame")


def test_files_that_are_no_keys_are_named(tmp_path: Path, key: Path) -> None:
    other = tmp_path / "other.pub"
    other.write_text("no key")
    for file, found in ((key, "a private one"), (other, "something else"), (tmp_path / "none.pub", "could not read")):
        with pytest.raises(ConfigError, match=rf"^trusted_keys\[0\]: expected an Ed25519 public key .*{found}"):
            load_keys([file])
    for file, found in ((key.with_suffix(".pub"), "something else"), (tmp_path / "none.key", "could not read")):
        with pytest.raises(ConfigError, match=f"^key: expected an Ed25519 private key .*{found}"):
            load_private(file, no_password)


@needs_openssl
def test_openssl_checks_and_makes_the_same_signatures_and_keys(bundle: Path, key: Path, tmp_path: Path) -> None:
    def openssl(*words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)

    opened = sign(bundle, load_private(key, no_password))
    manifest, signature = opened.directory / MANIFEST, opened.directory / SIGNATURE
    openssl("pkeyutl", "-verify", "-pubin", "-inkey", key.with_suffix(".pub"), "-rawin", "-in", manifest, "-sigfile", signature)
    theirs = tmp_path / "theirs.key"
    openssl("genpkey", "-algorithm", "ed25519", "-out", theirs)
    openssl("pkey", "-in", theirs, "-pubout", "-out", theirs.with_suffix(".pub"))
    sign(bundle, load_private(theirs, no_password))
    assert signer(bundle, theirs) == "theirs"


@pytest.mark.slow
def test_a_station_with_trusted_keys_does_not_start_with_an_unsigned_bundle(
    tmp_path: Path, make_bundle: Callable[..., Path], station_dir: Path, key: Path
) -> None:
    folder = make_bundle()
    (station_dir / "recipe.toml").write_text(f'name = "tiny"\nbundle = "{folder}"\ndeadline_ms = 5000\n')
    station = station_dir / "station.toml"
    station.write_text(
        f'name = "s"\nrecipe = "recipe.toml"\ntrusted_keys = ["{key.with_suffix(".pub").relative_to(tmp_path)}"]\n'
        '[source]\nkind = "folder"\npath = "parts"\n[trigger]\nkind = "timer"\nperiod_ms = 50\n'
        f'[publisher]\nendpoint = "ipc://{tmp_path}/pub"\nreplay = "ipc://{tmp_path}/replay"\n[journal]\npath = "journal.sqlite"\n'
    )
    found = {f.what: f for f in check_station(station)}
    assert not found["bundle"].ok
    with pytest.raises(BundleError, match="expected the signature of anna"):
        run_station(station)
    sign(folder, load_private(key, no_password))
    assert "released by anna" in {f.what: f for f in check_station(station)}["bundle"].sentence
    assert run_station(station) == 0


@pytest.mark.slow
def test_the_commands_make_keys_sign_and_verify(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_bundle()

    def export(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "export.cli", *map(str, words)], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    assert export("keygen", "line.key", "--no-password").returncode == 0
    assert export("verify", folder, "--key", "line.pub").returncode == 65
    assert export("sign", folder, "--key", "line.key").returncode == 0
    verified = export("verify", folder, "--key", "line.pub")
    assert verified.returncode == 0
    assert "signature  ok  by line" in verified.stdout
    assert export("sign", folder, "--key", "line.pub").returncode == 78
