"""The glossary's words are in use, and each stands there once, with one meaning."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.docs.generated import PACKAGES, ROOT

ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", (ROOT / "deploy" / "developing" / "glossary.md").read_text(), re.MULTILINE)[1:]
WORDS = [word for word, _ in ROWS]


def sources() -> Iterator[Path]:
    yield ROOT / "README.md"
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


@pytest.fixture(scope="module")
def text() -> str:
    """Names as words: `false_reject_rate` and `ScoreMap` are uses, too."""
    joined = "\n".join(path.read_text() for path in sources())
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]", " ", joined).lower()


@pytest.mark.parametrize("word", WORDS)
def test_a_word_of_the_glossary_is_in_use(word: str, text: str) -> None:
    assert re.search(rf"\b{re.escape(word.lower().replace('-', ' '))}(s|es)?\b", text)


def test_a_word_has_one_meaning_and_its_place_in_the_alphabet() -> None:
    assert len(WORDS) >= 25
    assert [word.lower() for word in WORDS] == sorted({word.lower() for word in WORDS})
    assert all(meaning.endswith((".", ").")) and 3 <= len(meaning.split()) <= 30 for _, meaning in ROWS)
