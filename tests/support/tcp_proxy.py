"""A TCP proxy that can stop forwarding, like a PLC that hangs or a switch that dies, and go on later."""

import selectors
import socket
import threading
from types import TracebackType
from typing import Self


class TcpProxy:
    """Listens on `port` of 127.0.0.1 and forwards to `target`; what comes while it is paused is forwarded when it goes on."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._going = threading.Event()
        self._going.set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tcp-proxy")
        self._sockets: set[socket.socket] = {self._listener}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stopped.set()
        self._going.set()
        self._thread.join()
        for s in self._sockets:
            s.close()

    def pause(self) -> None:
        """Nothing that has not been forwarded yet is forwarded any more."""
        self._going.clear()

    def go_on(self) -> None:
        self._going.set()

    def _run(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self._listener, selectors.EVENT_READ, None)
            while not self._stopped.is_set():
                for key, _ in ready.select(0.01):
                    self._going.wait()
                    if self._stopped.is_set():
                        return
                    if key.data is None:
                        self._accept(ready)
                    else:
                        self._forward(ready, *key.data)

    def _accept(self, ready: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._target))
        for a, b in ((client, server), (server, client)):
            a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ready.register(a, selectors.EVENT_READ, (a, b))
            self._sockets.add(a)

    def _forward(self, ready: selectors.BaseSelector, a: socket.socket, b: socket.socket) -> None:
        if a not in self._sockets:
            return
        try:
            data = a.recv(65_536)
            b.sendall(data)
        except OSError:
            data = b""
        if not data:
            for s in (a, b):
                ready.unregister(s)
                self._sockets.remove(s)
                s.close()
