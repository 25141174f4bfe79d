"""Optical flow without weights: OpenCV's dense inverse search."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def grey(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) of an RGB picture (H, W, 3)."""
    found: Any = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    return np.asarray(found, dtype=np.uint8)


def dis_flow(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Flow (H, W, 2), x then y in pixels, from one grey picture (H, W) to another.

    Source: Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse Search", OpenCV's medium preset. Pictures are
    enlarged when a side is below 32 pixels, which it cannot work with.
    """
    height, width = first.shape
    factor = max(1, -(-32 // min(height, width)))
    if factor > 1:
        first, second = (np.repeat(np.repeat(one, factor, 0), factor, 1) for one in (first, second))
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow: NDArray[np.float32] = search.calc(first, second, None)  # type: ignore[call-overload]
    return flow[::factor, ::factor] / factor if factor > 1 else flow
