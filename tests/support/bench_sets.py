"""The data sets of the benchmarks: solar cells from the elpv-dataset package, and any folders in MVTec layout."""

from collections.abc import Sequence
from pathlib import Path

from export import demo


def sets_of(data: Sequence[Path] | None, cells: bool, out: Path) -> dict[str, Path]:
    """Name -> folder; the cells (mono and poly apart) are laid out below `out` where they are not there yet."""
    sets = {p.name: p.resolve() for p in data or []}
    for kind in ("mono", "poly") if cells else ():
        if not (out / f"elpv_{kind}").exists():
            demo.lay_out_images(out / f"elpv_{kind}", kind)
        sets[f"elpv_{kind}"] = out / f"elpv_{kind}" / "data"
    return sets
