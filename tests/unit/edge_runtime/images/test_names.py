"""One table of suffixes and words for the whole house."""

from pathlib import Path

import pytest

from edge_runtime.images.names import NOT_READ, SUFFIXES, WORDS, is_image, is_unsettled, known_words, plain, says_good


@pytest.mark.parametrize(
    "word", ["PASS", "Ok ", "good", "i.O.", "Gutteil", "in Ordnung", "non-defective", "no_defect", "01_good", "OK images",
             "ＯＫ", "良品", "합격",
             "conforme", "buono", "aprobado", "sağlam", "Годен"]
)  # fmt: skip
def test_good_is_known_however_it_is_written(word: str) -> None:
    assert says_good(word) is True


@pytest.mark.parametrize(
    "word", ["FAIL", " NG ", "n.i.O.", "nicht i.O.", "Ausschuß", "Not-OK",
             "NG_parts", "2 bad", "defective", "不良", "不合格", "불량", "défectueux",
             "difettoso", "wadliwy", "zły", "hatalı"]
)  # fmt: skip
def test_bad_is_known_however_it_is_written(word: str) -> None:
    assert says_good(word) is False


@pytest.mark.parametrize(
    "word", ["nicht_ok", "n. i. O.", "not a good part", "n OK", "!good", "≠OK", "incorrect", "no bueno", "pas bon", "non buono", "não bom",
             "niet goed", "nie dobry", "není dobrý", "nem jó", "inte bra", "iyi değil", "не годен", "不好", "非良品", "day2_NG"]
)  # fmt: skip
def test_a_word_for_good_that_is_denied_is_bad(word: str) -> None:
    assert says_good(word) is False


@pytest.mark.parametrize(
    "word", ["no_damage", "not NG", "defect-free", "kein Fehler", "mängelfrei", "sans défaut", "sin_defecto", "senza danni", "sem defeito",
             "zonder fout", "bez wad", "utan fel", "felfri", "hatasız", "без дефектов", "无缺陷", "欠陥なし", "결함 없음"]
)  # fmt: skip
def test_a_word_for_bad_that_is_denied_is_good(word: str) -> None:
    assert says_good(word) is True


@pytest.mark.parametrize("word", ["-OK", "+OK", "OK?", "- good"])
def test_a_sign_that_may_mean_not_leaves_it_open(word: str) -> None:
    assert says_good(word) is None and is_unsettled(word)


@pytest.mark.parametrize("word", ["scratch", "", "no", "No 12 OK", "in good", "7", "goodness", "train", "broken_large", "brand", "gutter"])
def test_other_words_say_neither(word: str) -> None:
    assert says_good(word) is None


def test_no_word_is_good_in_one_language_and_bad_in_another() -> None:
    good, bad = ({plain(w) for pair in WORDS.values() for w in pair[i].split()} for i in (0, 1))
    assert not good & bad


def test_the_words_that_a_message_shows_are_few_and_say_where_the_others_stand() -> None:
    assert known_words().startswith("good, ok, okay") and "edge_runtime/images/names.py" in known_words() and len(known_words()) < 260


def test_words_that_leave_it_open_are_no_kinds() -> None:
    assert all(is_unsettled(w) for w in ("unknown", "?", "Un-labeled", "n/a", "negative")) and not is_unsettled("scratch")
    assert all(says_good(w) is None for w in ("unknown", "?", "positive"))


def test_what_is_read_and_what_is_not_are_apart() -> None:
    assert not SUFFIXES & NOT_READ
    assert is_image(Path("A.JPG")) and is_image(Path("a.jp2")) and not is_image(Path(".a.png")) and not is_image(Path("a.gif"))
