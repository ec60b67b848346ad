"""What every method must keep, as tests: for authors of plug-ins, and run on Lineside's own methods, too.

    from training.testing import MethodContract

    class TestSpread(MethodContract):
        method = "spread"

pytest is needed to run them, not to import them; all of it runs on made-up features, in seconds.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from training.core.base import Features, Head, LevelShape, Outliers
from training.core.learn import Schedule, TrainedHead, learn
from training.methods.table import METHODS, Method, make_params

_SIDE = 64
_N = 8


class MethodContract:
    """Derive a test class and say which method it is about."""

    method: str
    """By what name it is found."""
    levels: Sequence[LevelShape] | None = None
    """(C, h, w) of what its head sees, for one with a network of its own; None: as a backbone gives them at the strides of `fast`."""

    def test_every_preset_makes_a_head_and_can_be_stored(self) -> None:
        """Runs and manifests keep parameters as JSON."""
        for name, (strides, params) in self._row.presets.items():
            assert strides and make_params(self.method, msgspec.json.decode(msgspec.json.encode(dataclasses.asdict(params)))) == params, (
                name
            )
            assert self._row.head(params, self.levels or _levels(strides)).memory_bytes(_N) > 0, name

    def test_good_images_without_any_difference_leave_scores_finite(self) -> None:
        """As few as there may be; what is not valid is 0 in the map, and nothing is below 0."""
        for value in (0.0, 3.5):
            head, valid = self._head(), self._valid()
            _fit(head, Features.of([np.full((_N, *shape), value, np.float32) for shape in self._shapes]), valid, value)
            for levels in (self._odd(value), [torch.full((2, *shape), value) for shape in self._shapes]):
                score, grid = _score(head, levels)
                assert score.shape == (len(levels[0]),) and grid.shape[1:] == (1, *head.grid_hw)
                assert torch.isfinite(score).all() and torch.isfinite(grid).all()
                assert float(score.min()) >= 0 and float(grid.min()) >= 0
                assert not grid[:, 0][:, ~torch.from_numpy(valid)].any()

    def test_what_is_unlike_any_good_image_scores_higher(self) -> None:
        """Larger is more anomalous."""
        head = self._fitted()
        good, odd = _score(head, list(map(torch.from_numpy, self._good())))[0], _score(head, self._odd(9.0))[0]
        assert float(odd.min()) > float(good.median())

    def test_an_image_s_score_is_its_own(self) -> None:
        """Whatever else is in the batch: the device asks for one at a time."""
        head, levels = self._fitted(), self._odd(0.5)
        together = _score(head, levels)[0]
        alone = torch.cat([_score(head, [level[i : i + 1] for level in levels])[0] for i in range(len(together))])
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)

    def test_the_same_seed_fits_the_same_head_which_scores_alike_when_it_is_loaded(self) -> None:
        """Fitting again replaces the earlier fit; all that was fitted is in the state."""
        first, again = self._fitted(), self._fitted()
        if not isinstance(again, TrainedHead):
            _fit(again, Features.of(self._good()), self._valid())
        loaded = self._head()
        loaded.load_state_dict(first.state_dict())
        for other in (again, loaded):
            torch.testing.assert_close(_score(other, self._odd(0.5)), _score(first, self._odd(0.5)))

    @property
    def _row(self) -> Method:
        return METHODS[self.method]

    @property
    def _shapes(self) -> Sequence[LevelShape]:
        return self.levels or _levels(self._row.presets["fast"][0])

    def _head(self) -> Head:
        params: Any = self._row.presets["fast"][1]
        if hasattr(params, "steps"):
            params = dataclasses.replace(params, steps=2)
        return self._row.head(params, list(self._shapes))

    def _valid(self) -> npt.NDArray[np.bool_]:
        valid = np.ones(self._head().grid_hw, bool)
        valid[:, : valid.shape[1] // 2] = False
        return valid

    def _good(self) -> list[npt.NDArray[np.float32]]:
        rng = np.random.default_rng(1)
        return [rng.random((_N, *shape), np.float32) for shape in self._shapes]

    def _odd(self, by: float) -> list[torch.Tensor]:
        return list(map(torch.from_numpy, _odd(self._shapes, by)))

    def _fitted(self) -> Head:
        return _fit(self._head(), Features.of(self._good()), self._valid())


def _levels(strides: Sequence[int]) -> list[LevelShape]:
    return [(12 + 4 * i, _SIDE // stride, _SIDE // stride) for i, stride in enumerate(sorted(strides))]


def _odd(shapes: Sequence[LevelShape], by: float) -> list[npt.NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [(by + rng.random((5, *shape))).astype(np.float32) for shape in shapes]


def _fit(head: Head, good: Features, valid: npt.NDArray[np.bool_], odd_by: float = 9.0) -> Head:
    """A head that learns by steps takes its own few, with outliers that are `odd_by` off."""
    if isinstance(head, TrainedHead):
        odd = _odd([level.shape[1:] for level in good.levels], odd_by)
        masks = np.full((5, *head.grid_hw), np.nan, np.float32)
        outliers = Outliers(Features.of(odd), masks, ("dent",) * 5, np.zeros(5, bool))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            task = head.task(good.subset(np.arange(6)), good.subset(np.arange(6, _N)), valid, outliers, 0)
            learn(task, Schedule(), 0)
    else:
        with torch.no_grad():
            head.fit(good, valid, 0)
    return head


def _score(head: Head, levels: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        score, grid = head.eval()(levels)
    return score, grid
