"""What the control socket answers to those who may change what judges: bundles, thresholds, recipe files."""

from pathlib import Path
from typing import Annotated, Any

import msgspec

from edge_runtime.credentials import Role
from edge_runtime.station.control import Caller, Verb
from edge_runtime.station.deployments import Deployments, Wish

_Word = Annotated[str, msgspec.Meta(max_length=64)]


class Place(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which recipe of which camera."""

    recipe: _Word = ""
    """Its key in [recipes]; empty for the recipe of triggers that name none."""
    camera: _Word = ""
    """Its name; empty for the only one."""


class Deploy(Place, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which bundle is to judge or to look on, by a path of the station's machine."""

    bundle: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    shadow: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    """It only looks on, at every so many-th part; 0: it judges."""


class Rollback(Place, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Back to what was in effect before."""

    shadow: bool = False
    """Only have the shadow look on no longer."""


class Tune(Place, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By which threshold on the score is to be judged."""

    threshold: float


class Engineering:
    """The handlers, with what they need."""

    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments

    def verbs(self) -> list[Verb[Any]]:
        """What they answer on the control socket."""
        return [
            Verb("deploy", Role.DEPLOY, Deploy, self._deploy, slow=True),
            Verb("promote", Role.DEPLOY, Place, self._promote, slow=True),
            Verb("rollback", Role.DEPLOY, Rollback, self._rollback, slow=True),
            Verb("tune", Role.ENGINEER, Tune, self._tune, slow=True),
            Verb("reload", Role.ENGINEER, Place, self._reload, slow=True),
        ]

    def _deploy(self, asked: Deploy, caller: Caller) -> dict[str, str]:
        return _done(self._deployments.deploy(Path(asked.bundle), _wish(asked, caller), asked.shadow))

    def _promote(self, asked: Place, caller: Caller) -> dict[str, str]:
        return _done(self._deployments.promote(_wish(asked, caller)))

    def _rollback(self, asked: Rollback, caller: Caller) -> dict[str, str]:
        wish = _wish(asked, caller)
        return _done(self._deployments.end_shadow(wish) if asked.shadow else self._deployments.rollback(wish))

    def _tune(self, asked: Tune, caller: Caller) -> dict[str, str]:
        return _done(self._deployments.tune(asked.threshold, _wish(asked, caller)))

    def _reload(self, asked: Place, caller: Caller) -> dict[str, str]:
        return _done(self._deployments.reload(_wish(asked, caller)))


def _wish(place: Place, caller: Caller) -> Wish:
    who = f"{caller.person} ({caller.name})" if caller.person else caller.name
    return Wish(who, caller.why, place.recipe, place.camera)


def _done(sentence: str) -> dict[str, str]:
    return {"done": sentence}
