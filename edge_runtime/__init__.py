"""Lineside's device runtime: a trigger in, a frame, a verdict out. Imports no torch, timm or nncf."""

import os
import sys

# `import openvino` alone would send a report to its makers over the Internet, from a station too: a look-up that a factory's firewall
# shows, and seconds of waiting behind one that drops packets. Without that package OpenVINO and NNCF use stubs of their own.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

# OpenCV reads the limit when it is loaded and holds a file's header against it, so a small file that says it is huge takes no memory. Its
# own limit, 2^30, lets a megabyte of PNG become 3 GB beside a running station. More than any camera gives (values.MOST_PX).
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 28))

__version__ = "0.1.0"
