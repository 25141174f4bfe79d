"""nano's upscaler: a small convolutional network that makes four pixels a side of each, picture by picture.

It adds a correction to a bicubic enlargement. Most of it works at half the size of the given picture, where few
operations see far. Norms are per position, so a part of a picture is enlarged as it is within the whole, up to the
border of what the convolutions see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .autoencoder import ResidualBlock, to_channels_last, zero

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sora_cli.plugin.protocols import Upscaler
    from sora_cli.video.shapes import Size
    from sora_cli.weights.locate import LocatedWeights

FACTOR = 4


class UpscalerNetwork(nn.Module):
    """Pictures (N, 3, H, W) in [-1, 1] -> (N, 3, 4 H, 4 W) float32, about in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Conv2d(3 * 4, 64, 3, padding=1)
        self.coarse = nn.ModuleList(ResidualBlock(64, is_temporal=False) for _ in range(4))
        self.to_fine = nn.Conv2d(64, 4 * 32, 1)
        self.fine = ResidualBlock(32, is_temporal=False)
        self.output = nn.Conv2d(32, 3 * FACTOR**2, 3, padding=1)
        zero(self.output)

    def forward(self, pictures: Tensor) -> Tensor:
        """Sides that are odd are made even by repeating the last row or column, which is cut off again."""
        height, width = pictures.shape[-2:]
        even = F.pad(pictures, (0, width % 2, 0, height % 2), mode="replicate")
        x = self.input(F.pixel_unshuffle(even, 2).to(self.input.weight.dtype))[None]
        for block in self.coarse:
            x = block(x, [])
        x = F.pixel_shuffle(self.to_fine(x[0]), 2)[None]
        x = self.fine(x, [])[0]
        correction = F.pixel_shuffle(self.output(F.silu(x)), FACTOR)[..., : FACTOR * height, : FACTOR * width]
        return F.interpolate(pictures.float(), scale_factor=FACTOR, mode="bicubic") + correction.float()


class NanoUpscaler:
    """protocols.Upscaler: the network to four times the size, then bicubic to the one that is asked for."""

    def __init__(self, network: UpscalerNetwork) -> None:
        self.network = network

    @torch.inference_mode()
    def __call__(self, frames: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
        """See protocols.Upscaler. One at a time goes through the network, so each is what it is alone."""
        made = np.empty((len(frames), *size, 3), np.uint8)
        device = self.network.input.weight.device
        for place, frame in zip(made, frames, strict=True):
            pixels = torch.from_numpy(frame).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1
            values = ((self.network(pixels).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            place[:] = resized(values.permute(0, 2, 3, 1).cpu().numpy(), size)[0]
        return made


def resized(frames: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Frames (T, H, W, 3) in another size, bicubic and without aliasing."""
    from PIL import Image

    height, width = size
    pictures = (Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in frames)
    return np.stack([np.asarray(picture) for picture in pictures])


def load_bicubic(weights: LocatedWeights | None, device: torch.device, dtype: torch.dtype) -> Upscaler:
    """Bicubic interpolation, which has no weights."""
    return resized


def load(weights: LocatedWeights, device: torch.device, dtype: torch.dtype) -> NanoUpscaler:
    """The upscaler from a folder with `upscaler.safetensors`, computing in `dtype`."""
    from sora_cli.weights.load import read_tensors

    with torch.device("meta"):
        network = UpscalerNetwork()
    network.load_state_dict(read_tensors(weights.files), strict=True, assign=True)
    network.to(dtype)
    to_channels_last(network)
    return NanoUpscaler(network.to(device).eval())
