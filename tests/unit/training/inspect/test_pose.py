"""How parts lie: what is measured of drawn parts that lie alike, are moved, or are different pictures altogether, and what follows."""

import cv2
import numpy as np
import pytest

from training.inspect.pose import ALIKE, ANYHOW, MANY, Pose, advise, pose_of, spread

SIDE = 160


def part(seed: int, shift: float = 0.0, turn: float = 0.0, light: float = 0.0) -> np.ndarray:
    """A plate with a hole and a bar, moved by up to `shift` of the picture and turned by up to `turn` degrees; small and gray."""
    rng = np.random.default_rng(seed)
    image = np.full((SIDE, SIDE), 60, np.float32)
    cv2.rectangle(image, (30, 45), (130, 115), 170, -1)
    cv2.circle(image, (55, 80), 14, 90, -1)
    cv2.rectangle(image, (85, 60), (120, 72), 110, -1)
    matrix = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), float(rng.uniform(-turn, turn)), 1.0)
    matrix[:, 2] += rng.uniform(-shift, shift, 2) * SIDE
    image = np.asarray(cv2.warpAffine(image, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_CONSTANT, borderValue=60))
    image = image * (1 + rng.uniform(-light, light)) + rng.normal(0, 4, image.shape)
    return np.asarray(cv2.resize(image.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA))


def scattered(seed: int) -> np.ndarray:
    """Another layout in every picture."""
    rng = np.random.default_rng(seed)
    image = np.full((SIDE, SIDE), 60, np.float32)
    for _ in range(12):
        x, y = (int(v) for v in rng.integers(0, SIDE, 2))
        cv2.rectangle(image, (x, y), (x + int(rng.integers(10, 45)), y + int(rng.integers(5, 20))), 180, -1)
    return np.asarray(cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA))


def many(**kind: float) -> Pose:
    return pose_of(np.stack([part(seed, **kind) for seed in range(40)]))


def test_the_share_falls_the_less_alike_parts_lie() -> None:
    alike, near, far = (many(shift=s) for s in (0.005, 0.03, 0.15))
    layouts = pose_of(np.stack([scattered(seed) for seed in range(40)]))
    assert alike.explained > 0.9 > near.explained > far.explained > layouts.explained
    assert layouts.explained < ANYHOW < ALIKE < near.explained
    assert alike.shift is not None and near.shift is not None and alike.shift < 0.01 < near.shift < 0.05


def test_of_a_cloth_no_shift_is_told_and_of_parts_that_move_it_is() -> None:
    def cloth(seed: int, period: float) -> np.ndarray:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0:32, 0:32] + rng.uniform(0, period, (2, 1, 1))
        waves = np.sin(2 * np.pi * x / period) + np.sin(2 * np.pi * y / period)
        return np.asarray(128 + 40 * waves + rng.normal(0, 4, (32, 32)), np.float32)

    for period in (6.3, 12.5):
        assert pose_of(np.stack([cloth(seed, period) for seed in range(40)])).shift is None
    far = many(shift=0.06)
    assert far.shift is not None and 0.04 < far.shift < 0.08


def test_light_is_told_apart_from_pose() -> None:
    dim, steady = many(light=0.3), many()
    assert dim.explained == pytest.approx(steady.explained, abs=0.02)
    assert dim.light > 0.1 > 0.02 > steady.light


def test_few_pictures_do_not_make_parts_look_alike() -> None:
    few = [pose_of(np.stack([scattered(100 * i + seed) for seed in range(8)])).explained for i in range(10)]
    assert max(few) < ANYHOW


@pytest.mark.parametrize(
    ("explained", "n_good", "views", "taken", "word"),
    [
        (0.8, MANY, 1, ("padim", "fast"), "parts lie alike (80 % of what"),
        (0.8, MANY - 1, 1, ("patchcore", "fast"), "are few"),
        (0.1, 300, 1, ("patchcore", "fast"), "parts do not lie alike (10 %"),
        (0.0, 300, 1, ("padim", "shared"), "parts lie anyhow (0 %"),
        (0.0, 300, 20, ("patchcore", "fast"), "parts do not lie alike"),
    ],
)
def test_the_method_follows_from_the_number_and_says_it(
    explained: float, n_good: int, views: int, taken: tuple[str, str], word: str
) -> None:
    advice = advise(Pose(min(n_good, 100), explained, None, 0.0), n_good, views)
    assert (advice.method, advice.preset) == taken and word in advice.why


def test_samples_are_spread_over_all_of_them() -> None:
    assert spread(list(range(1000)), 3) == [0, 500, 999]  # type: ignore[arg-type, comparison-overlap]
    assert spread(list(range(5)), 100) == [0, 1, 2, 3, 4]  # type: ignore[arg-type, comparison-overlap]
