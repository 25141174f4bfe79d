"""BRISQUE: quality without a reference, from statistics that distortion changes (Mittal et al. 2012).

The features are computed here; the regression of them is that of the paper, from the files of the package brisque.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sora_cli.errors import SoraError

from .options import FramesOptions
from .pictures import Picture, PictureScorer
from .quality import luma

if TYPE_CHECKING:
    import torch

    from sora_cli.weights.locate import LocatedWeights

Floats = NDArray[np.float64]

#: Local means and deviations are weighted by a Gaussian of so many pixels, with this deviation.
WINDOW, SIGMA = 7, 7 / 6
#: Neighbours whose products are looked at: right, below, and both diagonals; (rows, columns).
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
#: Shapes of a generalised Gaussian that are tried.
SHAPES = np.arange(0.2, 10.001, 0.001)


class Regression(NamedTuple):
    """Support vectors (n, 36) with coefficients (n,), rho and gamma of an RBF kernel; lowest and highest features."""

    vectors: Floats
    coefficients: Floats
    rho: float
    gamma: float
    low: Floats
    high: Floats

    def __call__(self, features: Floats) -> float:
        """About 0 (best) to 100 for features (36,)."""
        scaled = 2 * (features - self.low) / (self.high - self.low) - 1
        kernel = np.exp(-self.gamma * ((self.vectors - scaled) ** 2).sum(axis=1))
        return float(self.coefficients @ kernel - self.rho)


def features(grey: Floats) -> Floats:
    """The 36 numbers of (H, W) in 0..255: of the picture, and of the one of half its size."""
    from PIL import Image

    height, width = grey.shape
    half = Image.fromarray(grey.astype(np.float32)).resize(
        (max(1, width // 2), max(1, height // 2)), Image.Resampling.BICUBIC
    )
    return np.concatenate([_scale_features(grey), _scale_features(np.asarray(half, dtype=np.float64))])


def _scale_features(grey: Floats) -> Floats:
    """18 numbers: the shape of normalised luma, and those of the products of neighbours."""
    normal = normalised(grey)
    found = list(fit_gaussian(normal))
    for rows, columns in NEIGHBOURS:
        product = normal * np.roll(normal, (rows, columns), axis=(0, 1))
        found += fit_asymmetric(product)
    return np.array(found)


def normalised(grey: Floats) -> Floats:
    """(H, W) less its local mean, over its local deviation plus 1."""
    mean = blur(grey)
    deviation = np.sqrt(np.abs(blur(grey * grey) - mean * mean))
    return (grey - mean) / (deviation + 1)


def blur(grey: Floats) -> Floats:
    """Weighted by the Gaussian, edges repeated."""
    weights = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        margins = [(WINDOW // 2, WINDOW // 2) if each == axis else (0, 0) for each in (0, 1)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(grey, margins, mode="edge"), WINDOW, axis=axis)
        grey = windows @ weights
    return grey


def _gamma(values: Floats) -> Floats:
    return np.array([math.gamma(value) for value in values])


def _moment_ratios() -> Floats:
    """For each of SHAPES: squared mean of |x| over mean of x^2."""
    return _gamma(2 / SHAPES) ** 2 / (_gamma(1 / SHAPES) * _gamma(3 / SHAPES))


RATIOS = _moment_ratios()


def fit_gaussian(values: Floats) -> tuple[float, float]:
    """Shape and variance of a generalised Gaussian, by its moments."""
    square = float(np.mean(values**2))
    ratio = float(np.mean(np.abs(values))) ** 2 / max(square, np.finfo(float).tiny)
    return float(SHAPES[np.argmin((RATIOS - ratio) ** 2)]), square


def fit_asymmetric(values: Floats) -> tuple[float, float, float, float]:
    """Shape, mean, and squared deviations to the left and right of an asymmetric generalised Gaussian."""
    tiny = np.finfo(float).tiny
    sides = values[values < 0], values[values > 0]
    left, right = (float(np.sqrt(np.mean(side**2))) if side.size else 0.0 for side in sides)
    skew = left / max(right, tiny)
    ratio = float(np.mean(np.abs(values))) ** 2 / max(float(np.mean(values**2)), tiny)
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = float(SHAPES[np.argmin((RATIOS - ratio) ** 2)])
    one, two, three = _gamma(np.array([1, 2, 3]) / shape)
    return shape, (right - left) * float(two / one * np.sqrt(one / three)), left**2, right**2


def read_regression(files: Sequence[Path]) -> Regression:
    """From LIBSVM's text and the table of ranges. Raises SoraError for other files."""
    text, ranges = files
    try:
        head, _, body = text.read_text(encoding="ascii").partition("\nSV\n")
        settings = dict(line.split(maxsplit=1) for line in head.splitlines())
        rows = [line.split() for line in body.splitlines()]
        vectors = np.zeros((len(rows), 36))
        for row, (_, *pairs) in zip(vectors, rows, strict=True):
            for pair in pairs:
                index, _, value = pair.partition(":")
                row[int(index) - 1] = float(value)
        with ranges.open("rb") as file:
            limits = _PlainUnpickler(file).load()
        low, high = (np.array(limits[key], dtype=np.float64).reshape(36) for key in ("min_", "max_"))
        coefficients = np.array([float(row[0]) for row in rows])
        return Regression(vectors, coefficients, float(settings["rho"]), float(settings["gamma"]), low, high)
    except (ValueError, KeyError, IndexError, TypeError, pickle.UnpicklingError, EOFError) as error:
        raise SoraError(f"{text} and {ranges.name} are not the regression of BRISQUE: {error}") from error


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, tables and numbers, and nothing that would run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds {module}.{name}")


def load(
    weights: Mapping[str, LocatedWeights], device: torch.device, options: FramesOptions | None = None
) -> PictureScorer:
    """Column `brisque`, about 0 (best) to 100, the mean of 1 to 3 frames. weights: "brisque"."""
    regression = read_regression(weights["brisque"].files)

    def measure(pictures: Sequence[Picture]) -> Mapping[str, Sequence[float]]:
        return {"brisque": [regression(features(luma(picture))) for picture in pictures]}

    return PictureScorer(measure, count=(options or FramesOptions()).frames)
