"""A camera in the network that sends a video stream: RTSP (over TCP) or HTTP."""

import base64
import http.client
import re
import ssl
import time
from urllib.parse import unquote, urlsplit

from edge_runtime.config.files import LiveSourceConfig
from edge_runtime.dial import connect
from edge_runtime.errors import FrameError, SourceError
from edge_runtime.records import Image
from edge_runtime.sources.camera import Feed
from edge_runtime.sources.decoding import Decoder, Picture, gray, library

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_DRAIN_S = 1.0
_PROBING = {"fpsprobesize": "0"}
"""Nobody here asks for the rate: to measure it would take twenty pictures at each connection."""
_MOST_HEAD_BYTES, _MOST_HEAD_S = 1 << 14, 2.0
_RTSP = {"rtsp_transport": "tcp", "reorder_queue_size": "2"}
"""Over TCP nothing is overtaken; without a queue FFmpeg would not even say that packets never came."""


class StreamFeed(Feed):
    """One opened stream, of which nothing waits in a buffer any more."""

    def __init__(self, settings: LiveSourceConfig, name: str) -> None:
        """Connect. Raises SourceError, MissingExtra."""
        self._name, self._mono = name, settings.mono
        url, open_s, self._read_s = str(settings.device), settings.open_timeout_ms / 1e3, settings.read_timeout_ms / 1e3
        what = f'kind = "camera" with the address {name}'
        library(what)
        _reach(url, name, open_s)
        options = _PROBING | (_RTSP if urlsplit(url).scheme in ("rtsp", "rtsps") else {})
        try:
            ends_late = not _tells_lengths(url, min(open_s / 4, _MOST_HEAD_S))
            self._decoder = Decoder(url, options, (open_s, self._read_s), what=what, live=True, ends_late=ends_late)
        except SourceError as e:
            raise SourceError(f"camera {name}: could not be opened: is there a stream at this address? ({e})") from e
        try:
            self._drain()
        except BaseException:
            self.close()
            raise

    lossy = True

    def read(self) -> tuple[Image, int]:
        picture = self._next()
        if picture.damage or picture.image is None:
            raise FrameError(picture.damage)
        return gray(picture.image) if self._mono else picture.image, picture.arrived_ns

    def close(self) -> None:
        self._decoder.close()

    def _next(self) -> Picture:
        try:
            picture = self._decoder.read()
        except SourceError as e:
            raise SourceError(f"camera {self._name}: stopped delivering ({e}), reconnecting") from e
        if picture is None:
            raise SourceError(f"camera {self._name}: stopped delivering, reconnecting")
        return picture

    def _drain(self) -> None:
        """Throw away what was collected while the stream was opened: all that comes without any waiting, but not for ever."""
        opened_ns = time.monotonic_ns()
        while self._next().arrived_ns < opened_ns:
            if time.monotonic_ns() - opened_ns > _DRAIN_S * 1e9:
                return


def public(url: str) -> str:
    """The URL without user and password: messages go to logs, sockets and screens."""
    parts = urlsplit(url)
    return url.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1) if "@" in parts.netloc else url


def _tells_lengths(url: str, timeout_s: float) -> bool:
    """False for multipart JPEG over HTTP that does not say how long each picture is: FFmpeg then hands one out when the next one begins.

    Also where that cannot be seen, as behind a login that this request has not: pictures then count as older than they are.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return True
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    until = time.monotonic() + timeout_s
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    if parts.scheme == "https":  # FFmpeg, which reads the pictures, does not verify either
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=ssl._create_unverified_context())
    head = b""
    try:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
        headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
        connection.request("GET", parts._replace(scheme="", netloc="", fragment="").geturl() or "/", headers=headers)
        response = connection.getresponse()
        if response.status == 200 and "multipart" not in (response.headers.get("Content-Type") or "").lower():
            return True
        while b"\xff\xd8" not in head and len(head) < _MOST_HEAD_BYTES and time.monotonic() < until:
            if not (more := response.read1(4096)):
                break
            head += more
    except (OSError, http.client.HTTPException, ValueError):
        pass
    finally:
        connection.close()
    return re.search(rb"content-length:\s*[1-9]", head.partition(b"\xff\xd8")[0].lower()) is not None


def _reach(url: str, name: str, timeout_s: float) -> None:
    """A plain TCP connection first: it says *why* nobody answers, which FFmpeg does not. Raises SourceError."""
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or PORTS[parts.scheme])
    try:
        connect(address, timeout_s).close()
    except OSError as e:
        raise SourceError(f"camera {name}: {address[0]}:{address[1]} does not answer: {e.strerror or e}") from e
