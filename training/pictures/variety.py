"""Pictures unlike any good part, made out of good parts: what a teacher must have seen before it can say something of a defect.

A network that repeats a backbone's features on good images alone goes on repeating nothing in particular where a defect lies, and so does
its student: the two agree, and the defect is missed. Magnetic tiles, four minutes on one core: image AUROC of the student's map 0.50 after
a teacher that had seen good images only, 0.58 after one that had seen these (0.70 after fourteen minutes).
"""

import cv2
import numpy as np
import numpy.typing as npt

from training.core.learn import Distort
from training.pictures.defects import PAINTERS, Scene

_DRAWN = 0.25
"""Share of pictures that show no part at all."""
_GRAY = 0.7
"""Share of these without colour."""

Field = npt.NDArray[np.float32]


def varied(images: npt.NDArray[np.uint8], rows: npt.NDArray[np.intp]) -> Distort:
    """A distortion that leaves little as it is: cut, turned, enlarged, with up to three painted defects, inverted, under another light.

    `images`: (N, H, W, 3) uint8 BGR, possibly a memory map; `rows`: which of them may be mixed in.
    """
    painters = list(PAINTERS.values())

    def distort(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        h, w = image.shape[:2]
        x = drawn(h, w, rng) if rng.random() < _DRAWN else image.astype(np.float32)
        if rng.random() < 0.7:
            centre = (w / 2 + rng.uniform(-w / 4, w / 4), h / 2 + rng.uniform(-h / 4, h / 4))
            matrix = cv2.getRotationMatrix2D(centre, rng.uniform(-180, 180), float(np.exp(rng.uniform(np.log(0.6), np.log(3)))))
            x = np.asarray(cv2.warpAffine(x, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101), dtype=np.float32)
        if rng.random() < 0.5:
            other = np.asarray(images[rows[rng.integers(len(rows))]], dtype=np.float32)
            for _ in range(int(rng.integers(1, 4))):
                scene = Scene(x, (float(rng.uniform(0, w)), float(rng.uniform(0, h))), np.ones((h, w), bool), other)
                x = np.clip(painters[int(rng.integers(len(painters)))](scene, rng), 0, 255).astype(np.float32)
        if rng.random() < 0.2:
            x = 255 - x
        if rng.random() < 0.5:
            mean, spread, gain = float(x.mean()), np.exp(rng.uniform(-0.7, 0.7)), np.exp(rng.uniform(-0.5, 0.5))
            x = (x - mean) * spread + mean * gain
        return np.rint(np.clip(x, 0, 255)).astype(np.uint8)

    return distort


def drawn(height: int, width: int, rng: np.random.Generator) -> Field:
    """Dead leaves: discs, polygons and strokes of all sizes that cover each other, with noise of several scales on top; (H, W, 3) 0..255.

    Images of this kind teach a network much of what photographs do (Baradad et al. 2021, "Learning to See by Looking at Noise").
    """
    picture = np.full((height, width, 3), rng.integers(256), np.float32)
    gray = rng.random() < _GRAY
    for _ in range(int(rng.integers(20, 120))):
        radius = float(np.exp(rng.uniform(np.log(3), np.log(max(4.0, min(height, width) / 4)))))
        centre = rng.integers((width, height))
        shade = rng.integers(256, size=1 if gray else 3)
        color = [float(v) for v in np.broadcast_to(shade, 3)]
        kind = int(rng.integers(3))
        if kind == 0:
            cv2.circle(picture, (int(centre[0]), int(centre[1])), int(radius), color, -1, cv2.LINE_AA)
        elif kind == 1:
            corners = centre + rng.normal(0, radius, (int(rng.integers(3, 6)), 2))
            cv2.fillPoly(picture, [corners.astype(np.int32)], color, cv2.LINE_AA)
        else:
            end = centre + rng.normal(0, 2 * radius, 2)
            cv2.line(picture, (int(centre[0]), int(centre[1])), (int(end[0]), int(end[1])), color, int(rng.integers(1, 5)), cv2.LINE_AA)
    noise = rng.normal(0, 1, (height, width)).astype(np.float32)
    for scale in (2, 8):
        coarse = rng.normal(0, 1, (max(1, height // scale), max(1, width // scale))).astype(np.float32)
        noise += float(rng.random()) * np.asarray(cv2.resize(coarse, (width, height)), dtype=np.float32)
    strength = float(np.exp(rng.uniform(np.log(2), np.log(25)))) if rng.random() < 0.7 else 0.0
    return np.clip(picture + strength * noise[:, :, None], 0, 255)
