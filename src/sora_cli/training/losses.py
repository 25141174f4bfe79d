"""What training objectives share."""

from __future__ import annotations

from torch import Tensor


def masked_mean(values: Tensor, frame_mask: Tensor | None) -> Tensor:
    """The mean of (B, C, T, H, W) over each sample's frames that are learned, (B,). frame_mask: (B, T) bool or None."""
    if frame_mask is None:
        return values.flatten(1).mean(dim=1)
    learn = frame_mask[:, None, :, None, None].to(values.dtype)
    return (values * learn).flatten(1).sum(dim=1) / (frame_mask.sum(dim=1) * values[0, :, 0].numel())
