"""The front door: photographs in, a bundle and a page out, in one call."""

import sys
from functools import partial
from pathlib import Path

import pytest

from edge_runtime.bundle import ModelBundle
from edge_runtime.console import run_app
from edge_runtime.errors import ConfigError, ParityError
from export import front
from export.build import build
from export.front import Request, make_release, verdict
from export.workshop import SharedWorkshop
from training import facts


@pytest.mark.usefixtures("children_here")
def test_photographs_in_a_bundle_and_a_page_out(
    data_dir: Path, workshop: SharedWorkshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "build", partial(build, workshop=workshop))
    monkeypatch.setattr(front, "Options", partial(front.Options, envelope=False))
    decoded: list[Path] = []
    look_at = facts._look_at
    monkeypatch.setattr(facts, "_look_at", lambda path: (decoded.append(path), look_at(path))[1])
    said: list[str] = []
    request = Request(tmp_path / "rings", image_size="64", allow_duplicates=True)
    released = make_release(data_dir, request, say=lambda text: said.append(str(text)))
    assert len(decoded) == len(set(decoded)) == 38  # looked at once, though inspected and loaded
    assert [s for s in said if s[:2] in {f"{n}/" for n in range(1, 6)}] == [f"{i}/5 {step}" for i, step in enumerate(front.STEPS, 1)]
    assert any("parts lie alike" in s and s.endswith("padim") for s in said) and any("threshold" in s for s in said)
    assert any("bad" in s and "misses" in s for s in said), "what was taught is told before it is quantized"
    manifest = ModelBundle.open(released.bundle).manifest
    assert (manifest.method, manifest.precision) == ("padim", released.precision) and manifest.input.height == 64
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rings", "rings.html", "rings.run"]
    assert "<html" in released.page.read_text()[:400]
    told = "\n".join(verdict(released))
    assert "of 6 bad parts" in told and "lineside check" in told and str(released.page) in told
    with pytest.raises(ConfigError, match="--force"):
        make_release(data_dir, request)


def test_what_the_gate_refuses_still_gets_its_page(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def refuse(run: object, out: Path, data: object, options: front.Options, *_: object, **__: object) -> None:
        tried.append(options.precision)
        raise ParityError("parity: verdicts flip")

    monkeypatch.setattr(front, "build", refuse)
    said: list[str] = []
    with pytest.raises(ParityError):
        make_release(data_dir, Request(tmp_path / "rings", image_size="64", allow_duplicates=True), say=lambda text: said.append(str(text)))
    assert tried == ["auto"] and any("refused" in s for s in said)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rings.html", "rings.run"]


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
        run_app(front.app, [str(data_dir), "--out", str(tmp_path / "b"), *args])
    said, err = capsys.readouterr()
    assert e.value.code == 78 and message in err and said == "" and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_lineside_train_becomes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from training import cli

    became: list[list[str]] = []

    def become(program: str, words: list[str]) -> None:
        became.append([program, *words])
        raise SystemExit(0)

    monkeypatch.setattr("os.execv", become)
    with pytest.raises(SystemExit):
        run_app(cli.app, ["release", "parts", "--out", "b", "--help"])
    assert became == [[sys.executable, sys.executable, "-m", "export.front", "parts", "--out", "b", "--help"]]
