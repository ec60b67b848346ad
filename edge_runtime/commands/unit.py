"""What a station's file says of its service's sandbox: a drop-in for its systemd unit, with the addresses and devices that it needs.

Why: deploy/security.md.
"""

import socket
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

import msgspec

from edge_runtime.config.files import PlcConfig, StationConfig, endpoints_of
from edge_runtime.config.sources import (
    FolderSourceConfig,
    IndustrialSourceConfig,
    LiveSourceConfig,
    SyntheticSourceConfig,
    VideoSourceConfig,
)
from edge_runtime.config.triggers import TimerTriggerConfig, ZeromqTriggerConfig
from edge_runtime.errors import ConfigError
from edge_runtime.security.access import beyond_loopback

_NO_DEVICE = (FolderSourceConfig, VideoSourceConfig, SyntheticSourceConfig)


def drop_in(config: StationConfig) -> tuple[str, list[str]]:
    """The file's text, and a sentence for each thing that it cannot know. Raises ConfigError for a host that has no address."""
    allowed = ["localhost"]
    missing = []
    for host, what in _hosts(config):
        allowed += [each for each in _addresses(host, what) if each not in allowed]
    for network in config.security.networks:
        try:
            allowed.append(str(ip_network(network, strict=False)))
        except ValueError as e:
            raise ConfigError(f"security.networks: expected an address or a network such as 192.168.0.0/24, found {network!r}") from e
    if not config.security.networks:
        for key, endpoint in endpoints_of(config).items():
            if beyond_loopback(endpoint):
                missing.append(f"{key} {endpoint}: nobody beyond this machine reaches it: name those who may in [security] networks")
        if any(isinstance(camera.source, IndustrialSourceConfig) for camera in config.cameras):
            missing.append("a GigE camera is reached through [security] networks alone: name its network; a USB one needs nothing")
    lines = [
        f"# lineside unit: what the file of station {config.name} says. Written anew when that changes.",
        "[Service]",
        "IPAddressDeny=any",
        *(f"IPAddressAllow={address}" for address in allowed),
        *(f"# {sentence}" for sentence in missing),
    ]
    if _no_devices(config):
        lines += ["# No camera of this machine's own, no GPU: no device either.", "PrivateDevices=yes", "DeviceAllow="]
        if config.control is None or not config.control.endpoint.startswith("ipc://"):
            lines.append("PrivateUsers=yes")
        else:
            lines.append("# PrivateUsers= stays off: [control] on ipc:// tells this machine's users apart.")
    return "\n".join(lines) + "\n", missing


def _hosts(config: StationConfig) -> list[tuple[str, str]]:
    """What the station itself connects to, with the key in its file."""
    found = []
    if isinstance(config.trigger, PlcConfig):
        settings = msgspec.structs.asdict(config.trigger)
        # A plug-in's settings may name its PLC otherwise: then [security] networks says where it is.
        host = settings.get("host") or urlsplit(str(settings.get("endpoint", ""))).hostname
        found += [(str(host), "trigger")] if host else []
    for camera in config.cameras:
        if isinstance(camera.source, LiveSourceConfig) and isinstance(camera.source.device, str):
            host = urlsplit(camera.source.device).hostname
            found += [(host, f"{camera.name} source".strip())] if host else []
    return found


def _addresses(host: str, what: str) -> list[str]:
    try:
        return [str(ip_address(host))]
    except ValueError:
        pass
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(host, None)})
    except OSError as e:
        raise ConfigError(
            f"{what}: expected a host that has an address, found {host}, of which this machine knows none: {e.strerror}"
        ) from e


def _no_devices(config: StationConfig) -> bool:
    """Whether it needs nothing below /dev; what is not known does."""
    devices = [config.device] if isinstance(config.device, str) else config.device
    own_cameras = [
        camera.source
        for camera in config.cameras
        if not isinstance(camera.source, _NO_DEVICE)
        and not (isinstance(camera.source, LiveSourceConfig) and "://" in str(camera.source.device))
    ]
    known = isinstance(config.trigger, PlcConfig | TimerTriggerConfig | ZeromqTriggerConfig) and not config.sink
    return known and not own_cameras and all(device == "CPU" for device in devices)
