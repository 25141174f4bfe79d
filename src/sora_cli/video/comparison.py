"""Which frames of two videos are compared, and at what size: as Open-Sora's metric tool does it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def frame_numbers(total: int, num_frames: int, sample_rate: int = 1) -> list[int]:
    """Numbers of the frames that are taken from a video of `total` frames, from 0 on.

    `num_frames` frames evenly from the first num_frames * sample_rate; of a shorter video as many fewer as it is
    shorter, over its whole length, which can be none. The last frame of the stretch is among them when there are two.
    """
    stretch = num_frames * sample_rate
    end, count = (stretch, num_frames) if total >= stretch else (total, int(total / stretch * num_frames))
    # Truncated, not rounded, and with numpy's own rounding before it: the numbers of the published tool.
    return [int(number) for number in np.linspace(0, end - 1, count)]


def fit(frames: Tensor, *, resolution: int, crop: int | None = None) -> Tensor:
    """Frames (T, 3, H, W), uint8 or float in [0, 1], to float in [0, 1]: the short side `resolution`, then the middle.

    crop: pixels per side of the square that is kept, None for all. Bilinear without antialiasing, the long side rounded
    down. Raises ValueError for a crop larger than the resized frame.
    """
    height, width = fitted_size(frames.shape[-2], frames.shape[-1], resolution)
    unit = frames.float() / 255 if frames.dtype == torch.uint8 else frames
    fitted = F.interpolate(unit, (height, width), mode="bilinear", align_corners=False)
    if crop is None:
        return fitted
    if crop > min(height, width):
        raise ValueError(f"a square of {crop} pixels does not fit in frames of {width}x{height}")
    top, left = round((height - crop) / 2), round((width - crop) / 2)
    return fitted[..., top : top + crop, left : left + crop]


def fitted_size(height: int, width: int, resolution: int) -> tuple[int, int]:
    """Height and width of a frame whose short side becomes `resolution`; the long side is rounded down."""
    if height <= width:
        return resolution, int(width / height * resolution)
    return int(height / width * resolution), resolution
