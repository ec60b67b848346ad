"""What a user may choose of a build."""

from dataclasses import dataclass

from export.build import parity
from export.build.accept import Asked

TORCH_IMAGES = 32
"""Images on which the FP32 graph is compared with torch, from the least to the most odd one: the conversion is right or wrong whatever the
picture, and torch takes five times as long as the graph."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """See the fields."""

    precision: str = "auto"
    """int8, fp32, or auto: the first of INT8, INT8 with some layers in float, and FP32 that the gate passes."""
    onnx: bool = False
    zipped: bool = False
    band: float = parity.DEFAULT_BAND
    budget: float = parity.DEFAULT_BUDGET
    force: bool = False
    accept: Asked | None = None
    """Judge whether it is fit for release; None: nobody asks."""
    torch_images: int = TORCH_IMAGES
    """Compare the FP32 graph with torch on this many images; where there are more, the manifest has no figures of torch's."""
    envelope: bool = True
    """Measure how far the line may stray."""
