"""Lineside's device runtime: a trigger in, a frame, a verdict out. Imports no torch, timm or nncf."""

import sys

# `import openvino` alone would send a report to its makers over the Internet, from a station too: a look-up that a factory's firewall
# shows, and seconds of waiting behind one that drops packets. Without that package OpenVINO and NNCF use stubs of their own.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

__version__ = "0.1.0"
