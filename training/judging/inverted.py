"""Whether bad parts score lower than good ones, which no detector does that was taught on good ones: the labels are the wrong way round."""

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu

CHANCE = 0.005
"""That a set whose labels are right, and that tells the detector nothing, is questioned. Three good and three bad images can't be."""


def say_inverted(good: npt.NDArray[np.float64], bad: npt.NDArray[np.float64]) -> str | None:
    """A sentence where the AUROC is surely below 0.5; None else.

    The rank-sum test (Mann and Whitney 1947) that the AUROC is 0.5 or more, exact for few images: refused, so is every AUROC from 0.5 up.
    """
    if not (len(good) and len(bad)):
        return None
    found = mannwhitneyu(bad, good, alternative="less")
    if not found.pvalue < CHANCE:
        return None
    auroc = found.statistic / (len(good) * len(bad))
    return (
        f"bad images score lower than good ones (image AUROC {auroc:.2f}, surely below 0.5): are good and bad swapped among these images,"
        " or were bad parts taught as good?"
    )
