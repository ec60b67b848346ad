"""Every parser that reads from outside, fed what nobody meant: it reads, or refuses with an error of Lineside's own, and nothing else.

`make fuzz` runs 100,000 cases of each; `make fuzz FUZZ="wire bundle --cases 5000"` some of one or two; the suite a few hundred of each
(tests/unit/test_fuzz.py). A case that breaks one is written to runs/fuzz, and run again by `python -m tests.fuzz TARGET --case FILE`.
`--guided` lets libFuzzer choose the cases by the code that they reach, where atheris is installed.
"""

import hashlib
import io
import random
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import cv2
import msgspec
import numpy as np
import typer

from edge_runtime import wire
from edge_runtime.config.files import load_recipe, load_station
from edge_runtime.console import run_app
from edge_runtime.errors import FrameError, LinesideError, TagError, WireError
from edge_runtime.images.masks import marks, values_of
from edge_runtime.images.read import read_image
from edge_runtime.model.bundle import ModelBundle, read_manifest
from edge_runtime.model.manifest import InputSpec, Manifest
from edge_runtime.model.preprocess import Preprocessor
from edge_runtime.model.signature import load_keys
from edge_runtime.plc.opcua_values import NoValue
from edge_runtime.plc.port import PlcLost
from edge_runtime.records import Health, State, Trigger
from edge_runtime.security.door.quota import Quota
from edge_runtime.security.door.talk import Over, Talk
from edge_runtime.sinks.announced import Announced
from tests import fuzz_plc
from tests.conftest import bad_image, good_image, write_bundle
from tests.support.decisions import decision_with
from training.data.dataset import load_dataset

Parse = Callable[[bytes], object]
app = typer.Typer(add_completion=False)
EXAMPLES = Path(__file__).parents[1] / "deploy" / "examples"


@dataclass(frozen=True)
class Target:
    """One parser."""

    parse: Parse
    seeds: Sequence[bytes]
    """What it is meant for."""
    refuses: tuple[type[BaseException], ...] = (LinesideError,)
    """How it says no."""


@cache
def scratch() -> Path:
    """In memory where there is one."""
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="lineside-fuzz-", dir=shared if shared.is_dir() else None))


@cache
def bundle() -> Path:
    return write_bundle(scratch() / "bundle")


def written(name: str, data: bytes) -> Path:
    path = scratch() / name
    path.write_bytes(data)
    return path


# --- what reads --------------------------------------------------------------------------------------------------------


def _talk(data: bytes) -> None:
    """As they come off a cable: in pieces."""
    talk = Talk(Quota(message_bytes=1 << 16, topics=8))
    for at in range(0, len(data), 37):
        talk.feed(data[at : at + 37])


def _published(data: bytes) -> None:
    for topic in (wire.DECISION, wire.HEALTH, wire.PREVIEW):
        try:
            wire.decode([topic, b"cell-3", data])
        except WireError:
            continue


def _manifest(data: bytes) -> Manifest:
    """With the seal that belongs to it: what a flipped bit cannot reach otherwise."""
    folder = scratch() / "manifest"
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_bytes(data)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  manifest.json\n")
    return read_manifest(folder)[0]


def _announced(data: bytes) -> list[Trigger]:
    written("journal.sqlite.announced", data)
    return Announced(scratch() / "journal.sqlite", lambda: 0).left()


def _preprocessed(data: bytes) -> None:
    """A frame of the size and type that its first bytes say."""
    height, width, channels, kind, *rest = (*data[:5], 1, 1, 1, 1, 1)[:5]
    dtype = (np.uint8, np.uint16, np.float32, np.int16, np.bool_)[kind % 5]
    shape = (height % 80, width % 80) if channels % 5 == 0 else (height % 80, width % 80, channels % 5)
    image = np.resize(np.frombuffer(bytes(rest) + data[5:] or b"\0", np.uint8), shape).astype(dtype)
    for spec in _SPECS:
        try:
            Preprocessor(spec)(image)  # type: ignore[arg-type]
        except FrameError:
            continue


_SPECS = (
    InputSpec(height=32, width=32, channels=1, frame_wh=None),
    InputSpec(height=16, width=32, channels=3, frame_wh=(64, 64)),
    InputSpec(height=32, width=32, channels=1, frame_wh=None, bits=16),
)


def _picture(suffix: str) -> Parse:
    def read(data: bytes) -> None:
        image = read_image(written(f"picture{suffix}", data))
        marks(values_of(image))

    return read


def _annotated(name: str) -> Parse:
    """Beside six pictures."""

    def read(data: bytes) -> object:
        folder = scratch() / name.replace(".", "_")
        if not folder.exists():
            folder.mkdir()
            for i in range(6):
                cv2.imwrite(str(folder / f"part_{i}.png"), bad_image(seed=i) if i > 3 else good_image(seed=i))
        (folder / name).write_bytes(data)
        return load_dataset(folder)

    return read


# --- what it is meant for ----------------------------------------------------------------------------------------------


def _zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(bundle().rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(bundle()).as_posix())
    return out.getvalue()


def _encoded(suffix: str, image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def _messages() -> list[bytes]:
    decision = decision_with()
    health = Health(
        "cell-3", State.READY, (), ("b",), ("r",), "CPU", 1.0, {"ACCEPT": 1}, {"total": (1.0, 2.0)}, 1, "2026-11-21T10:00:00+00:00"
    )
    shown = wire.Shown(image=b"", score_map=bytes(8), map_hw=(2, 2), grid_to_frame=(1, 0, 0, 0, 1, 0), display_low=0.0, display_high=1.0)
    preview = wire.Preview(decision=decision, shown=[shown], counts={})
    return [wire.encode_decision(decision)[2], wire.encode_health(health)[2], wire.encode_preview(preview)[2]]


_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
_READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
_COCO = (
    b'{"images": [{"id": 1, "file_name": "part_4.png", "width": 64, "height": 64}, {"id": 2, "file_name": "part_1.png"}],'
    b' "categories": [{"id": 1, "name": "scratch"}],'
    b' "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [30, 14, 20, 20], "segmentation": [[30, 14, 50, 14, 50, 34]]},'
    b' {"id": 2, "image_id": 1, "category_id": 1, "segmentation": {"size": [64, 64], "counts": [100, 50, 3946]}}]}'
)
_LABELME = (
    b'{"version": "5.0", "imagePath": "part_4.png", "imageWidth": 64, "imageHeight": 64, "shapes": [{"label": "scratch",'
    b' "shape_type": "polygon", "points": [[30, 14], [50, 14], [50, 34]]}]}'
)
_VOC = (
    b"<annotation><filename>part_4.png</filename><size><width>64</width><height>64</height></size><object><name>scratch</name>"
    b"<bndbox><xmin>30</xmin><ymin>14</ymin><xmax>50</xmax><ymax>34</ymax></bndbox></object></annotation>"
)
_CVAT = (
    b'<annotations><version>1.1</version><image id="0" name="part_4.png" width="64" height="64"><box label="scratch" xtl="30" ytl="14"'
    b' xbr="50" ybr="34"/><polygon label="dent" points="1,1;9,1;9,9"/></image>'
    b'<image id="1" name="part_0.png" width="64" height="64"/></annotations>'
)


@cache
def targets() -> dict[str, Target]:
    """By name."""
    color = np.repeat(bad_image()[:, :, None], 3, axis=2)
    key = b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"
    stations = [p.read_bytes() for p in sorted(EXAMPLES.glob("*.toml")) if p.name != "recipe.toml"]
    return {
        "wire": Target(_published, _messages()),
        "request": Target(wire.decode_request, [wire.encode_replay(wire.ReplayRequest(request=7, after_seq=41))]),
        "reply": Target(
            wire.decode_reply,
            [wire.encode_replay(wire.ReplayReply(request=7, uptime_s=1.0, last_seq=3, decisions=[decision_with()], more=False))],
        ),
        "door": Target(_talk, [_GREETING + _READY + b"\x00\x09\x01decision" + b"\x00\x05hello"], (Over,)),
        "station": Target(lambda data: load_station(written("station.toml", data)), stations),
        "recipe": Target(lambda data: load_recipe(written("recipe.toml", data)), [(EXAMPLES / "recipe.toml").read_bytes()]),
        "manifest": Target(_manifest, [(bundle() / "manifest.json").read_bytes()]),
        "bundle": Target(lambda data: ModelBundle.open(written("bundle.zip", data)), [_zipped()]),
        "release key": Target(lambda data: load_keys([written("key.pem", data)]), [key]),
        "announced": Target(_announced, [b"".join(msgspec.json.encode(Trigger(n, n, f"A-{n}")) + b"\n" for n in range(1, 4))]),
        "preprocess": Target(_preprocessed, [bytes((64, 64, 0, 0)) + bytes(range(256)), bytes((16, 70, 3, 1)) + bytes(range(256))]),
        "modbus": Target(fuzz_plc.modbus, [fuzz_plc.said("modbus")], (PlcLost,)),
        "s7": Target(fuzz_plc.s7, [fuzz_plc.said("s7")], (PlcLost,)),
        "ethernetip": Target(fuzz_plc.ethernetip, [fuzz_plc.said("ethernetip")], (PlcLost, TagError)),
        "opcua": Target(fuzz_plc.opcua, fuzz_plc.opcua_seeds(), (PlcLost, NoValue)),
        "png": Target(_picture(".png"), [_encoded(".png", bad_image()), _encoded(".png", color)]),
        "jpeg": Target(_picture(".jpg"), [_encoded(".jpg", bad_image()), _encoded(".jpg", color)]),
        "tiff": Target(_picture(".tiff"), [_encoded(".tiff", bad_image()), _encoded(".tiff", color.astype(np.uint16) * 256)]),
        "bmp": Target(_picture(".bmp"), [_encoded(".bmp", color)]),
        "webp": Target(_picture(".webp"), [_encoded(".webp", color)]),
        "coco": Target(_annotated("_annotations.coco.json"), [_COCO]),
        "labelme": Target(_annotated("part_4.json"), [_LABELME]),
        "voc": Target(_annotated("part_4.xml"), [_VOC, _CVAT]),
        "yolo": Target(_annotated("part_4.txt"), [b"0 0.625 0.375 0.3 0.3\n0 0.1 0.1 0.2 0.1 0.2 0.2\n"]),
        "table": Target(
            _annotated("labels.csv"),
            [b"file,label\n" + b"".join(b"part_%d.png,%s\n" % (i, b"bad" if i > 3 else b"good") for i in range(6))],
        ),
    }


# --- how cases are made ------------------------------------------------------------------------------------------------

_WORDS = (
    b"",
    b"\0",
    b"\xff" * 4,
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"true",
    b'"',
    b"[",
    b"{",
    b"<",
    b">",
    b"\n",
    b"\\",
    b"..",
    b"/",
    b"\xef\xbb\xbf",
)
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def changed(seed: bytes, chance: random.Random, other: bytes = b"") -> bytes:
    """A few changes of it: bits, bytes, cuts, repeats, words, numbers, pieces of another."""
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5, 8))):
        at = chance.randrange(len(data) + 1)
        to = min(len(data), at + chance.choice((1, 2, 4, 8, 32, 256)))
        match chance.randrange(8):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(data):
                data[at] = chance.randrange(256)
            case 2:
                del data[at:to]
            case 3:
                data[at:at] = data[at:to] * chance.choice((1, 2, 50))
            case 4:
                data[at:to] = chance.choice(_WORDS)
            case 5:
                number = chance.choice(_NUMBERS)
                text = str(number).encode() if chance.random() < 0.5 else number.to_bytes(8, "big")[-chance.choice((1, 2, 4, 8)) :]
                data[at : at + len(text)] = text
            case 6:
                begin = chance.randrange(len(other) + 1)
                data[at:to] = other[begin : begin + chance.choice((4, 32, 256))]
            case _ if chance.random() < 0.2:
                del data[at:]
    return bytes(data)


def cases(target: Target, seed: int) -> Callable[[], bytes]:
    """A new one each time it is called; the seeds themselves first."""
    chance = random.Random(seed)
    first = iter(target.seeds)

    def one() -> bytes:
        given = next(first, None)
        return changed(chance.choice(target.seeds), chance, chance.choice(target.seeds)) if given is None else given

    return one


def breaks(target: Target, data: bytes, longest_s: float = 10.0) -> str | None:
    """What else than a result or a refusal came of it."""
    began = time.monotonic()
    try:
        target.parse(data)
    except target.refuses as e:
        if not str(e).strip():
            return f"{type(e).__name__} without a word"
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    took = time.monotonic() - began
    return f"took {took:.0f} s" if took > longest_s else None


@app.command()
def fuzz(
    names: Annotated[list[str] | None, typer.Argument(help="Targets; all of them by themselves.")] = None,
    count: Annotated[int, typer.Option("--cases", help="Of each.")] = 100_000,
    seed: Annotated[int, typer.Option()] = 1,
    case: Annotated[Path | None, typer.Option(help="One that broke it, with its traceback.")] = None,
    guided: Annotated[bool, typer.Option("--guided", help="By libFuzzer (pip install atheris), of one target.")] = False,
    out: Annotated[Path, typer.Option(help="Where cases are kept that break something.")] = Path("runs/fuzz"),
) -> None:
    """Feed them."""
    wanted = {name: targets()[name] for name in names or targets()}
    if case is not None:
        next(iter(wanted.values())).parse(case.read_bytes())
        return
    if guided:
        _guided(*next(iter(wanted.items())), count, out)
    broken = 0
    for name, target in wanted.items():
        one, kinds, began = cases(target, seed), dict[str, int](), time.monotonic()
        for _ in range(count):
            data = one()
            if (said := breaks(target, data)) is None:
                continue
            kind = said[:80]
            kinds[kind] = kinds.get(kind, 0) + 1
            if kinds[kind] == 1:
                out.mkdir(parents=True, exist_ok=True)
                file = out / f"{name.replace(' ', '-')}-{hashlib.sha256(data).hexdigest()[:12]}"
                file.write_bytes(data)
                print(f"✗ {name}: {said}\n  python -m tests.fuzz '{name}' --case {file}", flush=True)
        broken += len(kinds)
        print(f"{name:12} {count} cases, {len(kinds)} kinds of breaks, {time.monotonic() - began:.0f} s", flush=True)
    raise typer.Exit(1 if broken else 0)


def _guided(name: str, target: Target, count: int, out: Path) -> None:
    """Never comes back: libFuzzer ends the process."""
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

    corpus = out / "corpus" / name.replace(" ", "-")
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:12]).write_bytes(seed)

    def one(data: bytes) -> None:
        if (said := breaks(target, data)) is not None:
            raise AssertionError(said)

    for module in [m for n, m in sys.modules.items() if n.startswith(("edge_runtime.", "training.data"))]:
        for value in list(vars(module).values()):
            if callable(value) and getattr(value, "__module__", None) == module.__name__ and hasattr(value, "__code__"):
                atheris.instrument_func(value)
    atheris.Setup([sys.argv[0], f"-runs={count}", f"-artifact_prefix={out}/", str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    run_app(app)
