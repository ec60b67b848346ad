"""Industrial cameras on their own libraries: Basler's emulation, Aravis over the wire, harvesters with a real producer."""

import re
import time
import tomllib
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from edge_runtime.commands.check import check_station
from edge_runtime.config import files as c
from edge_runtime.errors import ConfigError, LostFrame, MissingExtra, SourceError
from edge_runtime.records import Frame
from edge_runtime.sources import Source, check_depth, open_source
from tests.contract.conftest import GigeCamera
from tests.support.waiting import until

W, H = 64, 48


def _pylon(which: str, **settings: Any) -> Source:
    return open_source(c.PylonSourceConfig(**({"serial": which, "pixel_format": "Mono8", "roi": [0, 0, W, H]} | settings)))


def _gige(**settings: Any) -> Source:
    base = {"camera": GigeCamera.address, "pixel_format": "Mono8", "roi": [0, 0, W, H], "exposure_us": 1000, "read_timeout_ms": 500}
    return open_source(c.AravisSourceConfig(**(base | settings)))


def _genicam(cti: Path, **settings: Any) -> Source:
    return open_source(c.GenicamSourceConfig(**({"producer": cti, "camera": "VikyTL_DEV_red", "pixel_format": "Mono8"} | settings)))


# --- pylon -------------------------------------------------------------------------------------------------------


def test_each_software_trigger_of_pylon_gets_the_next_real_picture(pylon_camera: str, tmp_path: Path) -> None:
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((H, W), 40 + 50 * i, np.uint8))
    nodes = {"ImageFilename": str(tmp_path), "ImageFileMode": "On", "TestImageSelector": "Off"}
    with _pylon(pylon_camera, trigger="software", exposure_us=4000, nodes=nodes) as source:
        frames = []
        for _ in range(8):
            before = time.monotonic_ns()
            frames.append(source.grab(1))
            assert frames[-1].captured_ns >= before
        levels = [int(f.image[10, 10]) for f in frames]
    start = [40, 90, 140, 190].index(levels[0])
    assert levels == [40 + 50 * ((start + i) % 4) for i in range(8)], "one picture a trigger, none skipped, none twice"


def test_a_failed_buffer_of_pylon_is_that_parts_fault_and_nothing_else(pylon_camera: str) -> None:
    nodes = {"ForceFailedBufferCount": 2, "ForceFailedBuffer": True}
    with _pylon(pylon_camera, trigger="software", exposure_us=1000, nodes=nodes) as source:
        for _ in range(2):
            with pytest.raises(LostFrame, match=r"Emulation 0815-0000: the picture is not complete.*incompletely grabbed"):
                source.grab(1)
        assert source.grab(1).image.shape == (H, W)
        assert source.problem is not None and "2 pictures lost packets" in source.problem
        assert source.tallies == {"reconnects": 0, "incomplete_frames": 2}


@pytest.mark.parametrize(
    ("pixel_format", "demosaic", "shape", "dtype", "bits"),
    [
        ("Mono8", True, (H, W), np.uint8, 8),
        ("Mono12", True, (H, W), np.uint16, 12),
        ("Mono16", True, (H, W), np.uint16, 16),
        ("BayerRG8", True, (H, W, 3), np.uint8, 8),
        ("BayerRG12", True, (H, W, 3), np.uint16, 12),
        ("BayerRG12", False, (H, W), np.uint16, 12),
        ("RGB8", True, (H, W, 3), np.uint8, 8),
        ("BGR8", True, (H, W, 3), np.uint8, 8),
    ],
)
def test_pixel_formats_keep_their_depth(
    pylon_camera: str, pixel_format: Any, demosaic: bool, shape: tuple[int, ...], dtype: type, bits: int
) -> None:
    with _pylon(pylon_camera, pixel_format=pixel_format, demosaic=demosaic, exposure_us=1000) as source:
        image = source.grab(1).image
        assert image.shape == shape and image.dtype == dtype and image.max() < 1 << bits
        check_depth(source, bits)
        with pytest.raises(ConfigError, match=f"source.pixel_format: expected pixels of 10 bits.*gives {bits}"):
            check_depth(source, 10)


def test_rgb_of_a_camera_is_bgr_here(pylon_camera: str) -> None:
    images = []
    for pixel_format in ("RGB8", "BGR8"):
        with _pylon(pylon_camera, trigger="software", pixel_format=pixel_format, nodes={"TestImageSelector": "Testimage1"}) as source:
            images.append(source.grab(1).image)
    np.testing.assert_array_equal(*images)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"exposure_us": 4e9},
            r"source.exposure_us: expected 1 to 10000000 \(node ExposureTime of Emulation 0815-0000\), found 4000000000",
        ),
        ({"gain_db": 99.0}, r"source.gain_db: expected 0 to 48"),
        ({"roi": [0, 0, 5000, 10]}, r"source.roi: expected 1 to 4096 \(node Width"),
        ({"roi": [4000, 0, 640, 480]}, r"source.roi: expected 0 to 3456 \(node OffsetX"),
        ({"pixel_format": "Mono10p"}, r"source.pixel_format: expected one of Mono8, .*found 'Mono10p'"),
        ({"packet_bytes": 10}, r"source.packet_bytes: expected 220 to 9014"),
        ({"strobe_line": "Line7"}, r"source.strobe_line: expected one of Line1, Line2, Line3"),
        ({"trigger": "hardware", "trigger_line": "Line9"}, r"source.trigger_line: expected one of Software, Line1"),
        ({"nodes": {"Sharpness": 3}}, r"source.nodes.Sharpness: the camera Emulation 0815-0000 has no node Sharpness"),
        ({"nodes": {"Width": 10.5}}, r"source.nodes.Width: expected a whole number .*found 10.5"),
        ({"nodes": {"ReverseX": 1}}, r"source.nodes.ReverseX: expected true or false"),
        ({"nodes": {"DeviceVendorName": "me"}}, r"source.nodes.DeviceVendorName: .* cannot be written"),
        ({"serial": "4711"}, r"source.serial = '4711', found Emulation 0815-0000, Emulation 0815-0001"),
        ({"serial": None}, r"exactly one camera, or source.serial .* found Emulation 0815-0000, Emulation 0815-0001"),
    ],
)
def test_what_a_camera_cannot_do_is_said_with_its_key_and_range(pylon_camera: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, SourceError), match=said), _pylon(pylon_camera, **settings):
        pass


def test_strobe_gain_and_nodes_reach_the_camera(pylon_camera: str) -> None:
    from edge_runtime.sources.driver import configure
    from edge_runtime.sources.pylon import PylonDriver

    settings = c.PylonSourceConfig(
        serial=pylon_camera, trigger="hardware", trigger_line="Line3", strobe_line="Line2", gain_db=6.0, exposure_us=2500.0,
        roi=[16, 8, W, H], packet_bytes=1400, nodes={"ReverseX": True},
    )  # fmt: skip
    driver = PylonDriver(settings)
    driver.open()
    try:
        configure(driver, settings)
        wanted = {
            "TriggerMode": "On", "TriggerSource": "Line3", "TriggerSelector": "FrameStart", "LineMode": "Output",
            "LineSource": "ExposureActive", "Gain": 6.0, "ExposureTime": 2500.0, "OffsetX": 16, "OffsetY": 8, "Width": W, "Height": H,
            "GevSCPSPacketSize": 1400, "ReverseX": True,
        }  # fmt: skip
        found = {name: node.read() for name in wanted if (node := driver.node(name)) is not None}
        found["Gain"] = round(found["Gain"], 3)
        assert found == wanted
    finally:
        driver.close()


def test_check_names_the_key_and_waits_for_no_wire(pylon_camera: str, station_dir: Path) -> None:
    def finding(source: str) -> tuple[bool, str]:
        station = station_dir / "station.toml"
        station.write_text(
            'name = "s"\nrecipe = "recipe.toml"\n[trigger]\nkind = "timer"\n[publisher]\nendpoint = "ipc:///tmp/lineside-test-a"\n'
            f'replay = "ipc:///tmp/lineside-test-b"\n[source]\nkind = "pylon"\nserial = "{pylon_camera}"\nread_timeout_ms = 300\n{source}'
        )
        return next((f.ok, f.sentence) for f in check_station(station) if f.what == "source")

    assert finding('pixel_format = "Mono8"\nroi = [0, 0, 64, 64]\ntrigger = "software"\n')[0]
    ok, said = finding('pixel_format = "Mono8"\nroi = [0, 0, 64, 64]\ntrigger = "hardware"\n')
    assert ok and "no trigger came on its wire" in said
    assert "source.exposure_us: expected 1 to 10000000" in finding("exposure_us = 1e9\n")[1]
    assert "source.pixel_format: expected pixels of 8 bits" in finding('pixel_format = "Mono12"\n')[1]


# --- aravis ------------------------------------------------------------------------------------------------------


def test_a_gige_camera_is_killed_and_serves_again_without_a_restart(gige_camera: GigeCamera) -> None:
    with _gige() as source:
        before = source.grab(1)
        gige_camera.kill()
        with pytest.raises(SourceError):
            for _ in range(3):
                source.grab(0.3)
        until(lambda: source.problem is not None)
        gige_camera.start()
        until(lambda: source.problem is None)
        after = source.grab(1)
        assert after.captured_ns > before.captured_ns and after.image.shape == (H, W)
        assert source.tallies["reconnects"] >= 1


def test_no_gige_frame_that_lost_packets_is_judged(gige_camera: GigeCamera) -> None:
    gige_camera.kill()
    gige_camera.start(lost_per_mille=60)
    frames: list[Frame] = []
    lost = 0
    with _gige(trigger="software", exposure_us=10_000, roi=[0, 0, 64, 256]) as source:
        for _ in range(25):
            try:
                frames.append(source.grab(1))
            except LostFrame:
                lost += 1
            except SourceError as e:
                assert "software trigger" in str(e)  # its first packet was lost as well: there is no frame at all
        assert source.incomplete == lost > 0
        told = source.problem
        assert told is None or "lost packets" in told or "software trigger" in told
    assert frames
    for f in frames:  # it draws a ramp along the diagonal: what is missing would break it
        np.testing.assert_array_equal(f.image[1:, :-1], f.image[:-1, 1:])


def test_a_gige_camera_in_use_is_named_as_such(gige_camera: GigeCamera) -> None:
    with (
        _gige() as source,
        pytest.raises(SourceError, match="Aravis Fake GV01: is there but cannot be controlled: another program uses it"),
        _gige(),
    ):
        pass
    assert source.problem is None


def test_gige_cameras_that_are_there_are_listed_when_another_is_asked_for(gige_camera: GigeCamera) -> None:
    with (
        pytest.raises(SourceError, match=r"source.camera: expected a camera 'Basler-1', found Aravis-Fake-GV01 \(127.0.0.1\)"),
        _gige(camera="Basler-1"),
    ):
        pass
    with _gige(camera=None) as source:
        assert (source.grab(1).source, source._name) == ("", "Aravis Fake GV01")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"exposure_us": 1.0}, r"source.exposure_us: expected 10 to 10000000 \(node ExposureTimeAbs of Aravis Fake GV01\), found 1"),
        ({"gain_db": 3.0}, r"source.gain_db: .*no gain in dB; .*source.nodes.GainRaw = 0 to 10"),
        ({"packet_bytes": 1401}, r"source.packet_bytes: expected 220 to 16404 in steps of 4"),
        ({"strobe_line": "Line1"}, r"source.strobe_line: .* has no node LineSelector"),
        ({"pixel_format": "Mono12"}, r"source.pixel_format: expected one of .*Mono8"),
        ({"nodes": {"Gamma": 1.0}}, r"source.nodes.Gamma: .* has no node Gamma"),
    ],
)
def test_what_a_gige_camera_cannot_do_is_said_with_its_key(gige_camera: GigeCamera, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said), _gige(**settings):
        pass


@pytest.mark.alone
def test_gige_frame_times_come_from_the_cameras_clock(gige_camera: GigeCamera) -> None:
    with _gige(exposure_us=1000) as source:
        times = [source.grab(1).captured_ns for _ in range(40)]
    steps = np.diff(times[10:]) / 1e6
    assert np.all(steps > 0) and abs(float(np.median(steps)) - 40) < 3, "it sends every 40 ms"


# --- harvesters --------------------------------------------------------------------------------------------------


def test_a_producers_cameras_are_listed_and_chosen(producer: Path) -> None:
    listed = r"found VikyTL_DEV_red \(serial 0\), VikyTL_DEV_green \(serial 1\), VikyTL_DEV_blue"
    for camera, said in (("pink", f"one camera 'pink', {listed}"), (None, f"exactly one camera, {listed}")):
        with pytest.raises(SourceError, match=said), _genicam(producer, camera=camera):
            pass
    with _genicam(producer, camera="1") as source:
        assert (source.grab(1).source, source._name) == ("", "Viky 1")


def test_a_producer_whose_buffers_are_not_given_back_would_starve(producer: Path) -> None:
    with _genicam(producer, buffers=2, roi=[0, 0, 128, 100]) as source:
        assert [source.grab(1).image.shape for _ in range(12)] == [(100, 128)] * 12


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"roi": [0, 0, 9000, 100]}, r"source.roi: expected 100 to 800 \(node Width of Viky 0\), found 9000"),
        ({"nodes": {"AcquisitionFrameRate": 1e6}}, r"source.nodes.AcquisitionFrameRate: expected 1 to 200"),
        ({"exposure_us": 100.0}, r"source.exposure_us: the camera Viky 0 has no node ExposureTime"),
        ({"trigger": "software"}, r'source.trigger: the camera Viky 0 has no trigger; use "free"'),
        ({"pixel_format": None}, r"source.pixel_format: expected one of Mono8, .* is set to RGBa8"),
        ({"producer": Path("/absent.cti")}, r"source.producer: expected a GenTL producer \(.cti file\), found none at /absent.cti"),
    ],
)
def test_what_a_producers_camera_cannot_do_is_said_with_its_key(producer: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, SourceError), match=said), _genicam(producer, **settings):
        pass


def test_a_file_that_is_no_producer_is_refused(producer: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.cti"
    wrong.write_text("no library")
    with pytest.raises(ConfigError, match=r"source.producer: expected a GenTL producer .*wrong.cti is none"), _genicam(wrong):
        pass


# --- what is not installed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "module", "command"),
    [
        (c.PylonSourceConfig(), "pypylon", r"pip install 'lineside\[cameras\]'"),
        (c.GenicamSourceConfig(producer=Path("x.cti")), "harvesters.core", r"pip install 'lineside\[cameras\]'"),
    ],
)
def test_a_missing_package_is_named_with_its_command(
    settings: c.Source, module: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtra, match=command), open_source(settings):
        pass


def test_a_missing_aravis_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.sources.aravis._LIBRARY", "libaravis-none.so")
    with pytest.raises(MissingExtra, match=r"apt-get install libaravis-0.8-0"), open_source(c.AravisSourceConfig()):
        pass


def test_the_examples_of_the_cameras_page_are_valid() -> None:
    page = (Path(__file__).parents[2] / "deploy/cameras.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    kinds = [msgspec.convert(tomllib.loads(b)["source"], c.Source, dec_hook=lambda kind, value: kind(value)) for b in blocks]
    assert [type(k) for k in kinds] == [c.PylonSourceConfig, c.AravisSourceConfig, c.GenicamSourceConfig, c.LiveSourceConfig]


def test_a_pixel_format_that_does_not_exist_is_answered_with_those_that_do(tmp_path: Path) -> None:
    station = tmp_path / "station.toml"
    station.write_text('name = "s"\nrecipe = "r.toml"\n[trigger]\nkind = "timer"\n[source]\nkind = "pylon"\npixel_format = "Mono9"\n')
    with pytest.raises(ConfigError, match=r'source.pixel_format: expected one of "Mono8", "Mono10", .*found "Mono9"'):
        c.load_station(station)
