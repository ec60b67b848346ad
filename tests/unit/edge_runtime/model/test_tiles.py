"""Tiles: nothing of the region is left out, seams are no steps, and a small defect in a large image is found where it lies."""

from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import openvino as ov
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openvino import opset13 as ops

from edge_runtime.errors import BundleError, ConfigError, DeviceError, FrameError
from edge_runtime.model.bundle import MANIFEST, ModelBundle, file_sha256, write_manifest
from edge_runtime.model.manifest import Golden, InputSpec, OutputSpec, TileSpec
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.model.preprocess import TRUTH_PX, Preprocessor
from edge_runtime.model.regions import find_regions
from edge_runtime.model.tiles import STEP, Tiling, parse_tiles, tile_wh
from edge_runtime.records import Frame
from tests.conftest import SIDE, bad_image, build_model, good_image

counts = st.integers(1, 7)
overlaps = st.floats(0, 0.5)
sides = st.sampled_from([32, 64, 96, 200, 256, 320])


def spec(columns: int, rows: int, overlap: float = 0.0, **changes: object) -> InputSpec:
    tiles = TileSpec(columns=columns, rows=rows, overlap=overlap)
    return InputSpec(**{"height": 256, "width": 256, "channels": 1, "tiles": tiles, **changes})  # type: ignore[arg-type]


@given(counts, counts, overlaps, sides, sides, st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 9))
def test_tiles_are_equal_and_cover_the_region_exactly(
    columns: int, rows: int, overlap: float, height: int, width: int, w: int, h: int, x: int
) -> None:
    boxes = Tiling(TileSpec(columns=columns, rows=rows, overlap=overlap), height, width).boxes((x, 5, w, h))
    assert len(boxes) == columns * rows
    assert len({box[2:] for box in boxes}) == 1
    across, down = np.zeros(w, bool), np.zeros(h, bool)
    for left, top, wide, high in boxes:
        assert 0 <= left - x <= left - x + wide <= w
        assert 0 <= top - 5 <= top - 5 + high <= h
        across[left - x : left - x + wide] = True
        down[top - 5 : top - 5 + high] = True
    assert across.all()
    assert down.all()
    assert [box[:2] for box in boxes] == [(left, top) for _, top, *_ in boxes[::columns] for left, *_ in boxes[:columns]], "row by row"


@given(counts, counts, overlaps, sides, sides, st.sampled_from([4, 8, 16, 32]))
def test_a_tiles_map_lies_where_the_tile_was_cut(columns: int, rows: int, overlap: float, height: int, width: int, stride: int) -> None:
    """But for whole pixels of the frame: exactly where the input is a multiple of 64, else to a cell."""
    tiling = Tiling(TileSpec(columns=columns, rows=rows, overlap=overlap), height, width)
    grid = (-(-height // stride), -(-width // stride))
    region = (0, 0, 4000, 3000)
    affine = Preprocessor(spec(columns, rows, overlap, height=height, width=width)).grid_to_frame(
        np.broadcast_to(np.uint8(0), (3000, 4000)), tiling.merged_hw(grid)
    )
    exact = height % (2 * STEP) == 0 and width % (2 * STEP) == 0
    for i, (left, top, wide, high) in enumerate(tiling.boxes(region)):
        maps = np.zeros((tiling.views, *grid), np.float32)
        maps[i] = 1
        ys, xs = np.nonzero(tiling.merge(maps))
        for found, wanted, cell in (
            (xs.min() * affine[0, 0], left, wide / grid[1]),
            ((xs.max() + 1) * affine[0, 0], left + wide, wide / grid[1]),
            (ys.min() * affine[1, 1], top, high / grid[0]),
            ((ys.max() + 1) * affine[1, 1], top + high, high / grid[0]),
        ):
            assert abs(found - wanted) <= (1.5 if exact else cell + 1.5)


@given(counts, counts, overlaps, st.integers(1, 40), st.integers(1, 40), st.floats(0, 1e6, width=32))
def test_a_constant_stays_exactly_what_it_is(columns: int, rows: int, overlap: float, gh: int, gw: int, value: float) -> None:
    tiling = Tiling(TileSpec(columns=columns, rows=rows, overlap=overlap), 256, 256)
    merged = tiling.merge(np.full((tiling.views, gh, gw), value, np.float32))
    assert merged.shape == tiling.merged_hw((gh, gw))
    assert (merged == np.float32(value)).all()


def test_a_step_between_two_tiles_becomes_a_ramp() -> None:
    tiling = Tiling(TileSpec(columns=2, rows=1, overlap=0.25), 256, 256)
    maps = np.stack([np.full((32, 32), 1, np.float32), np.full((32, 32), 2, np.float32)])
    row = tiling.merge(maps)[0]
    assert row.shape == (56,)
    assert row[:24].tolist() == [1] * 24
    assert row[28:].tolist() == [2] * 28
    assert np.diff(row).max() <= 0.5
    assert (np.diff(row) >= 0).all()


def test_a_peak_that_one_tile_alone_sees_in_its_half_of_the_overlap_is_kept_whole() -> None:
    tiling = Tiling(TileSpec(columns=2, rows=2, overlap=0.25), 256, 256)
    for column in range(28):  # the overlap is columns 24..31 of the first tile
        maps = np.zeros((4, 32, 32), np.float32)
        maps[0, 10, column] = 7
        assert tiling.merge(maps)[10, column] == 7
    for column, least in ((28, 6.0), (29, 4.0), (30, 2.6), (31, 0.8)):
        maps = np.zeros((4, 32, 32), np.float32)
        maps[0, 10, column] = 7
        assert least < tiling.merge(maps)[10, column] < 7


def test_a_tile_without_a_number_is_never_hidden() -> None:
    prepare = Preprocessor(spec(3, 2, 0.1))
    scores, maps = np.ones(6, np.float32), np.ones((6, 8, 8), np.float32)
    scores[4] = maps[4, 3, 3] = np.nan
    score, merged = prepare.merge(scores, maps)
    assert np.isnan(score)
    assert np.isnan(merged).sum() == 1


def test_a_frame_is_cut_row_by_row_with_the_one_resize() -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8)
    prepare = Preprocessor(spec(3, 2, height=32, width=32, roi=(12, 8, 192, 128), frame_wh=(300, 200)))
    pictures = prepare.split(image)
    assert pictures.shape == (prepare.views, 32, 32, 3) == (6, 32, 32, 3)
    assert pictures.dtype == np.uint8
    one = Preprocessor(InputSpec(height=32, width=32, channels=1))
    for i, picture in enumerate(pictures):
        x, y = 12 + i % 3 * 64, 8 + i // 3 * 64
        assert (picture == one(image[y : y + 64, x : x + 64])).all()


def test_without_tiles_a_frame_is_its_only_picture() -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8)
    prepare = Preprocessor(InputSpec(height=32, width=32, channels=1))
    assert prepare.views == 1
    assert (prepare.split(image) == prepare(image)[None]).all()
    score, score_map = prepare.merge(np.array([3], np.float32), np.full((1, 4, 4), -2, np.float32))
    assert (score, score_map.tolist()) == (3.0, [[-2.0] * 4] * 4), "raw, below 0 as well"
    assert prepare.map_hw((4, 5)) == (4, 5)
    assert prepare.truth_hw == (32, 32)


def test_a_tiled_product_has_no_single_picture() -> None:
    with pytest.raises(ValueError, match="12 pictures"):
        Preprocessor(spec(4, 3))(np.zeros((60, 80), np.uint8))


def test_a_frame_of_another_kind_is_refused_before_it_is_cut() -> None:
    with pytest.raises(FrameError, match="found 20x10"):
        Preprocessor(spec(2, 2, frame_wh=(80, 60))).split(np.zeros((10, 20), np.uint8))


def test_an_ignore_mask_together_with_tiles_is_refused() -> None:
    with pytest.raises(ConfigError, match="ignore mask: cannot be used together with tiles"):
        Preprocessor(spec(2, 2, frame_wh=(80, 60)), np.zeros((60, 80), np.uint8))


@pytest.mark.parametrize(("columns", "rows"), [(5, 4), (16, 12)])
@pytest.mark.parametrize("side", [1, 12])
def test_the_smallest_defect_exists_where_pixels_are_judged(columns: int, rows: int, side: int) -> None:
    prepare = Preprocessor(spec(columns, rows, 0.1, frame_wh=(4096, 3000)))
    mask = np.zeros((3000, 4096), np.uint8)
    mask[2999 - side : 2999, 1500 : 1500 + side] = 255
    truth = prepare.crop_mask(mask)
    assert truth.shape == prepare.truth_hw
    assert truth.any()
    assert truth.size <= TRUTH_PX * 1.001
    assert truth.mean() < 20 * (side + 4) ** 2 / mask.size


LARGE_WH = (4096, 3000)
TILES = TileSpec(columns=5, rows=4, overlap=0.1)


@pytest.fixture(scope="module")
def large(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    """For frames of 4096x3000 in 20 tiles, each judged by a model of 256x256 and 8x8 px cells: brightness above 100."""
    place = tmp_path_factory.mktemp("large")
    ov.save_model(build_model(256), place / "model.xml", compress_to_fp16=False)
    manifest = msgspec.structs.replace(
        ModelBundle.open(tiny_bundle).manifest,
        input=InputSpec(height=256, width=256, channels=1, frame_wh=LARGE_WH, tiles=TILES),
        output=OutputSpec(map_height=32, map_width=32),
    )
    return ModelBundle(place, manifest, "0" * 64)


@pytest.mark.slow
def test_a_12_pixel_defect_in_a_4096x3000_frame_is_found_where_it_lies(large: ModelBundle) -> None:
    """Inside a tile, on both borders of an overlap and in its middle, where four tiles meet, and in the frame's corners."""
    boxes = Tiling(TILES, 256, 256).boxes((0, 0, *LARGE_WH))
    (x0, y0, w, h), (x1, y1, _, _) = boxes[0], boxes[6]
    middle = (round((x1 + x0 + w) / 2), round((y1 + y0 + h) / 2))
    spots = [
        (500, 400),
        (x1, 300),
        (x0 + w, 300),
        (middle[0], 300),
        middle,
        (x1, y1),
        (6, 6),
        (4090, 6),
        (6, 2994),
        (4090, 2994),
        (2048, 2994),
    ]
    good = np.random.default_rng(0).integers(60, 95, LARGE_WH[::-1], dtype=np.uint8)
    with OpenvinoPredictor(large) as predictor:
        clean = predictor.predict(Frame(1, 0, "good", good))
        assert clean.score == pytest.approx(1.0)
        assert clean.score_map.shape == predictor.preprocessor.map_hw((32, 32))
        for x, y in spots:
            bad = good.copy()
            bad[y - 6 : y + 6, x - 6 : x + 6] = 250
            found = predictor.predict(Frame(2, 0, "bad", bad))
            assert found.score > clean.score + 2
            (region,) = find_regions(found.score_map, found.grid_to_frame, LARGE_WH, 1.0)
            assert found.score == pytest.approx(region.peak + 1), "what the score saw is in the map"
            cell = found.grid_to_frame[0, 0]
            assert x - 6 - 2 * cell <= region.x0 <= max(x - 6, 0)
            assert x + 6 <= region.x1 <= x + 6 + 2 * cell
            assert y - 6 - 2 * cell <= region.y0 <= max(y - 6, 0)
            assert y + 6 <= region.y1 <= y + 6 + 2 * cell


@pytest.mark.slow
def test_without_tiles_a_faint_defect_of_12_pixels_is_averaged_away(large: ModelBundle) -> None:
    whole = msgspec.structs.replace(large.manifest, input=msgspec.structs.replace(large.manifest.input, tiles=None))
    bad = np.full(LARGE_WH[::-1], 78, np.uint8)
    bad[1200:1212, 500:512] = 118
    with OpenvinoPredictor(ModelBundle(large.directory, whole, "0" * 64)) as predictor:
        assert predictor.predict(Frame(1, 0, "bad", bad)).score == 1
    with OpenvinoPredictor(large) as predictor:
        assert predictor.predict(Frame(1, 0, "bad", bad)).score > 2


def test_golden_samples_of_a_tiled_bundle_are_whole_frames(make_bundle: Callable[..., Path]) -> None:
    place = make_bundle()
    frames = [good_image(seed=i) for i in range(3)] + [bad_image()]
    frames = [cv2.resize(frame, (3 * SIDE, 2 * SIDE), interpolation=cv2.INTER_NEAREST) for frame in frames]
    manifest = ModelBundle.open(place).manifest
    tiles = TileSpec(columns=3, rows=2, overlap=0.2)
    manifest = msgspec.structs.replace(manifest, input=msgspec.structs.replace(manifest.input, frame_wh=(3 * SIDE, 2 * SIDE), tiles=tiles))
    golden = []
    with OpenvinoPredictor(ModelBundle(place, manifest, "0" * 64)) as predictor:
        for old, frame in zip(manifest.golden, frames, strict=True):
            assert cv2.imwrite(str(place / old.image), frame)
            found = predictor.predict(Frame(1, 0, old.image, frame))
            golden.append(Golden(image=old.image, score=found.score, map_peak=float(found.score_map.max())))
    assert golden[3].score > manifest.threshold.value > golden[0].score
    files = {name: file_sha256(place / name) for name in manifest.files}
    write_manifest(place, msgspec.structs.replace(manifest, golden=golden, files=files))
    opened = ModelBundle.open(place)
    assert opened.manifest.input.tiles == tiles
    with OpenvinoPredictor(opened) as predictor:
        assert [r.ok for r in predictor.run_golden()] == [True] * 4


def test_a_prediction_of_tiles_is_not_overwritten_by_the_next_one(large: ModelBundle) -> None:
    dark, light = (np.full(LARGE_WH[::-1], value, np.uint8) for value in (50, 200))
    with OpenvinoPredictor(large) as predictor:
        first = predictor.predict(Frame(1, 0, "light", light))
        predictor.predict(Frame(2, 0, "dark", dark))
    assert (first.score_map == 100).all()
    assert first.score == 101
    assert not first.score_map.flags.writeable


def fails_on_light_pictures() -> ov.Model:
    """(1, 64, 64, 3) uint8 -> a score and a map of one cell; of a picture brighter than 200 five numbers are to make two rows of two."""
    image = ops.parameter([1, SIDE, SIDE, 3], ov.Type.u8, name="image")
    mean = ops.reduce_mean(ops.convert(image, "f32"), ops.constant(np.arange(4)), keep_dims=False)
    places = ops.select(ops.greater(mean, ops.constant(np.float32(200))), ops.constant(np.int64(5)), ops.constant(np.int64(4)))
    one = ops.constant(np.array([1]))
    row = ops.broadcast(ops.reshape(mean, one, False), ops.reshape(places, one, False))
    square = ops.reshape(row, ops.constant(np.array([2, 2])), False)
    score = ops.reduce_max(square, ops.constant(np.array([0, 1])), False)
    outputs = [ops.reshape(score, ops.constant(np.array(shape)), False) for shape in ([1], [1, 1, 1, 1])]
    for output, name in zip(outputs, ("score", "map"), strict=True):
        output.output(0).set_names({name})
    return ov.Model(outputs, [image], "fails")


def test_a_tile_that_cannot_be_judged_fails_its_frame_and_not_the_next_one(make_bundle: Callable[..., Path]) -> None:
    opened = ModelBundle.open(make_bundle())
    spec = msgspec.structs.replace(opened.manifest.input, frame_wh=None, tiles=TileSpec(columns=3, rows=3))
    compiled = ov.Core().compile_model(fails_on_light_pictures(), "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
    frame = np.full((3 * SIDE, 3 * SIDE), 80, np.uint8)
    light = frame.copy()
    light[:SIDE, :SIDE] = 250
    with OpenvinoPredictor(ModelBundle(opened.directory, msgspec.structs.replace(opened.manifest, input=spec), "0" * 64)) as predictor:
        predictor._requests = [compiled.create_infer_request() for _ in range(2)]
        assert predictor.predict(Frame(1, 0, "dark", frame)).score == 80
        with pytest.raises(DeviceError, match="inference failed on CPU"):
            predictor.predict(Frame(2, 0, "light", light))
        predictor.predict(Frame(3, 0, "dark", frame))


def test_a_manifest_with_impossible_tiles_is_refused(make_bundle: Callable[..., Path]) -> None:
    place = make_bundle()
    raw = msgspec.json.decode((place / MANIFEST).read_bytes())
    raw["input"]["tiles"] = {"columns": 0, "rows": 4, "overlap": 0.1}
    write_manifest(place, raw)
    with pytest.raises(BundleError, match=r"Expected `int` >= 1 - at `\$\.input\.tiles\.columns`"):
        ModelBundle.open(place)


# What a user types.


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (("5x4", None, None), (5, 4, 0.1)),
        (("1X3", None, "0"), (1, 3, 0)),
        ((" 16x12 ", None, "25%"), (16, 12, 0.25)),
        ((None, "1024x1000", "0"), (4, 3, 0)),
        ((None, "910x828", None), (5, 4, 0.1)),
        ((None, "8000x1000", "0"), (1, 3, 0)),
        ((None, "1023x1000", "0"), (5, 3, 0)),
        ((None, None, None), None),
    ],
)
def test_tiles_are_asked_for_by_number_or_by_size(
    asked: tuple[str | None, str | None, str | None], wanted: tuple[int, int, float] | None
) -> None:
    found = parse_tiles(*asked, LARGE_WH)
    assert (found and (found.columns, found.rows, found.overlap)) == wanted


@given(st.integers(20, 4096), st.integers(20, 3000), overlaps)
def test_no_tile_is_larger_than_asked_for(w: int, h: int, overlap: float) -> None:
    try:
        found = parse_tiles(None, f"{w}x{h}", f"{overlap:.3f}", LARGE_WH)
    except ConfigError as e:
        assert "expected 2 to 1024" in str(e)
        return
    assert found is not None
    wide, high = tile_wh(found, LARGE_WH)
    assert wide <= w
    assert high <= h


@pytest.mark.parametrize(
    ("asked", "region", "message"),
    [
        (("5", None, None), LARGE_WH, r"tiles: expected COLUMNSxROWS \(5x4\), found '5'"),
        (("0x4", None, None), LARGE_WH, "found '0x4'"),
        (("1x1", None, None), LARGE_WH, "expected 2 to 1024 of them, found 1x1 for --tiles 1x1"),
        (("100x100", None, None), LARGE_WH, "found 100x100"),
        (("5x4", None, None), (4, 4), "expected at most a tile a pixel, found 5x4 for a region of 4x4"),
        (("5x4", "800x600", None), LARGE_WH, r"expected --tiles or --tile-size, found both \(5x4 and 800x600\)"),
        ((None, "800", None), LARGE_WH, "tile size: expected WIDTHxHEIGHT in pixels"),
        ((None, "9000x9000", None), LARGE_WH, "found 1x1 for --tile-size 9000x9000"),
        ((None, "800x600", None), None, "tile size: the images differ in size"),
        (("5x4", None, "0.6"), LARGE_WH, r"overlap: expected a share of a tile from 0 to 0\.5 \(0\.1 or 10%\), found '0\.6'"),
        (("5x4", None, "-0.1"), LARGE_WH, "overlap: expected"),
        (("5x4", None, "much"), LARGE_WH, "found 'much'"),
        ((None, None, "0.1"), LARGE_WH, "overlap: only counts together with --tiles or --tile-size"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_a_sentence(
    asked: tuple[str | None, str | None, str | None], region: tuple[int, int] | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_tiles(*asked, region)
