"""Measures that go through videos a few frames at a time, in memory that does not grow with the length."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Pixels of one video that are compared at a time, at least one frame or pair: about one frame of 720p.
PIXELS_AT_ONCE = 2**20


class FrameMetric:
    """A measure of neighbouring frames (protocols.Metric or SingleMetric).

    compare: gives values (N,) of n = N + overlap frames (n, 3, H, W) in [0, 1] of each video, on `device`: the original
    and the video, or the video alone. overlap: 0 for single frames, 1 for pairs.
    """

    def __init__(
        self, compare: Callable[..., Tensor], device: torch.device, *, overlap: int = 0, min_side: int = 1
    ) -> None:
        self.compare, self.device, self.overlap, self.min_side = compare, device, overlap, min_side

    @torch.inference_mode()
    def __call__(self, *videos: Tensor) -> Tensor:
        """Values (B, T - overlap), float64 on the CPU, of videos (B, C, T, H, W) in [0, 1]; C is 3, or 1 for grey.

        Raises ValueError for videos of two sizes, integers, another number of colours, or too small frames.
        """
        self._check(*videos)
        rows = [self._values(*each) for each in zip(*videos, strict=True)]
        return torch.stack(rows) if rows else torch.empty(0, max(videos[0].shape[2] - self.overlap, 0)).double()

    def _values(self, *videos: Tensor) -> Tensor:
        num_frames, height, width = videos[0].shape[1:]
        at_once = max(1, PIXELS_AT_ONCE // (height * width))
        values = [torch.empty(0, dtype=torch.float64)]
        for start in range(0, num_frames - self.overlap, at_once):
            end = start + at_once + self.overlap
            parts = [one[:, start:end].to(self.device).transpose(0, 1).float() for one in videos]
            values.append(self.compare(*parts).cpu().double())
        return torch.cat(values)

    def _check(self, *videos: Tensor) -> None:
        video = videos[-1]
        if videos[0].shape != video.shape:
            raise ValueError(f"the video is {tuple(video.shape)} and its original {tuple(videos[0].shape)}")
        if video.dim() != 5 or video.shape[1] not in (1, 3):
            raise ValueError(f"videos are (B, 3, T, H, W) or (B, 1, T, H, W), not {tuple(video.shape)}")
        if not all(one.is_floating_point() for one in videos):
            raise ValueError("pixels are numbers in [0, 1], not integers")
        check_sides(video.shape[-2], video.shape[-1], self.min_side)


def check_sides(height: int, width: int, min_side: int) -> None:
    """Raise ValueError for frames with a side below `min_side` pixels."""
    if min(height, width) < min_side:
        raise ValueError(f"frames of {width}x{height} pixels are too small: each side needs {min_side} or more")
