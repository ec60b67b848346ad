"""Which of some images a detector was taught on, whatever they are called here."""

from collections.abc import Sequence

from edge_runtime.model.bundle import file_sha256
from edge_runtime.model.manifest import SHORT_SHA256, Dataset
from training.data.layout import Sample


def unlearnt(samples: Sequence[Sample], taught: Dataset) -> tuple[Sample, ...]:
    """Without the bad images that the detector learnt from: what it says of them tells nothing."""
    known = set(taught.bad_sha256)
    return tuple(s for s in samples if s.is_good or file_sha256(s.path) not in known) if known else tuple(samples)


def taught_on(samples: Sequence[Sample], taught: Dataset) -> list[Sample]:
    """The samples that are good images of the training set, whatever they are called here."""
    known = set(taught.good_sha256)
    return [s for s in samples if file_sha256(s.path)[:SHORT_SHA256] in known] if known else []
