"""Bad parts that were filed among the good ones are named, and not learnt where they are many."""

from dataclasses import asdict

import numpy as np
import pytest

from edge_runtime.model.manifest import InputSpec
from edge_runtime.model.preprocess import Preprocessor
from training.calibrate.tail import Odd
from training.core.base import Features
from training.fitting import odd
from training.fitting.heads import fit_head, score_features
from training.fitting.odd import same_way, say_alike, screen
from training.methods.padim import PRESETS

SHAPE = (6, 8, 8)
PLAIN = Preprocessor(InputSpec(height=64, width=64, channels=1))


def good(n: int, seed: int) -> np.ndarray:
    """(n, 6, 8, 8) features of parts that lie alike: a mean a place, and channels that vary together."""
    rng = np.random.default_rng(seed)
    return (np.random.default_rng(0).normal(size=SHAPE) + rng.normal(size=(n, *SHAPE))).astype(np.float32)


def bad(n: int, seed: int) -> np.ndarray:
    """The same with a patch of 2x2 places that belongs nowhere."""
    features, rng = good(n, seed), np.random.default_rng(seed + 1)
    for part in features:
        y, x = rng.integers(0, 6, 2)
        part[:, y : y + 2, x : x + 2] += 6
    return features


def test_a_tenth_of_bad_images_is_named_and_not_learnt() -> None:
    level = np.concatenate([good(90, 1), bad(10, 2)])
    found = screen(Features.of([level]), [SHAPE], PLAIN, 0)
    assert found.named[90:].mean() >= 0.9 and found.named[:90].mean() <= 0.05
    assert found.apart[90:].mean() >= 0.9
    # What is fitted without them tells new bad parts as if they had never been there.
    params = asdict(PRESETS["fast"][1])
    fresh = Features.of([np.concatenate([good(40, 3), bad(40, 4)])])
    heads = [fit_head("padim", params, [SHAPE], f, PLAIN, 0) for f in (
        Features.of([level]).only(np.flatnonzero(~found.apart)), Features.of([level[:90]]), Features.of([level]))]  # fmt: skip
    ours, clean, naive = (_gap(score_features(h, fresh, PLAIN).score) for h in heads)
    assert ours > 0.9 * clean and ours > 1.2 * naive


def _gap(scores: np.ndarray) -> float:
    return float((np.median(scores[40:]) - np.median(scores[:40])) / np.std(scores[:40]))


def test_good_images_alone_are_all_learnt() -> None:
    found = screen(Features.of([good(100, 5)]), [SHAPE], PLAIN, 0)
    assert not found.apart.any() and found.named.sum() <= 2


@pytest.mark.parametrize("n", [2, 8, 15])
def test_few_images_are_not_judged(n: int) -> None:
    found = screen(Features.of([bad(n, 6)]), [SHAPE], PLAIN, 0)
    assert not found.named.any() and not found.apart.any()


def test_how_odd_an_image_is_counts_from_the_most_unlike_of_the_others() -> None:
    found = screen(Features.of([np.concatenate([good(60, 7), bad(4, 8)])]), [SHAPE], PLAIN, 0)
    assert found.named[60:].all()
    assert (found.margins[found.named] > 1).all() and found.margins[~found.named & ~found.apart].max() == pytest.approx(1)
    assert (np.argsort(found.margins) == np.argsort(found.scores)).all()


def test_variations_and_a_subset_of_the_images_are_looked_at_as_whole_images() -> None:
    level = np.concatenate([good(60, 7), bad(8, 8)])
    varied = np.repeat(level, 3, axis=0)
    features = Features.of([varied], copies=2).only(np.arange(10, 68))
    found = screen(features, [SHAPE], PLAIN, 0)
    assert len(found.scores) == 58 and found.named[50:].mean() >= 0.6 and found.named[:50].mean() < 0.1


def variant(n: int, seed: int) -> np.ndarray:
    """Parts of which one place shows something else, the same on all."""
    features = good(n, seed)
    features[:, :, 2:4, 3:6] += np.random.default_rng(9).normal(0, 8, (SHAPE[0], 2, 3))
    return features


@pytest.mark.parametrize("views", [1, 2])
def test_odd_ones_that_are_a_second_variant_are_told_from_bad_ones(views: int) -> None:
    level = np.concatenate([good(80 * views, 1), variant(10 * views, 2), bad(6 * views, 3)])
    found = same_way(Features.of([level], views=views), np.arange(80), np.arange(96) >= 80)
    assert found[80:90].all() and not found[90:].any() and not found[:80].any()


def test_bad_ones_at_many_places_are_no_variant() -> None:
    level, rng = good(100, 1), np.random.default_rng(2)
    for part in level[80:]:
        y, x = rng.integers(0, 6, 2)
        part[:, y : y + 2, x : x + 2] += rng.normal(0, 8, (SHAPE[0], 1, 1))
    assert not same_way(Features.of([level]), np.arange(80), np.arange(100) >= 80).any()


def test_a_second_variant_is_said_with_what_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(odd, "find_odd", lambda scores: Odd(np.arange(len(scores)) >= 98))
    found = screen(Features.of([np.concatenate([good(100, 1), variant(7, 2)])]), [SHAPE], PLAIN, 0)
    assert found.alike[100:].all() and not found.alike[:100].any()
    names = [f"{i}.png" for i in np.flatnonzero(found.alike)]
    assert say_alike(names, names).startswith("7 images look unlike the others and like each other (100.png, 101.png, …): a second variant")
    assert "keep them with --keep-odd, or teach more of them" in say_alike(names, names)
    assert "--keep-odd" not in say_alike(names, []), "they were learnt"
