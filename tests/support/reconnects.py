"""Connects to a simulated PLC and leaves it, many times over, and tells what that left behind.

`python -m tests.support.reconnects KIND N`: for example `python -m tests.support.reconnects modbus 1000`.
"""

import gc
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.contract.plc_kinds import KINDS
from tests.support.ports import free_port


@dataclass(frozen=True)
class Held:
    """What this process holds, its simulated PLC included."""

    threads: int
    files: int
    """Open file descriptors, sockets among them."""
    rss_kib: int


def held() -> Held:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Held(threading.active_count(), len(list(Path("/proc/self/fd").iterdir())), pages * os.sysconf("SC_PAGE_SIZE") // 1024)


def settled(wanted: Held | None = None) -> Held:
    """What is held once the PLC's side has noticed that nobody is connected: at most `wanted`, or after 5 s whatever it is."""
    until = time.monotonic() + (0.3 if wanted is None else 5.0)
    while time.monotonic() < until:
        now = held()
        if wanted is not None and now.threads <= wanted.threads and now.files <= wanted.files:
            return now
        time.sleep(0.02)
    return held()


def reconnects(kind: str, count: int, warm_up: int = 20) -> tuple[Held, Held]:
    """Held before and after `count` times connect, read, write, and close or (each other time) only connect again."""
    number = free_port()
    plc = KINDS[kind](number, 5000.0)
    with plc.server() as server:
        port = plc.port()

        def once(i: int) -> None:
            port.connect(lambda: None)
            server.set({"part_id": i})
            port.write({"result_part_id": i, "accept": bool(i % 2), "result_valid": True})
            deadline = time.monotonic() + 5.0
            while not port.pushes and port.read(["part_id"])["part_id"] != i:
                assert time.monotonic() < deadline, f"{kind}: reads an old value"
            if i % 2:
                port.close()

        for i in range(warm_up):
            once(i)
        port.close()
        before = settled()
        for i in range(count):
            once(i)
        port.close()
        return before, settled(before)


if __name__ == "__main__":
    before, after = reconnects(sys.argv[1], int(sys.argv[2]))
    print(f"before: {before}\nafter:  {after}")
    sys.exit(after.threads > before.threads or after.files > before.files)
