"""Network cameras for tests: multipart JPEG over HTTP, H.264 and JPEG over RTSP, and a proxy that loses packets between."""

import http.server
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

SIZE = (48, 64)
_CELL = 8


class MjpegCamera:
    """A new gray level each frame; can hang, die, cut its pictures, and change their size."""

    def __init__(self, port: int = 0, period_s: float = 0.02, backlog: int = 0, size: tuple[int, int] = SIZE, lengths: bool = True) -> None:
        """`backlog`: black frames that every new listener is sent at once, as if they had waited in a buffer. `size`: (H, W). `lengths`:
        each picture's head says how long it is."""
        self.alive, self.hangs, self.sent, self.size, self.burst = True, False, 0, size, 0
        self.sent_ns: dict[int, int] = {}
        """When a gray level was sent last (CLOCK_MONOTONIC)."""
        self.cut: Callable[[bytes], bytes] | None = None
        """What is left of each picture."""
        camera = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=f")
                self.end_headers()
                try:
                    self.send(*[0] * backlog)
                    level = 20
                    while camera.alive:
                        time.sleep(period_s)
                        if camera.hangs:
                            continue
                        count, camera.burst = camera.burst or 1, 0
                        levels = [(level + i) % 200 for i in range(1, count + 1)]
                        level = levels[-1]
                        self.send(*levels)
                except OSError:
                    pass

            def send(self, *levels: int) -> None:
                parts = []
                for level in levels:
                    jpeg = cv2.imencode(".jpg", np.full((*camera.size, 3), level, np.uint8))[1].tobytes()
                    if camera.cut is not None:
                        jpeg = camera.cut(jpeg)
                    length = b"Content-Length: %d\r\n" % len(jpeg) if lengths else b""
                    parts.append(b"--f\r\nContent-Type: image/jpeg\r\n" + length + b"\r\n" + jpeg + b"\r\n")
                camera.sent_ns |= dict.fromkeys(levels, time.monotonic_ns())
                self.wfile.write(b"".join(parts))
                camera.sent += len(levels)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/stream.mjpg"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def kill(self) -> None:
        """It is gone, with all its connections."""
        if self.alive:
            self.alive = False
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()


_RTSP_SERVER = """
import random, sys, time, gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer, GLib
Gst.init(None)
port, codec, width, height, period_ms, cell, change = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])

def picture(n, width, height):
    r, rows = random.Random(n), []
    for y in range(height // cell):
        cells = [r.randrange(40, 216) if y else 200 if n >> b & 1 else 50 for b in range(width // cell)]
        rows.append(b"".join(bytes((c,)) * cell for c in cells) * cell)
    return b"".join(rows)

class Factory(GstRtspServer.RTSPMediaFactory):
    n = 0
    def do_create_element(self, url):
        return Gst.parse_launch("( appsrc name=src is-live=true format=time do-timestamp=true ! videoconvert ! video/x-raw,format=I420 ! "
            + {"h264": "x264enc threads=1 tune=zerolatency speed-preset=ultrafast key-int-max=12 pass=qual quantizer=18 ! rtph264pay",
               "jpeg": "jpegenc ! rtpjpegpay"}[codec] + " name=pay0 mtu=400 )")
    def do_configure(self, media):
        src = media.get_element().get_child_by_name("src")
        def push():
            self.n += 1
            w = width // 2 if change and self.n > change else width
            caps = "video/x-raw,format=GRAY8,width=%d,height=%d,framerate=%d/1" % (w, height, 1000 // period_ms)
            src.set_property("caps", Gst.Caps.from_string(caps))
            print(self.n, time.monotonic_ns(), flush=True)
            return src.emit("push-buffer", Gst.Buffer.new_wrapped(picture(self.n, w, height))) == Gst.FlowReturn.OK
        GLib.timeout_add(period_ms, push)

server = GstRtspServer.RTSPServer(); server.set_address("127.0.0.1"); server.set_service(port)
factory = Factory(); factory.set_shared(True)
server.get_mount_points().add_factory("/cam", factory); server.attach(None)
print("up", flush=True)
GLib.MainLoop().run()
"""


class RtspCamera:
    """GStreamer's RTSP server. Each picture carries its number in its first row of cells, and all others follow from that."""

    WIDTH, HEIGHT = 320, 240

    def __init__(self, port: int, codec: str = "h264", period_ms: int = 40, change_at: int = 0) -> None:
        """`change_at`: from this picture on it is half as wide. Skips the test where GStreamer is not installed."""
        self.port, self.url = port, f"rtsp://127.0.0.1:{port}/cam"
        self.taken_ns: dict[int, int] = {}
        """When each picture was taken, CLOCK_MONOTONIC."""
        python = shutil.which("python3", path="/usr/bin")
        needs = "needs Debian's gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly python3-gi"
        if python is None:
            pytest.skip(needs)
        numbers = (self.WIDTH, self.HEIGHT, period_ms, _CELL, change_at)
        self.process = subprocess.Popen(
            [python, "-c", _RTSP_SERVER, str(port), codec, *map(str, numbers)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "up\n":
            self.kill()
            pytest.skip(needs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            number, taken_ns = line.split()
            self.taken_ns[int(number)] = int(taken_ns)

    def kill(self) -> None:
        """No farewell to whoever listens."""
        self.process.kill()
        self.process.wait()
        if hasattr(self, "_reader"):
            self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()

    @staticmethod
    def number_of(image: npt.NDArray[Any]) -> int:
        """Which picture it says it is."""
        return sum(1 << b for b, cell in enumerate(_cells(image)[0]) if cell > 125)

    @staticmethod
    def is_whole(image: npt.NDArray[Any]) -> bool:
        """Whether all of it is the picture that it says it is."""
        cells = _cells(image)
        r = random.Random(RtspCamera.number_of(image))
        truth = [[r.randrange(40, 216) for _ in range(cells.shape[1])] for _ in range(cells.shape[0] - 1)]
        return bool(np.abs(cells[1:] - np.array(truth)).max() < 25)


def _cells(image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    height, width = image.shape[:2]
    gray = image if image.ndim == 2 else image[:, :, 1]
    cells: npt.NDArray[np.float64] = gray.astype(np.float64).reshape(height // _CELL, _CELL, width // _CELL, _CELL).mean((1, 3))
    return cells


class LossyProxy:
    """RTSP over TCP, as a camera sends whose network takes less than it has to say: RTP packets never come."""

    def __init__(self, target: int, share: float, seed: int = 0) -> None:
        """`share` of the packets is lost, once `losing` is set."""
        self._target, self._share, self._random = target, share, random.Random(seed)
        self.losing, self.lost = False, 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no further connection."""
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
                camera = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            threading.Thread(target=self._up, args=(client, camera), daemon=True).start()
            threading.Thread(target=self._down, args=(client, camera), daemon=True).start()

    def _up(self, client: socket.socket, camera: socket.socket) -> None:
        with camera:
            try:
                while data := client.recv(65536):
                    camera.sendall(data)
            except OSError:
                pass

    def _down(self, client: socket.socket, camera: socket.socket) -> None:
        with client, camera.makefile("rb") as stream:
            try:
                while first := stream.read(1):
                    if first != b"$":
                        client.sendall(first + stream.readline())
                        continue
                    head = stream.read(3)
                    packet = stream.read(int.from_bytes(head[1:], "big"))
                    if head[0] == 0 and self.losing and self._random.random() < self._share:
                        self.lost += 1
                    else:
                        client.sendall(first + head + packet)
            except (OSError, ValueError):
                pass
