"""TCP connections by host name, in a time that counts the name server as well.

The system's own lookup asks a silent one for ten seconds and more, and cannot be interrupted.
"""

import socket
import threading
import time
from ipaddress import ip_address

from edge_runtime.handoff import Reply

_lock = threading.Lock()
_asked: dict[str, Reply[list[str]]] = {}
"""By host: a lookup that did not come back in time, for whoever asks next. A silent name server costs one thread a name."""


def addresses_of(host: str, timeout_s: float) -> list[str]:
    """The host's addresses in the order to try them; one that is an address already is its own. Raises OSError, of which
    socket.gaierror for a name that nobody knows, or about which no name server answered within `timeout_s`."""
    try:
        ip_address(host)
    except ValueError:
        pass
    else:
        return [host]
    with _lock:
        reply = _asked.pop(host, None)
    if reply is None:
        reply = Reply()
        threading.Thread(target=_look_up, args=(host, reply), name="lookup", daemon=True).start()
    try:
        return reply.result(timeout_s)
    except TimeoutError:
        with _lock:
            _asked[host] = reply
        raise socket.gaierror(socket.EAI_AGAIN, f"no name server answered what {host} is") from None


def connect(address: tuple[str, int], timeout_s: float, source: tuple[str, int] | None = None) -> socket.socket:
    """As `socket.create_connection`, all within `timeout_s`. Raises OSError, of which TimeoutError."""
    until = time.monotonic() + timeout_s
    host, port = address
    *others, last = addresses_of(host, timeout_s)
    for other in others:
        try:
            return socket.create_connection((other, port), _left(until), source_address=source)
        except OSError:
            continue  # the last one says what is wrong
    return socket.create_connection((last, port), _left(until), source_address=source)


def _left(until: float) -> float:
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _look_up(host: str, reply: Reply[list[str]]) -> None:
    try:
        found = [str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as e:  # UnicodeError: no name at all
        reply.fail(e if isinstance(e, OSError) else OSError(str(e)))
    else:
        reply.give(list(dict.fromkeys(found)))
