"""Receivers of decisions: the journal and the publisher in the loop, the archive, the preview and those of installed packages beside it."""

from edge_runtime.plugins import PluginSettings, made
from edge_runtime.protocols import Sink


def open_sink(settings: PluginSettings) -> Sink:
    """The sink of a [[sink]] block; entering it opens what it needs. Raises ConfigError for what its maker raises."""
    sink: Sink = made(settings)
    return sink


__all__ = ["Sink", "open_sink"]
