"""What a model's input is, by what the good images are: its size, its channels, its pixels' depth."""

import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.model.manifest import InputSpec, TileSpec
from edge_runtime.model.tiles import tile_wh
from training.data.facts import Facts, bits_for
from training.data.layout import Sample

TilesFor = Callable[[tuple[int, int] | None], TileSpec | None]
"""Tiles for a region of this (width, height); None where images differ in size. Raises ConfigError."""

Bayer = Literal["RGGB", "BGGR", "GRBG", "GBRG"]


def derive(
    train: Sequence[Sample],
    facts: Sequence[Facts],
    depth: tuple[int, str],
    roi: tuple[int, int, int, int] | None,
    ignore_mask: Path | None,
    image_size: str,
    tiles: TileSpec | TilesFor | None,
    bayer: Bayer | None,
) -> tuple[InputSpec, list[str]]:
    """The input of a model that learns from `train`, whose `facts` are in its order, and notes.

    `depth`: as `depth_of` gives it; the rest: as `load_dataset` takes it. Raises DataError for images that no one input can take,
    ConfigError for settings that these images contradict.
    """
    if not train:
        raise DataError("data: expected good images to learn from (in train/good, say), found none in the training split")
    notes: list[str] = []
    dtypes = {f.dtype: s.path for s, f in zip(train, facts, strict=True)}
    if len(dtypes) > 1:
        raise DataError(f"data: expected one pixel depth, found 8 bits ({dtypes['uint8']}) and 16 bits ({dtypes['uint16']}) mixed")
    bits, said = depth if "uint16" in dtypes else (8, "")
    notes += [said] if said else []
    gray = [s.path for s, f in zip(train, facts, strict=True) if f.channels == 1]
    colour = [s.path for s, f in zip(train, facts, strict=True) if f.channels == 3 and not f.colourless]
    if gray and colour:
        few, word = (gray, "gray") if len(gray) < len(colour) else (colour, "in colour")
        raise DataError(f"data: expected all images gray or all in colour, found {len(few)} of {len(train)} {word}, the first {few[0]}")
    if not gray and not colour:
        notes.append("the files have three equal channels: they are taken as gray")
    if bayer is not None and colour:
        raise ConfigError(f"bayer: expected raw mosaics of one channel, found colour in {colour[0]}")
    sizes = sorted({f.wh for f in facts})
    if len(sizes) > 1:
        (w0, h0), (w1, h1) = min(sizes, key=lambda s: s[0] * s[1]), max(sizes, key=lambda s: s[0] * s[1])
        usual, n = Counter(f.wh for f in facts).most_common(1)[0]
        other, (w, h) = next((s.path, f.wh) for s, f in zip(train, facts, strict=True) if f.wh != usual)
        named = f" ({n} are {usual[0]}x{usual[1]}; {other} is {w}x{h})" if (len(facts) - n) * 5 <= n else ""
        notes.append(f"images are of {len(sizes)} sizes, {w0}x{h0} to {w1}x{h1}{named}: each is scaled to the model's input")
        if ignore_mask is not None:
            odd = next(s.path for s, f in zip(train, facts, strict=True) if f.wh != facts[0].wh)
            raise DataError(f"ignore mask: it counts in frame pixels, so all images must have one size; {odd} differs from {train[0].path}")
    cropped = [f.wh for f in facts] if roi is None else [(roi[2], roi[3])]
    if min(min(wh) for wh in cropped) < 1:
        raise ConfigError(f"roi: expected a width and a height of at least 1, found {cropped[0][0]}x{cropped[0][1]}")
    if callable(tiles):
        tiles = tiles(cropped[0] if len(set(cropped)) == 1 else None)
    if tiles is not None:
        cropped = [tile_wh(tiles, wh) for wh in cropped]
    height, width = parse_image_size(image_size, cropped)
    stretch = statistics.median(w / h for w, h in cropped) / (width / height)
    if not 0.5 <= stretch <= 2:
        auto = parse_image_size("auto", cropped)
        notes.append(
            f"parts are squeezed {max(stretch, 1 / stretch):.1f} : 1 into {width}x{height} (width x height);"
            f" --image-size auto gives {auto[1]}x{auto[0]}"
        )
    spec = InputSpec(
        height=height,
        width=width,
        channels=3 if colour else 1,
        bits=bits,
        frame_wh=sizes[0] if len(sizes) == 1 else None,
        roi=roi,
        ignore_mask=None if ignore_mask is None else "ignore_mask.png",
        bayer=bayer,
        tiles=tiles,
    )
    return spec, notes


def depth_of(facts: Sequence[Facts], stated: int | None) -> tuple[int, str]:
    """Significant bits of 16-bit files, and a note. Raises ConfigError for a stated depth that they contradict."""
    deep = [f.largest for f in facts if f.dtype == "uint16"]
    if not deep:
        if stated is not None:
            raise ConfigError(f"bits: only counts for 16-bit files, found 8 bits a pixel; leave --bits {stated} out")
        return 8, ""
    bits = max(10, bits_for(max(deep)))
    if stated is None:
        return bits, (
            f"16-bit images, brightest pixel {max(deep)}: taken as {bits} significant bits. If the camera gives more, say so with --bits"
        )
    if stated < bits:
        raise ConfigError(f"bits: expected at least {bits} for a brightest pixel of {max(deep)}, found {stated}")
    return stated, ""


def parse_image_size(text: str, sizes_wh: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(height, width) of the model's input.

    `N`: a square; `WxH`: as given, width first as everywhere; `auto`: the median aspect of `sizes_wh` (after cropping) at about the area of
    256x256, in multiples of 32. Raises ConfigError.
    """
    if text == "auto":
        aspect = statistics.median(w / h for w, h in sizes_wh)
        width, height = (256 * aspect**0.5, 256 / aspect**0.5)
        return max(32, round(height / 32) * 32), max(32, round(width / 32) * 32)
    found = re.fullmatch(r"(\d{1,9})(?:[xX](\d{1,9}))?", text)
    if found is None:
        raise ConfigError(f"image size: expected N, WxH or auto (256, 320x192: width x height), found {text!r}")
    width, height = int(found[1]), int(found[2] or found[1])
    if not (32 <= height <= 4096 and 32 <= width <= 4096):
        raise ConfigError(f"image size: expected 32 to 4096 pixels a side, found {width}x{height}")
    return height, width
