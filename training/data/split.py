"""A split of our own, where good and bad images come without one: which good images are held back to test with."""

from collections.abc import Sequence
from pathlib import Path

from training.data.duplicates import find_pairs
from training.data.facts import Facts, facts_of
from training.data.layout import TEST_EVERY


def hold_back(good: Sequence[Path]) -> frozenset[Path]:
    """A fifth of the good images, chosen by what they show and not by their names; none of fewer than five.

    Pictures that are nearly the same stay together, so that no test image is a copy of a training image.
    """
    facts = [(p, f) for p, f in zip(good, facts_of(good), strict=True) if isinstance(f, Facts)]
    wanted = len(facts) // TEST_EVERY
    group = list(range(len(facts)))

    def head(i: int) -> int:
        while group[i] != i:
            i = group[i]
        return i

    for first, second, _ in find_pairs([p for p, _ in facts], [f for _, f in facts]):
        group[head(second)] = head(first)
    members: dict[int, list[int]] = {}
    for i in range(len(facts)):
        members.setdefault(head(i), []).append(i)
    held: list[Path] = []
    for its in sorted(members.values(), key=lambda m: min(facts[i][1].sha256 for i in m)):
        if len(held) + len(its) <= wanted:
            held += [facts[i][0] for i in its]
    return frozenset(held)
