"""Options that several teaching commands have, once for all: how images are read, what is learnt, and numbers within their bounds."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_runtime.errors import ConfigError
from edge_runtime.plugins import offered
from edge_runtime.values import MOST

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
"""As training.core.backbones has it, which loads torch."""


OWN_METHODS = {
    "padim": 8, "patchcore": 8, "mvg": 8, "stfpm": 8, "efficientad": 16, "autoencoder": 8, "fastflow": 8, "fcdd": 8, "devnet": 8
}  # fmt: skip
"""Good images that each takes, as training.methods.table has it, which loads torch."""


def check_method(name: str, others: str) -> None:
    """Refuse a name that no method has, ours or an installed package's. `others`: what may be named as well. Raises ConfigError."""
    brought = offered("methods")
    if name not in (*OWN_METHODS, *(p.kind for p in brought)):
        names = ", ".join((*OWN_METHODS, *(f"{p.kind} (of {p.distribution})" for p in brought)))
        raise ConfigError(f"method: expected {others} or one of {names}, found {name!r}")


def least_good(methods: Iterable[str]) -> int:
    """Good images that the least demanding of these takes, as far as it is known before torch is loaded: 1 for another package's method.

    What is no method's name (auto, compare) stands for one of ours.
    """
    brought = {p.kind for p in offered("methods")}
    return min((1 if m in brought else OWN_METHODS.get(m, min(OWN_METHODS.values())) for m in methods), default=min(OWN_METHODS.values()))


def check_brightness(brightness: str) -> None:
    """Raises ConfigError."""
    if brightness not in ("auto", "keep"):
        raise ConfigError(f"brightness: expected auto or keep, found {brightness!r}")


def number(option: str, wanted: str, fits: Callable[[float], bool], metavar: str = "<float>") -> Any:
    """Keywords of a typer.Option that takes a finite number for which `fits` holds; else ConfigError says what was `wanted`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and fits(value)):
            raise ConfigError(f"{option}: expected {wanted}, found {text}")
        return value

    return {"parser": read, "metavar": metavar}


def at_least(option: str, least: float, what: str) -> Any:
    """A number of `what` from `least` up to what nobody waits for."""
    wanted = f"a number of {what}, at least {least:g} and at most {MOST:,}"
    return number(option, wanted, lambda v: least <= v <= MOST, f"<float range> [x>={least:g}]")


def share(option: str, top: float, example: str, *, itself: bool = True) -> Any:
    """A share above 0 and up to `top`, which may be it `itself`."""
    wanted = f"a share above 0 and {'up to' if itself else 'below'} {top:g} ({example})"
    return number(option, wanted, lambda v: 0 < v < top or (itself and v == top))


def positive(option: str, what: str) -> Any:
    """A number above 0, a float32."""
    return number(option, what, lambda v: 0 < v <= 3.4e38)


ImageSize = Annotated[
    str, typer.Option(help="Model input: N, WxH, or auto: the parts' aspect, as large as known defects need and --budget-ms allows.")
]
Roi = Annotated[str | None, typer.Option(help="Region of interest X,Y,W,H in image pixels.")]
IgnoreMask = Annotated[Path | None, typer.Option(help="Image of the parts' size; what is not black is ignored.")]
Tiles = Annotated[str | None, typer.Option(help="Cut each image into COLUMNSxROWS tiles, for small defects in large images.")]
TileSize = Annotated[str | None, typer.Option(help="Or into tiles of at most WIDTHxHEIGHT image pixels.")]
Overlap = Annotated[str | None, typer.Option(help="Share of a tile that its neighbour sees, too; default 0.1.")]
Bayer = Annotated[str | None, typer.Option(help="Images are a raw mosaic: RGGB, BGGR, GRBG or GBRG.")]
Bits = Annotated[int | None, typer.Option(help="Significant bits of 16-bit files: 10, 12, 14 or 16. Default: what they use.")]
FewGood = Annotated[bool, typer.Option("--few-good", help="Fewer good images than bad ones are meant so: good and bad are not swapped.")]
AllowDuplicates = Annotated[bool, typer.Option("--allow-duplicates", help="Images that were taught may be among those that are tested.")]

BackboneName = Annotated[str, typer.Option(help="timm's model name.")]
Weights = Annotated[Path | None, typer.Option(help="State dict of the backbone (.safetensors, .pth); default: installed or downloaded.")]
MOST_SEED = 2**32 - 1
MOST_PAINTED = 1_000_000
Seed = Annotated[int, typer.Option(min=0, max=MOST_SEED, help="The same seed gives the same scores.")]
Brightness = Annotated[
    str, typer.Option(help="auto brings all pictures to one brightness unless that would hide bad parts; keep never does.")
]
Variations = Annotated[
    str, typer.Option(help="Variations that good parts show, such as shift=8,rotate=3,brightness=0.1,copies=4; auto, or none.")
]
KeepOdd = Annotated[bool, typer.Option("--keep-odd", help="Learn good images that look unlike all others, however many.")]
LeaveOut = Annotated[Path | None, typer.Option(help="Text file with names of good images that are not to be learnt, such as RUN/odd.txt.")]
RATE = "0.01 is 1 %"
FalseRejectRate = Annotated[
    float | None,
    typer.Option(
        **share("--false-reject-rate", 0.5, RATE), help="Stated share of good parts rejected; default 0.01 or what the images support."
    ),
]
BadImages = Annotated[Path | None, typer.Option(help="Folder of bad images.")]
Masks = Annotated[Path | None, typer.Option(help="Masks of the bad images.")]
