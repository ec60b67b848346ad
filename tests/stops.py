"""`python -m tests.stops`: real stations are asked to stop at random moments, and must end soon, with 0 and without an abort. Not a test.

In start and in use, while their model is late, their camera is gone, or their PLC is. The short round is tests/station/test_stops.py.
"""

import contextlib
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import openvino as ov
import typer
from openvino import opset13 as ops

from edge_runtime.model.bundle import read_manifest, write_manifest
from tests.conftest import build_model, write_bundle
from tests.support.ports import free_port
from tests.support.streams import MjpegCamera

MODES = ("sound", "model late", "camera gone", "PLC gone", "camera silent", "four cameras silent")
RUN = [sys.executable, "-m", "edge_runtime.cli", "run"]
WITHIN_S = 3.0
_STARTS_S = 60.0
_EXAMPLE = (Path(__file__).parents[1] / "deploy/examples/line.toml").read_text()
_MAP = _EXAMPLE[_EXAMPLE.index("[trigger.inputs]") : _EXAMPLE.index("\n[", _EXAMPLE.index("[trigger.outputs]"))]
"""Which `lineside sim plc` speaks by itself."""


@dataclass(frozen=True)
class Stopped:
    """How one stop went."""

    mode: str
    ready: bool
    """Whether it was in use when it was asked."""
    took_s: float
    code: int
    said: str

    @property
    def wrong(self) -> str:
        """Empty where all is well. How long it took is judged by whoever knows how busy the machine is."""
        aborted = "terminate called" in self.said or "Traceback" in self.said
        as_told = self.code == 0 or (self.code == -signal.SIGTERM and not self.ready)  # before it has read its first line, as any program
        return "" if as_told and not aborted else f"{self.mode}, {'in use' if self.ready else 'in start'}: {self.code}: {self.said[-2000:]}"


def slow_bundle(folder: Path, size: int = 2000) -> Path:
    """One whose model takes some tenths of a second: the same answers, and a product of matrices that is worth nothing to them."""
    write_bundle(folder)
    model = build_model()
    image = model.get_parameters()[0]
    nothing = ops.multiply(ops.reduce_mean(ops.convert(image, "f32"), ops.constant(np.array([0, 1, 2, 3]))), ops.constant(np.float32(0)))
    matrix = ops.constant(np.full((size, size), 1e-4, np.float32))
    heavy = ops.add(matrix, nothing)
    for _ in range(4):
        heavy = ops.matmul(heavy, matrix, False, False)
    score, score_map = (result.input_value(0) for result in model.get_results())
    late = ops.add(score, ops.multiply(ops.reduce_mean(heavy, ops.constant(np.array([0, 1]))), ops.constant(np.float32(1e-30))))
    late.output(0).set_names({"score"})
    again = ops.add(score_map, ops.constant(np.float32(0)))
    again.output(0).set_names({"map"})
    ov.save_model(ov.Model([late, again], [image], "slow"), folder / "model.xml", compress_to_fp16=False)
    files = {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}
    files = {name: digest for name, digest in files.items() if not name.startswith("manifest.")}
    write_manifest(folder, msgspec.structs.replace(read_manifest(folder)[0], files=files))
    return folder


@contextlib.contextmanager
def station(folder: Path, mode: str, bundle: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A station file for the mode, and what makes its trouble begin."""
    cameras = [MjpegCamera() for _ in range(4 if mode == "four cameras silent" else 1)]
    cameras[0].hangs = mode == "camera silent"  # never READY: it waits for the first picture
    plc = None
    trigger = 'kind = "timer"\nperiod_ms = 60'
    try:
        if mode == "PLC gone":
            port = free_port()
            plc = subprocess.Popen(
                [sys.executable, "-m", "edge_runtime.cli", "sim", "plc", "--port", str(port), "--parts-per-minute", "600"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            trigger = f'kind = "modbus"\nhost = "127.0.0.1"\nport = {port}\n{_MAP}'
            for _ in range(200):
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                time.sleep(0.05)
        deadline_ms = 40 if mode == "model late" else 500
        (folder / "recipe.toml").write_text(f'name = "r"\nbundle = "{bundle}"\ndeadline_ms = {deadline_ms}\n')
        views = [
            f'recipe = "recipe.toml"\nsource = {{ kind = "camera", device = "{camera.url}", mono = true, open_timeout_ms = 60000 }}\n'
            for camera in cameras
        ]
        if len(views) > 1:
            views = [f'[[camera]]\nname = "c{n}"\n{view}' for n, view in enumerate(views)]
        file = folder / "station.toml"
        file.write_text(
            f'name = "st"\n{"".join(views)}[trigger]\n{trigger}\n'
            f'[publisher]\nendpoint = "tcp://127.0.0.1:{free_port()}"\nreplay = "tcp://127.0.0.1:{free_port()}"\n'
        )

        def trouble() -> None:
            if mode == "camera gone":
                cameras[0].kill()
            if mode == "four cameras silent":
                for camera in cameras:
                    camera.hangs = True
            if plc is not None:
                plc.kill()

        yield file, trouble
    finally:
        for camera in cameras:
            camera.kill()
        if plc is not None:
            plc.kill()
            plc.wait()


def stop_once(folder: Path, mode: str, bundle: Path, *, in_start_s: float | None, in_use_s: float = 0.0) -> Stopped:
    """Ask a station to stop so long after its start, or (where that is None) after it was READY and its trouble began."""
    notify = folder / "notify"
    with station(folder, mode, bundle) as (file, trouble), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(notify))
        told.settimeout(0.2)
        process = subprocess.Popen([*RUN, str(file)], stderr=subprocess.PIPE, text=True, env={**os.environ, "NOTIFY_SOCKET": str(notify)})
        try:
            if in_start_s is None:
                message = b""
                while b"READY=1" not in message:
                    if process.poll() is not None:
                        raise RuntimeError(process.communicate()[1])
                    with contextlib.suppress(TimeoutError):
                        message = told.recv(4096)
                trouble()
                time.sleep(in_use_s)
            else:
                time.sleep(in_start_s)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=_STARTS_S)[1]
            return Stopped(mode, in_start_s is None, time.monotonic() - began, process.returncode, said)
        finally:
            process.kill()
            process.communicate()
            notify.unlink()


def main(
    stops: Annotated[int, typer.Option(help="How many.")] = 100,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Stop stations at random moments; 1 where one ended in another way than it should, or late."""
    rng = random.Random(seed)
    wrong = 0
    took: dict[tuple[str, bool], list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        fast, slow = write_bundle(root / "fast"), slow_bundle(root / "slow")
        for n in range(stops):
            mode = MODES[n % len(MODES)]
            folder = root / str(n)
            folder.mkdir()
            in_start_s = rng.uniform(0.0, 6.0) if mode == "camera silent" or rng.random() < 0.3 else None
            one = stop_once(folder, mode, slow if mode == "model late" else fast, in_start_s=in_start_s, in_use_s=rng.uniform(0, 2))
            took.setdefault((mode, one.ready), []).append(one.took_s)
            if one.wrong or one.took_s > WITHIN_S:
                wrong += 1
                print(f"{n}: {one.took_s:.1f} s; {one.wrong}", flush=True)
    for (mode, ready), seconds in sorted(took.items()):
        where = "in use" if ready else "in start"
        print(f"{mode:12} {where:8} {len(seconds):3} stops, median {np.median(seconds):.2f} s, longest {max(seconds):.2f} s")
    raise typer.Exit(bool(wrong))


if __name__ == "__main__":
    typer.run(main)
