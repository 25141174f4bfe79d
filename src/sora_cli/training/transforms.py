"""From decoded frames to training pixels: which frames, and how they are fitted to a size (training.md sections 2, 3).

Frames are (T, C, H, W) uint8 in RGB; results are float32 in [-1, 1]. Videos are resized without antialiasing, as the
released models were trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]


# -- which frames --------------------------------------------------------------------------------------------------


def last_start(total_frames: int, num_frames: int, interval: int) -> int:
    """The last frame at which a window of num_frames x interval frames can start; 0 for a clip that is shorter."""
    return max(0, total_frames - num_frames * interval)


def frame_indices(
    total_frames: int, num_frames: int, interval: int, begin: int, *, exact_stride: bool = False
) -> list[int]:
    """The frames of a training clip that starts at `begin`.

    They are spread evenly from the first to the last frame of a window of num_frames x interval frames (or what there
    is of it), which is a little more than `interval` apart: so the released models were trained. exact_stride: exactly
    `interval` apart, where the window is whole. Raises ValueError when the window has fewer than num_frames frames.
    """
    end = min(begin + num_frames * interval, total_frames)
    if end - begin < num_frames:
        raise ValueError(f"{num_frames} frames asked for, and {max(end - begin, 0)} are there")
    if exact_stride and end - begin == num_frames * interval:
        return list(range(begin, end, interval))
    return [int(index) for index in np.linspace(begin, end - 1, num_frames).tolist()]


def effective_interval(indices: list[int]) -> float:
    """Frames of the file per frame of the clip; 1 for a single frame."""
    return (indices[-1] - indices[0]) / (len(indices) - 1) if len(indices) > 1 else 1.0


# -- sizes and crops -----------------------------------------------------------------------------------------------


def fitted_size(height: int, width: int, target: Size) -> Size:
    """The smallest size of the same shape that covers the target."""
    if target[0] / height > target[1] / width:
        return target[0], round(width * (target[0] / height))
    return round(height * (target[1] / width)), target[1]


def crop(frames: Tensor, top: int, left: int, size: Size) -> Tensor:
    """A window (height, width) of frames (..., H, W). Raises ValueError where there is none."""
    height, width = frames.shape[-2:]
    if not (0 <= top <= height - size[0] and 0 <= left <= width - size[1]):
        raise ValueError(f"no window of {size[0]}x{size[1]} at {top}, {left} in {height}x{width}")
    return frames[..., top : top + size[0], left : left + size[1]]


def center_crop(frames: Tensor, size: Size) -> Tensor:
    """The central window; halves are rounded to even offsets."""
    height, width = frames.shape[-2:]
    return crop(frames, round((height - size[0]) / 2), round((width - size[1]) / 2), size)


def normalize(frames: Tensor) -> Tensor:
    """uint8 in 0 to 255, or float in [0, 1], to float32 in [-1, 1]."""
    unit = frames.float() / 255 if frames.dtype == torch.uint8 else frames
    return (unit - 0.5) / 0.5


def resize(frames: Tensor, size: Size, *, antialias: bool = False) -> Tensor:
    """Bilinear, half-pixel centres. frames: (T, C, H, W) uint8 or float in [0, 1]; returns float in [0, 1]."""
    unit = frames.float() / 255 if frames.dtype == torch.uint8 else frames
    return F.interpolate(unit, size=size, mode="bilinear", align_corners=False, antialias=antialias)


# -- videos ----------------------------------------------------------------------------------------------------------


def video_resize_crop(frames: Tensor, target: Size, *, antialias: bool = False) -> Tensor:
    """Resize to cover the target and cut what is over, as much on either side (rounded down in front)."""
    size = fitted_size(frames.shape[-2], frames.shape[-1], target)
    top, left = (size[0] - target[0]) // 2, (size[1] - target[1]) // 2
    return normalize(crop(resize(frames, size, antialias=antialias), top, left, target))


def video_center(frames: Tensor, target: Size) -> Tensor:
    """Resize the short side to that of a square target, and cut the middle."""
    side = _side(target)
    short = min(frames.shape[-2:])
    scale = side / short
    while math.floor(short * scale) < side:  # rounding lost a pixel
        scale = math.nextafter(scale, math.inf)
    unit = frames.float() / 255
    resized = F.interpolate(
        unit, scale_factor=scale, mode="bilinear", align_corners=False, recompute_scale_factor=False
    )
    return normalize(center_crop(resized, target))


# -- pictures --------------------------------------------------------------------------------------------------------


def image_resize_crop(picture: Tensor, target: Size) -> Tensor:
    """As `video_resize_crop`, but bicubic with antialiasing, and halves of a pixel go to the even offset.

    picture: (C, H, W) or (1, C, H, W) uint8; returns (C, h, w).
    """
    height, width = fitted_size(picture.shape[-2], picture.shape[-1], target)
    resized = _to_picture(picture).resize((width, height), Image.Resampling.BICUBIC)
    return center_crop(_to_tensor(resized), target)


def image_center(picture: Tensor, target: Size) -> Tensor:
    """As `video_center`, bicubic, after halving while the picture is twice as large or more.

    picture: (C, H, W) or (1, C, H, W) uint8; returns (C, s, s).
    """
    side = _side(target)
    image = _to_picture(picture)
    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = side / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    return crop(_to_tensor(image), (image.height - side) // 2, (image.width - side) // 2, target)


def _to_picture(picture: Tensor) -> Image.Image:
    pixels = picture[0] if picture.ndim == 4 else picture
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _to_tensor(image: Image.Image) -> Tensor:
    return normalize(torch.from_numpy(np.array(image)).permute(2, 0, 1))


def _side(target: Size) -> int:
    if target[0] != target[1]:
        raise ValueError(f"the transform `center` makes squares, not {target[0]}x{target[1]}; use `resize_crop`")
    return target[0]


#: name -> (for videos, for pictures)
TRANSFORMS: dict[str, tuple[Callable[[Tensor, Size], Tensor], Callable[[Tensor, Size], Tensor]]] = {
    "resize_crop": (video_resize_crop, image_resize_crop),
    "center": (video_center, image_center),
}
