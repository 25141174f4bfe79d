"""PatchGAN discriminators (Isola et al. 2017, arXiv 1611.07004), over frames and, with 3-D convolutions, over clips.

Parameter names are those of the published networks.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .config import PatchOptions

KERNEL, SLOPE, INITIAL_STD = 4, 0.2, 0.02


class PatchDiscriminator(nn.Module):
    """Logits of patches: (N, 3, H, W) -> (N, 1, h, w), or with is_3d (B, 3, T, H, W) -> (B, 1, t, h, w).

    In time only the first layer halves; every later one shortens by one frame.
    """

    def __init__(self, options: PatchOptions, *, is_3d: bool = False) -> None:
        super().__init__()
        conv: Any
        conv, norm = (nn.Conv3d, nn.BatchNorm3d) if is_3d else (nn.Conv2d, nn.BatchNorm2d)
        halving = (1, 2, 2) if is_3d else (2, 2)
        width = options.filters
        layers: list[nn.Module] = [conv(options.in_channels, width, KERNEL, 2, 1), nn.LeakyReLU(SLOPE)]
        for level in range(1, options.num_layers + 1):
            wider = options.filters * min(2**level, 8)
            stride = halving if level < options.num_layers else 1
            # No bias: the norm after it would take it out again.
            layers += [conv(width, wider, KERNEL, stride, 1, bias=False), norm(wider), nn.LeakyReLU(SLOPE)]
            width = wider
        layers.append(conv(width, 1, KERNEL, 1, 1))
        self.main = nn.Sequential(*layers)
        self.apply(_initialize)

    def forward(self, x: Tensor) -> Tensor:
        """One logit per patch."""
        logits: Tensor = self.main(x)
        return logits


def _initialize(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.normal_(module.weight, 0.0, INITIAL_STD)
    elif isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
        nn.init.normal_(module.weight, 1.0, INITIAL_STD)
    bias = getattr(module, "bias", None)
    if isinstance(bias, Tensor):
        nn.init.zeros_(bias)


def least_sides(options: PatchOptions, *, is_3d: bool) -> tuple[int, int]:
    """The fewest frames and the smallest side that give a logit."""
    # From the last layer back: a stride-1 layer takes one away, a stride-2 layer halves.
    side = 1 + 2
    for _ in range(options.num_layers):
        side *= 2
    frames = 2 * (1 + options.num_layers + 1) if is_3d else 1
    return frames, side


def build_2d(options: PatchOptions, *, num_frames: int, height: int, width: int) -> PatchDiscriminator:
    """For single frames. Raises ValueError for frames that are too small."""
    _check(options, num_frames, height, width, is_3d=False)
    return PatchDiscriminator(options)


def build_3d(options: PatchOptions, *, num_frames: int, height: int, width: int) -> PatchDiscriminator:
    """For clips of `num_frames`. Raises ValueError for clips that are too short or too small."""
    _check(options, num_frames, height, width, is_3d=True)
    return PatchDiscriminator(options, is_3d=True)


def _check(options: PatchOptions, num_frames: int, height: int, width: int, *, is_3d: bool) -> None:
    frames, side = least_sides(options, is_3d=is_3d)
    if num_frames < frames or min(height, width) < side:
        raise ValueError(f"needs {frames} frames of {side}x{side} pixels, not {num_frames} of {height}x{width}")
