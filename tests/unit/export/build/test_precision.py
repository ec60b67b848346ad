"""The fastest precision that the gate passes is built, the next one only where it must be, and a preset's known weakness is remembered."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_runtime.errors import CalibrationError, ConfigError, ExportError, ParityError
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.manifest import Threshold
from export.build import noise, precision
from export.build.build import build
from export.build.gate import Gate, Judged
from export.build.options import BuildOptions
from export.build.precision import Attempt, Side, first_that_passes
from training.calibrate.rules import Scores
from training.core.base import silent
from training.data.dataset import load_dataset
from training.judging.evaluate import measure
from training.runs import Run, load_run

LIMIT = 1.0


def _refused(e: Exception) -> Attempt[str]:
    def run() -> str:
        raise e

    return Attempt("INT8", run)


def test_what_passes_first_is_built_and_nothing_further_is_tried() -> None:
    made: list[str] = []

    def attempts() -> Iterator[Attempt[str]]:
        for name in ("INT8", "INT8 with a layer in float"):
            made.append(name)
            yield Attempt(name, lambda name=name: name)  # type: ignore[misc]

    assert first_that_passes(attempts(), "FP32") == ("INT8", [])
    assert made == ["INT8"]


@pytest.mark.parametrize("e", [ParityError("parity, INT8 against FP32: worse\n  a.png\nnext"), CalibrationError("no"), ExportError("no")])
def test_after_a_refusal_the_next_is_taken_and_both_are_told(e: Exception) -> None:
    found, notes = first_that_passes([_refused(e), Attempt("INT8 in part", lambda: "part")], "FP32")
    assert found == "part"
    assert notes[0].startswith("tried and not taken: ") and "next" not in notes[0] and "built as INT8 in part" in notes[1]


def test_where_all_are_refused_or_cannot_even_be_made_it_is_fp32() -> None:
    def attempts() -> Iterator[Attempt[str]]:
        yield _refused(ExportError("ended with signal SIGSEGV"))
        raise ExportError("quantization failed")

    found, notes = first_that_passes(attempts(), "FP32")
    assert found == "FP32"
    assert "SIGSEGV" in notes[0] and "quantization failed" in notes[1] and "built in FP32" in notes[2]


def test_what_is_no_refusal_ends_the_build() -> None:
    with pytest.raises(ConfigError):
        first_that_passes([_refused(ConfigError("out"))], "FP32")


@pytest.fixture(scope="module")
def gate(run_dir: Path, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return Gate(load_run(run_dir), load_dataset(data_dir, image_size="64"), tmp_path_factory.mktemp("gate"), silent)


def _judge(gate: Gate, seed: int, spread: float) -> tuple[Judged, Side]:
    """Maps that are warm where the test split's 6 bad parts are bad; `spread`: of a noise of each detector's own."""
    own = np.random.default_rng(seed)
    maps = np.random.default_rng(0).gamma(4, 0.1, (len(gate.samples), 8, 8)).astype(np.float32)
    for i, sample in enumerate(gate.samples):
        maps[i, 2:6, 2:6] += 0.0 if sample.is_good else 0.5
    maps = np.maximum(maps + own.normal(0, spread, maps.shape), 0).astype(np.float32)
    taught = np.random.default_rng(1).gamma(4, 0.1, (len(gate.held), 8, 8)) + own.normal(0, spread, (len(gate.held), 8, 8))
    held_out = Scores(*(taught.max(axis=(1, 2)) for _ in range(3)))
    judged = gate.judge(maps.max(axis=(1, 2)), maps, held_out, 0.0)
    return judged, Side(judged, LIMIT, 0.0, measure(judged.scored, LIMIT))


@pytest.mark.slow
def test_a_fall_that_few_masks_explain_passes_unless_the_preset_is_known_to_lose(gate: Gate) -> None:
    (_, before), (_, after) = _judge(gate, 1, 0.0), _judge(gate, 2, 0.12)
    fall = (before.metrics.pixel_auroc or 0) - (after.metrics.pixel_auroc or 0)
    explained = gate.chance(before.judged, after.judged)("pixel_auroc")
    assert 0 < explained < noise.MOST_FALL
    budget = max(0.0, fall - explained / 2)
    after = dataclasses.replace(after, metrics=msgspec.structs.replace(after.metrics, image_auroc=before.metrics.image_auroc, aupro=1.0))
    _, notes = precision.compare(gate, before, after, 9.0, budget, doubted=False)
    assert any("pixel AUROC falls" in n and "to chance" in n for n in notes)
    with pytest.raises(ParityError, match="pixel AUROC falls"):
        precision.compare(gate, before, after, 9.0, budget, doubted=True)


def test_a_collapse_is_refused_however_few_images_show_it(gate: Gate) -> None:
    (_, before), (_, after) = _judge(gate, 1, 0.0), _judge(gate, 2, 3.0)
    with pytest.raises(ParityError, match=r"AUROC falls by .* that 6 bad and 32 good pictures leave to chance"):
        precision.compare(gate, before, after, 9.0, 0.005, doubted=False)


def _promise(value: float, upper: float) -> Threshold:
    return Threshold(value=value, map_value=1.0, rule="false-reject rate 1 %", false_reject_rate=0.01, false_reject_upper=upper)


def test_milliseconds_of_a_busy_machine_are_said_to_be_that() -> None:
    times = {"fp32": 9.0, "int8": 5.0}
    assert precision.costs(times, "int8", load=2.0, cores=2) == []
    (said,) = precision.costs(times, "int8", load=27.3, cores=2)
    assert "busy (load 27 on 2 cores)" in said
    assert len(precision.costs(times, "fp32", load=27.3, cores=2)) == 2


def test_a_threshold_of_int8s_own_names_the_taught_models_once() -> None:
    said = precision.set_anew(_promise(12.3, 0.0523), _promise(12.9, 0.031)).rule
    assert said == (
        "false-reject rate 1 %; set on the INT8 model's own scores; the model as taught (FP32) has 12.3, which promised at most 5.3 %"
    )
    assert precision.set_anew(_promise(12.3, 0.031), _promise(12.9, 0.031)).rule.endswith("the model as taught (FP32) has 12.3")
    assert precision.set_anew(_promise(12.3, 0.031), _promise(12.3, 0.031)).rule == "false-reject rate 1 %"


def test_a_refusal_says_on_which_images_it_rests(gate: Gate, run_dir: Path, tmp_path: Path) -> None:
    (_, before), (_, after) = _judge(gate, 1, 0.0), _judge(gate, 2, 3.0)
    with pytest.raises(
        ParityError, match="INT8 against FP32 on 32 good images, 24 of them taught and counted by their held-out scores, and 6 bad ones"
    ):
        precision.compare(gate, before, after, 9.0, 0.005, doubted=False)
    untested = dataclasses.replace(gate.dataset, test=(), bad=tuple(s for s in gate.dataset.test if not s.is_good))
    other = Gate(load_run(run_dir), untested, tmp_path, silent)
    assert other.judged_on == "24 good images, by their held-out scores, and 6 bad ones"


def test_a_part_that_was_taught_counts_in_either_layout_of_the_same_images(gate: Gate, run_dir: Path, tmp_path: Path) -> None:
    """One taught part far from the border in FP32 is rejected in INT8: refused, whether or not others are held back to test with."""
    bad = tuple(s for s in gate.dataset.test if not s.is_good)
    flat = Gate(load_run(run_dir), dataclasses.replace(gate.dataset, test=(), bad=bad), tmp_path, silent)
    for each, n in ((gate, 38), (flat, 30)):
        maps = np.full((len(each.samples), 8, 8), 0.5, np.float32)
        maps[[not s.is_good for s in each.samples]] = 2.0
        sides = []
        for turned in (0.5, 1.5):
            held = np.full(len(each.held), 0.5)
            held[3] = turned
            judged = each.judge(maps.max(axis=(1, 2)), maps, Scores(held, held, held), 0.0)
            sides.append(Side(judged, LIMIT, 0.0, measure(judged.scored, LIMIT)))
        assert len(sides[0].judged.compared.samples) == n
        assert [f.image for f in precision.flips_of(each, *sides).losses] == [each.names_of(each.held)[3]]
        with pytest.raises(ParityError, match=f"1 of {n} parts that were judged right are judged wrong"):
            precision.compare(each, sides[0], sides[1], 0.15, 0.5, doubted=True)


@pytest.mark.slow
@pytest.mark.usefixtures("children_here")
def test_a_preset_that_is_known_to_lose_is_fp32_where_nobody_could_tell(run_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    run = load_run(run_dir)
    assert precision.known_to_lose(run.info) is None
    known = Run(run.directory, msgspec.structs.replace(run.info, preset="shared"), run.held_out, run.ignore)
    shutil.copytree(data_dir / "train" / "good", tmp_path / "good" / "train" / "good")
    report = build(known, tmp_path / "bundle", tmp_path / "good", BuildOptions(envelope=False))
    assert ModelBundle.open(report.out).manifest.precision == "fp32"
    assert "known to cost preset shared of padim" in report.notes[0]
