"""Whether pictures that are judged are compressed as those that were taught: a detector sees what compression takes away.

Why: deploy/decisions/0062.
"""

from edge_runtime.model.manifest import Dataset

_MOST, _FEW = 0.9, 0.1
"""Shares of taught files from which on, and up to which, they count as of one kind."""


def lossy_taught(dataset: Dataset) -> bool | None:
    """Whether (nearly) all that was taught was compressed with loss; None where it was mixed, or nobody looked."""
    if dataset.n_lossy is None or not dataset.n_good:
        return None
    share = dataset.n_lossy / dataset.n_good
    return True if share >= _MOST else False if share <= _FEW else None


def say_lossy(dataset: Dataset) -> str | None:
    """A note where what was taught was compressed with loss, without a full stop."""
    if not lossy_taught(dataset):
        return None
    return (
        f"taught on {dataset.n_lossy} {_files(dataset)}: frames of a camera that compresses nothing show more fine detail and other tints,"
        " so good parts may be rejected there; if the station's camera gives raw frames, teach on .png or .bmp as that camera saves them,"
        " or at least learn other tints of what is in colour (tint=4 beside what --augment has)"
    )


def say_unlike(dataset: Dataset, lossy: bool | None) -> str | None:
    """A warning where a source delivers the other kind. `lossy`: of the source (edge_runtime.protocols.Source); None: not known."""
    taught = lossy_taught(dataset)
    if taught is None or lossy is None or taught == lossy:
        return None
    if taught:
        return (
            f"the bundle was taught on {dataset.n_lossy} {_files(dataset)}, and these pictures are not compressed: they show more fine"
            " detail and other tints, so good parts may be rejected; teach on .png or .bmp as this camera saves them"
        )
    return (
        "the bundle was taught on files that lose nothing, and these pictures are compressed (JPEG or the like): fine defects may be missed"
        " and good parts rejected; let the camera send raw frames, or teach on pictures of this very source"
    )


def say_measured(dataset: Dataset) -> str:
    """A clause on what an envelope comes to, where its pictures were compressed before they were distorted; else empty."""
    if not lossy_taught(dataset):
        return ""
    return "measured on pictures that were compressed already: light that changes before a camera compresses them may do more"


def _files(dataset: Dataset) -> str:
    return f"JPEG files (quality about {dataset.quality})" if dataset.quality else "files that are compressed with loss"
