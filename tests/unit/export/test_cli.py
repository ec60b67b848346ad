"""`lineside-export`: what verify refuses, how commands end, and what they import."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edge_runtime.console import run_app
from edge_runtime.model.bundle import read_manifest, write_manifest
from edge_runtime.model.manifest import Acceptance, Envelope, Wander
from export.cli import app
from export.package import write_zip


def _verify(path: Path) -> int:
    with pytest.raises(SystemExit) as caught:
        run_app(app, ["verify", str(path)])
    return int(caught.value.code or 0)


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.mark.slow
def test_a_sound_bundle_passes_with_a_line_each(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _verify(bundle) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["manifest", "files", "golden", "golden", "golden", "golden", "bundle"]
    assert all(" ok " in line for line in lines)


@pytest.mark.slow
def test_verify_says_what_was_built_by_force(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, _ = read_manifest(bundle)
    why = "not fit for release: misses 5 of 6 bad parts (83 %; at most 5 % asked for)"
    forced = Acceptance(state="failed", sentence=why, basis="real", max_missed=0.05, max_rejected=0.02, forced=True)
    write_manifest(bundle, msgspec.structs.replace(manifest, acceptance=forced))
    assert _verify(bundle) == 0
    assert f"acceptance NOT RELEASED  {why}" in capsys.readouterr().out


@pytest.mark.slow
def test_an_envelope_is_told(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shifted = Wander(what="shift", amount=0.02, image_auroc=None, rejected=1.0, missed=None, holds=False, breaks="rejects")
    envelope = Envelope(rows=(shifted,), basis="none", n_good=20, n_bad=0, brightness=77.0, sharpness=0.5, light_low=0.9)
    write_manifest(bundle, msgspec.structs.replace(read_manifest(bundle)[0], envelope=envelope))
    assert _verify(bundle) == 0
    assert "envelope   ok  verdicts hold with shift less than 2 %" in capsys.readouterr().out


@pytest.mark.slow
def test_a_zip_passes_too(tiny_bundle: Path, tmp_path: Path) -> None:
    write_zip(tiny_bundle, tmp_path / "b.zip")
    assert _verify(tmp_path / "b.zip") == 0


FILES = ["model.xml", "model.bin", "golden/000.png", "golden/003.png", "manifest.json"]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_refused_and_the_file_named(bundle: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    raw = bytearray((bundle / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (bundle / name).write_bytes(raw)
    assert _verify(bundle) == 65
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_and_named(bundle: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / name).unlink()
    assert _verify(bundle) == 65
    assert name in capsys.readouterr().err


def test_truncated_weights_are_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = (bundle / "model.bin").read_bytes()
    (bundle / "model.bin").write_bytes(raw[: len(raw) // 2])
    assert _verify(bundle) == 65
    assert "model.bin" in capsys.readouterr().err


def test_a_manifest_of_the_future_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "schema": 99}))
    assert _verify(bundle) == 65
    assert "expected schema 1 or 2, found 99" in capsys.readouterr().err


def test_swapped_golden_samples_are_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "golden/000.png").rename(bundle / "x")
    (bundle / "golden/003.png").rename(bundle / "golden/000.png")
    (bundle / "x").rename(bundle / "golden/003.png")
    assert _verify(bundle) == 65
    assert "golden/000.png was altered" in capsys.readouterr().err


@pytest.mark.slow
def test_golden_samples_with_other_scores_are_refused_even_when_all_hashes_fit(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, _ = read_manifest(bundle)
    golden = [msgspec.structs.replace(g, score=g.score * 1.1) if i == 2 else g for i, g in enumerate(manifest.golden)]
    write_manifest(bundle, msgspec.structs.replace(manifest, golden=golden))
    assert _verify(bundle) == 65
    seen = capsys.readouterr()
    assert "DIFFERS  golden/002.png" in seen.out
    assert "1 of 4 golden samples differ" in seen.err


def test_no_bundle_at_all_is_refused(tmp_path: Path) -> None:
    assert _verify(tmp_path / "nothing") == 65
    assert _verify(tmp_path) == 65


def _python(code: str) -> subprocess.CompletedProcess[str]:
    prefix = f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}\n"
    return subprocess.run([sys.executable, "-c", prefix + code], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_verify_needs_no_torch(tiny_bundle: Path) -> None:
    code = (
        "for name in ('torch', 'timm', 'nncf', 'sklearn', 'scipy', 'onnx', 'safetensors'): sys.modules[name] = None\n"
        f"sys.argv = ['lineside-export', 'verify', {str(tiny_bundle)!r}]\nfrom export.cli import main\nmain()"
    )
    ended = _python(code)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["torch", "timm"])
def test_build_without_torch_names_the_extra_in_one_line(missing: str, tmp_path: Path) -> None:
    ended = _python(
        f"sys.modules[{missing!r}] = None\nsys.argv = ['lineside-export', 'build', 'run', '--out', {str(tmp_path / 'b')!r}]\n"
        "from export.cli import main\nmain()"
    )
    assert ended.returncode == 83
    assert len(ended.stderr.splitlines()) == 1
    assert "pip install 'lineside[train]'" in ended.stderr


def test_a_budget_outside_of_0_to_1_and_a_folder_that_is_no_run_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code, words in (
        (["--budget", "-0.1"], 78, "--budget: expected 0 to 1, found -0.1"),
        ([], 66, "run.json"),
    ):
        with pytest.raises(SystemExit) as caught:
            run_app(app, ["build", str(tmp_path), "--out", str(tmp_path / "b"), *arguments])
        assert caught.value.code == code
        assert words in capsys.readouterr().err
