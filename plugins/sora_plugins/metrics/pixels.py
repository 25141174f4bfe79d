"""Measures of the pixels themselves: PSNR, SSIM and flicker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .frames import FrameMetric

if TYPE_CHECKING:
    from sora_cli.weights.locate import LocatedWeights

#: Below this squared error frames count as equal, and PSNR is this many dB instead of infinite.
EQUAL_ERROR, EQUAL_DECIBEL = 1e-10, 100.0
#: Wang et al. 2004: an 11 x 11 window of deviation 1.5; (0.01 L)^2 and (0.03 L)^2 for pixels in [0, L], here L = 1.
WINDOW, DEVIATION = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def psnr(weights: Mapping[str, LocatedWeights], device: torch.device) -> FrameMetric:
    """Peak signal-to-noise ratio in dB; needs no weights."""
    return FrameMetric(frame_psnr, device)


def ssim(weights: Mapping[str, LocatedWeights], device: torch.device) -> FrameMetric:
    """Structural similarity in [-1, 1], 1 for equal frames; needs no weights."""
    # float64 throughout, which Apple's GPUs do not have.
    return FrameMetric(frame_ssim, torch.device("cpu") if device.type == "mps" else device, min_side=WINDOW)


def flicker(weights: Mapping[str, LocatedWeights], device: torch.device) -> FrameMetric:
    """Likeness of neighbouring frames in [0, 1], 1 for a still video, of the video alone; needs no weights."""
    return FrameMetric(frame_likeness, device, overlap=1)


def frame_likeness(frames: Tensor) -> Tensor:
    """(N - 1,) of frames (N, C, H, W) in [0, 1]: 1 - the mean absolute difference to the next, as VBench has it."""
    return 1 - (frames[1:] - frames[:-1]).abs().mean(dim=(1, 2, 3))


def frame_psnr(reference: Tensor, frames: Tensor) -> Tensor:
    """PSNR (N,) in dB of frames (N, C, H, W) in [0, 1], over all colours together."""
    error = (reference - frames).square().mean(dim=(1, 2, 3))
    decibel = -10 * error.clamp(min=EQUAL_ERROR).log10()
    return torch.where(error < EQUAL_ERROR, torch.full_like(decibel, EQUAL_DECIBEL), decibel)


def frame_ssim(reference: Tensor, frames: Tensor) -> Tensor:
    """SSIM (N,) of frames (N, C, H, W) in [0, 1]: each colour by itself, then their mean; sides of 11 or more.

    Where the window does not lie in the frame as a whole nothing is counted, so 5 pixels at each edge are left out.
    Source: Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity", eq. 13.
    """
    # The variances are differences of nearly equal numbers, hence float64.
    a, b = reference.double(), frames.double()
    mean_a, mean_b = blur(a), blur(b)
    variance_a, variance_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    return (likeness / ((mean_a**2 + mean_b**2 + C1) * (variance_a + variance_b + C2))).mean(dim=(1, 2, 3))


def blur(images: Tensor) -> Tensor:
    """Means (..., H - 10, W - 10) of images (..., H, W) under a Gaussian window, where it lies inside."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    window = torch.exp(-(offsets**2) / (2 * DEVIATION**2))
    weights = (window / window.sum()).tolist()
    for dim in (-1, -2):
        # Weighted sums of shifted images: convolution in float64 would unfold them, at 11 times the memory.
        length = images.shape[dim] - WINDOW + 1
        total = images.narrow(dim, 0, length) * weights[0]
        for shift in range(1, WINDOW):
            total.add_(images.narrow(dim, shift, length), alpha=weights[shift])
        images = total
    return images
