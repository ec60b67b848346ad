"""The store of deployed bundles: whole copies, by their ids."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.errors import BundleError
from edge_runtime.model.bundle import id_of
from edge_runtime.model.store import BundleStore


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "models", 2, [])


def test_a_bundle_is_taken_in_by_its_id_from_a_folder_or_a_zip_file(store: BundleStore, tiny_bundle: Path, tmp_path: Path) -> None:
    packed = Path(shutil.make_archive(str(tmp_path / "tiny"), "zip", tiny_bundle))
    assert id_of(packed) == id_of(tiny_bundle)
    for path in (tiny_bundle, packed):
        bundle, _ = store.take_in(path)
        assert (bundle.id, bundle.directory) == (id_of(tiny_bundle), store.path_of(bundle.id))
        shutil.rmtree(bundle.directory)


def test_a_copy_that_was_damaged_is_refused_and_made_whole_by_taking_it_in_again(store: BundleStore, tiny_bundle: Path) -> None:
    bundle, _ = store.take_in(tiny_bundle)
    (bundle.directory / "model.xml").write_text("nothing")
    with pytest.raises(BundleError, match=r"model\.xml was altered"):
        store.open(bundle.id)
    store.take_in(tiny_bundle)
    assert store.open(bundle.id)[0].id == bundle.id
    assert [p.name for p in store.folder.iterdir()] == [bundle.id]


def test_another_bundle_under_the_name_of_one_is_refused(store: BundleStore, tiny_bundle: Path, make_bundle: Callable[..., Path]) -> None:
    bundle, _ = store.take_in(tiny_bundle)
    shutil.rmtree(bundle.directory)
    shutil.copytree(make_bundle(name="other"), bundle.directory)
    with pytest.raises(BundleError, match="somebody put another one there"):
        store.open(bundle.id)


def test_the_oldest_go_beyond_the_number_kept(store: BundleStore, make_bundle: Callable[..., Path]) -> None:
    ids = [store.take_in(make_bundle(name=f"b{i}"))[0].id for i in range(4)]
    store.take_in(store.path_of(ids[1]))  # used again: the youngest
    store.prune({ids[0]})
    assert {p.name for p in store.folder.iterdir()} == {ids[0], ids[1], ids[3]}


@pytest.mark.parametrize("content", [None, b"no zip"])
def test_what_is_no_bundle_has_no_id(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content)
    assert id_of(path) == ""
