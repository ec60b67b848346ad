"""What the teaching commands share on a terminal: sentences and progress bars on stderr, and the options that say how images are read."""

import importlib
import importlib.util
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from edge_runtime.errors import ConfigError, MissingExtra
from edge_runtime.model.tiles import parse_tiles
from edge_runtime.values import check_region
from training.data.facts import DEPTHS

PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")


LINE_EVERY_S = 10.0
"""Where nobody watches bars, a line says so often what is going on."""

NEEDED = ("torch", "timm", "sklearn", "scipy", "safetensors")


def say(text: str | Text) -> None:
    """A sentence for the user."""
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(text)


@contextmanager
def bars() -> Iterator[Any]:
    """A training Progress drawn on stderr, with the time left; where stderr is no terminal, a line every ten seconds."""
    console = Console(stderr=True)
    if not console.is_terminal:
        with lines() as told:
            yield told
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True) as shown:

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total)
            shown.update(tasks[what], completed=done, total=total, visible=done < total)

        yield progress


@contextmanager
def lines(every_s: float = LINE_EVERY_S) -> Iterator[Any]:
    """A training Progress that says on stderr every `every_s` seconds what is going on, also during a step that says nothing itself."""
    began, over = time.monotonic(), threading.Event()
    last: tuple[str, int, int] | None = None

    def progress(what: str, done: int, total: int) -> None:
        nonlocal last
        last = (what, done, total)

    def tell() -> None:
        while not over.wait(every_s):
            if last is not None:
                what, done, total = last
                # A step that is over is not what runs now, and the one that does may have nothing to count.
                now = f"{what}: done, the next step runs" if done >= total else what + (f" {done}/{total}" if total > 1 else "")
                say(f"{time.monotonic() - began:4.0f} s  {now}")

    teller = threading.Thread(target=tell, name="progress", daemon=True)
    teller.start()
    try:
        yield progress
    finally:
        over.set()
        teller.join()


def parse_roi(text: str | None) -> tuple[int, int, int, int] | None:
    """X,Y,W,H in pixels. Raises ConfigError."""
    if text is None:
        return None
    try:
        x, y, w, h = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"roi: expected X,Y,W,H in pixels (40,0,512,480), found {text!r}") from None
    if x < 0 or y < 0 or w < 1 or h < 1:
        raise ConfigError(f"roi: expected X and Y of at least 0, W and H of at least 1, found {text}")
    try:
        check_region((x, y, w, h))
    except ValueError as e:
        raise ConfigError(str(e)) from None
    return x, y, w, h


def input_options(
    roi: str | None,
    ignore_mask: Path | None,
    image_size: str,
    tiles: str | None,
    tile_size: str | None,
    overlap: str | None,
    bayer: str | None,
    bits: int | None,
    few_good: bool = False,
) -> dict[str, Any]:
    """The command line's words as arguments of `load_dataset`. Raises ConfigError, DataError."""
    region = parse_roi(roi)
    if bayer is not None and bayer.upper() not in PATTERNS:
        raise ConfigError(f"bayer: expected one of {', '.join(PATTERNS)}, found {bayer!r}")
    if bits is not None and bits not in DEPTHS[1:]:
        raise ConfigError(f"bits: expected one of {', '.join(map(str, DEPTHS[1:]))}, found {bits}")
    return {
        "bits": bits,
        "roi": region,
        "ignore_mask": ignore_mask,
        "image_size": image_size,
        "tiles": partial(parse_tiles, tiles, tile_size, overlap) if tile_size is not None else parse_tiles(tiles, None, overlap),
        "bayer": None if bayer is None else bayer.upper(),
        "few_good": few_good,
    }


def need_extra() -> None:
    """Raises MissingExtra where the teaching packages are not installed."""
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        raise MissingExtra("lineside-train", "train")


def load_extra() -> None:
    """Load the teaching packages, which takes most of a minute on a busy machine, and say so. Raises MissingExtra."""
    need_extra()
    if all(name in sys.modules for name in NEEDED):
        return
    with bars() as progress:
        for i, name in enumerate(NEEDED):
            progress("loading the programs for teaching", i, len(NEEDED))
            importlib.import_module(name)
        progress("loading the programs for teaching", len(NEEDED), len(NEEDED))
