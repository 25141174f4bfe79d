"""How much text is in the picture: regions that a detector finds and in which something can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .options import FramesOptions
from .pictures import LONGEST, Measure, Picture, PictureScorer

if TYPE_CHECKING:
    import torch

    from sora_cli.weights.locate import LocatedWeights

#: No line of text is a larger share of a picture.
LARGEST = 0.5


def load(
    weights: Mapping[str, LocatedWeights], device: torch.device, options: FramesOptions | None = None
) -> PictureScorer:
    """Columns `ocr`, the number of regions with text, and `ocr_area`, their share of the picture; the most of 1 to 3
    frames. The networks come with rapidocr and run on the CPU.
    """
    return PictureScorer(_measure(detector()), count=(options or FramesOptions()).frames, combine=np.max)


def detector() -> Any:
    """rapidocr with the files of its own package, on as many threads as torch uses."""
    import torch
    from rapidocr import RapidOCR

    threads = torch.get_num_threads()
    settings = {"Global.log_level": "critical", "EngineConfig.onnxruntime.intra_op_num_threads": threads}
    return RapidOCR(params=settings)


def _measure(engine: Any) -> Measure:
    def measure(pictures: Sequence[Picture]) -> Mapping[str, Sequence[float]]:
        found = [text_boxes(engine, picture) for picture in pictures]
        areas = [
            min(1.0, polygon_areas(boxes).sum() / picture[..., 0].size)
            for boxes, picture in zip(found, pictures, strict=True)
        ]
        return {"ocr": [float(len(boxes)) for boxes in found], "ocr_area": areas}

    return measure


def text_boxes(engine: Any, picture: Picture) -> NDArray[np.float64]:
    """Corners (n, 4, 2), x then y in pixels, of regions with text in an RGB picture (H, W, 3).

    The detector alone takes windows, wheels and whole blurred pictures for text; in most of those nothing can be read.
    """
    height, width = picture.shape[:2]
    least = -(-max(height, width) // LONGEST)  # it enlarges by the shorter side
    margins = (0, max(0, least - height)), (0, max(0, least - width)), (0, 0)
    blue_first = np.ascontiguousarray(np.pad(picture, margins, mode="edge")[..., ::-1])
    boxes = engine(blue_first, use_det=True, use_cls=False, use_rec=True).boxes
    corners = np.zeros((0, 4, 2)) if boxes is None else np.asarray(boxes, dtype=np.float64).reshape(-1, 4, 2)
    return corners[polygon_areas(corners) <= LARGEST * picture[..., 0].size]


def polygon_areas(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas (n,) of polygons (n, corners, 2), by Gauss's formula."""
    x, y = np.moveaxis(corners, -1, 0)
    return np.abs((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)) / 2
