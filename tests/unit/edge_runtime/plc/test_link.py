"""A connection to a PLC: by which address and from which port it is made again."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from edge_runtime.plc.link import Dialler


@pytest.fixture
def plc() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def _dial(dialler: Dialler, plc: socket.socket) -> int:
    """The local port, once the PLC has cut the connection."""
    with dialler.dial():
        peer, (_, port) = plc.accept()
        peer.close()
    return int(port)


def test_while_no_name_can_be_looked_up_the_last_address_serves(plc: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"press-3": "127.0.0.1"}
    lookup = socket.getaddrinfo

    def looked_up(host: str, *more: object, **options: object) -> object:
        if host != "127.0.0.1" and host not in names:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return lookup(names.get(host, host), *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    dialler = Dialler("press-3", plc.getsockname()[1], 1.0)
    _dial(dialler, plc)
    names.clear()
    _dial(dialler, plc)
    at = plc.getsockname()
    plc.close()  # it is off as well: each of the two is tried again and again
    for _ in range(4):
        with pytest.raises(OSError, match=r"refused|resolution"):
            dialler.dial()
    with socket.create_server(at) as back:
        for _ in range(2):
            with contextlib.suppress(socket.gaierror):
                _dial(dialler, back)
                break
        else:
            pytest.fail("the address that is known was not tried")


def test_a_name_that_means_another_address_by_now_is_looked_up(plc: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    meant = ["127.0.0.2"]
    lookup = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: lookup(meant[0] if host == "press-3" else host, *a, **k))
    with socket.create_server(("127.0.0.2", plc.getsockname()[1])) as before:
        dialler = Dialler("press-3", plc.getsockname()[1], 1.0)
        _dial(dialler, before)
    meant[0] = "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        dialler.dial()
    _dial(dialler, plc)
