"""`make docs` builds the site, strictly, and what it builds asks nobody for anything."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.docs import generated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "-f", "deploy/docs/mkdocs.yml", "-d", out]
    done = subprocess.run(
        command, cwd=generated.ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_page_of_the_repository_is_there(site: Path) -> None:
    pages = [*generated.ROOT.glob("*.md"), *generated.ROOT.glob("deploy/**/*.md"), generated.ROOT / "training" / "README.md"]
    wanted = {p.relative_to(generated.ROOT) for p in pages if "docs" not in p.parts}
    missing = [p for p in wanted if not (site / p.with_name("index.html" if p.name == "README.md" else f"{p.stem}.html")).exists()]
    assert missing == []


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(r'<(?:script|img|iframe|link rel="(?:stylesheet|preconnect|preload)")[^>]*(?:src|href)="(?:https?:)?//[^"]+"')
    assert [(page.name, found) for page in site.rglob("*.html") for found in loads.findall(page.read_text())] == []
    assert "fonts.googleapis" not in "".join(page.read_text() for page in site.rglob("*.css"))


def test_diagrams_are_drawn_and_the_api_is_filled_in(site: Path) -> None:
    assert '<svg id="diagram-' in (site / "index.html").read_text()
    api = (site / "api.html").read_text()
    for name in generated.PUBLIC:
        for public in generated.declared(generated.public_module(name)):
            assert f'id="edge_runtime.{name}.{public}"' in api, public


def test_editors_find_the_schemas(site: Path) -> None:
    assert (site / "station.schema.json").read_text().startswith("{")
    assert "recipe" in (site / "recipe.schema.json").read_text()
