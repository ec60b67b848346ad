"""Lineside's device runtime: a trigger in, a frame, a verdict out. Imports no torch, timm or nncf."""

__version__ = "0.1.0"
