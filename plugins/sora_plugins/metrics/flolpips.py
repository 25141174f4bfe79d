"""FloLPIPS: LPIPS that looks where two videos move differently.

Source: Danier et al. 2022, "FloLPIPS: A Bespoke Video Quality Metric for Frame Interpolation".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .lpips import Lpips
from .pwc import PwcNet


class FloLpips(nn.Module):
    """Distance of neighbouring frames of two videos, the same when the videos are exchanged; 0 for equal ones."""

    def __init__(self, lpips: Lpips, flow: PwcNet) -> None:
        super().__init__()
        self.lpips, self.flow = lpips, flow

    def forward(self, reference: Tensor, frames: Tensor) -> Tensor:
        """Values (n - 1,) of n consecutive frames (n, 3, H, W) in [0, 1] of both videos; one channel is repeated.

        Colours go to the flow network as red, green, blue, as in the published measure, although it was trained on
        blue, green, red.
        """
        reference, frames = (one.expand(-1, 3, -1, -1) for one in (reference, frames))
        difference = self.flow.along(reference) - self.flow.along(frames)
        maps = self.lpips.maps(2 * reference[:-1] - 1, 2 * frames[:-1] - 1)
        return torch.stack([motion_weighted_mean(each, difference) for each in maps]).sum(dim=0)


def motion_weighted_mean(values: Tensor, difference: Tensor) -> Tensor:
    """Mean (N,) of a map (N, 1, h, w), each place weighted by how far two flows differ there.

    difference: (N, 2, H, W), resized to the map. Where the flows are equal everywhere all places weigh the same.
    """
    resized = F.interpolate(difference, values.shape[-2:], mode="bilinear")
    weights = resized.square().sum(dim=1, keepdim=True).sqrt()
    total = weights.sum(dim=(1, 2, 3), keepdim=True)
    weights = torch.where(total > 0, weights / total, 1 / (values.shape[-2] * values.shape[-1]))
    return (values * weights).sum(dim=(1, 2, 3))
