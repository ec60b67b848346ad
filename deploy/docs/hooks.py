"""What the site has beside its own pages: the Markdown of the repository with what it links to, schemas, and diagrams that are drawn."""

import hashlib
import json
from pathlib import Path
from typing import Any

import mermaidx
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from pymdownx.superfences import SuperFencesException

from edge_runtime.config.files import CameraConfig, Recipe, StationConfig
from edge_runtime.config.foreign import whole
from edge_runtime.config.schema import schema_of

ROOT = Path(__file__).resolve().parents[2]
SHOWN = (
    "*.md",
    "LICENSE",
    "training/README.md",
    "deploy/*.md",
    "deploy/*/**/*.md",
    "deploy/images/*",
    "deploy/examples/*.*",
    "deploy/plc/*.*",
)
UNLISTED = "deploy/decisions/0*.md"
"""Their own index leads to them, not the navigation."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """A `*` in the navigation stands for the files that there are; diagrams are drawn by `drawn`."""
    config.nav = [_expanded(entry) for entry in config.nav]
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [{"name": "mermaid", "class": "diagram", "format": drawn}]}
    return config


def _expanded(entry: dict[str, Any]) -> dict[str, Any]:
    ((title, pages),) = entry.items()
    if isinstance(pages, str) and "*" in pages:
        return {title: sorted(str(p.relative_to(ROOT)) for p in ROOT.glob(pages))}
    return entry


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the repository's own, under the paths that they have there, so that the links between them hold."""
    unlisted = set(ROOT.glob(UNLISTED))
    for path in sorted({p for pattern in SHOWN for p in ROOT.glob(pattern) if p.is_file()}):
        if not path.is_relative_to(config.docs_dir):
            inclusion = InclusionLevel.NOT_IN_NAV if path in unlisted else InclusionLevel.UNDEFINED
            here = str(path.relative_to(ROOT))
            files.append(File(here, str(ROOT), config.site_dir, config.use_directory_urls, inclusion=inclusion))
    for name, kind in (("station", whole(StationConfig, CameraConfig)), ("recipe", Recipe)):
        schema = json.dumps(schema_of(kind, f"Lineside {name} file"), indent=2)
        files.append(File.generated(config, f"{name}.schema.json", content=schema))
    return files


def drawn(source: str, language: str, css_class: str, options: dict[str, Any], md: Any, **kwargs: Any) -> str:
    """A diagram's SVG, drawn by Mermaid itself, here: the page needs no script for it, and asks nobody for one."""
    name = f"diagram-{hashlib.sha256(source.encode()).hexdigest()[:12]}"  # several may stand on one page, each with its own styles
    try:
        svg = mermaidx.render(source).svg()
    except Exception as e:
        raise SuperFencesException(f"a diagram cannot be drawn: {e}\n{source}") from e  # any other would be passed over in silence
    return f'<div class="{css_class}">{svg.replace("my-svg", name)}</div>'
