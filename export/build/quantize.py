"""FP32 backbone -> INT8 backbone: NNCF's post-training quantization on images of good parts. The head is never quantized."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import openvino as ov

from edge_runtime.errors import DataError, ExportError
from export.build.quiet import quiet
from training.core.base import Progress, silent

CALIBRATION_IMAGES = 100
"""Up to this many: ranges are whole minima and maxima, so each image may widen them. PaDiM on lite0 at 256 px, magnetic tiles, two draws
each: image AUROC 0.978 from 300, 100 and 32 images alike, in 24, 11 and 7 s of CPU."""
CALIBRATION_TILES = 300
"""The same where a picture is a tile, which shows little of its part: of 8 images in 108 tiles, three small defects lay at 0.97 to 1.10 of
the threshold with ranges from 100 tiles, at 1.05 to 1.27 from 300."""


def pick_images(count: int, seed: int, limit: int = CALIBRATION_IMAGES) -> npt.NDArray[np.intp]:
    """Positions of up to `limit` of `count` images: sorted, and the same for the same seed."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])


def quantize_backbone(
    backbone: ov.Model,
    images: npt.NDArray[np.uint8],
    picks: Sequence[int] | npt.NDArray[np.intp],
    progress: Progress = silent,
    floats: Sequence[str] = (),
) -> ov.Model:
    """INT8 copy of `backbone`, its activation ranges taken from `images[picks]`.

    Args:
        backbone: FP32, uint8 (1, H, W, 3) in.
        images: (N, H, W, 3) uint8 model inputs of good parts; may be a memory map.
        picks: which of them to use.
        floats: friendly names of convolutions of `backbone` that stay float.
        progress: called once an image; the correction of biases that follows takes a few seconds more.

    Raises:
        DataError: no images.
        ExportError: NNCF failed.
    """
    if len(picks) == 0:
        raise DataError("quantization: expected images of good parts, found none")
    with quiet():
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        def walk() -> Iterator[npt.NDArray[np.uint8]]:
            for done, i in enumerate(picks, 1):
                yield np.ascontiguousarray(images[i][None])
                progress("quantizing", done, len(picks))
            progress("quantizing: correcting biases", 0, 1)

        class Once:
            """NNCF asks for an iterable; a generator would be empty the second time."""

            def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
                return walk()

        try:
            return nncf.quantize(
                backbone.clone(),
                nncf.Dataset(Once()),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(picks),
                ignored_scope=nncf.IgnoredScope(names=list(floats)),
                advanced_parameters=AdvancedQuantizationParameters(
                    # The ranges of good parts, whole: NNCF's default clips what is rare, and rare large activations are just what defects
                    # make. PaDiM on lite0 at 256 px, magnetic tiles: image AUROC 0.971 against 0.944 with the default (FP32 0.971).
                    activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                    # CPUs without VNNI add products of 8 bits in 16 bits and saturate: a lite0's features then moved by a third of
                    # their norm. With weights of 7 bits in every layer (NNCF's default is the first only) AVX2 and VNNI agree to the
                    # bit, as fast.
                    overflow_fix=OverflowFix.ENABLE,
                ),
            )
        except Exception as e:  # NNCF raises its own and OpenVINO's kinds; all of it means that this graph cannot be quantized
            raise ExportError(
                f"quantization failed ({type(e).__name__}: {(str(e).strip().splitlines() or ['no message'])[0][:160]}); "
                "build with --precision fp32 instead"
            ) from e
