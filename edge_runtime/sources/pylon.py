"""Basler cameras (GigE, USB, emulation) through pypylon."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from edge_runtime.config.files import PylonSourceConfig
from edge_runtime.errors import MissingExtra, SourceError
from edge_runtime.sources.driver import Kind, Node, RawFrame

_KINDS: tuple[tuple[str, Kind], ...] = (
    ("Integer", "integer"), ("Float", "float"), ("Enum", "enumeration"),
    ("Boolean", "boolean"), ("Command", "command"), ("String", "string"),
)  # fmt: skip


class PylonDriver:
    """One camera; frames are fetched one by one, none is skipped."""

    def __init__(self, settings: PylonSourceConfig) -> None:
        self._settings = settings
        self.name = settings.serial or settings.ip or settings.user_name or "(pylon)"
        self.tick_ns = 1.0
        self._camera: Any = None
        self._map: Any = None
        self._waits = False

    def open(self) -> None:
        try:
            from pypylon import genicam, pylon
        except ImportError as e:
            raise MissingExtra('kind = "pylon"', "cameras") from e
        self._pylon, self._genicam = pylon, genicam
        with self._errors():
            factory = pylon.TlFactory.GetInstance()
            info = self._choose(factory.EnumerateDevices())
            self.name = f"{info.GetModelName()} {info.GetSerialNumber()}"
            try:
                self._camera = pylon.InstantCamera(factory.CreateDevice(info))
                self._camera.Open()
            except genicam.GenericException as e:
                raise SourceError(
                    f"camera {self.name}: is there but could not be opened: does another program use it? ({_reason(e)})"
                ) from e
            self._map = self._camera.GetNodeMap()
            frequency = self.node("GevTimestampTickFrequency")  # others count nanoseconds
            self.tick_ns = 1e9 / frequency.read() if frequency is not None else 1.0
            self._waits = bool(self._camera.CanWaitForFrameTriggerReady())

    def node(self, name: str) -> Node | None:
        with self._errors():
            node = self._map.GetNode(name)
            kind = next((k for part, k in _KINDS if part in type(node).__name__), None)
            if kind is None or not self._genicam.IsImplemented(node):
                return None
            readable, writable = self._genicam.IsReadable(node), self._genicam.IsWritable(node)
            write: Any = {"enumeration": node.FromString, "command": lambda _: node.Execute()}.get(kind) or node.SetValue
            low = high = step = None
            if kind in ("integer", "float") and readable:
                low, high = node.GetMin(), node.GetMax()
                step = node.GetInc() if kind == "integer" else None
            entries = tuple(node.GetSymbolics()) if kind == "enumeration" else ()
            read = node.ToString if kind == "enumeration" else node.GetValue if kind != "command" else node.IsDone
            return Node(kind, writable, self._wrapped(write), self._wrapped(read), low, high, step, entries)

    def start(self) -> None:
        with self._errors():
            self._camera.MaxNumBuffer.Value = self._settings.buffers
            self._camera.StartGrabbing(self._pylon.GrabStrategy_OneByOne)

    def stop(self) -> None:
        with self._errors():
            self._camera.StopGrabbing()

    def fire(self, timeout_s: float) -> None:
        with self._errors():
            if self._waits and not self._camera.WaitForFrameTriggerReady(round(timeout_s * 1e3), self._pylon.TimeoutHandling_Return):
                raise SourceError(f"camera {self.name}: was not ready for a trigger within {timeout_s * 1e3:.0f} ms")
            self._camera.ExecuteSoftwareTrigger()

    def fetch(self, timeout_s: float) -> RawFrame | None:
        with self._errors():
            if timeout_s <= 0 and self._camera.NumReadyBuffers.Value == 0:
                return None  # RetrieveResult(0) would take a millisecond
            result = self._camera.RetrieveResult(round(timeout_s * 1e3), self._pylon.TimeoutHandling_Return)
            arrived_ns = time.monotonic_ns()
            if not result.IsValid():
                self.check()
                return None
            try:
                complete = bool(result.GrabSucceeded())
                if complete:
                    data = np.frombuffer(result.GetImageMemoryView(), dtype=np.uint8).copy()
                else:
                    self.check()  # a camera that is pulled out gives its buffers back, failed
                    data = np.empty(0, np.uint8)
                return RawFrame(
                    data, int(result.PixelType), int(result.Width), int(result.Height), arrived_ns, int(result.TimeStamp) or None,
                    int(result.BlockID), int(result.PaddingX), complete, "" if complete else _sentence(result.GetErrorDescription()),
                )  # fmt: skip
            finally:
                result.Release()

    def check(self) -> None:
        with self._errors():
            if self._camera.IsCameraDeviceRemoved():
                raise SourceError(f"camera {self.name}: was unplugged or lost its power or network")

    def close(self) -> None:
        if self._camera is not None:
            with contextlib.suppress(self._genicam.GenericException):
                self._camera.Close()

    def _choose(self, found: Any) -> Any:
        s = self._settings
        wanted = {"serial": s.serial, "ip": s.ip, "user_name": s.user_name}
        wanted = {k: v for k, v in wanted.items() if v is not None}

        def is_it(info: Any) -> bool:
            have = {
                "serial": info.GetSerialNumber(),
                "ip": info.GetIpAddress() if info.IsIpAddressAvailable() else None,
                "user_name": info.GetUserDefinedName() if info.IsUserDefinedNameAvailable() else None,
            }
            return all(have[k] == v for k, v in wanted.items())

        matching = [d for d in found if is_it(d)]
        if len(matching) == 1:
            return matching[0]
        what = " and ".join(f"source.{k} = {v!r}" for k, v in wanted.items()) or "exactly one camera, or source.serial to say which"
        there = ", ".join(f"{d.GetModelName()} {d.GetSerialNumber()}" for d in found) or "none"
        raise SourceError(
            f"source: expected a Basler camera with {what}, found {there}" if wanted else f"source: expected {what}, found {there}"
        )

    def _wrapped(self, call: Any) -> Any:
        def inner(*arguments: Any) -> Any:
            with self._errors():
                return call(*arguments)

        return inner

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._genicam.GenericException as e:
            raise SourceError(f"camera {self.name}: {_reason(e)}") from e


def _reason(e: Exception) -> str:
    """The SDK's own words, without its source file and line."""
    text = (str(e).splitlines() or [""])[0]
    return text.partition(" : ")[0].strip() or type(e).__name__


def _sentence(text: str) -> str:
    return text.strip().rstrip(".").lower() or "no reason given"
