"""Methods of installed packages: found by name alone, remembered with their version, and what is wrong with one is a sentence."""

import sys
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import ConfigError
from tests.support.packages import install
from training.core.base import Features
from training.methods.table import _OWN, METHODS, Methods, make_head, make_params

EXAMPLE = Path(__file__).parents[4] / "deploy" / "examples" / "plugin" / "lineside_example" / "method.py"
BROKEN = "from training.methods.table import METHODS as M\nfrom training.core.learn import Network\np = M['padim']\n"


@pytest.fixture
def spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module of an installed method."""
    return install(tmp_path / "site", monkeypatch, "lineside-spread", {"methods": {"spread": "{m}:SPREAD"}}, EXAMPLE.read_text())


@pytest.fixture(autouse=True)
def _forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_brought", {})


def test_a_method_of_a_package_is_taught_as_ours_are(spread: str) -> None:
    assert spread not in sys.modules
    assert "spread" in METHODS and METHODS["spread"].tools == {"lineside-spread": "1.2"}
    head = make_head("spread", {"least": 0.5}, [(3, 4, 4)])
    valid = np.ones((4, 4), bool)
    valid[0] = False
    head.fit(Features.of([np.random.default_rng(0).random((8, 3, 4, 4), np.float32)]), valid, 0)
    assert head.grid_hw == (4, 4)
    assert make_params("spread", {}).least == 0.05
    with pytest.raises(ConfigError, match="spread: has no parameter 'most'; it has least"):
        make_params("spread", {"most": 1})
    with pytest.raises(ConfigError, match=r'^spread: least: expected a number, found "much"$'):
        make_params("spread", {"least": "much"})


def test_a_wrong_parameter_is_said_as_a_wrong_setting_is() -> None:
    with pytest.raises(ConfigError, match=r"^autoencoder: steps: expected a whole number, found 1\.5$"):
        make_params("autoencoder", {"steps": 1.5})
    with pytest.raises(ConfigError, match=r"^autoencoder: variational: expected true or false, found 3$"):
        make_params("autoencoder", {"variational": 3})


def test_only_ours_are_listed_and_compared_by_themselves(spread: str) -> None:
    assert "spread" not in list(METHODS) and list(METHODS) == list(_OWN) and len(METHODS) == len(_OWN)
    assert spread not in sys.modules
    with pytest.raises(ConfigError, match=r"expected one of padim, .*devnet.*, spread \(of lineside-spread 1\.2\), found 'spred'"):
        make_params("spred", {})


def test_our_own_are_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("the list of what is installed was read")

    monkeypatch.setattr("training.methods.table.find", read)
    assert all(name in METHODS for name in METHODS)
    assert "auto" not in METHODS and "compare" not in METHODS
    assert METHODS["padim"].tools == {}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("3", "expected a training.methods.table.Method, found 3"),
        ("p._replace(head=dict)", "expected a head that derives from training.core.base.Head, found <class 'dict'>"),
        ("p._replace(network=dict)", "expected a network that derives from training.core.learn.Network, found <class 'dict'>"),
        ("p._replace(params=dict)", "expected params to be a dataclass, found <class 'dict'>"),
        ("p._replace(presets={})", 'presets of PadimParams, one called "fast" among them, found none'),
        ("p._replace(presets={'fine': p.presets['fast']})", 'one called "fast" among them, found fine'),
        ("p._replace(presets={'fast': ((8,), 3)})", "one called \"fast\" among them, found 'fast' with ((8,), 3)"),
        ("p._replace(presets={'fast': ()})", "one called \"fast\" among them, found 'fast' with ()"),
        ("1 / 0", "can be imported, found ZeroDivisionError"),
    ],
)
def test_a_broken_method_is_a_sentence_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, why: str) -> None:
    install(tmp_path / "site", monkeypatch, "lineside-broken", {"methods": {"broken": "{m}:M0"}}, f"{BROKEN}M0 = {row}\n")
    with pytest.raises(ConfigError) as e:
        make_params("broken", {})
    assert str(e.value).startswith('method "broken" of lineside-broken 1.2 (') and why in str(e.value)


@pytest.mark.parametrize("kind", ["padim", "auto"])
def test_a_name_that_is_taken_is_refused(spread: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    install(tmp_path / "other", monkeypatch, "better-padim", {"methods": {kind: "{m}:M"}})
    with pytest.raises(ConfigError, match=rf'method "{kind}" of better-padim 1\.2 .* found "{kind}" of Lineside itself'):
        METHODS.get("spread")
    assert Methods(METHODS._own)["padim"] is METHODS["padim"]
