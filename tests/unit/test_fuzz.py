"""What reads from outside takes what it is given, or refuses it with an error of Lineside's own (tests/fuzz.py, `make fuzz`)."""

import contextlib
import shutil
from collections.abc import Iterator

import pytest

from edge_runtime.plc.opcua_values import NoValue
from tests import fuzz

CASES = 150


@pytest.fixture(scope="module", autouse=True)
def _tidy() -> Iterator[None]:
    yield
    shutil.rmtree(fuzz.scratch(), ignore_errors=True)
    for cached in (fuzz.scratch, fuzz.bundle, fuzz.targets):
        cached.cache_clear()


NAMES = [
    "wire", "request", "reply", "door", "station", "recipe", "manifest", "bundle", "release key", "announced", "preprocess",
    "modbus", "s7", "ethernetip", "opcua",
    "png", "jpeg", "tiff", "bmp", "webp", "coco", "labelme", "voc", "yolo", "table",
]  # fmt: skip


def test_every_target_is_tried() -> None:
    assert list(fuzz.targets()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_nobody_meant_is_read_or_refused(name: str) -> None:
    target = fuzz.targets()[name]
    for seed in target.seeds:
        with contextlib.suppress(NoValue):  # what a node may hold, and no tag of ours
            target.parse(seed)  # what it is meant for is read
    one = fuzz.cases(target, seed=1)
    broken = {said: data for data in (one() for _ in range(CASES)) if (said := fuzz.breaks(target, data)) is not None}
    assert broken == {}


def test_a_parser_that_breaks_is_found() -> None:
    target = fuzz.Target(lambda data: data.decode("ascii"), [b"text"])
    one = fuzz.cases(target, seed=1)
    assert any((said := fuzz.breaks(target, one())) and said.startswith("UnicodeDecodeError") for _ in range(300))
