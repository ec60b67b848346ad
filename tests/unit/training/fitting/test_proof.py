"""What cannot be had is refused before an image is read."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runtime.console import run_app
from edge_runtime.errors import LinesideError
from training.commands.cli import app
from training.fitting.options import FitOptions
from training.fitting.proof import prove


@pytest.mark.parametrize(
    ("options", "message"),
    [({"method": "padim", "overrides": {"components": -5}}, r"components in \(0, 1\], found"),
     ({"method": "stfpm", "overrides": {"momentum": 3}}, "momentum"),
     ({"method": "padim", "backbone": "resnet1"}, "names that are near: resnet1.*often taken: tf_efficientnet_lite0"),
     ({"method": "padim", "weights": Path(__file__)}, "cannot be read as a state dict"),
     ({"method": "efficientad", "weights": Path(__file__)}, "cannot be read as safetensors")],
)  # fmt: skip
def test_what_a_fit_cannot_have_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LinesideError, match=message):
        prove(FitOptions(**options))


def test_fit_tells_it_before_it_begins_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good").mkdir()
    for i in range(10):
        cv2.imwrite(str(tmp_path / f"good/{i}.png"), np.random.default_rng(i).integers(0, 255, (64, 64), np.uint8))
    with pytest.raises(SystemExit):
        run_app(app, ["fit", str(tmp_path), "--method", "padim", "--backbone", "nosuch", "--out", str(tmp_path / "run")])
    assert "error: backbone: expected the name of a network" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
