"""What judges at a station where it is not what its recipe files say: which bundle and threshold, by whom, since when, what before.

One file in the folder of deployed bundles, replaced as a whole: a kill at any moment leaves the old or the new one. A recipe file that was
changed afterwards, by hand, wins.

Why: deploy/decisions/0051.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from edge_runtime.config.files import Recipe
from edge_runtime.errors import ConfigError, SinkError
from edge_runtime.files import put_file, read_whole
from edge_runtime.model.bundle import id_of
from edge_runtime.words import one_line

FILE = "in_effect.json"
FROM_FILE = "recipe file"
"""The origin of what nobody has changed while the station ran."""
Kind = Literal["deploy", "promote", "rollback", "tune", "reload", "file"]
_DONE: dict[Kind, str] = {
    "deploy": "deployed", "promote": "promoted", "rollback": "rolled back", "tune": "tuned", "reload": "recipe file, read again",
    "file": "recipe file, changed by hand after something else was deployed; it wins",
}  # fmt: skip


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common to all below."""


class Judges(_Record, frozen=True, kw_only=True):
    """A model with what it decides by."""

    bundle: str
    """The bundle's id."""
    threshold: float | None = None
    """None: the bundle's own."""


class Said(_Record, frozen=True, kw_only=True):
    """What a recipe file says, as far as it can be replaced while the station runs."""

    path: str
    threshold: float | None
    bundle: str
    """The id of what lay at `path`; empty where it could not be read."""

    def same(self, other: "Said") -> bool:
        """Whether nobody has changed it. A bundle that cannot be read (any more) was not replaced by another."""
        return (self.path, self.threshold) == (other.path, other.threshold) and (
            self.bundle == other.bundle or not (self.bundle and other.bundle)
        )


class Change(_Record, frozen=True, kw_only=True):
    """Who did it, and why."""

    kind: Kind
    who: str
    why: str
    at: str
    """ISO 8601, UTC."""

    @property
    def origin(self) -> str:
        """For people."""
        if self.kind == "file":
            return _DONE[self.kind]
        return f"{_DONE[self.kind]} {self.at[:16].replace('T', ' ')} by {self.who}: {self.why}"


class OnTrial(_Record, frozen=True, kw_only=True):
    """A bundle that looks on."""

    bundle: str
    every: int
    """It scores every so many-th judged part."""
    change: Change


class Chosen(_Record, frozen=True, kw_only=True):
    """What holds for one recipe of one camera."""

    camera: str
    recipe: str
    """Its key in [recipes]; empty for the recipe of triggers that name none."""
    now: Judges
    change: Change | None = None
    """None: only a shadow was begun."""
    before: Judges | None = None
    file: Said
    """When that was chosen."""
    shadow: OnTrial | None = None

    @property
    def bundles(self) -> set[str]:
        """Ids of what must stay in the store."""
        return {self.now.bundle} | ({self.before.bundle} if self.before else set()) | ({self.shadow.bundle} if self.shadow else set())


class _File(_Record, frozen=True, kw_only=True):
    schema: int = 1
    chosen: tuple[Chosen, ...] = ()


InEffect = dict[tuple[str, str], Chosen]
"""By the camera's name and the recipe's key; what is not there is as its recipe file says."""


def said_by(recipe: Recipe) -> Said:
    """What a recipe, as its file has it, says now."""
    return Said(path=str(recipe.bundle), threshold=recipe.threshold, bundle=id_of(recipe.bundle))


def change(kind: Kind, who: str, why: str) -> Change:
    """Now. Raises ConfigError for an empty name or reason, or one that is no single line."""
    return Change(kind=kind, who=one_line("--as", who), why=one_line("--why", why), at=datetime.now(UTC).isoformat(timespec="milliseconds"))


def read(store: Path) -> InEffect:
    """What was chosen. Raises ConfigError for a file that cannot be understood."""
    path = store / FILE
    try:
        found = msgspec.json.decode(read_whole(path), type=_File)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise ConfigError(
            f"{path}: expected what is in effect at this station, cannot be read: {e}; without this file it runs what its recipe files say"
        ) from e
    return {(one.camera, one.recipe): one for one in found.chosen}


def write(store: Path, chosen: InEffect) -> None:
    """Replace the file; the disk has it when this returns. Raises SinkError."""
    path = store / FILE
    try:
        store.mkdir(parents=True, exist_ok=True)
        put_file(path, msgspec.json.format(msgspec.json.encode(_File(chosen=tuple(chosen.values()))), indent=2) + b"\n")
    except OSError as e:
        raise SinkError(f"{path}: what is in effect could not be written down: {e.strerror}; nothing was changed") from e


def resolved(recipe: Recipe, chosen: Chosen | None, store: Path) -> tuple[Recipe, str, bool]:
    """(what is in effect, where it comes from, whether the recipe file was changed by hand since).

    `recipe`: as its file has it. The first is the recipe with another bundle, a copy in `store`, and threshold where so chosen.
    """
    if chosen is None or chosen.change is None:
        return recipe, FROM_FILE, False
    said = said_by(recipe)
    if not said.same(chosen.file):
        return recipe, _DONE["file"], True
    if chosen.now == Judges(bundle=said.bundle, threshold=said.threshold):
        return recipe, chosen.change.origin, False
    return msgspec.structs.replace(recipe, bundle=store / chosen.now.bundle, threshold=chosen.now.threshold), chosen.change.origin, False
