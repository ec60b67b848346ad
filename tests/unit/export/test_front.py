"""The front door: photographs in, a bundle and a page out, in one call."""

import dataclasses
import io
import re
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from edge_runtime.console import run_app
from edge_runtime.errors import ConfigError, NotAccepted, ParityError
from edge_runtime.model.bundle import ModelBundle
from export import front
from export.build import build as builder
from export.build.build import build
from export.build.outcome import BuildReport
from export.cli import show_report
from export.front import Request, make_release, verdict
from export.train import app
from tests.support.shared_extractor import SharedExtractor
from training.data import facts
from training.judging.asked import parse_accept


@pytest.mark.slow
@pytest.mark.usefixtures("children_here")
def test_photographs_in_a_bundle_and_a_page_out(
    data_dir: Path, extractor: SharedExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "build", partial(build, extractor=extractor))
    monkeypatch.setattr(front, "BuildOptions", partial(front.BuildOptions, envelope=False))
    decoded: list[Path] = []
    facts_of_one = facts._facts_of_one
    monkeypatch.setattr(facts, "_facts_of_one", lambda path: (decoded.append(path), facts_of_one(path))[1])
    said: list[str] = []
    request = Request(tmp_path / "rings", image_size="64", allow_duplicates=True)
    released = make_release(data_dir, request, say=lambda text: said.append(str(text)))
    assert len(decoded) == len(set(decoded)) == 38  # looked at once, though inspected and loaded
    assert [s for s in said if s[:2] in {f"{n}/" for n in range(1, 6)}] == [f"{i}/5 {step}" for i, step in enumerate(front.STEPS, 1)]
    assert any("parts lie alike" in s and s.endswith("patchcore") for s in said) and any("threshold" in s for s in said)
    assert not any("misses" in s for s in said), "counts are told of what ships alone"
    manifest = ModelBundle.open(released.bundle).manifest
    assert (manifest.method, manifest.precision) == ("patchcore", released.precision) and manifest.input.height == 64
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rings", "rings.html", "rings.run"]
    assert "<html" in released.page.read_text()[:400]
    told = "\n".join(verdict(released))
    assert "of 6 bad parts" in told and "lineside check" in told and str(released.page) in told
    with pytest.raises(ConfigError, match="--force"):
        make_release(data_dir, request)


@pytest.mark.slow
def test_what_the_gate_refuses_still_gets_its_page(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def refuse(run: object, out: Path, data: object, options: front.BuildOptions, *_: object, **__: object) -> None:
        tried.append(options.precision)
        raise ParityError("parity: verdicts flip")

    monkeypatch.setattr(front, "build", refuse)
    said: list[str] = []
    with pytest.raises(ParityError):
        make_release(data_dir, Request(tmp_path / "rings", image_size="64", allow_duplicates=True), say=lambda text: said.append(str(text)))
    assert tried == ["auto"] and any("refused" in s for s in said)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rings.html", "rings.run"]


@pytest.mark.slow
@pytest.mark.usefixtures("children_here")
def test_page_terminal_and_refusal_speak_of_the_one_model_that_would_ship_and_how_far_its_line_may_stray(
    data_dir: Path, extractor: SharedExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six bad parts cannot show 1 % at 99 % confidence, whatever they score."""
    monkeypatch.setattr(front, "build", partial(build, extractor=extractor))
    built: list[BuildReport] = []
    asked = parse_accept("misses <= 1 %, rejects <= 50 %, confidence 99 %")
    request = Request(tmp_path / "rings", image_size="64", allow_duplicates=True, accept=asked)
    with pytest.raises(NotAccepted) as refusal:
        make_release(data_dir, request, show=built.append)
    (report,) = built
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rings.html", "rings.run"]
    assert report.acceptance is not None and report.told is not None and report.envelope is not None
    page, precision = (tmp_path / "rings.html").read_text(), report.precision.upper()
    assert "How far the line may stray" in page and "which wrote no bundle" in page and report.bundle_id not in page
    assert f"the {precision} model: not fit for release: misses {report.acceptance.missed} of 6" in str(refusal.value)
    assert report.told.what == f"{precision}, test split" and f"{precision} · taught on" in page
    assert f"{report.told.missed} of 6; 95 % interval" in page and report.told.missed == report.acceptance.missed
    output = io.StringIO()
    show_report(report, Console(file=output, width=1000))
    assert "refused, not written" in output.getvalue() and "not hold as it is (not fit for release)" in output.getvalue()
    assert (
        re.search(rf"{precision}, which would ship, on [^\n]*image AUROC", output.getvalue())
        and output.getvalue().count("image AUROC 0.") <= 1
    )
    assert ("against FP32: image AUROC" in output.getvalue()) == (precision == "INT8")

    # By force it is packed as it was judged: nothing is taught or measured a second time.
    def never(*_: object, **__: object) -> None:
        raise AssertionError("made anew")

    with monkeypatch.context() as m:
        m.setattr(front, "teach", never)
        m.setattr(builder, "_Export", never)
        released = make_release(data_dir, dataclasses.replace(request, force=True), show=built.append)
    manifest = ModelBundle.open(released.bundle).manifest
    assert manifest.acceptance is not None and manifest.acceptance.forced and manifest.acceptance.sentence == report.acceptance.sentence
    assert manifest.metrics == report.metrics and manifest.envelope == report.envelope and built[1].told == report.told
    assert "which was done by force" in released.page.read_text()
    with monkeypatch.context() as m:
        m.setattr(front, "teach", never)
        with pytest.raises(AssertionError, match="made anew"):  # another request is another model
            make_release(data_dir, dataclasses.replace(request, force=True, seed=1))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--method", "magic"), "expected auto or one of padim"),
        (("--method", "auto/fine"), "auto chooses the preset"),
        (("--image-size", "64", "--budget-ms", "5"), "--budget-ms only counts together with --image-size auto"),
    ],
)
def test_a_mistake_is_told_before_any_work(
    data_dir: Path, tmp_path: Path, args: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as e:
        run_app(app, ["release", str(data_dir), "--out", str(tmp_path / "b"), *args])
    said, err = capsys.readouterr()
    assert e.value.code == 78 and message in err and said == "" and "Traceback" not in err
    assert not list(tmp_path.iterdir())
