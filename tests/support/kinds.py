"""Kinds of cameras and triggers as messages list them, so that one more makes no test of a message fail."""

from edge_runtime.config.foreign import OWN

SOURCES, TRIGGERS = (", ".join(f'"{kind}"' for kind in sorted(OWN[group])) for group in ("sources", "triggers"))
