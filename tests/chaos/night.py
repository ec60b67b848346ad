"""The pieces of a night, each started again whenever it ends, and the blows that fall on them."""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

import cv2

from edge_runtime.credentials import read_key_file
from edge_runtime.errors import EXIT_FINDINGS, SinkError
from edge_runtime.sinks.journal_file import read_decisions
from tests.chaos import plc, subscriber
from tests.chaos.histories import broken_laws
from tests.conftest import bad_image, good_image, write_bundle
from tests.support.ports import free_ports

DEADLINE_MS = 300.0
STOP_WITHIN_S, READY_WITHIN_S, MEMORY_MB = 3.0, 60.0, 600.0
AGAIN = {69, 71, 73, 74, 76}
"""Exit codes after which systemd starts a station again: what it needs may come back (deploy/reference/exit_codes.md)."""
_LIMIT = 10_000_000
_DAY_S = 86_400


@dataclass
class Process:
    """One that is started again whenever it ends."""

    command: list[str]
    env: dict[str, str]
    log: IO[bytes]
    restarts: bool = True
    popen: subprocess.Popen[bytes] | None = None
    expected: set[int] = field(default_factory=lambda: {0})
    wrong: list[str] = field(default_factory=list)
    started: float = 0.0

    def look(self) -> None:
        """Start it, or note how it ended and start it again."""
        if self.popen is not None and (code := self.popen.poll()) is not None:
            if code not in self.expected | AGAIN:
                self.wrong.append(f"{self.command[-1]} ended with {code}")
            self.expected = {0}
            self.popen = None
        if self.popen is None and self.restarts:
            self.started = time.monotonic()
            self.popen = subprocess.Popen(self.command, env=self.env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def send(self, number: int, expected: int | None = None) -> bool:
        if self.popen is None or self.popen.poll() is not None:
            return False
        if expected is not None:
            self.expected.add(expected)
        self.popen.send_signal(number)
        return True


class Night:
    """The pieces, and the blows that fall on them."""

    def __init__(self, home: Path, seed: int, pace_ms: float) -> None:
        self.home, self.seed, self.random = home, seed, random.Random(seed)
        self.disk = home / "disk"
        self.disk.mkdir(exist_ok=True)
        (home / "read").touch()
        self._ports = free_ports(5)
        self.wrong: list[str] = []
        self.blows: Counter[str] = Counter()
        self.figures: dict[str, list[float]] = {"kill_to_ready_s": [], "sigterm_to_end_s": [], "resident_mb": []}
        self._log = (home / "log").open("ab")
        env = os.environ | {"PYTHONUNBUFFERED": "1"}
        self._lineside = str(Path(sys.executable).with_name("lineside"))
        self._file = self._write(home)
        self._public = self._let_in(env)
        self.station = Process([self._lineside, "run", str(self._file)], env | self._faked(), self._log)
        publisher, replay, *_ = self._ports
        self.subscribers = {
            name: Process(
                [sys.executable, "-m", "tests.chaos.subscriber", f"tcp://127.0.0.1:{publisher}", f"tcp://127.0.0.1:{replay}",
                 str(home / f"{name}.jsonl"), str(home / "subscriber.key")], env, self._log,
            )
            for name in ("first subscriber", "second subscriber")
        }  # fmt: skip
        self.strangers = [
            Process(
                [
                    sys.executable,
                    "-m",
                    "tests.chaos.strangers",
                    str(seed + i),
                    str(home / "read"),
                    self._public,
                    *map(str, self._ports[:3]),
                ],
                env,
                self._log,
            )
            for i in range(2)
        ]
        self.plc = subprocess.Popen(
            [sys.executable, str(Path(plc.__file__)), str(self._ports[3]), str(home / "plc.jsonl"), str(pace_ms)],
            stdin=subprocess.PIPE, stderr=self._log,
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
        commands = [[self._lineside, "keys", "make", str(self._file)]]
        for name, role in (("subscriber", "observe"), ("engineer", "deploy")):
            out = str(self.home / f"{name}.key")
            commands.append([self._lineside, "keys", "add", str(self._file), name, "--role", role, "--out", out])
        for command in commands:
            subprocess.run(command, env=env, check=True, stdout=self._log)
        return read_key_file(self.home / "subscriber.key").server

    def _faked(self) -> dict[str, str]:
        """A wall clock that can be stepped (CLOCK_MONOTONIC stays), and a disk that can be slow."""
        library, source = self.home / "faked.so", Path(__file__).with_name("faked.c")
        if shutil.which("gcc") is None:
            return {}
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"], check=True)
        self._clock = self.home / "clock"
        self._slow = self.home / "slow"
        self._clock.write_text("0")
        self._slow.write_text("0")
        return {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self._clock), "CHAOS_DISK": str(self._slow)}

    # --- what may happen -------------------------------------------------------------------------------------------

    def kill(self) -> None:
        self._when_ready()
        if self.station.send(signal.SIGKILL, -signal.SIGKILL):
            self._until_gone(1.0)
            began = time.monotonic()
            self._ready_again()
            self.figures["kill_to_ready_s"].append(time.monotonic() - began)

    def kill_while_it_starts(self) -> None:
        if self.station.send(signal.SIGKILL, -signal.SIGKILL):
            self._until_gone(1.0)
            self.look()
            time.sleep(self.random.uniform(0.0, 2.0))
            self.station.send(signal.SIGKILL, -signal.SIGKILL)

    def terminate(self) -> None:
        began = time.monotonic()
        if self.station.send(signal.SIGTERM, -signal.SIGTERM):  # which it is where it had hardly begun
            if not self._until_gone(STOP_WITHIN_S + DEADLINE_MS / 1e3):
                self.wrong.append("SIGTERM: the station did not end in time")
            self.figures["sigterm_to_end_s"].append(time.monotonic() - began)

    def stop_for_a_while(self) -> None:
        if self.station.send(signal.SIGSTOP):
            time.sleep(self.random.choice((0.05, 0.2, 0.4, 1.5)))
            self.station.send(signal.SIGCONT)

    def kill_the_door(self) -> None:
        for pid in self._children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def deploy(self) -> None:
        """The one of the two that does not judge, or back; the line goes on, or the station dies of something else meanwhile."""
        verb = self.random.choice(("deploy", "deploy", "rollback"))
        arguments = [str(self.home / self.random.choice(("bundle", "other")))] if verb == "deploy" else []
        command = [self._lineside, verb, *arguments, str(self._file), "--why", "chaos", "--key", str(self.home / "engineer.key")]
        asked = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        if self.random.random() < 0.5:
            time.sleep(self.random.uniform(0.0, 1.5))
            self.station.send(signal.SIGKILL, -signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            asked.wait(30)
        asked.kill()
        asked.wait()

    def plc_off(self) -> None:
        self.order(f"off {self.random.uniform(0.05, 2.0):.2f}")

    def plc_busy(self) -> None:
        self.order(f"busy {self.random.randint(1, 5)}")

    def plc_stops(self) -> None:
        self.plc.send_signal(signal.SIGSTOP)
        time.sleep(self.random.uniform(0.05, 1.0))
        self.plc.send_signal(signal.SIGCONT)

    def kill_a_subscriber(self) -> None:
        self.random.choice(list(self.subscribers.values())).send(signal.SIGKILL, -signal.SIGKILL)

    def subscriber_sleeps(self) -> None:
        process = self.random.choice(list(self.subscribers.values()))
        if process.send(signal.SIGSTOP):
            time.sleep(self.random.uniform(0.2, 2.0))
            process.send(signal.SIGCONT)

    def all_cores_busy(self) -> None:
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 2))]
        time.sleep(self.random.uniform(0.3, 1.5))
        for process in busy:
            process.kill()
            process.wait()

    def clock_steps(self) -> None:
        self._clock.write_text(str(self.random.choice((0, 500 * _DAY_S, -30 * _DAY_S, 3600, -90))))

    def disk_slow(self) -> None:
        """A sync takes up to longer than a part's deadline."""
        self._slow.write_text(str(self.random.choice((20, 100, 250, 500))))
        time.sleep(self.random.uniform(0.5, 3.0))
        self._slow.write_text("0")

    def camera_gone(self) -> None:
        away = self.home / "pictures"
        away.rename(self.home / "unplugged")
        time.sleep(self.random.uniform(0.2, 2.0))
        (self.home / "unplugged").rename(away)

    def disk_full(self) -> None:
        filler = self.disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as f:
            while True:
                f.write(bytes(1 << 16))
                f.flush()
        time.sleep(self.random.uniform(0.3, 1.5))
        filler.unlink(missing_ok=True)

    def network_cut(self) -> None:
        subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
        time.sleep(self.random.uniform(0.1, 1.5))
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    # --- how it goes -----------------------------------------------------------------------------------------------

    def look(self) -> None:
        for process in (self.station, *self.subscribers.values(), *self.strangers):
            process.look()

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

    def _ready_again(self) -> None:
        """Until the station has taken one more part."""
        before, until = self._taken(), time.monotonic() + READY_WITHIN_S
        while self._taken() == before:
            self.look()
            if time.monotonic() > until:
                self.wrong.append(f"no part was taken for {READY_WITHIN_S:g} s: the station is not ready")
                return
            time.sleep(0.02)

    def _when_ready(self) -> None:
        self._ready_again()
        time.sleep(self.random.uniform(0.0, 0.1))

    def _until_gone(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while self.station.popen is not None and self.station.popen.poll() is None:
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        return True

    def _children(self) -> list[int]:
        if self.station.popen is None:
            return []
        tasks = Path(f"/proc/{self.station.popen.pid}/task")
        with contextlib.suppress(OSError):
            return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
        return []

    def _memory(self) -> None:
        if self.station.popen is None:
            return
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{self.station.popen.pid}/status").read_text()
            self.figures["resident_mb"].append(int(next(x.split()[1] for x in status.splitlines() if x.startswith("VmRSS"))) / 1024)

    def pass_by(self, blows: Sequence[Callable[[], None]], parts: int, every_s: float, until: float) -> None:
        """Blows until so many parts were announced, or the time is over."""
        self._ready_again()
        while self.parts() < parts and time.monotonic() < until:
            self.look()
            blow = self.random.choice(blows)
            self.blows[blow.__name__] += 1
            blow()
            self._memory()
            self._ready_again()
            time.sleep(self.random.uniform(0.0, every_s))

    def settle(self) -> None:
        """Quiet: the last parts are answered, the subscribers have all, everything ends as it should."""
        for stranger in self.strangers:
            stranger.restarts = False
            stranger.send(signal.SIGKILL, -signal.SIGKILL)
        self._ready_again()
        self.order("stop")
        time.sleep(plc.TAKEN_WITHIN_S + 2 * plc.RESULT_WITHIN_S)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            self.look()
            last = max((d.seq for d in self.decisions()), default=0)
            if all((self._handed(name) or [{}])[-1].get("seq") == last for name in self.subscribers):
                break
            time.sleep(0.1)
        self.station.restarts = False
        self.terminate()
        self.look()

    def decisions(self) -> list:
        return read_decisions(self.disk / "journal.sqlite", limit=_LIMIT)

    def _handed(self, name: str) -> list[dict[str, object]]:
        return subscriber.handed(self.home / f"{name}.jsonl")

    def judged(self) -> list[str]:
        handed = {name: self._handed(name) for name in self.subscribers}
        processes = (self.station, *self.subscribers.values())
        return [
            *self.wrong, *(sentence for process in processes for sentence in process.wrong),
            *broken_laws(self.events(), self.decisions(), handed, DEADLINE_MS), *self._tampered(), *self._damaged(),
            *(f"a stranger read from {line}" for line in (self.home / "read").read_text().splitlines()),
            *([f"{most:.0f} MB resident" ] if (most := max(self.figures["resident_mb"], default=0.0)) > MEMORY_MB else []),
        ]  # fmt: skip

    def _tampered(self) -> list[str]:
        """The journal verifies as it is, and does not once any one row of it says something else."""
        code, said = self._verify()
        wrong = [] if code == 0 else [f"lineside journal verify: {said}"]
        last = max((d.seq for d in self.decisions()), default=0)
        for seq in self.random.sample(range(1, last + 1), min(last, 5)):
            with contextlib.closing(sqlite3.connect(self.disk / "journal.sqlite")) as journal:
                before = journal.execute("SELECT reason FROM decisions WHERE seq = ?", (seq,)).fetchone()[0]
                for reason in (before + " ", before):
                    with journal:
                        journal.execute("UPDATE decisions SET reason = ? WHERE seq = ?", (reason, seq))
                    if reason != before and self._verify()[0] != EXIT_FINDINGS:
                        wrong.append(f"decision {seq} was changed, and lineside journal verify did not notice")
        return wrong

    def _damaged(self) -> list[str]:
        """A byte that rots anywhere in the file is found, or changes nothing that is read."""
        copy = self.home / "damaged"
        shutil.copytree(self.disk, copy)
        journal = copy / "journal.sqlite"
        whole, decisions, wrong = journal.read_bytes(), self.decisions(), []
        for at in (self.random.randrange(len(whole)) for _ in range(8)):
            journal.write_bytes(whole[:at] + bytes([whole[at] ^ self.random.randrange(1, 256)]) + whole[at + 1 :])
            code, said = self._verify(journal)
            if code == 0 and read_decisions(journal, limit=_LIMIT) != decisions:
                wrong.append(f"byte {at} of the journal was changed, and lineside journal verify did not notice")
            if code not in (0, EXIT_FINDINGS, SinkError.exit_code):
                wrong.append(f"byte {at} of the journal was changed, and lineside journal verify ended with {code}: {said}")
        return wrong

    def _verify(self, journal: Path | None = None) -> tuple[int, str]:
        command = [self._lineside, "journal", "verify", str(journal or self.disk / "journal.sqlite")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def __enter__(self) -> Self:
        self.look()
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self.station, *self.subscribers.values(), *self.strangers):
            process.send(signal.SIGCONT)
            process.send(signal.SIGKILL)
        for popen in (self.plc, *(p.popen for p in (self.station, *self.subscribers.values(), *self.strangers) if p.popen is not None)):
            popen.kill()
            popen.wait()
        self._log.close()

    def possible(self, namespaces: bool) -> list[Callable[[], None]]:
        blows: list[Callable[[], None]] = [
            self.kill, self.kill, self.kill, self.kill_while_it_starts, self.terminate, self.stop_for_a_while, self.kill_the_door,
            self.deploy, self.plc_off, self.plc_busy, self.plc_stops, self.camera_gone, self.kill_a_subscriber, self.subscriber_sleeps,
            self.all_cores_busy,
        ]  # fmt: skip
        if hasattr(self, "_clock"):
            blows += [self.clock_steps, self.disk_slow]
        return [*blows, self.disk_full, self.network_cut] if namespaces else blows
