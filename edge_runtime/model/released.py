"""Whether what judges here was found fit for release: from a bundle's acceptance and the recipe that it runs under. Pure."""

from collections.abc import Iterable, Sequence

from edge_runtime.config.files import Recipe
from edge_runtime.errors import BundleError
from edge_runtime.model.manifest import Manifest
from edge_runtime.records import Release, ReleaseState

JobKey = tuple[str, str]
"""A recipe's name and the id of its bundle, as every view repeats them."""


def release_of(manifest: Manifest, recipe: Recipe) -> ReleaseState:
    """A verdict holds for the very threshold that it was found at: a recipe that judges otherwise was not assessed."""
    found = manifest.acceptance
    if found is None:
        return ReleaseState(Release.UNKNOWN, "nobody asked when the bundle was built")
    why = found.why
    if found.state == "failed":
        return ReleaseState(Release.REFUSED, f"{why}{'; built all the same, by --force' if found.forced else ''}")
    if found.state == "passed":
        stated = manifest.threshold.value
        if recipe.threshold is not None and recipe.threshold != stated:
            return ReleaseState(
                Release.UNKNOWN,
                f"the recipe's threshold is {recipe.threshold:.4g}, the bundle was judged at {stated:.4g}: {why}",
            )
        if recipe.min_defect_px:
            differs = f"the recipe accepts places below {recipe.min_defect_px} px, which the bundle was not judged with: {why}"
            return ReleaseState(Release.UNKNOWN, differs)
        return ReleaseState(Release.RELEASED, why)
    return ReleaseState(Release.UNKNOWN, why)


def worst(states: Iterable[ReleaseState]) -> ReleaseState:
    """The state of several cameras or recipes together: one that is not released speaks for all."""
    rank = (Release.REFUSED, Release.UNKNOWN, Release.RELEASED)
    return min(states, key=lambda state: rank.index(state.word))


def check_release(state: ReleaseState, required: bool) -> None:
    """Raises BundleError at a station with `require_release` for what is not released."""
    if required and state.word is not Release.RELEASED:
        raise BundleError(
            f"require_release: this station runs only what was found fit for release, found one that is {state.word}: {state.why}."
            " Build one that passes (lineside-export build --accept)"
        )


def by_job(jobs: Sequence[tuple[Manifest, str, Recipe]]) -> dict[JobKey, ReleaseState]:
    """The release state of each (manifest, bundle's id, recipe), by recipe and bundle."""
    found: dict[JobKey, ReleaseState] = {}
    for manifest, bundle_id, recipe in jobs:
        key, state = (recipe.name, bundle_id), release_of(manifest, recipe)
        found[key] = worst([state, found[key]]) if key in found else state
    return found
