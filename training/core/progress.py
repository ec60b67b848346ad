"""How work that takes a while says how far it is; without torch, for whatever comes before that is loaded."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


def silent(what: str, done: int, total: int) -> None:
    """A Progress that says nothing."""
