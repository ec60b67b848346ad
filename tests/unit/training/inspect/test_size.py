"""The model's input: aspect, known defects, budget."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from training.data.dataset import load_dataset
from training.inspect import choice as choice_module
from training.inspect.choice import decide
from training.inspect.size import choose_size, smallest_defect

VNNI, FP32 = 75.0, 110.0


@pytest.mark.parametrize(
    ("wh", "expected"),
    [
        ((300, 300), (256, 256)),
        ((80, 80), (256, 256)),
        ((320, 280), (256, 256)),
        ((500, 1240), (640, 256)),
        ((1240, 500), (256, 640)),
        ((400, 100), (128, 512)),
    ],
)
def test_the_aspect_is_kept_and_a_square_stays_one(wh: tuple[int, int], expected: tuple[int, int]) -> None:
    found = choose_size([wh] * 9, ms_per_megapixel=VNNI)
    assert (found.height, found.width) == expected and found.ms <= 15


def test_pictures_of_unlike_aspects_are_brought_to_a_square() -> None:
    found = choose_size([(100 + 40 * i, 300) for i in range(10)], ms_per_megapixel=VNNI)
    assert (found.height, found.width) == (256, 256) and "differ in aspect" in found.why


def test_the_budget_bounds_the_size() -> None:
    wide = choose_size([(1240, 500)], budget_ms=5, ms_per_megapixel=VNNI)
    assert wide.width / wide.height == pytest.approx(2.48, rel=0.15) and wide.ms <= 5.2 and "5 ms allow" in wide.why
    assert choose_size([(640, 640)], least_side=640, ms_per_megapixel=FP32, budget_ms=50).height == 640
    assert choose_size([(640, 640)], least_side=640, ms_per_megapixel=FP32, budget_ms=15).height < 400


def test_small_defects_enlarge_it_up_to_the_pictures_own_size_and_the_budget() -> None:
    assert choose_size([(1000, 1000)], 100, ms_per_megapixel=VNNI).height == 256
    assert choose_size([(1000, 1000)], 24, ms_per_megapixel=VNNI).height == 320
    assert choose_size([(300, 300)], 3, ms_per_megapixel=VNNI).height <= 320
    assert choose_size([(1000, 1000)], 10, ms_per_megapixel=VNNI).height == 448


def test_tiles_are_proposed_where_a_defect_would_be_lost() -> None:
    lost = choose_size([(5472, 3648)], 8, ms_per_megapixel=VNNI)
    assert lost.advice is not None and "--tiles 11x8" in lost.advice and "0.8 pixels" in lost.advice
    assert choose_size([(1000, 1000)], 10, ms_per_megapixel=VNNI).advice is None


def test_a_slow_machine_shrinks_it_only_where_a_budget_is_stated() -> None:
    sizes, slow = [(1000, 1000)] * 3, 5 * VNNI
    assert choose_size(sizes, 10, ms_per_megapixel=slow).height == choose_size(sizes, 10, ms_per_megapixel=VNNI).height == 448
    assert choose_size(sizes, 10, ms_per_megapixel=slow).ms == pytest.approx(5 * 448 * 448 * 75e-6, rel=0.02)
    bound = choose_size(sizes, 10, ms_per_megapixel=slow, budget_ms=15)
    assert bound.height == 192 and bound.ms <= 15.7 and "15 ms allow" in bound.why


def test_known_masks_say_how_small_defects_are_and_the_data_are_resized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for folder, n in (("train/good", 10), ("test/good", 2), ("test/spot", 4)):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(n):
            cv2.imwrite(str(tmp_path / folder / f"{i}.png"), rng.integers(0, 255, (500, 200), dtype=np.uint8))
    (tmp_path / "ground_truth/spot").mkdir(parents=True)
    for i in range(4):
        mask = np.zeros((500, 200), np.uint8)
        mask[40:50, 30:50] = 255  # the largest place of a part counts,
        mask[0, 0] = 255  # not its smallest
        cv2.imwrite(str(tmp_path / "ground_truth/spot" / f"{i}_mask.png"), mask)
    data = load_dataset(tmp_path, image_size="auto")
    assert smallest_defect(data) == pytest.approx(200**0.5, abs=0.1)
    monkeypatch.setattr(choice_module, "ms_per_megapixel", lambda method, precision: {"fp32": FP32, "int8": VNNI}[precision])
    choice = decide(data, budget_ms=15)
    assert (choice.method, choice.preset) == ("padim", "shared")  # noise: nothing is explained by place
    assert choice.size is not None
    assert (choice.dataset.spec.height, choice.dataset.spec.width) == (choice.size.height, choice.size.width) == (480, 192)
    assert any("by estimate about 10 ms of model time in FP32 when nothing else runs" in s for s in choice.said)
    tight = decide(data, budget_ms=0.5, backbone="resnet18")
    assert any("more than the 0.5 ms of --budget-ms" in s for s in tight.said) and any(
        "another time with resnet18" in s for s in tight.said
    )
    assert decide(data, method="padim", image_size="64").dataset is data
