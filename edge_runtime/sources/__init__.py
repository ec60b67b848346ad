"""Cameras, and what stands in for one: a file a kind; `open_source` picks by the station file's `kind`."""

from collections.abc import Callable
from typing import Any, Protocol

from edge_runtime import protocols
from edge_runtime.config import files as c
from edge_runtime.errors import ConfigError
from edge_runtime.sources.aravis import AravisDriver
from edge_runtime.sources.camera import OpenCvCamera
from edge_runtime.sources.folder import Folder
from edge_runtime.sources.genicam import GenicamDriver
from edge_runtime.sources.guarded import GuardedSource
from edge_runtime.sources.pylon import PylonDriver
from edge_runtime.sources.synthetic import Synthetic
from edge_runtime.sources.video import Video


class Source(protocols.Source, Protocol):
    """What every source here also tells."""

    @property
    def remaining(self) -> int | None:
        """Images left; 0 means that the next `grab` raises SourceExhausted. None: no end, or not known."""

    @property
    def problem(self) -> str | None:
        """A sentence for the operator while the source is lost; None when all is well."""


_KINDS: dict[type, Callable[[Any], Source]] = {
    c.FolderSourceConfig: Folder,
    c.VideoSourceConfig: Video,
    c.CameraSourceConfig: OpenCvCamera,
    c.SyntheticSourceConfig: Synthetic,
    c.AravisSourceConfig: lambda s: GuardedSource(s, lambda: AravisDriver(s)),
    c.GenicamSourceConfig: lambda s: GuardedSource(s, lambda: GenicamDriver(s)),
    c.PylonSourceConfig: lambda s: GuardedSource(s, lambda: PylonDriver(s)),
}


def open_source(settings: c.Source) -> Source:
    """The source that the station file describes; entering it opens the device. Raises ConfigError for settings that contradict."""
    return _KINDS[type(settings)](settings)


def check_depth(source: Source, bits: int) -> None:
    """Raises ConfigError when an opened camera gives pixels of another depth than the bundle was taught on: both fit into uint16."""
    found: int | None = getattr(source, "bits", None)
    if found is not None and found != bits:
        raise ConfigError(
            f"source.pixel_format: expected pixels of {bits} bits, as the bundle was taught on, the camera gives {found}."
            f" Set the camera to {bits} bits, or teach again with --bits {found} if the images are this camera's own"
        )


__all__ = ["Source", "check_depth", "open_source"]
