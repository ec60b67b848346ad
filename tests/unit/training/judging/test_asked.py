"""What an engineer writes after `--accept` is read, or refused with what is wrong in it and how it is written right."""

import re

import pytest

from edge_runtime.console import refuse_decimal_commas
from edge_runtime.errors import ConfigError
from training.judging.acceptance import Criteria
from training.judging.asked import parse_accept


@pytest.mark.parametrize(
    ("text", "criteria"),
    [
        ("misses <= 2 %, rejects <= 1 %", Criteria(0.02, 0.01)),
        ("rejects<=1%,misses<=2%", Criteria(0.02, 0.01)),
        ("misses<=2%rejects<=1%", Criteria(0.02, 0.01)),
        ("misses ≤ 2.5 % and rejects ≤ 0.01", Criteria(0.025, 0.01)),
        ("Misses at most 2.5 percent, Rejects: 1 %", Criteria(0.025, 0.01)),
        ("misses 0", Criteria(0.0, 1.0)),
        ("false rejects <= 3 %; false accepts = 0.5 %", Criteria(0.005, 0.03)),
        ("misses <= 2 %, rejects <= 1 %, confidence 95 %", Criteria(0.02, 0.01, 0.95)),
        ("misses <= 2 % at 90 % confidence", Criteria(0.02, 1.0, 0.9)),
        ("missed <= 2 %, confidence 0.9.", Criteria(0.02, 1.0, 0.9)),
    ],
)
def test_what_an_engineer_writes_is_read(text: str, criteria: Criteria) -> None:
    refuse_decimal_commas(["build", "run", "--accept", text])
    found = parse_accept(text)
    assert (found.max_missed, found.max_rejected, found.confidence) == pytest.approx(
        (criteria.max_missed, criteria.max_rejected, criteria.confidence)
    )
    assert parse_accept(found.words) == found, "said back in words that it reads"


@pytest.mark.parametrize(
    ("text", "wrong", "right"),
    [
        ("", "found ''", ["misses <= 2 %, rejects <= 1 %, confidence 95 %"]),
        ("confidence 95 %", "found a confidence alone", ["misses <= 2 %, rejects <= 1 %, confidence 95 %"]),
        # Two numbers, or one with a space in it: which it is the user knows.
        ("misses <= 1, 5 %", "found two, 1 and 5 %", ["misses <= 1.5 %", "misses <= 1 %, rejects <= 5 %"]),
        ("misses <= 1 %, 5 %", "found two, 1 % and 5 %", ["misses <= 1 %, rejects <= 5 %"]),
        ("rejects <= 1, 5 %, misses <= 2 %", "found two, 1 and 5 %", ["rejects <= 1.5 %, misses <= 2 %"]),
        ("rejects <= 1 %, 5 %, misses <= 2 %", "found two, 1 % and 5 %", ["rejects <= 1 %, misses <= 2 %"]),
        ("misses <= 2 %, confidence high", "found 'high'", ["misses <= 2 %, confidence 95 %"]),
        ("2 %", "found 2 % alone", ["misses <= 2 %"]),
        # Decimal commas, as everywhere on the command line.
        ("misses <= 1,5 %", "found 1,5 with a decimal comma", ["misses <= 1.5 %"]),
        ("misses<=1,5%,rejects<=0,5%", "found 1,5 with a decimal comma", ["misses<=1.5%,rejects<=0.5%"]),
        ("rejects <= 1,5", "found 1,5 with a decimal comma", ["rejects <= 1.5 %"]),
        ("0,5 %", "found 0,5 with a decimal comma", ["misses <= 0.5 %"]),
        ("Fehler <= 0,5 %", "found 0,5 with a decimal comma", [None]),
        # Signs of per cent.
        ("misses <= 2", "found 2 without a per cent sign", ["misses <= 2 %"]),
        ("misses <= 2, rejects <= 1", "found 2 without a per cent sign", ["misses <= 2 %, rejects <= 1 %"]),
        ("misses <= 0.5", "found 0.5 without a per cent sign", ["misses <= 0.5 %", "misses <= 50 %"]),
        ("misses <= 2 %%", "found '%'", ["misses <= 2 %"]),
        ("misses <= % 2", "found '%'", ["misses <= 2 %"]),
        # Signs that set no upper limit.
        ("misses < 2 %, rejects <= 1 %", "found <", ["misses <= 2 %, rejects <= 1 %"]),
        ("misses <= 2 %, rejects >= 1 %", "found >=", ["misses <= 2 %, rejects <= 1 %"]),
        # Words.
        ("mises <= 2 %", "found 'mises'", ["misses <= 2 %"]),
        ("losses <= 2 %", "found 'losses'", ["misses <= 2 %"]),
        ("Ausschuss <= 2 %", "found 'ausschuss'", [None]),
        ("misses", "found nothing", ["misses <= 2 %"]),
        ("misses <= nan", "found 'nan'", ["misses <= 2 %"]),
        ("rejects <= two per cent", "found 'two'", ["rejects <= 2 %"]),
        ("misses max 2 %", "found 'max'", ["misses <= 2 %"]),
        # Numbers.
        ("misses <= 200 %", "found 200 %", ["misses <= 2 %"]),
        ("misses <= -2 %", "found -2 %", ["misses <= 2 %"]),
        ("misses <= 0.5.2 %", "found '0.5.2'", ["misses <= 2 %"]),
        ("misses <= 2 %, misses <= 3 %", "found it twice", [None]),
        ("misses <= 2 %, confidence 5 %", "found 5 %", ["misses <= 2 %, confidence 95 %"]),
    ],
)
def test_what_is_wrong_is_named_and_what_is_right_is_shown(text: str, wrong: str, right: list[str | None]) -> None:
    """None: another sentence that is right, whichever."""
    refuse_decimal_commas(["build", "run", "--accept", text])  # the command line leaves it to the one who reads it
    with pytest.raises(ConfigError) as e:
        parse_accept(text)
    said = str(e.value)
    assert said.startswith("accept: expected ") and "\n" not in said and wrong in said
    shown = re.findall("'([^']*)'", said.rpartition("; write ")[2])
    assert len(shown) == len(right)
    for one, expected in zip(shown, right, strict=True):
        assert expected in (None, one)
        parse_accept(one)
