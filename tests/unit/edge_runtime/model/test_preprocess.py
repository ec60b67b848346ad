"""Frame -> model input: one code for training and the device; what does not fit is refused with both sides named."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import ConfigError, DataError, FrameError
from edge_runtime.images.read import read_image, read_mask
from edge_runtime.model.manifest import InputSpec, TileSpec
from edge_runtime.model.preprocess import IGNORED_FILL, Preprocessor


def spec(**changes: object) -> InputSpec:
    return InputSpec(**{"height": 8, "width": 8, "channels": 1, **changes})  # type: ignore[arg-type]


def noise(*shape: int, high: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape, dtype=np.uint8 if high == 256 else np.uint16)


def test_gray_becomes_three_equal_channels() -> None:
    out = Preprocessor(spec())(noise(16, 16))
    assert out.shape == (8, 8, 3)
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous
    assert (out == out[:, :, :1]).all()


def test_colour_stays_in_the_camera_s_order() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, :, 0] = 200
    out = Preprocessor(spec(channels=3))(image)
    assert (out[:, :, 0] == 200).all()
    assert (out[:, :, 1:] == 0).all()


def test_a_frame_of_the_model_s_size_passes_unchanged() -> None:
    image = noise(8, 8, 3)
    assert (Preprocessor(spec(channels=3))(image) == image).all()


def test_shrinking_is_the_mean_of_the_area() -> None:
    image = noise(32, 32)
    wanted = image.reshape(8, 4, 8, 4).mean(axis=(1, 3))
    assert np.abs(Preprocessor(spec())(image)[:, :, 0] - wanted).max() <= 0.51


def test_a_hair_line_is_not_lost_by_shrinking() -> None:
    image = np.zeros((64, 64), np.uint8)
    image[:, 37] = 255
    assert Preprocessor(spec())(image)[:, 37 // 8, 0].min() > 25


def test_long_parts_may_have_a_long_input() -> None:
    assert Preprocessor(spec(height=4, width=32))(noise(16, 128)).shape == (4, 32, 3)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_deep_pixels_scale_by_their_stated_depth(bits: int) -> None:
    full = (1 << bits) - 1
    image = np.zeros((8, 8), np.uint16)
    image[0, 0], image[0, 1], image[0, 2] = full, full // 2, full // 4
    out = Preprocessor(spec(bits=bits))(image)
    assert out[0, 0, 0] == 255
    assert abs(int(out[0, 1, 0]) - 127) <= 1
    assert abs(int(out[0, 2, 0]) - 64) <= 1


def test_a_dark_part_stays_dark() -> None:
    dark = noise(8, 8, high=400)
    out = Preprocessor(spec(bits=12))(dark)
    assert out.max() <= 25  # 400 of 4095: never stretched to the picture's own maximum


def test_deep_pixels_are_averaged_at_their_full_depth() -> None:
    """In 12 bits, 8 is 0.498 of 255, 24 is 1.494: their mean is 1, but 0.5 (so 0) if either were rounded to 8 bits, or cut, before."""
    image = np.full((32, 32), 8, np.uint16)
    image[:, ::2] = 24
    assert (Preprocessor(spec(bits=12))(image) == 1).all()


def mosaic(pattern: str, bgr: tuple[int, int, int], h: int, w: int, bits: int = 8) -> np.ndarray:
    """What a sensor with this filter gives of an evenly coloured part."""
    image = np.zeros((h, w), np.uint8 if bits == 8 else np.uint16)
    for i, colour in enumerate(pattern):
        image[i // 2 :: 2, i % 2 :: 2] = bgr["BGR".index(colour)]
    return image


PATTERNS = ["RGGB", "BGGR", "GRBG", "GBRG"]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("bits", "bgr"), [(8, (30, 120, 210)), (12, (482, 1927, 3372))])
def test_a_mosaic_becomes_the_colours_that_the_sensor_saw(pattern: str, bits: int, bgr: tuple[int, int, int]) -> None:
    prepare = Preprocessor(spec(bayer=pattern, bits=bits))
    assert np.unique(prepare(mosaic(pattern, bgr, 32, 48, bits)).reshape(-1, 3), axis=0).tolist() == [[30, 120, 210]]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("bits", [8, 12])
@given(x=st.integers(0, 30), y=st.integers(0, 30), w=st.integers(1, 9), h=st.integers(1, 9))
def test_a_region_of_a_mosaic_has_the_colours_that_it_has_in_the_whole_frame(
    pattern: str, bits: int, x: int, y: int, w: int, h: int
) -> None:
    image = noise(39, 39, high=1 << bits)
    whole = Preprocessor(spec(height=39, width=39, bayer=pattern, bits=bits))(image)
    part = Preprocessor(spec(height=h, width=w, bayer=pattern, bits=bits, roi=(x, y, w, h)))(image)
    assert (part == whole[y : y + h, x : x + w]).all()


def test_a_mosaic_is_demosaiced_at_its_full_depth() -> None:
    image = mosaic("RGGB", (8, 8, 8), 32, 32, bits=12)
    image[np.arange(32) % 4 < 2] = 24
    assert (Preprocessor(spec(bayer="RGGB", bits=12))(image) == 1).all()


def test_ignored_pixels_of_a_mosaic_do_not_even_tint_their_neighbours() -> None:
    mask = np.zeros((16, 16), np.uint8)
    mask[5:, :7] = 255
    prepare = Preprocessor(spec(height=16, width=16, bayer="GRBG", frame_wh=(16, 16)), mask)
    image, other = noise(16, 16), noise(16, 16)
    other[5:, :7] = 255 - other[5:, :7]
    assert (prepare(image) == prepare(other)).all()
    assert (prepare(image)[7:, :5] == IGNORED_FILL).all()


def test_a_mosaic_may_be_cut_into_tiles() -> None:
    image = noise(64, 96)
    prepare = Preprocessor(spec(bayer="BGGR", height=32, width=32, tiles=TileSpec(columns=3, rows=2)))
    whole = Preprocessor(spec(bayer="BGGR", height=64, width=96))(image)
    wanted = [whole[y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32, 64)]
    assert (prepare.split(image) == np.stack(wanted)).all()


def test_a_region_of_interest_is_what_the_model_sees() -> None:
    image = noise(40, 60)
    whole = Preprocessor(spec(frame_wh=(60, 40), roi=(20, 10, 8, 8)))(image)
    assert (whole[:, :, 0] == image[10:18, 20:28]).all()


def test_what_lies_outside_the_region_cannot_change_the_input() -> None:
    prepare = Preprocessor(spec(frame_wh=(60, 40), roi=(20, 10, 16, 16)))
    image, other = noise(40, 60), noise(40, 60)
    other[:10], other[26:], other[:, :20], other[:, 36:] = 0, 255, 7, 9
    assert (prepare(image) == prepare(other)).all()


def test_ignored_pixels_cannot_change_the_input() -> None:
    mask = np.zeros((16, 16), np.uint8)
    mask[:8] = 255
    prepare = Preprocessor(spec(frame_wh=(16, 16)), mask)
    image, other = noise(16, 16), noise(16, 16)
    other[:8] = 255 - other[:8]
    assert (prepare(image) == prepare(other)).all()
    assert (prepare(image)[:4] == IGNORED_FILL).all()
    assert (image == noise(16, 16)).all(), "the frame itself is never written to"


def test_ignored_pixels_have_the_same_gray_at_any_depth() -> None:
    mask = np.full((8, 8), 255, np.uint8)
    out = Preprocessor(spec(bits=12, frame_wh=(8, 8)), mask)(noise(8, 8, high=4096))
    assert np.abs(out.astype(int) - IGNORED_FILL).max() <= 1


def test_cells_that_are_mostly_ignored_do_not_count() -> None:
    mask = np.zeros((16, 16), np.uint8)
    mask[:, :8] = 255
    mask[:, 8:9] = 255  # an eighth of the next cells
    valid = Preprocessor(spec(frame_wh=(16, 16)), mask).valid_cells((2, 2))
    assert valid.tolist() == [[False, True], [False, True]]
    assert Preprocessor(spec()).valid_cells((2, 3)).all()


def test_a_defect_mask_follows_the_region_and_the_ignore_mask() -> None:
    ignore = np.zeros((16, 16), np.uint8)
    ignore[4:8] = 255
    prepare = Preprocessor(spec(frame_wh=(16, 16), roi=(4, 4, 8, 8)), ignore)
    defect = np.full((16, 16), 255, np.uint8)
    out = prepare.crop_mask(defect)
    assert out.shape == (8, 8)
    assert not out[:4].any()
    assert out[4:].all()


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.integers(1, 9))
def test_the_grid_covers_the_region_exactly(x: int, y: int, w: int, h: int, gw: int, gh: int) -> None:
    prepare = Preprocessor(spec(frame_wh=(100, 100), roi=(x, y, w, h)))
    affine = prepare.grid_to_frame(np.zeros((100, 100), np.uint8), (gh, gw))
    assert np.allclose(affine[:, :2] @ [0, 0] + affine[:, 2], [x, y])
    assert np.allclose(affine[:, :2] @ [gw, gh] + affine[:, 2], [x + w, y + h])


def test_without_a_region_the_grid_covers_the_frame() -> None:
    affine = Preprocessor(spec()).grid_to_frame(np.zeros((30, 50), np.uint8), (3, 5))
    assert np.allclose(affine, [[10, 0, 0], [0, 10, 0]])


def test_a_gray_picture_saved_with_three_equal_channels_is_a_gray_one() -> None:
    image = noise(16, 16)
    prepare = Preprocessor(spec())
    assert np.array_equal(prepare(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)), prepare(image))


@pytest.mark.parametrize(
    ("changes", "image", "message"),
    [
        ({"frame_wh": (64, 48)}, noise(64, 48), "taught on 64x48 images, found 48x64"),
        ({}, noise(8, 8, 3), r"taught on gray \(1 channel\) images, found colour \(3 channels\); set mono = true"),
        ({"channels": 3}, noise(8, 8), r"taught on colour \(3 channels\) images, found gray \(1 channel\)"),
        ({"channels": 3}, noise(8, 8, 4), "found 4-channel"),
        ({}, noise(8, 8, high=4096), "taught on uint8 images of 8 bits, found uint16"),
        ({"bits": 12}, noise(8, 8), "taught on uint16 images of 12 bits, found uint8"),
        ({}, noise(8, 8).astype(np.float32), "found float32"),
        ({}, np.zeros((0, 8), np.uint8), "found an empty one"),
        (
            {"bayer": "RGGB"},
            noise(8, 8, 3),
            r"taught on raw Bayer RGGB \(1 channel\) images, found colour \(3 channels\); set the camera to its raw",
        ),
        ({"bayer": "RGGB"}, noise(2, 8), "expected a Bayer mosaic of at least 3x3 pixels, found 8x2"),
        ({"roi": (4, 4, 8, 8)}, noise(8, 8), r"region of interest \[4, 4, 8, 8\] does not fit into a frame of 8x8"),
    ],
)
def test_a_frame_of_another_kind_is_refused_with_both_sides_named(changes: dict[str, object], image: np.ndarray, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        Preprocessor(spec(**changes))(image)


def test_sizes_may_differ_where_they_did_in_training() -> None:
    prepare = Preprocessor(spec(frame_wh=None))
    assert prepare(noise(30, 50)).shape == prepare(noise(9, 70)).shape == (8, 8, 3)


def test_a_recipe_may_move_the_region_to_frames_of_another_size() -> None:
    image = noise(100, 100)
    moved = Preprocessor(spec(frame_wh=(60, 40), roi=(20, 10, 8, 8)), roi=(70, 80, 8, 8))
    assert (moved(image)[:, :, 0] == image[80:88, 70:78]).all()


@pytest.mark.parametrize(
    ("changes", "mask", "roi", "message"),
    [
        ({"frame_wh": (60, 40), "roi": (20, 10, 8, 8)}, None, (0, 0, 16, 8), "expected the aspect of the bundle's region 8x8, found 16x8"),
        ({"frame_wh": (60, 40)}, None, (0, 0, 0, 8), "found 0x8"),
        ({"frame_wh": (60, 40), "roi": (56, 10, 8, 8)}, None, None, "expected a region inside 60x40, found x=56 y=10 8x8"),
        ({"frame_wh": (60, 40)}, np.zeros((60, 40), np.uint8), None, "ignore mask: expected 60x40 as all images have, found 40x60"),
        ({"frame_wh": None}, np.zeros((60, 40), np.uint8), None, "ignore mask: expected frames of one size"),
        ({"frame_wh": (8, 8), "roi": (0, 0, 8, 8)}, np.zeros((8, 8), np.uint8), (1, 1, 8, 8), "its region cannot be moved"),
    ],
)
def test_impossible_regions_and_masks_are_refused_before_the_first_frame(
    changes: dict[str, object], mask: np.ndarray | None, roi: tuple[int, int, int, int] | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Preprocessor(spec(**changes), mask, roi)


def test_images_are_read_as_a_camera_gives_them(tmp_path: Path) -> None:
    for image in (noise(5, 7), noise(5, 7, 3), noise(5, 7, high=65536), noise(5, 7, 3, high=65536)):
        cv2.imwrite(str(tmp_path / "i.png"), image)
        read = read_image(tmp_path / "i.png")
        assert read.dtype == image.dtype
        assert (read == image).all()


def test_an_alpha_channel_is_dropped(tmp_path: Path) -> None:
    image = noise(5, 7, 4)
    cv2.imwrite(str(tmp_path / "i.png"), image)
    assert (read_image(tmp_path / "i.png") == image[:, :, :3]).all()


def test_names_may_hold_any_letter(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "i.png"), noise(5, 7))
    assert read_image((tmp_path / "i.png").rename(tmp_path / "Prüfling 1 – ok.png")).shape == (5, 7)


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "whole.png"), noise(50, 70))
    whole = (tmp_path / "whole.png").read_bytes()
    cases = {
        "empty.png": (b"", "found an empty file"),
        "text.png": (b"hello", "could not decode"),
        "cut.png": (whole[:60], "could not decode"),
    }
    for name, (raw, message) in cases.items():
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(DataError, match=f"{name}.*{message}"):
            read_image(tmp_path / name)
    with pytest.raises(DataError, match=r"nowhere\.png: cannot be read"):
        read_image(tmp_path / "nowhere.png")
    cv2.imwrite(str(tmp_path / "float.tiff"), np.zeros((4, 4), np.float32))
    with pytest.raises(DataError, match="expected 8 or 16 bits a pixel, found float32"):
        read_image(tmp_path / "float.tiff")


def test_a_png_cut_in_half_is_never_judged(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "i.png"), noise(200, 200))
    whole = (tmp_path / "i.png").read_bytes()
    (tmp_path / "i.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError):
        read_image(tmp_path / "i.png")


def test_what_a_lossy_format_makes_of_black_is_not_masked(tmp_path: Path) -> None:
    image = np.zeros((64, 96), np.uint8)
    image[20:34, 30:54] = 255
    cv2.imwrite(str(tmp_path / "m.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert (cv2.imread(str(tmp_path / "m.jpg"), cv2.IMREAD_GRAYSCALE) > 0).mean() > 1.5 * (image > 0).mean(), "else this shows nothing"
    assert (read_mask(tmp_path / "m.jpg") != image).sum() <= 20


def test_any_value_but_zero_is_masked(tmp_path: Path) -> None:
    image = np.zeros((4, 4), np.uint8)
    image[1, 2] = 1
    cv2.imwrite(str(tmp_path / "m.png"), image)
    assert (read_mask(tmp_path / "m.png") == np.where(image, 255, 0)).all()
