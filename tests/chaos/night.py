"""The pieces of a night, each started again whenever it ends: a station, its PLC, subscribers, strangers; and what is asked of them."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import cv2

from edge_runtime.credentials import read_key_file
from edge_runtime.records import Decision
from edge_runtime.sinks.journal_file import read_decisions
from tests.chaos import plc, subscriber
from tests.chaos.histories import broken_laws
from tests.chaos.supervised import Process
from tests.chaos.tampering import MOST, changed_bytes, changed_rows
from tests.conftest import bad_image, good_image, write_bundle
from tests.support.ports import free_ports

DEADLINE_MS = 300.0
STOP_WITHIN_S, READY_WITHIN_S, MEMORY_MB = 3.0, 60.0, 600.0


class Night:
    """A station, its PLC, two subscribers and two strangers, below `home`; `random` is all chance that there is."""

    def __init__(self, home: Path, seed: int, pace_ms: float) -> None:
        self.home, self.seed, self.random = home, seed, random.Random(seed)
        self.disk = home / "disk"
        self.disk.mkdir(exist_ok=True)
        (home / "read").touch()
        self._ports = free_ports(5)
        self.wrong: list[str] = []
        self.disturbances: Counter[str] = Counter()
        self.figures: dict[str, list[float]] = {"kill_to_ready_s": [], "sigterm_to_end_s": [], "resident_mb": []}
        self.log = (home / "log").open("ab")
        env = os.environ | {"PYTHONUNBUFFERED": "1"}
        self.lineside = str(Path(sys.executable).with_name("lineside"))
        self.file = self._write(home)
        self._public = self._let_in(env)
        faked = self._faked()
        self.faked = bool(faked)
        """Whether clock and disk can be disturbed (gcc)."""
        self.station = Process([self.lineside, "run", str(self.file)], env | faked, self.log)
        publisher, replay, *_ = self._ports
        self.subscribers = {
            name: Process(
                [sys.executable, "-m", "tests.chaos.subscriber", f"tcp://127.0.0.1:{publisher}", f"tcp://127.0.0.1:{replay}",
                 str(home / f"{name}.jsonl"), str(home / "subscriber.key")], env, self.log,
            )
            for name in ("first subscriber", "second subscriber")
        }  # fmt: skip
        self.strangers = [
            Process(
                [sys.executable, "-m", "tests.chaos.strangers", str(seed + i), str(home / "read"), self._public,
                 *map(str, self._ports[:3])], env, self.log,
            )
            for i in range(2)
        ]  # fmt: skip
        self.plc = subprocess.Popen(
            [sys.executable, str(Path(plc.__file__)), str(self._ports[3]), str(home / "plc.jsonl"), str(pace_ms)],
            stdin=subprocess.PIPE, stderr=self.log,
        )  # fmt: skip

    def _write(self, home: Path) -> Path:
        bundle = write_bundle(home / "bundle")
        write_bundle(home / "other", name="other")
        pictures = home / "pictures"
        pictures.mkdir()
        for i in range(60):
            good = self.random.random() < 0.7
            picture = good_image(seed=i) if good else bad_image(seed=i)
            data = cv2.imencode(".png", picture)[1].tobytes()
            half = self.random.random() < 0.06
            name = "half" if half else "good" if good else "bad"
            (pictures / f"{name}_{i:03}.png").write_bytes(data[: len(data) // 2] if half else data)
        (home / "recipe.toml").write_text(f'name = "night"\nbundle = "{bundle}"\ndeadline_ms = {DEADLINE_MS}\n')
        publisher, replay, preview, port, _ = self._ports
        file, durable = home / "station.toml", "true" if self.random.random() < 0.5 else "false"
        file.write_text(
            f'name = "night"\nrecipe = "recipe.toml"\n[source]\nkind = "folder"\npath = "pictures"\nloop = true\n'
            f'[publisher]\nendpoint = "tcp://127.0.0.1:{publisher}"\nreplay = "tcp://127.0.0.1:{replay}"\n'
            f'[preview]\nendpoint = "tcp://127.0.0.1:{preview}"\n'
            f'[journal]\npath = "disk/journal.sqlite"\nrequired = true\ndurable = {durable}\n'
            f'[archive]\npath = "archive"\nquota_mb = 5\n[security]\nkeys = "keys"\neverywhere = true\n'
            f'[control]\nendpoint = "ipc://{home / "control.sock"}"\n'
            f'[trigger]\nkind = "modbus"\nhost = "127.0.0.1"\nport = {port}\n{plc.MAP}'
        )
        return file

    def _let_in(self, env: dict[str, str]) -> str:
        """The station's key, one for its subscribers and one for whoever deploys; its public one."""
        commands = [[self.lineside, "keys", "make", str(self.file)]]
        for name, role in (("subscriber", "observe"), ("engineer", "deploy")):
            out = str(self.home / f"{name}.key")
            commands.append([self.lineside, "keys", "add", str(self.file), name, "--role", role, "--out", out])
        for command in commands:
            subprocess.run(command, env=env, check=True, stdout=self.log)
        return read_key_file(self.home / "subscriber.key").server

    def _faked(self) -> dict[str, str]:
        """A wall clock that can be stepped (CLOCK_MONOTONIC stays), and a disk that can be slow."""
        self.clock, self.slow = self.home / "clock", self.home / "slow"
        library, source = self.home / "faked.so", Path(__file__).with_name("faked.c")
        if shutil.which("gcc") is None:
            return {}
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"], check=True)
        self.clock.write_text("0")
        self.slow.write_text("0")
        return {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self.clock), "CHAOS_DISK": str(self.slow)}

    def supervise(self) -> None:
        """Start again whatever has ended."""
        for process in (self.station, *self.subscribers.values(), *self.strangers):
            process.supervise()

    def order(self, line: str) -> None:
        assert self.plc.stdin is not None
        self.plc.stdin.write(line.encode() + b"\n")
        self.plc.stdin.flush()

    def events(self) -> list[dict[str, object]]:
        return subscriber.handed(self.home / "plc.jsonl")

    def parts(self) -> int:
        return sum(e["event"] == "raised" for e in self.events())

    def _taken(self) -> int:
        return sum(e["event"] == "taken" for e in self.events())

    def ready_again(self) -> None:
        """Until the station has taken one more part."""
        before, until = self._taken(), time.monotonic() + READY_WITHIN_S
        while self._taken() == before:
            self.supervise()
            if time.monotonic() > until:
                self.wrong.append(f"no part was taken for {READY_WITHIN_S:g} s: the station is not ready")
                return
            time.sleep(0.02)

    def when_ready(self) -> None:
        self.ready_again()
        time.sleep(self.random.uniform(0.0, 0.1))

    def until_gone(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while self.station.popen is not None and self.station.popen.poll() is None:
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        return True

    def _memory(self) -> None:
        if self.station.popen is None:
            return
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{self.station.popen.pid}/status").read_text()
            self.figures["resident_mb"].append(int(next(x.split()[1] for x in status.splitlines() if x.startswith("VmRSS"))) / 1024)

    def pass_by(self, disturbances: Sequence[Callable[[Self], None]], parts: int, every_s: float, until: float) -> None:
        """Disturbances until so many parts were announced, or the time is over."""
        self.ready_again()
        while self.parts() < parts and time.monotonic() < until:
            self.supervise()
            disturb = self.random.choice(disturbances)
            self.disturbances[disturb.__name__] += 1
            disturb(self)
            self._memory()
            self.ready_again()
            time.sleep(self.random.uniform(0.0, every_s))

    def terminate(self) -> None:
        began = time.monotonic()
        if self.station.send(signal.SIGTERM, -signal.SIGTERM):  # which it is where it had hardly begun
            if not self.until_gone(STOP_WITHIN_S + DEADLINE_MS / 1e3):
                self.wrong.append("SIGTERM: the station did not end in time")
            self.figures["sigterm_to_end_s"].append(time.monotonic() - began)

    def settle(self) -> None:
        """Quiet: the last parts are answered, the subscribers have all, everything ends as it should."""
        for stranger in self.strangers:
            stranger.restarts = False
            stranger.send(signal.SIGKILL, -signal.SIGKILL)
        self.ready_again()
        self.order("stop")
        time.sleep(plc.TAKEN_WITHIN_S + 2 * plc.RESULT_WITHIN_S)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            self.supervise()
            last = max((d.seq for d in self.decisions()), default=0)
            if all((self._handed(name) or [{}])[-1].get("seq") == last for name in self.subscribers):
                break
            time.sleep(0.1)
        self.station.restarts = False
        self.terminate()
        self.supervise()

    def decisions(self) -> list[Decision]:
        return read_decisions(self.disk / "journal.sqlite", limit=MOST)

    def _handed(self, name: str) -> list[dict[str, object]]:
        return subscriber.handed(self.home / f"{name}.jsonl")

    def judged(self) -> list[str]:
        handed = {name: self._handed(name) for name in self.subscribers}
        processes = (self.station, *self.subscribers.values())
        journal = self.disk / "journal.sqlite"
        return [
            *self.wrong, *(sentence for process in processes for sentence in process.wrong),
            *broken_laws(self.events(), self.decisions(), handed, DEADLINE_MS),
            *changed_rows(journal, self.random), *changed_bytes(journal, self.random),
            *(f"a stranger read from {line}" for line in (self.home / "read").read_text().splitlines()),
            *([f"{most:.0f} MB resident" ] if (most := max(self.figures["resident_mb"], default=0.0)) > MEMORY_MB else []),
        ]  # fmt: skip

    def __enter__(self) -> Self:
        self.supervise()
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self.station, *self.subscribers.values(), *self.strangers):
            process.send(signal.SIGCONT)
            process.send(signal.SIGKILL)
        for popen in (self.plc, *(p.popen for p in (self.station, *self.subscribers.values(), *self.strangers) if p.popen is not None)):
            popen.kill()
            popen.wait()
        self.log.close()
