"""What happens to a station in a night: each falls at a moment that the seed chose."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.night import Night

_DAY_S = 86_400
Disturbance = Callable[[Night], None]


def kill(night: Night) -> None:
    night.when_ready()
    if night.station.send(signal.SIGKILL, -signal.SIGKILL):
        night.until_gone(1.0)
        began = time.monotonic()
        night.ready_again()
        night.figures["kill_to_ready_s"].append(time.monotonic() - began)


def kill_while_it_starts(night: Night) -> None:
    if night.station.send(signal.SIGKILL, -signal.SIGKILL):
        night.until_gone(1.0)
        night.supervise()
        time.sleep(night.random.uniform(0.0, 2.0))
        night.station.send(signal.SIGKILL, -signal.SIGKILL)


def terminate(night: Night) -> None:
    night.terminate()


def stop_for_a_while(night: Night) -> None:
    if night.station.send(signal.SIGSTOP):
        time.sleep(night.random.choice((0.05, 0.2, 0.4, 1.5)))
        night.station.send(signal.SIGCONT)


def kill_the_door(night: Night) -> None:
    for pid in _children(night):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def deploy(night: Night) -> None:
    """The one of the two that does not judge, or back; the line goes on, or the station dies of something else meanwhile."""
    verb = night.random.choice(("deploy", "deploy", "rollback"))
    arguments = [str(night.home / night.random.choice(("bundle", "other")))] if verb == "deploy" else []
    command = [night.lineside, verb, *arguments, str(night.file), "--why", "chaos", "--key", str(night.home / "engineer.key")]
    asked = subprocess.Popen(command, stdout=night.log, stderr=night.log)
    if night.random.random() < 0.5:
        time.sleep(night.random.uniform(0.0, 1.5))
        night.station.send(signal.SIGKILL, -signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        asked.wait(30)
    asked.kill()
    asked.wait()


def plc_off(night: Night) -> None:
    night.order(f"off {night.random.uniform(0.05, 2.0):.2f}")


def plc_busy(night: Night) -> None:
    night.order(f"busy {night.random.randint(1, 5)}")


def plc_stops(night: Night) -> None:
    night.plc.send_signal(signal.SIGSTOP)
    time.sleep(night.random.uniform(0.05, 1.0))
    night.plc.send_signal(signal.SIGCONT)


def kill_a_subscriber(night: Night) -> None:
    night.random.choice(list(night.subscribers.values())).send(signal.SIGKILL, -signal.SIGKILL)


def subscriber_sleeps(night: Night) -> None:
    process = night.random.choice(list(night.subscribers.values()))
    if process.send(signal.SIGSTOP):
        time.sleep(night.random.uniform(0.2, 2.0))
        process.send(signal.SIGCONT)


def all_cores_busy(night: Night) -> None:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 2))]
    time.sleep(night.random.uniform(0.3, 1.5))
    for process in busy:
        process.kill()
        process.wait()


def clock_steps(night: Night) -> None:
    night.clock.write_text(str(night.random.choice((0, 500 * _DAY_S, -30 * _DAY_S, 3600, -90))))


def disk_slow(night: Night) -> None:
    """A sync takes up to longer than a part's deadline."""
    night.slow.write_text(str(night.random.choice((20, 100, 250, 500))))
    time.sleep(night.random.uniform(0.5, 3.0))
    night.slow.write_text("0")


def camera_gone(night: Night) -> None:
    away = night.home / "pictures"
    away.rename(night.home / "unplugged")
    time.sleep(night.random.uniform(0.2, 2.0))
    (night.home / "unplugged").rename(away)


def disk_full(night: Night) -> None:
    filler = night.disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as f:
        while True:
            f.write(bytes(1 << 16))
            f.flush()
    time.sleep(night.random.uniform(0.3, 1.5))
    filler.unlink(missing_ok=True)


def network_cut(night: Night) -> None:
    subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
    time.sleep(night.random.uniform(0.1, 1.5))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def _children(night: Night) -> list[int]:
    if night.station.popen is None:
        return []
    tasks = Path(f"/proc/{night.station.popen.pid}/task")
    with contextlib.suppress(OSError):
        return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
    return []


def possible(night: Night, namespaces: bool) -> list[Disturbance]:
    """What may happen here; what kills the station most often. `namespaces`: network and mounts are its own."""
    some: list[Disturbance] = [
        kill, kill, kill, kill_while_it_starts, terminate, stop_for_a_while, kill_the_door, deploy, plc_off, plc_busy, plc_stops,
        camera_gone, kill_a_subscriber, subscriber_sleeps, all_cores_busy,
    ]  # fmt: skip
    if night.faked:
        some += [clock_steps, disk_slow]
    return [*some, disk_full, network_cut] if namespaces else some
