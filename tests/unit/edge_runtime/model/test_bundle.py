"""Bundles are immutable: whatever was altered, cut, swapped, added or taken away is refused, and named."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.errors import BundleError, DeviceError, LinesideError
from edge_runtime.model import bundle as b
from edge_runtime.model.predictor import OpenvinoPredictor

Damage = Callable[[Path], None]


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bundle, tmp_path / "copy")


def files_of(directory: Path) -> list[str]:
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())


def zip_of(directory: Path, to: Path, cut: float = 1.0) -> Path:
    with zipfile.ZipFile(to, "w") as archive:
        for name in files_of(directory):
            archive.write(directory / name, name)
    raw = to.read_bytes()
    to.write_bytes(raw[: int(len(raw) * cut)])
    return to


def refused(path: Path) -> str:
    with pytest.raises(BundleError) as e:
        b.ModelBundle.open(path)
    return str(e.value)


def edit(directory: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Alter the manifest and seal it again, as a careful forger or another version would."""
    manifest = json.loads((directory / b.MANIFEST).read_bytes())
    change(manifest)
    raw = json.dumps(manifest).encode()
    (directory / b.MANIFEST).write_bytes(raw)
    (directory / b.SEAL).write_text(f"{b.file_sha256(directory / b.MANIFEST)}  {b.MANIFEST}\n")


def test_an_intact_bundle_opens_and_its_id_is_the_hash_of_its_manifest(tiny_bundle: Path) -> None:
    bundle = b.ModelBundle.open(tiny_bundle)
    assert bundle.id == b.file_sha256(tiny_bundle / b.MANIFEST)
    assert bundle.model_xml.is_file()
    assert bundle.manifest.threshold.value == 20.0


def test_a_zip_opens_to_the_same_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = b.ModelBundle.open(zip_of(tiny_bundle, tmp_path / "b.zip"))
    assert bundle.id == b.ModelBundle.open(tiny_bundle).id
    assert (scratch := bundle.model_xml).is_file()
    del bundle
    assert not scratch.exists()


def test_a_flipped_bit_in_any_file_is_refused_with_the_file_named(tiny_bundle: Path, tmp_path: Path) -> None:
    names = files_of(tiny_bundle)
    assert len(names) == 8
    for name in names:
        for where in (0.0, 0.5, 1.0):
            copy = shutil.copytree(tiny_bundle, tmp_path / "copy", dirs_exist_ok=True)
            raw = bytearray((copy / name).read_bytes())
            raw[int(where * (len(raw) - 1))] ^= 1
            (copy / name).write_bytes(raw)
            assert name in refused(copy)


def test_a_flipped_bit_anywhere_in_the_manifest_is_refused(copy: Path) -> None:
    whole = (copy / b.MANIFEST).read_bytes()
    for i in range(0, len(whole), 7):
        (copy / b.MANIFEST).write_bytes(whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :])
        assert b.MANIFEST in refused(copy)


def test_a_missing_file_is_refused_with_the_file_named(tiny_bundle: Path, tmp_path: Path) -> None:
    for name in files_of(tiny_bundle):
        copy = shutil.copytree(tiny_bundle, tmp_path / "copy", dirs_exist_ok=True)
        (copy / name).unlink()
        assert name in refused(copy)


def test_swapped_golden_samples_are_refused(copy: Path) -> None:
    a, z = copy / "golden/000.png", copy / "golden/003.png"
    first, last = a.read_bytes(), z.read_bytes()
    a.write_bytes(last)
    z.write_bytes(first)
    assert "golden/000.png was altered" in refused(copy)


def test_a_truncated_model_is_refused(copy: Path) -> None:
    weights = copy / "model.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "model.bin was altered" in refused(copy)


def test_a_file_that_the_manifest_does_not_list_is_refused(copy: Path) -> None:
    (copy / "golden" / "notes.txt").write_text("hello")
    assert "golden/notes.txt is not listed" in refused(copy)


@pytest.mark.parametrize("deep", [False, True])
def test_many_folders_are_refused_before_all_of_them_are_looked_into(copy: Path, monkeypatch: pytest.MonkeyPatch, deep: bool) -> None:
    """Empty ones, as a rule: whoever hands a bundle over decides how many."""
    monkeypatch.setattr(b, "_MOST_FOLDERS", 100)
    place = copy
    for i in range(150):
        place = place / "d" if deep else copy / f"d{i % 30}" / str(i)
        place.mkdir(parents=True)
    looked: list[object] = []
    scandir = os.scandir
    monkeypatch.setattr("os.scandir", lambda path: looked.append(path) or scandir(path))
    assert "expected at most 100 folders, found more: this is no bundle" in refused(copy)
    assert len(looked) <= 101


def test_a_few_empty_folders_and_links_to_folders_are_none_of_its_files(copy: Path) -> None:
    (copy / "golden" / "empty").mkdir()
    (copy / "round").symlink_to(copy)
    assert b.ModelBundle.open(copy).directory == copy


def test_a_folder_that_cannot_be_looked_into_is_no_bundle(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "kept").mkdir()
    scandir = os.scandir

    def denied(path: str) -> object:
        if path.endswith("kept"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("os.scandir", denied)
    assert "cannot be looked at: Permission denied" in refused(copy)


def test_a_manifest_of_a_future_schema_is_refused_as_that(copy: Path) -> None:
    edit(copy, lambda m: m.update(schema=99, novelty=1))
    assert "expected schema 1 or 2, found 99" in refused(copy)


def test_a_bundle_of_schema_1_shrinks_by_area_as_it_did(copy: Path) -> None:
    def of_before(manifest: dict[str, Any]) -> None:
        manifest.update(schema=1)
        del manifest["input"]["shrink"]

    assert b.ModelBundle.open(copy).manifest.input.shrink == "halves"
    edit(copy, of_before)
    assert b.ModelBundle.open(copy).manifest.input.shrink == "area"


def test_an_unknown_key_in_the_manifest_is_refused(copy: Path) -> None:
    edit(copy, lambda m: m.update(novelty=1))
    assert "novelty" in refused(copy)


def test_a_manifest_without_hashes_cannot_be_trusted(copy: Path) -> None:
    edit(copy, lambda m: m["files"].pop("model.bin"))  # type: ignore[attr-defined]
    assert "no hash for model.bin" in refused(copy)


def test_a_manifest_that_names_files_outside_is_refused(copy: Path) -> None:
    (copy.parent / "outside.txt").write_text("x")
    edit(copy, lambda m: m["files"].update({"../outside.txt": b.file_sha256(copy.parent / "outside.txt")}))  # type: ignore[attr-defined]
    assert "no file inside of the bundle" in refused(copy)


def test_a_manifest_with_too_few_golden_samples_is_refused(copy: Path) -> None:
    edit(copy, lambda m: m.update(golden=m["golden"][:3]))  # type: ignore[index]
    assert "golden" in refused(copy)


IMPOSSIBLE: dict[str, tuple[tuple[str | int, ...], object, str]] = {
    "accepts every part": (("threshold", "value"), 1e308, "every part would be accepted"),
    "accepts nearly every part": (("threshold", "value"), 2000.0, "every part would be accepted"),
    "marks no place": (("threshold", "map_value"), 1e308, "no place would ever be marked"),
    "divides by nothing": (("threshold", "map_value"), 5e-324, "1e-12"),
    "proves nothing": (("golden_tolerance",), 1e300, "0.05"),
    "promises beyond all": (("threshold", "false_reject_upper"), 2, "<= 1.0"),
    "frames of no size": (("input", "frame_wh"), [64, -1], ">= 1"),
    "frames without end": (("input", "frame_wh"), [64, 2**40], "<= 1048576"),
    "frames beyond memory": (("input", "frame_wh"), [2**20, 2**20], "at most 268,435,456 pixels, found 1,099,511,627,776"),
    "frames of other golden samples": (("input", "frame_wh"), [7, 64], "golden sample golden/000.png"),
    "a region without end": (("input", "roi"), [0, 0, 2**40, 2**40], "<= 1048576"),
    "a region beyond memory": (("input", "roi"), [0, 0, 60_000, 60_000], "at most 268,435,456 pixels"),
    "tiles beyond memory": (("input", "tiles"), {"columns": 1024, "rows": 1024}, "at most 1024 tiles, found 1,048,576"),
    "two channels": (("input", "channels"), 2, "1 channel or 3, found 2"),
    "a picture of another size than the model takes": (("input", "height"), 2**20, "the manifest says [1, 1048576"),
    "a mask without a name": (("input", "ignore_mask"), "", "length >= 1"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_a_manifest_that_says_something_impossible_is_refused_whoever_sealed_it(copy: Path, case: str) -> None:
    """A bug's exit code would have systemd start it again for ever; a threshold that accepts everything would never be noticed."""
    (*path, last), value, expected = IMPOSSIBLE[case]

    def change(manifest: Any) -> None:
        for key in path:
            manifest = manifest[key]
        manifest[last] = value

    edit(copy, change)
    with pytest.raises(BundleError) as e, OpenvinoPredictor(b.ModelBundle.open(copy)) as predictor:
        predictor.run_golden()
    assert expected in str(e.value)


@pytest.mark.parametrize("name", ["a/" * 3000, "x" * 300, "a\0b", "", "golden/../../b"])
def test_a_name_that_no_file_can_have_is_refused(copy: Path, name: str) -> None:
    edit(copy, lambda m: m["files"].update({name: "0" * 64}))  # type: ignore[attr-defined]
    assert "no file inside of the bundle" in refused(copy)


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_manifest_of_any_numbers_and_words_is_taken_or_refused_and_never_a_bug(copy: Path, data: st.DataObject) -> None:
    edges = [0, -1, 1e308, -1e308, 5e-324, 2**31, 2**63, 2**64, 0.5, None, True, "", "\0", "a/" * 300, [], {}, [0, 0, 2**30, 2**30]]

    def change(manifest: Any) -> None:
        places = [(d, k) for d in _tables(manifest) for k in (d if isinstance(d, dict) else range(len(d)))]
        where, key = data.draw(st.sampled_from(places))
        where[key] = data.draw(st.one_of(st.sampled_from(edges), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)))

    whole, seal = (copy / b.MANIFEST).read_bytes(), (copy / b.SEAL).read_bytes()
    edit(copy, change)
    try:
        with OpenvinoPredictor(b.ModelBundle.open(copy)) as predictor:
            predictor.run_golden()
    except LinesideError as e:
        assert str(copy) in str(e) or str(e).startswith("bundle ")
    finally:
        (copy / b.MANIFEST).write_bytes(whole)
        (copy / b.SEAL).write_bytes(seal)


def _tables(table: Any) -> Iterator[Any]:
    yield table
    for inside in table.values() if isinstance(table, dict) else table:
        if isinstance(inside, dict | list) and inside:
            yield from _tables(inside)


def test_a_manifest_without_end_is_refused_before_it_is_read_whole(copy: Path) -> None:
    with (copy / b.MANIFEST).open("r+b") as f:
        f.truncate(1 << 40)  # a hole: it takes no room
    assert "expected at most 67,108,864 bytes" in refused(copy)


def test_an_empty_folder_and_no_folder_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "manifest.json is missing" in refused(tmp_path / "empty")
    assert "found nothing at" in refused(tmp_path / "nowhere")


def test_a_zip_that_would_unpack_elsewhere_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    for name in ("../evil.txt", "/tmp/lineside-evil.txt", "golden\\..\\evil.txt"):
        file = zip_of(tiny_bundle, tmp_path / "b.zip")
        with zipfile.ZipFile(file, "a") as archive:
            entry = zipfile.ZipInfo("x")
            entry.filename = name  # past the constructor, which would tidy it up
            archive.writestr(entry, "evil")
        said = refused(file)
        assert "outside of it" in said
        assert not (tmp_path / "evil.txt").exists()


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_of_a_bundle_that_is_not_admitted_is_unpacked_or_copied(
    tiny_bundle: Path, tmp_path: Path, zipped: bool, private: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = zip_of(tiny_bundle, tmp_path / "b.zip") if zipped else tiny_bundle
    there: list[str] = []

    def admit(manifest: bytes, signature: bytes | None) -> None:
        assert (manifest, signature) == ((tiny_bundle / b.MANIFEST).read_bytes(), None)
        there.extend(p.name for scratch in tmp_path.glob("lineside-bundle-*") for p in scratch.rglob("*"))
        raise BundleError("not by us")

    with pytest.raises(BundleError, match="not by us"):
        b.ModelBundle.open(path, private, admit)
    assert sorted(there) == (sorted([b.MANIFEST, b.SEAL]) if zipped or private else [])
    assert not list(tmp_path.glob("lineside-bundle-*")), "nothing stays"


@pytest.mark.parametrize("name", ["big.bin", "golden/000.png", b.MANIFEST])
def test_a_zip_that_would_fill_the_disk_is_refused_before_it_is_unpacked(
    tiny_bundle: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bomb: 200 MB of zeros in 200 kB, beside what the manifest lists or in its place."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    written: list[int] = []
    monkeypatch.setattr(zipfile.ZipFile, "extractall", lambda *_: written.append(1))
    file = tmp_path / "b.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in files_of(tiny_bundle):
            if one != name:
                archive.write(tiny_bundle / one, one)
        archive.writestr(name, bytes(200 << 20))
    why = {
        "big.bin": "big.bin is not listed",
        "golden/000.png": "golden/000.png takes 210 MB, of which 0.2 MB are in the zip file",
        b.MANIFEST: "expected at most 67,108,864 bytes",
    }
    assert why[name] in refused(file)
    assert written == []


def test_a_zip_for_which_there_is_no_room_is_refused_before_it_is_unpacked(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = zip_of(tiny_bundle, tmp_path / "b.zip")
    monkeypatch.setattr(zipfile.ZipFile, "extractall", lambda *_: pytest.fail("unpacked"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 100))  # type: ignore[attr-defined]
    with pytest.raises(DeviceError, match=r"it takes .* MB, 0 MB are free"):
        b.ModelBundle.open(file)


def test_a_zip_that_holds_a_file_twice_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    file = zip_of(tiny_bundle, tmp_path / "b.zip")
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("model.xml", "another")
    assert "a file twice" in refused(file)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_zip_is_refused(tiny_bundle: Path, tmp_path: Path, share: float) -> None:
    assert "could not unpack it" in refused(zip_of(tiny_bundle, tmp_path / "b.zip", cut=share))


def test_a_zip_with_damaged_contents_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    file = zip_of(tiny_bundle, tmp_path / "b.zip")
    raw = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo("model.xml")
    raw[info.header_offset + 200] ^= 1
    file.write_bytes(raw)
    assert "b.zip" in refused(file)


def test_a_zip_whose_compressed_data_is_damaged_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "b.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", bytes(range(256)) * 40)
        info = archive.getinfo("manifest.json")
    raw = bytearray(file.read_bytes())
    start = info.header_offset + 30 + len("manifest.json")
    raw[start : start + 8] = b"\xff" * 8
    file.write_bytes(raw)
    assert "could not unpack it" in refused(file)


def test_writing_a_manifest_seals_it(copy: Path) -> None:
    manifest, old = b.read_manifest(copy)
    new = b.write_manifest(copy, msgspec.structs.replace(manifest, version="2"))
    assert new != old
    assert b.ModelBundle.open(copy).id == new


def test_a_bayer_mosaic_of_three_channels_is_no_valid_input(copy: Path) -> None:
    edit(copy, lambda m: m["input"].update(bayer="RGGB", channels=3))  # type: ignore[attr-defined]
    assert "a Bayer mosaic has 1 channel, found 3 - at `$.input`" in refused(copy)


def test_a_manifest_from_before_tiles_and_mosaics_opens_as_one_without(copy: Path) -> None:
    def older(manifest: dict[str, object]) -> None:
        del manifest["input"]["tiles"], manifest["input"]["bayer"]  # type: ignore[attr-defined]

    edit(copy, older)
    spec = b.ModelBundle.open(copy).manifest.input
    assert (spec.tiles, spec.bayer) == (None, None)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_room_for_a_copy_is_not_the_bundle_s_fault(
    tiny_bundle: Path, tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service tries again after that, and finds the disk with room."""
    path = zip_of(tiny_bundle, tmp_path / "b.zip") if zipped else tiny_bundle
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(DeviceError, match=r"could not be copied to .*gone, where it is verified: No such file"):
        b.ModelBundle.open(path, private=True)
