"""The drawn line: repeatable parts whose truth is known."""

import numpy as np
import pytest

from edge_runtime.sources.drawn import DEFECTS, Line


def test_a_part_depends_on_seed_and_number_only() -> None:
    forward, alone = Line(64, 48, 0.5, seed=3), Line(64, 48, 0.5, seed=3)
    parts = [forward.part(n) for n in range(6)]
    assert np.array_equal(alone.part(5).image, parts[5].image)
    assert not np.array_equal(parts[0].image, parts[1].image)
    assert not np.array_equal(Line(64, 48, 0.5, seed=4).part(5).image, parts[5].image)
    assert parts[0].image.shape == (48, 64) and parts[0].image.dtype == np.uint8


def test_defects_come_at_the_stated_rate_and_in_every_kind() -> None:
    kinds = [Line(32, 32, 0.3, seed=1).part(n).kind for n in range(300)]
    assert 0.2 < 1 - kinds.count("good") / 300 < 0.4
    assert set(kinds) == {"good", *DEFECTS}
    assert {Line(32, 32, 0.0).part(n).kind for n in range(50)} == {"good"}
    assert "good" not in {Line(32, 32, 1.0).part(n).kind for n in range(50)}


@pytest.mark.parametrize("kind", DEFECTS)
def test_the_mask_shows_where_a_defective_part_differs_from_a_good_one(kind: str) -> None:
    line = Line(200, 160, seed=2)
    for n in range(8):
        good, bad = line.draw(n, "good"), line.draw(n, kind)  # type: ignore[arg-type]
        assert not good.truth.any() and 20 < np.count_nonzero(bad.truth) < 0.05 * bad.truth.size
        difference = np.abs(bad.image.astype(float) - good.image.astype(float))
        inside = bad.truth > 0
        assert difference[inside].mean() > 20
        assert difference[~inside].mean() < 8, "lamp and sensor noise only"
