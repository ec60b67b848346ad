"""One driver in a thread of its own, which alone calls it and is left behind when a call hangs."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from edge_runtime.config.files import IndustrialSourceConfig
from edge_runtime.errors import SourceError
from edge_runtime.handoff import Helper
from edge_runtime.sources.clock import CameraClock
from edge_runtime.sources.driver import Driver, bits_of, configure, exposure_ns

_log = logging.getLogger(__name__)
_CLOSE_S = 2.0

T = TypeVar("T")


class Hung(SourceError):
    """A call into the driver did not return."""


class Connection:
    """A driver from its opening to its end. What the camera told stands beside it, as it ends with the connection too."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.clock: CameraClock | None = None
        """The camera's clock, where it has one and sent a frame."""
        self.last_block: int | None = None
        self.exposure_ns = 0
        self.bits: int | None = None
        self._calls: Helper[Callable[[], Any], Any] = Helper(lambda call: call(), "camera-driver")
        self._hangs = False

    @property
    def left_behind(self) -> bool:
        """A call still hangs."""
        return self._hangs and self._calls.alive

    def ask(self, call: Callable[[], T], limit_s: float) -> T:
        """Run `call` in the driver's thread. Raises what it raises, or Hung."""
        reply = self._calls.call(call)
        try:
            result: T = reply.result(limit_s)
        except TimeoutError:
            self._hangs = True
            raise Hung(f"camera {self.driver.name}: its driver has not answered for {limit_s:.1f} s, reconnecting") from None
        return result

    def open(self, settings: IndustrialSourceConfig, limit_s: float) -> None:
        """Connect, write the settings, and start. Raises ConfigError, MissingExtra, SourceError."""

        def begin() -> None:
            self.driver.open()
            configure(self.driver, settings)
            self.exposure_ns, self.bits = exposure_ns(self.driver), bits_of(self.driver)
            self.driver.start()

        self.ask(begin, limit_s)

    def end(self) -> None:
        """Let go of the camera; of one whose driver hangs, as soon as that returns."""
        close = self.driver.close
        if self._hangs:
            self._calls.call(close)  # once it returns after all, others may have the camera
        else:
            try:
                self.ask(close, _CLOSE_S)
            except Hung:
                pass
            except Exception:
                _log.exception("camera %s: closing", self.driver.name)
        self._calls.leave()
