"""What was refused is kept in its run, RUN/refused, with all that was measured: whoever then says --force gets what was judged.

It is taken only where everything that it was made of is the same: the run, the options, the images with what is known of them, and the
programs. Else it is made and measured anew.

Why: deploy/decisions/0061.
"""

import contextlib
import dataclasses
import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge_runtime.errors import BundleError, DataError, GoldenMismatch
from edge_runtime.files import put_file
from edge_runtime.model.bundle import ModelBundle, file_sha256, write_manifest
from export.build.options import BuildOptions
from export.build.outcome import BuildReport
from export.build.pack import tool_versions
from export.child import golden_in_child
from training.core.places import move_into_place, workplace
from training.data.dataset import Dataset
from training.judging.acceptance import forced
from training.runs import INFO, Run

REFUSED = "refused"
_BUNDLE, _REPORT, _MADE_OF, _ASKED = "bundle", "report.json", "made_of", "asked"


def digest(made_of: Mapping[str, Any]) -> str:
    """One hash of settings."""
    return hashlib.sha256(msgspec.json.encode(made_of, enc_hook=str, order="sorted")).hexdigest()


def images(dataset: Dataset) -> list[tuple[str, ...]]:
    """What a data set says, image by image: its bytes, and what is known of the part. Raises DataError."""
    samples = {s.path: s for s in (*dataset.train, *dataset.copies, *dataset.bad, *dataset.test)}
    try:
        return [
            (dataset.name_of(s), s.kind, str(s.is_good), s.split, file_sha256(s.path), file_sha256(Path(s.truth_name)))
            for s in samples.values()
        ]
    except OSError as e:
        raise DataError(f"{e.filename}: cannot be read: {e.strerror}") from e


def made_of(run: Run, dataset: Dataset, options: BuildOptions) -> str:
    """One hash of everything that a build follows from."""
    chosen = {f.name: getattr(options, f.name) for f in dataclasses.fields(options) if f.name not in ("force", "zipped", "onnx", "accept")}
    criteria = None if options.accept is None or options.accept.criteria is None else dataclasses.asdict(options.accept.criteria)
    taught = {"run": file_sha256(run.directory / INFO), "images": images(dataset)}
    return digest({**taught, "options": chosen, "accept": criteria, "tools": tool_versions("int8")})


def keep(run: Run, pack: Path, report: BuildReport, key: str) -> None:
    """Copy a refused bundle and its report into the run. Where there is no room for it, it is measured anew when it is asked for."""
    out = run.directory / REFUSED
    with contextlib.suppress(OSError), workplace(out) as place:
        part = place / "part"
        shutil.copytree(pack, part / _BUNDLE)
        (part / _REPORT).write_bytes(msgspec.json.encode(report, enc_hook=str))
        (part / _MADE_OF).write_text(key, encoding="utf-8")
        move_into_place(part, out)


def take(run: Run, folder: Path, key: str) -> BuildReport | None:
    """Make `folder`, which is not there, the bundle that was refused, marked as built by force, and prove it here as a new one would be.

    None, and nothing there, where none is kept that is made of the very same, or it is not whole any more.
    """
    kept = run.directory / REFUSED
    try:
        if (kept / _MADE_OF).read_text(encoding="utf-8") != key:
            return None
        report = msgspec.json.decode((kept / _REPORT).read_bytes(), type=BuildReport, dec_hook=lambda kind, value: kind(value))
        manifest = ModelBundle.open(kept / _BUNDLE).manifest
        if manifest.acceptance is None:
            return None
        shutil.copytree(kept / _BUNDLE, folder)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError, BundleError):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    acceptance = forced(manifest.acceptance)
    bundle_id = write_manifest(folder, msgspec.structs.replace(manifest, acceptance=acceptance))
    if wrong := [r for r in golden_in_child(folder) if not r.ok]:
        raise GoldenMismatch(f"golden samples: the device's predictor gives {wrong[0].score:.6g}, not {wrong[0].expected_score:.6g}")
    return dataclasses.replace(report, bundle_id=bundle_id, acceptance=acceptance)


def remember(run: Run, asked: str) -> None:
    """Write down by what request this run was taught, beside what was refused of it; nothing where none is kept."""
    folder = run.directory / REFUSED
    with contextlib.suppress(OSError):
        if folder.is_dir():
            put_file(folder / _ASKED, f"{asked} {file_sha256(run.directory / INFO)}".encode())


def is_taught(run: Path, asked: str) -> bool:
    """Whether `run` is what this very request taught, unchanged since, and was refused."""
    try:
        return (run / REFUSED / _ASKED).read_text(encoding="utf-8") == f"{asked} {file_sha256(run / INFO)}"
    except (OSError, UnicodeDecodeError):
        return False
