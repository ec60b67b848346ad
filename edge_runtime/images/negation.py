"""Words that turn the word beside them around: nicht ok, no damage, defect-free, 非良品, 欠陥なし.

Why: deploy/decisions/0033.
"""

from collections.abc import Callable

SIGNS = "!≠¬"
"""Before a word, without a blank."""
BEFORE: dict[str, str] = {
    "English": "not non no without never zero cannot didnt doesnt isnt wasnt",
    "German": "nicht kein keine keinen keiner nie ohne",
    "French": "non pas sans aucun aucune",
    "Spanish": "no sin ningún ninguna",
    "Italian": "non senza nessun nessuna nessuno",
    "Portuguese": "não sem nenhum nenhuma",
    "Dutch": "niet geen zonder",
    "Polish": "nie bez",
    "Czech": "ne není bez žádná žádné",
    "Hungarian": "nem nincs",
    "Swedish": "inte ej icke ingen inga utan",
    "Turkish": "olmayan",
    "Russian": "не нет без",
    "Chinese": "不 非 无 無 没有 沒有 未",
    "Japanese": "不 非 無 未",
    "Korean": "비 불 무 미",
}
"""Before the word that they turn, by language; joined to it or apart."""
AFTER: dict[str, str] = {
    "English": "free less",
    "German": "frei los",
    "Swedish": "fri",
    "Turkish": "değil yok",
    "Hungarian": "nélkül mentes",
    "Japanese": "なし 無し 無 ない ではない でない",
    "Korean": "없음 아님",
}
"""Behind it."""
JOINED = "n un in im dis"
"""Only joined, and only to a word for good: incorrect; n apart, too (n. OK), since the others are words that mean something else."""
FILLERS = "a an the is be der die das ein eine un une el la il lo"
"""Between the two: not a good part."""


class Negations:
    """The words above in one spelling."""

    def __init__(self, plain: Callable[[str], str], known: Callable[[str], bool | None]) -> None:
        """`plain`: writes a word without what people write differently. `known`: what a plain word says, None where it says nothing."""
        self._before, self._after = (
            sorted({plain(w) for words in side.values() for w in words.split()}, key=len, reverse=True) for side in (BEFORE, AFTER)
        )
        self._known = known
        self._plain = plain

    def is_one(self, word: str) -> bool:
        """Whether it turns the word behind it."""
        return self._plain(word) in self._before

    def turned(self, text: str, apart: bool = False) -> bool | None:
        """What a plain word says that is joined of a negation and a known word; None where it is not.

        `apart`: they were written as several words.
        """
        rests = [text.removeprefix(w) for w in self._before if text.startswith(w)]
        rests += [text.removesuffix(w) for w in self._after if text.endswith(w)]
        said = next((s for rest in rests if (s := self._known(rest)) is not None), None)
        if said is not None:
            return not said
        joined = ["n"] if apart else JOINED.split()
        return False if any(text.startswith(w) and self._known(text.removeprefix(w)) for w in joined) else None
