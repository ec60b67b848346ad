"""What a PLC reads of a write that met a cable which was out, and whether it is reached again.

`python -m tests.contract.cut_cable KIND END`, in a network of its own. END is "close" (the station gives the connection up), "kill" (the
station is killed), "late" (the cable is back within the time-out, but after what was written means anything) or "again" (it connects
again, to a device that serves one connection). Prints `arrived` or `nothing`; or `connected`.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable

from edge_runtime.plc.port import PlcLost
from edge_runtime.plc.tags import Value
from tests.contract.plc_kinds import KINDS, Plc
from tests.support.raw_modbus import RawModbus

_PORT = 15_002
_TIMEOUT_MS = 400.0
_LATER_S = 1.5
"""What waits to be sent again is sent within this time after the cable is back: at most as long as the cable was out."""
_WITHIN_S = 0.1
"""Below the system's least time to send again, and twice below the time-out."""
_QUIET_S = 0.2
"""Until what was answered is confirmed, too: else the device notices by itself that nobody is there any more."""
_NAME = "result_valid"


def _cable(state: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", state], check=True)


def _station(plc: Plc, within_s: float | None) -> None:
    """A line to standard output a step."""
    port = plc.port()
    port.connect(lambda: None)
    port.write({_NAME: False})
    print("connected", flush=True)
    sys.stdin.readline()
    print("writes", flush=True)
    with contextlib.suppress(PlcLost):
        port.write({_NAME: True}, within_s)
        print("was answered", flush=True)
        return
    port.close()
    print("gave up", flush=True)
    sys.stdin.readline()
    while True:
        with contextlib.suppress(PlcLost):
            port.connect(lambda: None)
            break
    port.write({_NAME: False})
    print("connected", flush=True)


def _cut(kind: str, end: str, port: int, valid: Callable[[], Value] = lambda: False) -> str:
    command = [sys.executable, "-m", "tests.contract.cut_cable", kind, f"station {end}", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as station:
        assert station.stdin is not None and station.stdout is not None
        assert station.stdout.readline() == "connected\n"
        time.sleep(_QUIET_S)
        _cable("down")
        station.stdin.write("\n")
        station.stdin.flush()
        assert station.stdout.readline() == "writes\n"
        if end == "kill":
            time.sleep(_TIMEOUT_MS / 4e3)
            station.kill()
        elif end == "late":
            time.sleep(2 * _WITHIN_S)
        else:
            assert station.stdout.readline() == "gave up\n"
        _cable("up")
        if end == "again":
            station.stdin.write("\n")
            station.stdin.flush()
            return station.stdout.readline().strip()
        until = time.monotonic() + _LATER_S
        while time.monotonic() < until and not valid():
            time.sleep(0.02)
        station.kill()
    return "arrived" if valid() else "nothing"


def main(kind: str, end: str, port: str = str(_PORT)) -> None:
    plc = KINDS[kind](int(port), _TIMEOUT_MS)
    if end.startswith("station"):
        return _station(plc, _WITHIN_S if end.endswith("late") else None)
    _cable("up")
    if end == "again":
        with RawModbus() as device:
            return print(_cut(kind, end, device.port))
    with plc.server() as server:
        return print(_cut(kind, end, _PORT, lambda: server.get([_NAME])[_NAME]))


if __name__ == "__main__":
    main(*sys.argv[1:])
