"""Stations that are asked to stop at bad moments. The long round is `python -m tests.stops`."""

from pathlib import Path

import pytest

from tests.stops import WITHIN_S, slow_bundle, stop_once


def test_a_station_whose_model_is_late_ends_in_order(tmp_path: Path) -> None:
    """Its model comes back while the process ends: the interpreter's own end would abort it (`terminate called`)."""
    bundle = slow_bundle(tmp_path / "slow")
    for n in range(3):
        folder = tmp_path / str(n)
        folder.mkdir()
        assert stop_once(folder, "model late", bundle, in_start_s=None, in_use_s=0.4 + 0.15 * n).wrong == ""


@pytest.mark.alone
def test_a_station_that_still_waits_for_its_camera_ends_within_seconds(tiny_bundle: Path, tmp_path: Path) -> None:
    """The camera takes the connection and sends nothing, for which the station would wait a minute."""
    stopped = stop_once(tmp_path, "camera silent", tiny_bundle, in_start_s=6.0)
    assert stopped.wrong == "" and stopped.took_s < WITHIN_S
    assert "stopped while it was starting; no part was taken" in stopped.said
