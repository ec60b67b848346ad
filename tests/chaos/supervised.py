"""A process that is started again whenever it ends, as systemd does with a station."""

import subprocess
import time
from dataclasses import dataclass, field
from typing import IO

AGAIN = {69, 71, 73, 74, 76}
"""Exit codes after which systemd starts a station again: what it needs may come back (deploy/reference/exit_codes.md)."""


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

    def supervise(self) -> None:
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
