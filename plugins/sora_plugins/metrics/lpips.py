"""LPIPS: how different two images are to an image network, with the published weights of its channels.

Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", version 0.1.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .frames import check_sides
from .trunks import Trunk, TrunkConfig

#: ImageNet's mean and deviation per colour, for pixels in [-1, 1]: 2 m - 1 and 2 s of torchvision's m and s.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
#: Keeps the division by the length of a feature vector finite.
EPSILON = 1e-10


class ScalingLayer(nn.Module):
    """Pixels in [-1, 1] to the scale that the trunks were trained with. Buffers (1, 3, 1, 1)."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(SHIFT)[None, :, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[None, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the same shape."""
        return (x - self.shift) / self.scale


class ChannelWeights(nn.Module):
    """One published weight, at least 0, for each channel of a tap; `model.1.weight` (1, C, 1, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Called 1 because a dropout layer was in front of it when it was trained.
        self.model = nn.Sequential(OrderedDict({"1": nn.Conv2d(channels, 1, 1, bias=False)}))

    def forward(self, squares: Tensor) -> Tensor:
        """(N, C, h, w) float32 to (N, 1, h, w): the weighted sum over channels."""
        weights = self.model.get_submodule("1").get_parameter("weight")
        # Not as a convolution, which autocast and TF32 would round.
        return (squares * weights.float()).sum(dim=1, keepdim=True)


class Lpips(nn.Module):
    """Distance of two images, 0 for equal ones. Made frozen and for evaluation; gradients reach both images.

    The trunk computes in the number format of its weights; features are compared in float32.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        self.scaling_layer = ScalingLayer()
        self.net = Trunk(config)
        for tap, channels in enumerate(config.channels):
            self.add_module(f"lin{tap}", ChannelWeights(channels))
        self.requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances (N,) float32 of frames (N, 3, H, W) in [-1, 1]; one channel is repeated to three.

        Raises ValueError for frames that are too small: below 31 pixels per side for AlexNet, 16 for VGG-16.
        """
        return self.layer_values(a, b).sum(dim=1)

    def layer_values(self, a: Tensor, b: Tensor) -> Tensor:
        """What each tap contributes to `forward`, (N, 5)."""
        return torch.stack([layer.mean(dim=(1, 2, 3)) for layer in self.maps(a, b)], dim=1)

    def spatial(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances place by place, (N, 1, H, W): the maps of the taps, resized to the frame, added up."""
        resized = [F.interpolate(layer, a.shape[-2:], mode="bilinear") for layer in self.maps(a, b)]
        return torch.stack(resized).sum(dim=0)

    def maps(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """A map (N, 1, h, w) float32 for each of the five taps."""
        check_sides(a.shape[-2], a.shape[-1], self.config.min_side)
        a, b = self.scale(a), self.scale(b)
        found = []
        for tap, part in enumerate(self.net.slices()):
            a, b = part(a), part(b)
            weigh = self.get_submodule(f"lin{tap}")
            found.append(weigh((unit_length(a) - unit_length(b)).square()))
        return found

    def scale(self, x: Tensor) -> Tensor:
        """Frames (N, 3 or 1, H, W) in [-1, 1] as the trunk takes them."""
        scaled: Tensor = self.scaling_layer(x.float())  # one channel becomes three here, by the three shifts
        return scaled.to(next(self.net.parameters()).dtype)


def unit_length(features: Tensor) -> Tensor:
    """Features (N, C, h, w) divided by their length over the channels, in float32.

    Lengths are kept above 0 under the root, whose gradient would not be a number there.
    """
    features = features.float()
    squares = features.square().sum(dim=1, keepdim=True)
    return features / (squares.clamp(min=torch.finfo(torch.float32).tiny).sqrt() + EPSILON)
