"""The learning loop: what is picked up goes on exactly, what does not belong is refused, and the best weights win."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edge_runtime.errors import DataError
from training.core.checkpoint import Checkpoint
from training.core.learn import Pictures, Schedule, Task, hold_out, learn


class Fit(Task):
    """A small network with batch statistics learns a fixed function of noise."""

    def __init__(self, rate: float = 0.05) -> None:
        torch.manual_seed(3)
        self.module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
        self.steps, self.check_every, self.patience = 60, 10, 100
        self.peak = rate
        self.stop_at = -1
        self.taken = 0
        self.looks: list[float] = []

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.module.parameters(), lr=self.peak)

    def loss(self, rng: np.random.Generator) -> Tensor:
        if self.taken == self.stop_at:
            raise KeyboardInterrupt
        self.taken += 1
        self.module.train()
        return self._gap(rng)

    def validate(self) -> float:
        self.module.eval()
        self.looks.append(float(self._gap(np.random.default_rng(99))))
        return self.looks[-1]

    def _gap(self, rng: np.random.Generator) -> Tensor:
        x = torch.from_numpy(rng.normal(size=(16, 4)).astype(np.float32))
        return (self.module(x)[:, 0] - x.sin().sum(1)).square().mean()


class Wander(Task):
    """The weight is the number of steps; what the held-out images say of it is given."""

    def __init__(self, verdicts: Callable[[float], float]) -> None:
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.module.weight)
        self.steps, self.check_every, self.patience = 100, 1, 3
        self.verdicts = verdicts

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.module.parameters(), lr=1.0)

    def rate(self, share: float) -> float:
        return 1.0

    def loss(self, rng: np.random.Generator) -> Tensor:
        return -self.module.weight.sum()

    def validate(self) -> float:
        return self.verdicts(round(weight(self)))


def weight(task: Task) -> float:
    return float(task.module.state_dict()["weight"])


def checkpoint(tmp_path: Path, resume: bool = False, **identity: Any) -> Checkpoint:
    return Checkpoint(tmp_path / "fit.safetensors", {"method": "stfpm", "seed": 0, **identity}, resume, every_s=-1.0)


def state(task: Task) -> dict[str, Tensor]:
    return task.module.state_dict()


@pytest.mark.parametrize("at", [1, 37])
def test_an_interrupted_fit_goes_on_bit_for_bit(at: int, tmp_path: Path) -> None:
    whole = Fit()
    outcome = learn(whole, Schedule(), 7)
    first = Fit()
    first.stop_at = at
    with pytest.raises(KeyboardInterrupt):
        learn(first, Schedule(), 7, checkpoint=checkpoint(tmp_path))
    second = Fit()
    resumed = learn(second, Schedule(), 7, checkpoint=checkpoint(tmp_path, resume=True))
    assert second.taken == 60 - at
    assert replace(resumed, seconds=0.0) == replace(outcome, seconds=0.0)
    assert first.looks + second.looks == whole.looks
    for key, value in state(whole).items():
        assert torch.equal(value, state(second)[key]), key
    assert outcome.best < 0.5 * whole.looks[0]


def test_another_seed_is_another_fit() -> None:
    a, b, c = Fit(), Fit(), Fit()
    for task, seed in ((a, 1), (b, 1), (c, 2)):
        learn(task, Schedule(max_steps=5), seed)
    assert torch.equal(state(a)["0.weight"], state(b)["0.weight"])
    assert not torch.equal(state(a)["0.weight"], state(c)["0.weight"])


def test_a_fit_that_was_over_goes_on_only_for_a_larger_budget(tmp_path: Path) -> None:
    first = Fit()
    learn(first, Schedule(max_steps=20), 0, checkpoint=checkpoint(tmp_path))
    again, longer = Fit(), Fit()
    assert learn(again, Schedule(max_steps=20), 0, checkpoint=checkpoint(tmp_path, resume=True)).steps == 20 and again.taken == 0
    assert torch.equal(state(first)["0.weight"], state(again)["0.weight"])
    assert learn(longer, Schedule(max_steps=30), 0, checkpoint=checkpoint(tmp_path, resume=True)).steps == 30 and longer.taken == 10


@pytest.mark.parametrize(("key", "value"), [("method", "autoencoder"), ("seed", 1), ("rate", 0.1)])
def test_a_checkpoint_of_another_fit_is_refused_in_a_sentence(key: str, value: object, tmp_path: Path) -> None:
    learn(Fit(), Schedule(max_steps=2), 0, checkpoint=checkpoint(tmp_path))
    with pytest.raises(DataError, match=f"expected a fit with {key} {value!r}, found one with .*leave out --resume") as e:
        learn(Fit(), Schedule(), 0, checkpoint=checkpoint(tmp_path, resume=True, **{key: value}))
    assert "\n" not in str(e.value)


def test_a_checkpoint_of_another_part_is_refused(tmp_path: Path) -> None:
    learn(Fit(), Schedule(max_steps=2), 0, checkpoint=replace(checkpoint(tmp_path), part="first"))
    with pytest.raises(DataError, match=r"another part of the fit \(first\)"):
        learn(Fit(), Schedule(), 0, checkpoint=replace(checkpoint(tmp_path, resume=True), part="second"))


@pytest.mark.parametrize("damage", ["absent", "empty", "half", "garbled"])
def test_a_broken_checkpoint_is_named(damage: str, tmp_path: Path) -> None:
    wanted = checkpoint(tmp_path, resume=True)
    if damage != "absent":
        learn(Fit(), Schedule(max_steps=2), 0, checkpoint=checkpoint(tmp_path))
        raw = wanted.path.read_bytes()
        wanted.path.write_bytes({"empty": b"", "half": raw[: len(raw) // 2], "garbled": b"\xff" * len(raw)}[damage])
    with pytest.raises(DataError, match=r"fit\.safetensors: cannot be read .*leave out --resume"):
        learn(Fit(), Schedule(), 0, checkpoint=wanted)


def test_a_checkpoint_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fit\.safetensors: cannot be written"):
        learn(Fit(), Schedule(max_steps=2), 0, checkpoint=checkpoint(tmp_path / "absent"))
    learn(Fit(), Schedule(max_steps=2), 0, checkpoint=checkpoint(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["fit.safetensors"]


def test_patience_ends_it_and_the_best_weights_come_back() -> None:
    task = Wander(lambda step: abs(step - 6))
    outcome = learn(task, Schedule(), 0)
    assert (outcome.ended, outcome.steps, outcome.best_step, outcome.best) == ("patience", 10, 6, 0)
    assert weight(task) == 6 and not task.module.training


def test_what_patience_has_ended_stays_ended(tmp_path: Path) -> None:
    first, second = Wander(lambda step: abs(step - 6)), Wander(lambda step: abs(step - 6))
    learn(first, Schedule(), 0, checkpoint=checkpoint(tmp_path))
    outcome = learn(second, Schedule(), 0, checkpoint=checkpoint(tmp_path, resume=True))
    assert (outcome.ended, outcome.steps, outcome.best_step) == ("patience", 10, 6) and weight(second) == 6


def test_learning_that_only_harms_leaves_the_weights_as_they_were() -> None:
    task = Wander(float)
    assert learn(task, Schedule(), 0).best_step == 0 and weight(task) == 0


def test_a_held_out_loss_that_is_no_number_is_never_the_best() -> None:
    task = Wander(lambda step: math.nan if step < 2 or step == 4 else 10 - step)
    outcome = learn(task, Schedule(max_steps=7), 0)
    assert (outcome.best_step, outcome.best, weight(task)) == (7, 3, 7)


def test_the_time_budget_ends_it_and_sets_the_pace() -> None:
    class Slow(Fit):
        shares: list[float]

        def loss(self, rng: np.random.Generator) -> Tensor:
            time.sleep(0.01)
            return super().loss(rng)

        def rate(self, share: float) -> float:
            self.shares.append(share)
            return super().rate(share)

    task = Slow()
    task.shares = []
    began = time.monotonic()
    outcome = learn(task, Schedule(minutes=0.3 / 60, max_steps=10_000), 0)
    assert outcome.ended == "time" and 1 <= outcome.steps <= 30 and 0.3 <= outcome.seconds <= time.monotonic() - began
    assert task.shares == sorted(task.shares) and task.shares[-1] > 0.5


def test_time_that_is_spent_counts_when_it_is_picked_up(tmp_path: Path) -> None:
    first = learn(Fit(), Schedule(max_steps=5), 0, checkpoint=checkpoint(tmp_path))
    second = learn(Fit(), Schedule(minutes=first.seconds / 60 / 2), 0, checkpoint=checkpoint(tmp_path, resume=True))
    assert (second.ended, second.steps) == ("time", 5) and second.seconds >= first.seconds


def test_a_loss_that_is_no_number_says_what_to_do() -> None:
    class Explode(Fit):
        def loss(self, rng: np.random.Generator) -> Tensor:
            return super().loss(rng) * (math.nan if self.taken == 3 else 1)

    with pytest.raises(DataError, match="no longer a number after 2 steps: the learning rate is too high"):
        learn(Explode(), Schedule(), 0)


def test_progress_rises_to_the_end() -> None:
    seen: list[tuple[str, int, int]] = []
    learn(Fit(), Schedule(max_steps=5), 0, progress=lambda *told: seen.append(told), what="learning it")
    assert [done for _, done, _ in seen] == [200, 400, 600, 800, 1000, 1000] and {(w, t) for w, _, t in seen} == {("learning it", 1000)}


def test_held_out_images_are_the_same_for_the_same_seed_and_never_learnt_from() -> None:
    rows, held = hold_out(50, 4)
    again = hold_out(50, 4)
    assert np.array_equal(rows, again[0]) and np.array_equal(held, again[1])
    assert len(held) == 10 and sorted([*rows, *held]) == list(range(50))
    assert not np.array_equal(held, hold_out(50, 5)[1])
    assert [len(part) for part in hold_out(2, 0)] == [1, 1]
    with pytest.raises(DataError, match="at least 2 good images"):
        hold_out(1, 0)


def test_pictures_are_distorted_when_drawn_and_only_then() -> None:
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((6, 2, 2, 3), np.uint8)
    pictures = Pictures(images, np.array([1, 4, 5]), lambda image, rng: image + np.uint8(100))
    assert [float(b.float().mean()) for b in pictures.batches(1)] == [1, 4, 5] and len(pictures) == 3
    drawn = pictures.draw(40, np.random.default_rng(0))
    assert drawn.shape == (40, 2, 2, 3) and set(drawn.flatten().tolist()) == {101, 104, 105}
