"""What pages say of the code is what the code says: rooms, layers and public names."""

import pytest

from deploy.docs import generated


@pytest.mark.parametrize("page", generated.PAGES)
def test_a_page_says_what_the_code_says(page: str) -> None:
    text = (generated.ROOT / page).read_text()
    assert generated.filled(text) == text, f"write it anew: {generated.REWRITE}"


@pytest.mark.parametrize("name", generated.PUBLIC)
def test_every_public_name_is_explained(name: str) -> None:
    module = generated.ROOT / "edge_runtime" / f"{name}.py"
    said = generated.documented(module)
    assert [n for n in generated.declared(module) if not said[n]] == []
