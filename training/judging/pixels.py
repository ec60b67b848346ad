"""Pixel AUROC and AUPRO over any number of pixels in constant memory: histograms over an order-preserving view of float32.

The upper 20 bits of a float32 (sign, exponent, 11 bits of mantissa) keep its order, so that 2^20 bins resolve every score to 0.05 %
whatever its range. Scores in one bin count as ties, with half weight, as in the usual rank statistic.
"""

import cv2
import numpy as np
import numpy.typing as npt

BITS = 20
FPR_LIMIT = 0.3
_PENDING = 4_000_000  # pixels gathered before they are counted: counting walks all bins


def bins_of(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Bin of each value; a larger value never has a smaller bin."""
    raw = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    # Negative floats sort backwards by their bits: flip all of them; non-negative ones only get above those.
    ordered = np.where(raw >> 31 == 1, ~raw, raw | np.uint32(1 << 31))
    return (ordered >> (32 - BITS)).astype(np.int32)


class PixelCounts:
    """Counts pixels of good and of defective places by score, image after image."""

    def __init__(self) -> None:
        self.regions = 0
        """Connected defects seen."""
        self._good = np.zeros(1 << BITS, dtype=np.int64)
        self._bad = np.zeros(1 << BITS, dtype=np.int64)
        self._share = np.zeros(1 << BITS, dtype=np.float64)
        self._pending: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float64]]] = []
        self._waiting = 0

    def add(self, scores: npt.NDArray[np.float32], regions: npt.NDArray[np.int32], counted: npt.NDArray[np.bool_]) -> None:
        """One image.

        Args:
            scores: (H, W) raw.
            regions: (H, W) 0 where good, 1.. the number of the connected defect; see `label_regions`.
            counted: (H, W) False where pixels are ignored; the defects must lie inside.
        """
        bins = bins_of(scores)
        bad = regions > 0
        sizes = np.bincount(regions.ravel())
        labels = regions[bad]
        # Each region weighs 1 in the end, so each of its pixels 1 / size (Bergmann et al. 2021, section 5.1).
        self._pending.append((bins[counted & ~bad], bins[bad], 1.0 / sizes[labels]))
        self.regions += int((sizes[1:] > 0).sum())
        self._waiting += bins.size
        if self._waiting >= _PENDING:
            self._flush()

    def auroc(self) -> float | None:
        """Area under the ROC curve over all pixels; None without good or without defective pixels."""
        self._flush()
        n_good, n_bad = int(self._good.sum()), int(self._bad.sum())
        if not n_good or not n_bad:
            return None
        below = np.cumsum(self._good) - self._good
        return float(np.sum(self._bad * (below + self._good / 2)) / n_good / n_bad)

    def aupro(self, limit: float = FPR_LIMIT) -> float | None:
        """Area under the per-region overlap against the false-positive rate, up to `limit`, divided by it (Bergmann et al. 2021,
        "The MVTec Anomaly Detection Dataset", section 5.1). None without defects or without good pixels."""
        self._flush()
        n_good = int(self._good.sum())
        if not n_good or not self.regions:
            return None
        used = np.flatnonzero((self._good > 0) | (self._share > 0))[::-1]
        fpr = np.concatenate([[0.0], np.cumsum(self._good[used]) / n_good])
        overlap = np.concatenate([[0.0], np.cumsum(self._share[used]) / self.regions])
        inside = int(np.searchsorted(fpr, limit, side="right"))
        at_limit = float(np.interp(limit, fpr[inside - 1 : inside + 1], overlap[inside - 1 : inside + 1]))
        x, y = np.append(fpr[:inside], limit), np.append(overlap[:inside], at_limit)
        return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / limit)

    def histograms(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """(2^BITS,) by bin: good pixels, defective ones, and these weighted so that each region weighs 1."""
        self._flush()
        return self._good, self._bad, self._share

    def _flush(self) -> None:
        if not self._pending:
            return
        good, bad, weight = (np.concatenate(parts) for parts in zip(*self._pending, strict=True))
        self._good += np.bincount(good, minlength=1 << BITS)
        self._bad += np.bincount(bad, minlength=1 << BITS)
        self._share += np.bincount(bad, weights=weight, minlength=1 << BITS)
        self._pending.clear()
        self._waiting = 0


def label_regions(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """(H, W) bool -> number of the connected defect (corners connect) at each pixel, 0 where there is none.

    >>> label_regions(np.array([[1, 0, 0, 1], [0, 1, 0, 0]], bool)).tolist()
    [[1, 0, 0, 2], [0, 1, 0, 0]]
    """
    return np.asarray(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1], dtype=np.int32)
