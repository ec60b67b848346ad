"""Lists and spreadsheets beside images that may say which of them are bad, in forms that are not read: refused, or said."""

import os
from pathlib import Path

from edge_runtime.errors import DataError
from training.data.layout import LISTED
from training.data.tables import names_images

SHEETS = (".xlsx", ".xls", ".ods", ".tsv")
LISTS = (".txt", ".tsv", ".jsonl", ".ndjson", ".yaml", ".yml", ".lst", ".xlsx", ".ods")
"""What may name images; a CSV and annotations are read elsewhere."""
_RECORDS = (
    ".tfrecord", ".tfrecords", ".parquet", ".arrow", ".feather", ".h5", ".hdf5", ".pkl", ".pickle", ".db", ".sqlite", ".lmdb", ".mdb",
)  # fmt: skip
"""What may hold labels, and is no text."""
_MOST_FILES = 100_000


def refuse_lists(path: Path, images: list[Path]) -> None:
    """Raises DataError for a list in the folder `path`, or a list or table in a folder below it, that names some of its `images`."""
    seen = 0
    for place, folders, files in os.walk(path):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(files):
            file = Path(place, name)
            seen += 1
            below = file.suffix.lower() == ".csv" and file.parent != path
            if name.startswith(".") or seen > _MOST_FILES or not (below or file.suffix.lower() in LISTS) or not file.is_file():
                continue
            if names_images(file, images):
                where = "beside it" if file.parent == path else f"of {path}"
                raise DataError(
                    f"{file}: names images {where}; if it says which are bad, save it as .csv with the columns path,label in {path}, else"
                    " move it elsewhere"
                )


def say_sheets(path: Path) -> list[str]:
    """A sentence about files directly in the folder `path` that may hold labels, and that nothing here reads."""
    found = [p for p in sorted(path.iterdir()) if p.suffix.lower() in (*SHEETS, *_RECORDS) and p.is_file() and not p.name.startswith(".")]
    if not found:
        return []
    names = ", ".join(p.name for p in found[:LISTED]) + (f" … {len(found)} in all" if len(found) > LISTED else "")
    return [f"{names} is not read; if it says which images are bad, save it as .csv with the columns path,label"]
