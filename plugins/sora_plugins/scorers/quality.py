"""Technical quality without a network: sharpness, brightness, contrast and colour.

Pictures are brought to one size first, so that values do not depend on the resolution, and one that was enlarged from
less counts as blurred.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .pictures import Picture, PictureScorer, scale_to

if TYPE_CHECKING:
    import torch

    from sora_cli.weights.locate import LocatedWeights

#: The shorter side of pictures when they are measured.
SIDE = 256
#: ITU-R BT.601, as cameras and codecs weigh colours.
LUMA = np.array([0.299, 0.587, 0.114])
#: Sharpness, contrast and colourfulness of ordinary footage, which count half; what each adds to quality.
HALF = (100.0, 50.0, 40.0)
SHARES = (0.5, 0.3, 0.2)


def luma(picture: Picture) -> NDArray[np.float64]:
    """(H, W) in 0..255 of (H, W, 3)."""
    return picture @ LUMA


def resized(picture: Picture, side: int = SIDE) -> Picture:
    """The picture with its shorter side at `side`, antialiased."""
    from PIL import Image

    height, width = picture.shape[:2]
    scale = scale_to(side, height, width)
    size = max(3, round(width * scale)), max(3, round(height * scale))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def sharpness(grey: NDArray[np.float64]) -> float:
    """Variance of the Laplacian of (H, W) in 0..255: 0 for one colour, about 100 for ordinary footage."""
    inner = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * inner).var())


def colourfulness(picture: Picture) -> float:
    """0 for grey pictures, about 100 for very colourful ones. Source: Hasler and Süsstrunk 2003, M3."""
    red, green, blue = np.moveaxis(picture.astype(np.float64), -1, 0)
    first, second = red - green, (red + green) / 2 - blue
    return float(np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean()))


def measure_sharpness(pictures: Sequence[Picture]) -> Mapping[str, Sequence[float]]:
    """Column `sharpness`; low values are blurred."""
    return {"sharpness": [sharpness(luma(resized(picture))) for picture in pictures]}


def measure_brightness(pictures: Sequence[Picture]) -> Mapping[str, Sequence[float]]:
    """Column `brightness`: mean luma, 0 black to 1 white."""
    return {"brightness": [float(luma(picture).mean() / 255) for picture in pictures]}


def measure_quality(pictures: Sequence[Picture]) -> Mapping[str, Sequence[float]]:
    """Columns `quality` (0 to 1), `contrast` (deviation of luma in 0..255) and `colourfulness`.

    Quality is a mean of sharpness, contrast and colourfulness, each as v / (v + what ordinary footage has). It ranks
    blurred, flat and strongly compressed footage low. Noise counts as sharpness.
    """
    rows = []
    for picture in pictures:
        small = resized(picture)
        grey = luma(small)
        values = np.array([sharpness(grey), grey.std(), colourfulness(small)])
        rows.append([float(SHARES @ (values / (values + HALF))), values[1], values[2]])
    return dict(zip(("quality", "contrast", "colourfulness"), np.array(rows).T.tolist(), strict=True))


def _loader(
    measure: Callable[[Sequence[Picture]], Mapping[str, Sequence[float]]],
) -> Callable[[Mapping[str, LocatedWeights], torch.device, None], PictureScorer]:
    def load(weights: Mapping[str, LocatedWeights], device: torch.device, options: None = None) -> PictureScorer:
        return PictureScorer(measure)

    return load


load_sharpness = _loader(measure_sharpness)
load_brightness = _loader(measure_brightness)
load_quality = _loader(measure_quality)
