"""What a wheel says of itself: README.md less the links that lead to files which no wheel holds. Hatchling calls this when it builds."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n\n", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)[^)]*\)")


def in_a_wheel(text: str) -> str:
    """Relative pictures are taken out, relative links become their words. Paths in `code` stay: they are those of the source archive."""
    return _LINK.sub(r"\1", _PICTURE.sub("", text))


class Readme(MetadataHookInterface):
    """`[tool.hatch.metadata.hooks.custom]` in pyproject.toml."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the project's `readme`."""
        text = Path(self.root, "README.md").read_text()
        metadata["readme"] = {"content-type": "text/markdown", "text": in_a_wheel(text)}
