"""The recipe that the PLC asks for is prepared in a thread of its own: models take seconds to warm, and the handshake must go on."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from edge_runtime.errors import ConfigError, LinesideError
from edge_runtime.handoff import Helper

_log = logging.getLogger(__name__)
_CLOSE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """What came of it."""

    recipe: str
    problem: str | None
    """Why it cannot be had; None when it can."""


class RecipeChange:
    """Keeps the last recipe that was asked for until the station runs, then has it prepared."""

    def __init__(self, answer: Callable[[Prepared], None]) -> None:
        """`answer` is called in the thread that prepares."""
        self._answer = answer
        self._helper: Helper[str, None] | None = None
        self._asked: str | None = None
        self.prepare: Callable[[str], None] = _no_recipes
        """Raises LinesideError for a recipe that cannot be had."""

    def open(self) -> None:
        """Start the thread."""
        self._helper = Helper(self._prepare_one, "recipe")

    def close(self) -> None:
        """A model that hangs is left behind."""
        if self._helper is not None:
            self._helper.close(_CLOSE_TIMEOUT_S)

    def ask(self, recipe: str | None) -> None:
        """None asks for nothing: what was asked for before stands."""
        self._asked = self._asked if recipe is None else recipe

    def begin(self) -> None:
        """Have what was asked for prepared."""
        if self._asked is not None and self._helper is not None:
            self._helper.call(self._asked)
            self._asked = None

    def _prepare_one(self, recipe: str) -> None:
        problem = None
        try:
            self.prepare(recipe)
        except LinesideError as e:
            problem = str(e)
        except Exception as e:  # a bug: the PLC must not wait for `ready` for ever
            _log.exception("recipe %s", recipe)
            problem = f"internal error: {e}"
        if problem is not None:
            _log.warning("recipe %s: %s", recipe, problem)
        self._answer(Prepared(recipe, problem))


def _no_recipes(recipe: str) -> None:
    if recipe:
        raise ConfigError(f"expected a recipe of this station, found {recipe}: it has only its own")
