"""What a folder of images may look like, and how what is wrong with it is named."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.model.manifest import TileSpec
from training.data.dataset import inputs, load_dataset, read_names
from training.data.facts import load_frame
from training.data.input_spec import parse_image_size
from training.runs import odd_text


def gray(seed: int = 0, size: tuple[int, int] = (40, 48), dtype: type = np.uint8, top: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, size).astype(dtype)


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    root = tmp_path / "mvtec"
    for i in range(4):
        write(root / "train" / "good" / f"{i}.png", gray(i))
    write(root / "test" / "good" / "0.png", gray(10))
    write(root / "test" / "scratch" / "0.png", gray(11))
    write(root / "test" / "scratch" / "1.png", gray(12))
    write(root / "ground_truth" / "scratch" / "0_mask.png", np.pad(np.full((20, 24), 255, np.uint8), ((10, 10), (12, 12))))
    return root


def test_mvtec_layout_is_understood(mvtec: Path) -> None:
    data = load_dataset(mvtec)
    assert len(data.train) == 4 and all(s.is_good and s.split == "train" for s in data.train)
    assert [(s.kind, s.is_good, s.mask_path is not None) for s in data.test] == [
        ("good", True, False), ("scratch", False, True), ("scratch", False, False),
    ]  # fmt: skip
    assert (data.spec.height, data.spec.width, data.spec.channels, data.spec.bits) == (256, 256, 1, 8)
    assert data.spec.frame_wh == (48, 40)
    assert data.scored == data.test


def test_bad_images_of_the_test_split_that_are_given_once_more_count_once(mvtec: Path) -> None:
    data = load_dataset(mvtec, bad=mvtec / "test" / "scratch")
    assert len(data.bad) == 2, "to set a threshold by"
    assert data.scored == data.test


def test_a_plain_folder_with_bad_images_and_masks_is_understood(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / "good" / f"{i}.jpg", gray(i))
    write(tmp_path / "bad" / "a.png", gray(5))
    write(tmp_path / "bad" / "dent" / "b.png", gray(6))
    write(tmp_path / "masks" / "a.png", np.zeros((40, 48), np.uint8))
    data = load_dataset(tmp_path / "good", bad=tmp_path / "bad", masks=tmp_path / "masks")
    assert len(data.train) == 3 and not data.test
    assert [(s.kind, s.mask_path is not None) for s in data.bad] == [("bad", True), ("dent", False)]
    assert len(data.scored) == 5


def test_the_fingerprint_follows_the_bytes_and_not_the_names(mvtec: Path) -> None:
    before = load_dataset(mvtec).record
    (mvtec / "train" / "good" / "0.png").rename(mvtec / "train" / "good" / "z.png")
    assert load_dataset(mvtec).record == before
    write(mvtec / "train" / "good" / "1.png", gray(99))
    assert load_dataset(mvtec).record.fingerprint != before.fingerprint


@pytest.mark.parametrize("content", [b"", b"no image at all", None])
def test_an_unusable_image_is_named_by_its_path(mvtec: Path, content: bytes | None) -> None:
    broken = mvtec / "train" / "good" / "2.png"
    broken.write_bytes(broken.read_bytes()[:60] if content is None else content)
    with pytest.raises(DataError, match=str(broken)):
        load_dataset(mvtec)


def test_of_many_unusable_images_five_are_listed(tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(b"")
    with pytest.raises(DataError) as e:
        load_dataset(tmp_path)
    assert "8 images" in str(e.value) and str(e.value).count(".png") == 5 and "3 more" in str(e.value)


def test_a_test_image_of_another_size_is_named_where_all_training_images_have_one(mvtec: Path) -> None:
    odd = write(mvtec / "test" / "good" / "7.png", gray(7, (41, 48)))
    with pytest.raises(DataError, match=f"{odd}.*48x40.*48x41"):
        load_dataset(mvtec)


def test_a_mask_of_another_size_than_its_image_is_named(mvtec: Path) -> None:
    mask = write(mvtec / "ground_truth" / "scratch" / "1_mask.png", np.zeros((20, 24), np.uint8))
    with pytest.raises(DataError, match=f"{mask}.*48x40.*24x20"):
        load_dataset(mvtec)


@pytest.mark.parametrize(("top", "bits"), [(900, 10), (4000, 12), (16000, 14), (65000, 16)])
def test_depth_of_16_bit_images_follows_the_brightest_training_pixel(tmp_path: Path, top: int, bits: int) -> None:
    for i in range(2):
        image = gray(i, dtype=np.uint16, top=top)
        image[0, 0] = top
        write(tmp_path / f"{i}.png", image)
    data = load_dataset(tmp_path, image_size="64")
    assert data.spec.bits == bits and any(str(top) in n for n in data.notes)
    first = next(inputs(data.train, data.preprocessor()))
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8


def test_mixed_depths_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.png", gray(0))
    write(tmp_path / "b.png", gray(1, dtype=np.uint16, top=4000))
    with pytest.raises(DataError, match=r"a\.png.*b\.png"):
        load_dataset(tmp_path)


def test_colour_files_without_colour_count_as_gray_among_gray_ones(tmp_path: Path) -> None:
    write(tmp_path / "a.png", gray(0))
    write(tmp_path / "b.png", cv2.cvtColor(gray(1), cv2.COLOR_GRAY2BGR))
    write(tmp_path / "c.png", cv2.cvtColor(gray(2), cv2.COLOR_GRAY2BGRA))
    data = load_dataset(tmp_path, image_size="48x40")
    assert data.spec.channels == 1
    assert load_frame(data.train[1].path, data.spec).ndim == 2
    assert np.array_equal(list(inputs(data.train, data.preprocessor()))[2][:, :, 1], gray(2))


def test_files_that_are_all_gray_with_three_channels_make_a_gray_product(tmp_path: Path) -> None:
    for i in range(2):
        write(tmp_path / f"{i}.png", cv2.cvtColor(gray(i), cv2.COLOR_GRAY2BGR))
    data = load_dataset(tmp_path)
    assert data.spec.channels == 1 and any("three equal channels: they are taken as gray" in n for n in data.notes)


def test_the_cameras_depth_may_be_stated_where_all_images_are_dark(tmp_path: Path) -> None:
    for i in range(2):
        write(tmp_path / f"{i}.png", gray(i, dtype=np.uint16, top=600))
    assert (load_dataset(tmp_path).spec.bits, load_dataset(tmp_path, bits=12).spec.bits) == (10, 12)
    write(tmp_path / "2.png", gray(2, dtype=np.uint16, top=3000))
    with pytest.raises(ConfigError, match="bits: expected at least 12 for a brightest pixel of 2999, found 10"):
        load_dataset(tmp_path, bits=10)


def test_gray_among_real_colour_is_refused_and_named(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.png", np.random.default_rng(i).integers(0, 255, (40, 48, 3), dtype=np.uint8))
    odd = write(tmp_path / "odd.png", gray(0))
    with pytest.raises(DataError, match=f"1 of 4 gray.*{odd}"):
        load_dataset(tmp_path)


def test_sizes_may_differ_but_not_with_an_ignore_mask(tmp_path: Path) -> None:
    write(tmp_path / "d" / "a.png", gray(0))
    odd = write(tmp_path / "d" / "b.png", gray(1, (50, 60)))
    data = load_dataset(tmp_path / "d")
    assert data.spec.frame_wh is None and any("2 sizes" in n for n in data.notes)
    mask = write(tmp_path / "mask.png", np.zeros((40, 48), np.uint8))
    with pytest.raises(DataError, match=str(odd)):
        load_dataset(tmp_path / "d", ignore_mask=mask)


def test_the_few_of_another_size_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(12):
        cv2.imwrite(str(tmp_path / f"{i:02}.png"), rng.integers(0, 256, (48, 64) if i != 7 else (40, 30), dtype=np.uint8))
    assert f"(11 are 64x48; {tmp_path / '07.png'} is 30x40)" in str(load_dataset(tmp_path).notes)


def test_a_region_of_interest_that_does_not_fit_is_refused(mvtec: Path) -> None:
    assert load_dataset(mvtec, roi=(8, 0, 40, 40)).spec.roi == (8, 0, 40, 40)
    with pytest.raises(ConfigError, match="48x40"):
        load_dataset(mvtec, roi=(9, 0, 40, 40))


def test_an_ignore_mask_of_another_size_or_over_everything_is_refused(mvtec: Path, tmp_path: Path) -> None:
    small = write(tmp_path / "small.png", np.zeros((10, 10), np.uint8))
    with pytest.raises(ConfigError, match="10x10"):
        load_dataset(mvtec, ignore_mask=small)
    full = write(tmp_path / "full.png", np.full((40, 48), 255, np.uint8))
    with pytest.raises(ConfigError, match="whole"):
        load_dataset(mvtec, ignore_mask=full)


def test_ignored_pixels_do_not_reach_the_model(mvtec: Path, tmp_path: Path) -> None:
    mask = np.zeros((40, 48), np.uint8)
    mask[:, :24] = 1
    data = load_dataset(mvtec, ignore_mask=write(tmp_path / "m.png", mask), image_size="48x40")
    first = next(inputs(data.train, data.preprocessor()))
    assert len(np.unique(first[:, :24])) == 1
    assert len(np.unique(first[:, 24:])) > 50


def test_a_folder_without_images_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train/good"):
        load_dataset(tmp_path)
    with pytest.raises(DataError, match="nothing"):
        load_dataset(tmp_path / "absent")


def test_checked_against_a_run_other_images_are_refused(mvtec: Path, tmp_path: Path) -> None:
    spec = load_dataset(mvtec).spec
    write(tmp_path / "c" / "a.png", np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8))
    with pytest.raises(DataError, match=r"a\.png.*gray"):
        load_dataset(tmp_path / "c", spec=spec)


def test_image_sizes() -> None:
    assert parse_image_size("256", [(10, 10)]) == (256, 256)
    assert parse_image_size("320x192", [(10, 10)]) == (192, 320), "width x height, as pictures, regions and tiles are written"
    height, width = parse_image_size("auto", [(400, 100), (420, 100), (390, 100)])
    assert (height, width) == (128, 512)
    for wrong in ("0", "big", "64x", "16", "9999"):
        with pytest.raises(ConfigError, match="image size"):
            parse_image_size(wrong, [(10, 10)])


def test_a_long_part_squeezed_into_a_square_is_remarked(tmp_path: Path) -> None:
    write(tmp_path / "a.png", gray(0, (30, 120)))
    assert any("--image-size auto gives 512x128" in n for n in load_dataset(tmp_path).notes)
    assert not any("squeezed" in n for n in load_dataset(tmp_path, image_size="auto").notes)


def test_a_mosaic_is_gray_files_with_a_pattern(mvtec: Path, tmp_path: Path) -> None:
    spec = load_dataset(mvtec, bayer="RGGB").spec
    assert (spec.channels, spec.bayer) == (1, "RGGB")
    write(tmp_path / "c" / "a.png", np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8))
    with pytest.raises(ConfigError, match=r"one channel.*a\.png"):
        load_dataset(tmp_path / "c", bayer="RGGB")


def test_with_tiles_the_size_is_that_of_one_of_them(tmp_path: Path) -> None:
    write(tmp_path / "a.png", gray(0, (100, 400)))
    tiles = TileSpec(columns=4, rows=1)
    data = load_dataset(tmp_path, tiles=tiles, image_size="auto")
    assert (data.spec.height, data.spec.width, data.spec.tiles) == (256, 256, tiles)
    assert not any("squeezed" in n for n in data.notes)


def test_the_format_and_the_counts_are_said_first(mvtec: Path) -> None:
    assert load_dataset(mvtec).notes[0] == "the data is MVTec AD: 4 good images to learn from, 1 good and 2 bad ones to test with"


def test_the_odd_ones_are_left_out_as_their_file_says_and_their_neighbours_are_not(tmp_path: Path) -> None:
    """Neighbours were set apart for safety, and most of them are good."""
    for i in range(4):
        write(tmp_path / "good" / f"part #{i}.png", gray(i))
    data, names = load_dataset(tmp_path / "good"), [f"part #{i}.png" for i in range(4)]
    file = tmp_path / "odd.txt"
    file.write_text(odd_text(names[1:3][::-1], names[1:4], (), {names[1]: 1.2, names[2]: 3.456, names[3]: 0.97}))
    lines = file.read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["part #2.png  # 3.46x, not learnt", "part #1.png  # 1.20x, not learnt"]
    assert lines[-1] == "# part #3.png  # 0.97x"
    assert read_names(file, data) == ("part #2.png", "part #1.png")
    file.write_text("part #0.png\nnone.png  # 1.10x\n")
    with pytest.raises(DataError, match=r"names none\.png, which is none of the 4 good images"):
        read_names(file, data)


@pytest.mark.parametrize(
    ("content", "what", "remedy"),
    [
        (b"", "an empty file", "copy it again from where it came, or move it out"),
        ("half", "could not decode it", "copy it again from where it came, or move it out"),
        (b"shift B, lamp replaced\n", "could not decode it", "it begins as no picture does: move it out"),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_what_is_no_picture_or_half_of_one_is_refused_with_what_to_do(
    mvtec: Path, content: bytes | str, what: str, remedy: str, suffix: str
) -> None:
    path = write(mvtec / "train" / "good" / f"new{suffix}", gray(20))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    with pytest.raises(DataError) as refused:
        load_dataset(mvtec)
    said = str(refused.value)
    assert said.startswith(str(path)) and remedy in said and (what in said or "is damaged" in said), said


def test_masks_among_good_images_are_refused_and_sets_that_are_drawn_are_not(mvtec: Path) -> None:
    """Under names of their own: of other images, elsewhere."""
    mask = np.pad(np.full((6, 8), 255, np.uint8), ((10, 24), (12, 28)))
    path = write(mvtec / "train" / "good" / "x7.png", mask)
    with pytest.raises(DataError, match=rf"1 of 6 good images show 4 gray values or fewer.*{path}.*move masks into a folder"):
        load_dataset(mvtec)
    for i in range(4):
        write(mvtec / "train" / "good" / f"{i}.png", np.roll(mask, i, axis=0))
    assert load_dataset(mvtec).train


def test_pictures_that_lie_across_the_others_are_said(tmp_path: Path) -> None:
    for i in range(9):
        write(tmp_path / f"{i}.png", gray(i) if i < 6 else gray(i).T.copy())
    said = [n for n in load_dataset(tmp_path).notes if "turned by a quarter" in n]
    assert said and said[0].startswith(f"3 of 9 files are 40x48 (the first: {tmp_path / '6.png'}), the others 48x40")
    write(tmp_path / "9.png", gray(9, (40, 40)))
    assert not any("turned by a quarter" in n for n in load_dataset(tmp_path).notes), "sizes that differ anyhow"
