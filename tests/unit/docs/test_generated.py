"""What pages say of the code is what the code says: rooms, layers and public names."""

from pathlib import Path

import pytest

from deploy.docs import generated

COMMANDS = "deploy/reference/commands.md"  # imports all that teaches


@pytest.mark.parametrize("page", [pytest.param(p, marks=pytest.mark.slow) if p == COMMANDS else p for p in generated.PAGES])
def test_a_page_says_what_the_code_says(page: str) -> None:
    text = (generated.ROOT / page).read_text()
    assert generated.filled(text) == text, f"write it anew: {generated.REWRITE}"


@pytest.mark.parametrize("name", generated.PUBLIC)
def test_every_public_name_is_explained(name: str) -> None:
    module = generated.public_module(name)
    said = generated.explained(module)
    assert [n for n in generated.declared(module) if not said[n]] == []


def test_every_decision_in_force_is_named_where_it_is_followed() -> None:
    in_force = [d for d in map(generated.decision, generated.DECISIONS.glob("0*.md")) if d.status == "accepted"]
    assert [d.page.name for d in in_force if d.number not in generated.followers()] == []


def test_a_decision_that_another_replaces_exists_beside_it() -> None:
    every = [generated.decision(page) for page in generated.DECISIONS.glob("0*.md")]
    replaced_by = {int(d.status.split()[-1]) for d in every if d.status != "accepted"}
    assert replaced_by <= {d.number for d in every}


def test_a_decision_without_status_or_with_another_number_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "0007-a-title.md"
    for text in ("# 7. A title\n\n**Context.**", "# 8. A title\n\nAccepted 2026-11-21.\n", "# A title\n\nAccepted 2026-11-21.\n"):
        page.write_text(text)
        with pytest.raises(ValueError, match="expected at its top"):
            generated.decision(page)
    page.write_text("# 7. A title\n\nAccepted 2026-11-21, superseded by 9 on 2026-12-01.\n")
    assert generated.decision(page) == generated.Decision(page, 7, "A title", "superseded by 9", "2026-12-01")
