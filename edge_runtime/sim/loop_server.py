"""What simulated PLCs whose library lives on an event loop have in common: its thread, and a memory that survives a power cut."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from edge_runtime.errors import TriggerError
from edge_runtime.plc.tags import Tag, Value

_T = TypeVar("_T")


class LoopServer(ABC):
    """A TagServer but for the protocol. Nothing in `_get` and `_set` waits, so that no client's request comes between their steps."""

    def __init__(self, where: str, tags: Sequence[Tag]) -> None:
        """`where`: for messages, what it listens on."""
        self.where = where
        self._tags = {tag.name: tag for tag in tags}
        self._requests = 0
        self._kept: dict[str, Value] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._failure: str | None = None

    def __enter__(self) -> Self:
        """Listens when it returns. Raises TriggerError when it cannot."""
        up = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(up)), name="plc-server", daemon=True)
        self._thread.start()
        up.wait()
        if self._failure is not None:
            self._thread.join()
            raise TriggerError(self._failure)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Connections are cut, like those of a PLC that loses power."""
        if self._loop is not None and self._stopped is not None and self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()

    @property
    def requests(self) -> int:
        """Requests of clients so far."""
        return self._requests

    def get(self, names: Sequence[str]) -> dict[str, Value]:
        """These tags at one moment."""
        return self._run(self._get(names))

    def set(self, values: Mapping[str, Value]) -> None:
        """Write these tags at one moment."""
        self._run(self._set(values))

    @abstractmethod
    async def _build(self) -> None:
        """The server with its memory, not listening yet."""

    @abstractmethod
    async def _listen(self) -> None:
        """Raises OSError or RuntimeError when the port cannot be had."""

    @abstractmethod
    async def _hang_up(self) -> None:
        """Cut all connections and stop listening."""

    @abstractmethod
    async def _get(self, names: Sequence[str]) -> dict[str, Value]: ...

    @abstractmethod
    async def _set(self, values: Mapping[str, Value]) -> None: ...

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        assert self._loop is not None, "not started"
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _serve(self, up: threading.Event) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(lambda _loop, _context: None)  # connections that are cut are what it is for
        try:
            await self._build()
            await self._set(self._kept)  # before anybody can see it empty
            await self._listen()
        except (OSError, RuntimeError) as e:
            why = getattr(e, "strerror", None) or "the port cannot be had"
            self._failure = f"simulated PLC: cannot listen on {self.where}: {why}; is it in use, or below 1024? Choose another"
            return
        finally:
            up.set()
        await self._stopped.wait()
        self._kept = await self._get(list(self._tags))
        await self._hang_up()
