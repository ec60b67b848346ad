"""Cameras, and what stands in for one: a file a kind; `open_source` picks by the station file's `kind`, and imports no other."""

from urllib.parse import urlsplit

from edge_runtime.config import files as c
from edge_runtime.errors import ConfigError
from edge_runtime.plugins import made
from edge_runtime.protocols import Source


def open_source(settings: c.AnySource) -> Source:
    """The source that the station file describes; entering it opens the device. Raises ConfigError for settings that contradict."""
    match settings:
        case c.FolderSourceConfig():
            from edge_runtime.sources.folder import Folder

            return Folder(settings)
        case c.VideoSourceConfig():
            from edge_runtime.sources.video import Video

            return Video(settings)
        case c.LiveSourceConfig():
            return _camera(settings)
        case c.SyntheticSourceConfig():
            from edge_runtime.sources.synthetic import Synthetic

            return Synthetic(settings)
        case c.AravisSourceConfig():
            from edge_runtime.sources.aravis import AravisDriver
            from edge_runtime.sources.guarded import GuardedSource

            return GuardedSource(settings, lambda: AravisDriver(settings))
        case c.GenicamSourceConfig():
            from edge_runtime.sources.genicam import GenicamDriver
            from edge_runtime.sources.guarded import GuardedSource

            return GuardedSource(settings, lambda: GenicamDriver(settings))
        case c.PylonSourceConfig():
            from edge_runtime.sources.guarded import GuardedSource
            from edge_runtime.sources.pylon import PylonDriver

            return GuardedSource(settings, lambda: PylonDriver(settings))
        case c.PluginSettings():
            source: Source = made(settings)
            return source


def _camera(settings: c.LiveSourceConfig) -> Source:
    """A device of this machine, or a stream. Raises ConfigError for what is neither, or for settings that a stream cannot have."""
    from edge_runtime.sources.camera import LiveCamera

    device = settings.device
    if not isinstance(device, str) or "://" not in device:
        if isinstance(device, str) and not device.startswith("/dev/"):
            raise ConfigError(f'source.device: expected an index such as 0, "/dev/video0" or "rtsp://…", found {device!r}')
        from edge_runtime.sources.v4l2 import V4l2Feed

        name = device if isinstance(device, str) else f"/dev/video{device}"
        return LiveCamera(settings, name, lambda: V4l2Feed(settings, name))
    from edge_runtime.sources.stream import PORTS, StreamFeed, public

    name = public(device)
    if urlsplit(device).scheme not in PORTS:
        raise ConfigError(f"source.device: expected a URL with {', '.join(PORTS)}, found {name!r}")
    if settings.fps is not None or settings.exposure is not None:
        raise ConfigError("source.fps, source.exposure: a network stream does not take these; set them in the camera's own pages")
    return LiveCamera(settings, name, lambda: StreamFeed(settings, name))


def check_depth(source: Source, bits: int) -> None:
    """Raises ConfigError when an opened camera gives pixels of another depth than the bundle was taught on: both fit into uint16."""
    found = source.bits
    if found is not None and found != bits:
        raise ConfigError(
            f"source.pixel_format: expected pixels of {bits} bits, as the bundle was taught on, the camera gives {found}."
            f" Set the camera to {bits} bits, or teach again with --bits {found} if the images are this camera's own"
        )


__all__ = ["Source", "check_depth", "open_source"]
