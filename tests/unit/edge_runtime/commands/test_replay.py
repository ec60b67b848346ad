"""`lineside replay`: the station's loop over stored images, and what was expected of them."""

import json
import shutil
from pathlib import Path

import pytest

from edge_runtime.commands.replay import ReplayedImage, expectations, list_all, replay
from edge_runtime.config.files import Recipe
from edge_runtime.errors import DataError, SourceError
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.records import Picture, Verdict
from tests.support.decisions import SCHEMA_1


@pytest.fixture
def bundle(tiny_bundle: Path) -> ModelBundle:
    return ModelBundle.open(tiny_bundle)


@pytest.fixture
def sorted_parts(station_dir: Path) -> Path:
    """good/ (four) and spot/ (two), with masks beside them as MVTec has it."""
    root = station_dir / "test"
    for i in range(6):
        kind = "spot" if i in (2, 5) else "good"
        (root / kind).mkdir(parents=True, exist_ok=True)
        shutil.move(station_dir / "parts" / f"{i:02d}.png", root / kind / f"{i:02d}.png")
    (root / "ground_truth" / "spot").mkdir(parents=True)
    shutil.copy(root / "spot" / "02.png", root / "ground_truth" / "spot" / "02_mask.png")
    return root


def test_every_image_is_judged_once_and_in_order(station_dir: Path, bundle: ModelBundle) -> None:
    seen: list[ReplayedImage] = []
    report = replay(station_dir / "parts", bundle, told=seen.append)
    assert [o.path for o in report.outcomes] == [f"{i:02d}.png" for i in range(6)]
    assert [o.decision.verdict == Verdict.REJECT for o in report.outcomes] == [False, False, True, False, False, True]
    assert [o.decision.part_id for o in seen] == [o.path for o in report.outcomes]
    assert report.disagreements == ()


def test_many_more_images_than_the_station_s_queue_holds_are_no_overrun(station_dir: Path, bundle: ModelBundle) -> None:
    for i in range(6, 60):
        shutil.copy(station_dir / "parts" / "00.png", station_dir / "parts" / f"{i:02d}.png")
    summary = replay(station_dir / "parts", bundle).summary()
    assert (summary["images"], summary["accepts"], summary["rejects"], summary["faults"]) == (60, 58, 2, 0)


def test_sub_folders_tell_what_is_expected(sorted_parts: Path, bundle: ModelBundle) -> None:
    report = replay(sorted_parts, bundle)
    assert report.summary()["with_expectation"] == len(report.outcomes) == 6
    assert report.disagreements == ()
    (sorted_parts / "good/00.png").rename(sorted_parts / "spot/00.png")
    (wrong,) = replay(sorted_parts, bundle).disagreements
    assert (wrong.path, wrong.expected, wrong.decision.verdict) == ("spot/00.png", Verdict.REJECT, Verdict.ACCEPT)


def test_folders_without_a_good_one_tell_nothing(sorted_parts: Path) -> None:
    (sorted_parts / "good").rename(sorted_parts / "monday")
    assert expectations(sorted_parts, list_all(sorted_parts)) == {}


def test_a_table_tells_what_is_expected(station_dir: Path, bundle: ModelBundle) -> None:
    table = station_dir / "expected.csv"
    table.write_text("path,verdict\n00.png,ACCEPT\n02.png,reject\n\n03.png,bad\n")
    report = replay(station_dir / "parts", bundle, expect=table)
    assert report.summary()["with_expectation"] == 3
    assert [o.path for o in report.disagreements] == ["03.png"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("00.png", "line 2: expected path,verdict"),
        ("00.png,maybe", "found '00.png,maybe'"),
        ("99.png,good", "line 2: 99.png is no image below"),
    ],
)
def test_a_table_that_cannot_be_understood_names_its_line(station_dir: Path, row: str, message: str) -> None:
    table = station_dir / "expected.csv"
    table.write_text(f"path,verdict\n{row}\n")
    with pytest.raises(DataError, match=message):
        expectations(station_dir / "parts", list_all(station_dir / "parts"), table)


def test_the_archive_s_own_records_tell_what_was_decided(station_dir: Path, bundle: ModelBundle) -> None:
    from edge_runtime.config.files import ArchiveConfig
    from edge_runtime.images.read import read_image
    from edge_runtime.records import Frame
    from edge_runtime.sinks.archive import Archive

    decided = {o.path: o.decision for o in replay(station_dir / "parts", bundle).outcomes}
    with Archive(ArchiveConfig(path=station_dir / "archive", every_nth_accept=1)) as archive:
        for name, decision in decided.items():
            archive.put(decision, (Picture("", Frame(1, 1, name, read_image(station_dir / "parts" / name)), None),))
    report = replay(station_dir / "archive", bundle)
    assert report.summary()["with_expectation"] == 6
    assert report.disagreements == ()
    stricter = replay(station_dir / "archive", bundle, Recipe(name="strict", bundle=bundle.directory, threshold=0.5))
    assert [o.expected for o in stricter.disagreements] == [Verdict.ACCEPT] * 4


def test_records_of_an_archive_of_schema_1_tell_what_was_decided(station_dir: Path) -> None:
    """At a station with one camera, and at one with two: the view's own verdict counts there."""
    for i, record in enumerate(("archived.json", "archived_side.json")):
        shutil.copy(SCHEMA_1 / record, station_dir / "parts" / f"{i:02d}.json")
    text = (station_dir / "parts/01.json").read_text()
    (station_dir / "parts/02.json").write_text(text.replace('"camera": "side",\n  "decision"', '"camera": "top",\n  "decision"'))
    found = expectations(station_dir / "parts", list_all(station_dir / "parts"))
    assert [(path.name, verdict) for path, verdict in found.items()] == [
        ("00.png", Verdict.REJECT), ("01.png", Verdict.REJECT), ("02.png", Verdict.ACCEPT),
    ]  # fmt: skip


def test_a_record_that_is_no_decision_is_refused(station_dir: Path) -> None:
    (station_dir / "parts/00.json").write_text(json.dumps({"verdict": "MAYBE"}))
    with pytest.raises(DataError, match=r"00\.json: expected a decision"):
        expectations(station_dir / "parts", list_all(station_dir / "parts"))


def test_an_unreadable_image_is_a_fault_and_never_as_expected(sorted_parts: Path, bundle: ModelBundle) -> None:
    (sorted_parts / "good/01.png").write_bytes(b"half")
    report = replay(sorted_parts, bundle)
    (wrong,) = report.disagreements
    assert (wrong.path, wrong.decision.verdict) == ("good/01.png", Verdict.FAULT)
    assert len(report.outcomes) == 6, "the others are judged all the same"


def test_a_nan_is_a_fault_here_as_on_the_line(station_dir: Path, make_bundle) -> None:  # type: ignore[no-untyped-def]
    import cv2
    import numpy as np

    broken = ModelBundle.open(make_bundle(broken="nan"))
    cv2.imwrite(str(station_dir / "parts" / "07.png"), np.full((64, 64), 230, np.uint8))
    report = replay(station_dir / "parts", broken)
    assert [(o.path, o.decision.verdict) for o in report.disagreements] == [("07.png", Verdict.FAULT)]


def test_a_folder_without_images_is_refused(tmp_path: Path, bundle: ModelBundle) -> None:
    with pytest.raises(SourceError, match="found none"):
        replay(tmp_path, bundle)
    with pytest.raises(SourceError, match="expected a folder"):
        replay(tmp_path / "nowhere", bundle)
